package ike

import (
	"testing"
	"time"
)

// A cookie and INVALID_KE_PAYLOAD in one handshake: six messages of IKE_SA_INIT.
func TestCookieAndAnotherGroup(t *testing.T) {
	s := newSim(t, 3)
	pa, pb := pskPeers()
	pb.Proposals = []Proposal{{Protocol: ProtoIKE, Transforms: append(append(aesBits(EncrAESGCM16, 256), transforms(TransformPRF, PRFSHA384)...), transforms(TransformKE, KEP384)...)}}
	a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}})
	b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Limits: Limits{CookieAfter: -1}})
	inits := 0
	s.tap = func(d Datagram) { inits += btoi(len(d.Data) > 18 && d.Data[18] == exIKESAInit) }
	s.call(a, "b", "net")
	s.run(5 * time.Second)
	if len(s.pairs(a, b, "net")) != 1 || inits != 6 || b.Stats().Cookies == 0 {
		s.dump()
		t.Errorf("%d messages of IKE_SA_INIT, %d cookies", inits, b.Stats().Cookies)
	}
}

// Long messages in many small fragments come through where one datagram of twenty is
// lost, whoever calls.
func TestSmallFragmentsAndLoss(t *testing.T) {
	ca := newPKI(t)
	pa, pb := pskPeers()
	withCerts(t, ca, pa, pb, "rsa")
	for _, size := range []int{90, 300, 576} { // of 90, some 40
		for seed := range uint64(6) {
			s := newSim(t, seed)
			s.loss = 5
			a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}, Limits: Limits{FragmentSize: size}})
			b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Limits: Limits{FragmentSize: size}})
			most := 0
			s.tap = func(d Datagram) { most = max(most, len(d.Data)*btoi(len(d.Data) > 18 && d.Data[18] == exIKEAuth)) }
			if seed%2 == 0 {
				s.call(a, "b", "net")
			} else {
				s.call(b, "a", "net")
			}
			s.until("a child", 63*time.Second, func() bool { return len(a.sad) == 1 && len(b.sad) == 1 })
			if most > size || most < size/2 {
				t.Errorf("the longest datagram has %d bytes of %d", most, size)
			}
		}
	}
}

// Both sides rekey a child at once, again and again, and one of them refuses all that
// the other asks for. At each moment each side sends into an SA that the other has,
// and one pair is left.
func TestRekeyOfWhichOneIsRefused(t *testing.T) {
	for seed := range uint64(20) {
		s := newSim(t, seed)
		pa, pb := pskPeers()
		a, b := s.twoNodes(pa, pb)
		s.call(a, "b", "net")
		s.run(time.Second)
		b.around = func(d Datagram, handle func() Output) Output {
			if h, err := parseHeader(d.Data); err == nil && h.exchange == exCreateChildSA && !h.response() {
				b.elsewhere(true)
				defer b.elsewhere(false)
			}
			return handle()
		}
		for range 3 {
			s.take(a, a.Rekey(s.now, "b", "net"))
			s.take(b, b.Rekey(s.now, "a", "net"))
			for end := s.now.Add(20 * time.Second); s.step(end); {
				for _, x := range []struct{ from, to *node }{{a, b}, {b, a}} {
					out, found := x.from.sad[x.from.out["net"]], false
					for _, y := range x.to.sad {
						found = found || out != nil && y.SPIIn == out.SPIOut
					}
					if !found {
						s.dump()
						t.Fatalf("seed %d: %s sends into nothing", seed, x.from.name)
					}
				}
			}
			if n := len(s.pairs(a, b, "net")); n != 1 || len(a.sas) != 1 {
				s.dump()
				t.Fatalf("seed %d: %d pairs, %d IKE SAs", seed, n, len(a.sas))
			}
		}
		if b.has(ChildRekeyed) < 3 || b.Stats().Failures[NoSelectors] == 0 {
			t.Errorf("seed %d: %d rekeys, %d refused", seed, b.has(ChildRekeyed), b.Stats().Failures[NoSelectors])
		}
	}
}

// What nobody knows is passed over: other payloads, notifications with an SPI, Vendor
// IDs. The same with the critical bit is refused (RFC 7296 section 2.5).
func TestUnknownPayloads(t *testing.T) {
	for _, critical := range []bool{false, true} {
		s, a, b := upTwo(t, nil)
		odd := []payload{{kind: 200, body: []byte("something new"), critical: critical}, {kind: plVendor, body: []byte("somebody")}, note(40961, 1, 2, 3), notify{proto: ProtoESP, kind: 40962, spi: []byte{1, 2, 3, 4}}.payload()}
		for _, sa := range a.sas {
			a.begin(s.now)
			sa.enqueue(&infoTask{list: odd})
			a.settle(sa)
			s.take(a, a.end())
		}
		s.run(time.Second)
		if !critical {
			s.take(a, a.Rekey(s.now, "b", "net"))
			s.run(10 * time.Second)
		}
		if got := len(a.sas) == 1 && len(s.pairs(a, b, "net")) == 1; got == critical {
			s.dump()
			t.Errorf("critical %v: the IKE SA goes on: %v", critical, got)
		}
	}
}
