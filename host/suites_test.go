package host

import (
	"slices"
	"testing"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/rules"
)

// TestSuitesAreProposed: what `ipfw explain` shows of a block is what the key
// exchange proposes for it, in that order.
func TestSuitesAreProposed(t *testing.T) {
	for _, s := range []rules.IPsec{
		{ESN: true}, {}, {AH: true, ESN: true}, {AH: true},
		{Encryption: []string{"aes-128-gcm-16"}},
		{Encryption: []string{"aes-256-cbc", "chacha20-poly1305", "aes-128-cbc"}, Integrity: []string{"hmac-sha2-512-256", "hmac-sha1-96"}, ESN: true},
		{Integrity: []string{"hmac-sha2-512-256"}, KeyExchange: []string{"x25519+ml-kem-768", "p-256"}},
		{AH: true, Integrity: []string{"hmac-sha2-384-192"}},
	} {
		list, err := childProposals(&s)
		if err != nil {
			t.Fatal(err)
		}
		if list == nil {
			proto := uint8(ike.ProtoESP)
			if s.AH {
				proto = ike.ProtoAH
			}
			list = ike.DefaultChildProposals(proto)
		}
		var want, got []string
		for _, p := range list {
			for _, e := range algorithmsOf(t, p, esp.Encryption) {
				for _, i := range algorithmsOf(t, p, esp.Integrity) {
					suite, err := esp.SuiteOf(s.Protocol(), e, i)
					if err != nil {
						t.Fatal(err)
					}
					if !slices.Contains(want, suite.String()) { // once for each kind of key exchange
						want = append(want, suite.String())
					}
				}
			}
		}
		for _, suite := range s.Suites() {
			got = append(got, suite.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v: explain shows %q, IKE proposes %q", s, got, want)
		}
	}
}

// algorithmsOf are the algorithms of one type in a proposal; one empty one if
// there are none.
func algorithmsOf(t *testing.T, p ike.Proposal, typ esp.TransformType) (list []esp.Algorithm) {
	for _, tr := range p.Transforms {
		if tr.Type != uint8(typ) {
			continue
		}
		a, ok := esp.FindTransform(typ, tr.ID, int(tr.Bits))
		if !ok {
			t.Fatalf("esp has no %v", tr)
		}
		list = append(list, a)
	}
	if list == nil {
		list = make([]esp.Algorithm, 1)
	}
	return list
}
