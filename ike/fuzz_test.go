package ike

import (
	"net/netip"
	"testing"
	"time"
)

// FuzzParse: whatever the bytes are, every parser ends in a value or an error.
func FuzzParse(f *testing.F) {
	f.Add(uint8(plSA), saPayload(DefaultIKEProposals()).body)
	f.Add(uint8(plTSi), tsPayload(plTSi, []TrafficSelector{selectorOfHost(netip.MustParseAddr("2001:db8::1"))}).body)
	f.Add(uint8(plDelete), deletePayload(ProtoESP, 1, 2).body)
	f.Add(uint8(plCP), cpPayload(cfgRequest, []cfgAttr{{kind: 1}}).body)
	f.Fuzz(func(t *testing.T, first uint8, b []byte) {
		parsePayloads(first, b)
		parseSA(b)
		parseTS(b)
		parseDelete(b)
		parseCP(b)
		parseKE(b)
		parseNotify(b)
		parseAuth(b)
		if id, err := parseID(b); err == nil {
			_ = id.String()
			id.matches("*.example.org")
		}
	})
}

// FuzzInside feeds payloads that pass the integrity check, as a hostile peer
// with good keys could, to an IKE SA that is half open or up.
func FuzzInside(f *testing.F) {
	f.Add(uint8(exCreateChildSA), uint8(plSA), []byte{0, 0, 0, 8, 0, 0, 0, 0}, false)
	f.Add(uint8(exInformational), uint8(plDelete), []byte{0, 0, 0, 8, 1, 0, 0, 0}, true)
	f.Add(uint8(exIKEAuth), uint8(plIDi), []byte{0, 0, 0, 9, 2, 0, 0, 0, 'a'}, false)
	f.Fuzz(func(t *testing.T, exchange, first uint8, plain []byte, half bool) {
		s := newSim(t, 7)
		pa, pb := pskPeers()
		for _, p := range []*Peer{pa, pb} {
			p.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tX25519)}
		}
		a, b := s.twoNodes(pa, pb)
		s.call(a, "b", "net")
		if half {
			for b.guard.total == 0 && s.step(s.now.Add(time.Second)) {
			}
			for a.Status()[0].SPIr == 0 && s.step(s.now.Add(time.Second)) {
			}
			s.wire = nil
		} else {
			s.run(3 * time.Second)
		}
		var sa *ikeSA
		for _, sa = range a.sas {
		}
		id := sa.nextOut
		if half {
			id = 1
		}
		h := sa.header(exchange, id, false)
		if len(plain) > 4000 || sa.out == nil {
			return
		}
		m, err := sealOne(h, plSK, first, nil, plain, sa.out)
		if err != nil {
			t.Fatal(err)
		}
		s.take(b, b.Handle(s.now, Datagram{Local: sa.remote, Remote: sa.local, Data: m}))
		s.run(5 * time.Minute)
		if len(b.spis) != len(b.sad) {
			t.Errorf("%d SPIs for %d children", len(b.spis), len(b.sad))
		}
	})
}
