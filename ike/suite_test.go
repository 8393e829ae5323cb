package ike

import (
	"testing"

	"github.com/ipfw/ipfw/esp"
)

// What IKE negotiates, package esp must know by the same name and with keys
// of the same length.
func TestChildSuitesAreKnownToESP(t *testing.T) {
	for _, proto := range []uint8{ProtoESP, ProtoAH} {
		for _, p := range DefaultChildProposals(proto) {
			for _, e := range p.of(TransformENCR) {
				for _, i := range p.of(TransformINTEG) {
					s := suite{proto: proto, encr: e.ID, encrBits: e.Bits, integ: i.ID}
					en, in, ep := e.String(), i.String(), esp.ESP
					if proto == ProtoAH {
						en, ep = "", esp.AH
					}
					if i.ID == IntegNone {
						in = ""
					}
					x, err := esp.NewSuite(ep, en, in)
					if err != nil {
						t.Error(err)
						continue
					}
					if got, want := s.encrKeyLen()+s.integKeyLen(), x.KeyMaterial(); got != want {
						t.Errorf("%s: %d bytes of key material, esp takes %d", x, got, want)
					}
				}
			}
		}
	}
}

func TestDefaultProposalsPass(t *testing.T) {
	for _, p := range append(append(DefaultIKEProposals(), DefaultChildProposals(ProtoESP)...), DefaultChildProposals(ProtoAH)...) {
		if err := p.check(); err != nil {
			t.Error(err)
		}
	}
}
