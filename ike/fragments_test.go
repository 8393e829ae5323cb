package ike

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
)

func openGateway(s *sim, l Limits) *node {
	_, pb := pskPeers()
	pb.Endpoint, pb.RemoteID = netip.AddrPort{}, "*.example"
	return s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Limits: l})
}

// Of a message in fragments no more is kept before authentication than an honest
// one may need, and whoever sends more loses its half-open IKE SA.
func TestFragmentsOfStrangers(t *testing.T) {
	for _, x := range []struct{ total, size, send int }{{64, 65000, 63}, {64, 1200, 63}, {32, 65000, 31}, {32, 1000, 31}, {2, 17000, 1}} {
		s := newSim(t, 3)
		b := openGateway(s, Limits{})
		fragment := halfOpen(t, s, "stranger", "192.0.2.9", b, nil)
		for i := range x.send {
			s.take(b, b.Handle(s.now, fragment(i+1, x.total, x.size)))
			if _, n := keptBytes(b); n > 16<<10 || n != b.guard.fragmentBytes {
				t.Fatalf("%+v: %d bytes are kept, %d are booked", x, n, b.guard.fragmentBytes)
			}
		}
		if len(b.sas) != 0 || b.guard.total != 0 || b.failure() != TooMany || b.guard.fragmentBytes != 0 {
			t.Errorf("%+v: %d IKE SAs, failure %s, %d bytes booked", x, len(b.sas), b.failure(), b.guard.fragmentBytes)
		}
	}
}

// All half-open IKE SAs together keep no more than their budget. Who stands worst
// loses what it has sent, and whoever has authenticated nothing.
func TestFragmentBudget(t *testing.T) {
	s := newSim(t, 3)
	const budget = 40 << 10
	b := openGateway(s, Limits{FragmentBytes: budget})
	pc, _ := pskPeers()
	c := s.add("c", "192.0.2.3", Config{Peers: []*Peer{pc}})
	s.call(c, "b", "net")
	s.run(1e9)
	var up *ikeSA // with a part of a message of the peer's
	for _, sa := range c.sas {
		up = sa
	}
	frag := binary.BigEndian.AppendUint32(nil, 1<<16|40)
	h := up.header(exInformational, up.nextOut, false)
	h.version = version2
	m, err := sealOne(h, plSKF, plNone, frag, make([]byte, 30000), up.out)
	if err != nil {
		t.Fatal(err)
	}
	s.take(b, b.Handle(s.now, Datagram{Local: up.remote, Remote: up.local, Data: m}))
	if n, bytes := keptBytes(b); n != 1 || bytes != 30000 || b.guard.fragmentBytes != 0 {
		t.Fatalf("of the peer %d fragments, %d bytes; %d bytes of strangers are booked", n, bytes, b.guard.fragmentBytes)
	}

	stranger := func(i int, is standing) func(num, total, size int) Datagram {
		a := netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", i))
		switch is {
		case suspect:
			b.guard.blame(group(a), s.now)
		case proven:
			b.guard.praise(group(a), s.now)
		}
		return halfOpen(t, s, "stranger", a.String(), b, []Proposal{ikeProp(tGCM128, tPRF, tX25519)})
	}
	kept := func() (out [standings]int) {
		for _, sa := range b.sas {
			if sa.state == stHalfOpen {
				out[sa.standing] += sa.inFrag.size
			}
		}
		if n := out[proven] + out[unknown] + out[suspect]; n != b.guard.fragmentBytes || n > budget {
			t.Fatalf("%d bytes are kept, %d are booked, the budget is %d", n, b.guard.fragmentBytes, budget)
		}
		return out
	}
	send := func(d Datagram) { s.take(b, b.Handle(s.now, d)) }
	known := stranger(1, proven)
	send(known(1, 8, 8000))
	for i := range 8 {
		send(stranger(10+i, suspect)(1, 8, 8000))
		kept()
	}
	for i := range 8 {
		send(stranger(20+i, unknown)(1, 8, 8000))
		kept()
	}
	if k := kept(); k != [standings]int{8000, 32000, 0} {
		t.Errorf("kept of proven, unknown, suspect: %v", k)
	}
	send(stranger(40, suspect)(1, 8, 8000)) // its own goes
	if k := kept(); k != [standings]int{8000, 32000, 0} {
		t.Errorf("a suspect has room again: %v", k)
	}
	if b.Stats().Failures[TooMany] == 0 {
		t.Error("not counted")
	}
	n := 0
	for _, sa := range b.sas {
		if sa.state == stUp {
			n += sa.inFrag.size
		}
	}
	if n != 30000 {
		t.Errorf("of the peer that is up %d bytes are left", n)
	}
	s.run(200e9) // all half-open ones end
	if b.guard.fragmentBytes != 0 || b.guard.fragments[proven].Len()+b.guard.fragments[unknown].Len()+b.guard.fragments[suspect].Len() != 0 {
		t.Errorf("%d bytes are booked for nobody", b.guard.fragmentBytes)
	}
}

// An IKE_SA_INIT longer than any honest one leaves nothing behind.
func TestLongInit(t *testing.T) {
	s := newSim(t, 3)
	b := openGateway(s, Limits{})
	msg := initMessage(t, 9)
	long := append(append([]byte(nil), msg...), 0, 0, 0, 0)
	pad := maxInit - len(msg)
	next := long[16]
	long[16] = plVendor // in front of the others
	long = append(append(append([]byte(nil), long[:headerLen]...), next, 0, byte(pad>>8), byte(pad)), append(make([]byte, pad-4), msg[headerLen:]...)...)
	for _, x := range []struct{ more, sas int }{{0, 1}, {1, 1}} {
		m := append(long[:len(long):len(long)], make([]byte, x.more)...)
		binary.BigEndian.PutUint32(m[24:], uint32(len(m)))
		binary.BigEndian.PutUint64(m, uint64(x.more)+7)
		b.Handle(s.now, Datagram{Local: netip.MustParseAddrPort("192.0.2.2:500"), Remote: addrN(x.more), Data: m})
		if len(b.sas) != x.sas {
			t.Errorf("%d bytes: %d half-open IKE SAs, want %d", len(m), len(b.sas), x.sas)
		}
	}
}
