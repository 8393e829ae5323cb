package attack

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/netip"
	"testing"
	"time"
)

// bigRSA is a chain that leads nowhere: a leaf with a key of the attacker's, and
// certificates of the name that the leaf says has signed it, with RSA keys of so
// many bits. Nobody has these keys, so no signature of theirs is right.
func bigRSA(t testing.TB, bits, n int) (key ed25519.PrivateKey, certs [][]byte) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	modulus := func() []byte {
		b := make([]byte, bits/8)
		_, _ = rand.Read(b)
		b[0] |= 0x80
		b[len(b)-1] |= 1
		return b
	}
	rsaKey := func() []byte {
		b, err := asn1.Marshal(struct {
			N *big.Int
			E int
		}{new(big.Int).SetBytes(modulus()), 1<<31 - 1})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	null := asn1.RawValue{FullBytes: []byte{5, 0}}
	oidRSA, oidRSA256, oidEd := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, asn1.ObjectIdentifier{1, 3, 101, 112}
	type spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	type tbs struct {
		Version    int `asn1:"explicit,tag:0"`
		Serial     *big.Int
		Signature  pkix.AlgorithmIdentifier
		Issuer     pkix.RDNSequence
		Validity   struct{ From, To time.Time }
		Subject    pkix.RDNSequence
		Public     spki
		Extensions []pkix.Extension `asn1:"explicit,tag:3,optional"`
	}
	sign := pkix.AlgorithmIdentifier{Algorithm: oidRSA256, Parameters: null}
	name := func(s string) pkix.RDNSequence { return pkix.Name{CommonName: s}.ToRDNSequence() }
	cert := func(serial int64, subject string, public spki, ca bool) []byte {
		c := tbs{Version: 2, Serial: big.NewInt(serial), Signature: sign, Issuer: name("nobody's CA"), Subject: name(subject), Public: public}
		c.Validity.From, c.Validity.To = time.Now().Add(-time.Hour).UTC(), time.Now().Add(24*time.Hour).UTC()
		if ca {
			c.Extensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}
		} else {
			value, err := asn1.Marshal([]asn1.RawValue{{Class: 2, Tag: 2, Bytes: []byte("ann.example")}})
			if err != nil {
				t.Fatal(err)
			}
			c.Extensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
		}
		b, err := asn1.Marshal(struct {
			TBS       tbs
			Algorithm pkix.AlgorithmIdentifier
			Value     asn1.BitString
		}{c, sign, asn1.BitString{Bytes: append([]byte{1}, modulus()[1:]...), BitLength: bits}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x509.ParseCertificate(b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	public := key.Public().(ed25519.PublicKey)
	certs = append(certs, cert(1, "ann.example", spki{pkix.AlgorithmIdentifier{Algorithm: oidEd}, asn1.BitString{Bytes: public, BitLength: 256}}, false))
	for i := range n - 1 {
		b := rsaKey()
		certs = append(certs, cert(int64(2+i), "nobody's CA", spki{pkix.AlgorithmIdentifier{Algorithm: oidRSA, Parameters: null}, asn1.BitString{Bytes: b, BitLength: 8 * len(b)}}, true))
	}
	return key, certs
}

// A stranger's certificates with keys of any length do not stop the key
// exchange. Judged by the daemon's processor time beside that of the same
// handshake with small keys.
func TestBigKeysOfStrangers(t *testing.T) {
	a := attack(t, "G12", offPath, "certificates with RSA keys of 16,384 bits")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		policy := s.callers(s.certificates())
		d := s.run(policy)
		addrs := s.addresses(64)
		const rounds = 12
		next := 0
		cost := func(bits, n int) int {
			key, certs := bigRSA(t, bits, n)
			was := cpuTicks(t, d.Cmd.Process.Pid)
			for range rounds {
				c := newInitiator(t, s.beyond, addrs[next], v.self)
				next++
				if _, err := c.begin(groupX25519, 30); err != nil {
					t.Fatal(err)
				}
				me := idFQDN("ann.example")
				list := []payloadOf{{plIDi, me}}
				for _, b := range certs {
					list = append(list, payloadOf{plCERT, append([]byte{4}, b...)})
				}
				list = append(list, c.authEd25519(me, key))
				list = append(list, childPayloads(0x7001, netip.PrefixFrom(v.inner, v.inner.BitLen()), netip.PrefixFrom(v.self, v.self.BitLen()))...)
				answer, err := c.request(exAuth, 30, list...)
				if err != nil {
					t.Errorf("no answer to IKE_AUTH: %v", err)
				} else if _, refused := notified(answer, authFailed); !refused {
					t.Errorf("a chain that leads nowhere: %s", notice(answer))
				}
				c.close()
			}
			return cpuTicks(t, d.Cmd.Process.Pid) - was
		}
		small, large := cost(2048, 2), cost(16384, 8)
		if large > 8*max(small, 2) {
			t.Errorf("%d handshakes with large keys cost the daemon %d0 ms, with small keys %d0 ms", rounds, large, small)
		}
		a.saw(v.name, "%d handshakes: %d0 ms of the daemon, with keys of 2,048 bits %d0 ms", rounds, large, small)
	})
}
