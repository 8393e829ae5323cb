package ike

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// firstOf gives the first event of a kind.
func (n *node) firstOf(kind EventKind) (e Event) {
	for _, e = range n.log {
		if e.Kind == kind {
			return e
		}
	}
	return Event{}
}

// Whoever is called and hears no more is told so within five seconds, once, with what
// is known of why, and again when the call is over; whoever is in the way hears no
// false alarm.
func TestStalled(t *testing.T) {
	const barred = "discarded here by rule x"
	type way func(Datagram) (Datagram, bool)
	from := func(addr string, ports ...uint16) func() way { // what is sent there, to these ports, is lost
		return func() way {
			return func(d Datagram) (Datagram, bool) {
				lost := d.Local.Addr() == netip.MustParseAddr(addr)
				for _, p := range ports {
					lost = lost && d.Remote.Port() == p
				}
				return d, !lost
			}
		}
	}
	after := func(most int) func() way { // all is lost behind so many of the caller's to UDP 4500
		return func() way {
			n := 0
			return func(d Datagram) (Datagram, bool) {
				n += btoi(d.Remote == netip.MustParseAddrPort("192.0.2.2:4500"))
				return d, n <= most
			}
		}
	}
	encap := func(p *Peer) { p.PreferEncap = true }
	for name, row := range map[string]struct {
		lost         func() way
		change       func(p *Peer)                             // both
		barred       func(local, remote netip.AddrPort) string // at both
		callee       string                                    // empty: nothing
		caller, last string                                    // last: in the callee's failure
	}{
		"nothing": {lost: from("192.0.2.9")},
		"UDP 4500 blocked": {lost: from("192.0.2.1", 4500),
			callee: "192.0.2.1 has begun a key exchange by UDP 500 and does not go on: nothing has come by UDP 4500, which may be the port of its next message; this host's own policy or a firewall between keeps it from us, or our answer from it, or it has given up",
			caller: "UDP 500 answers, UDP 4500 does not: a firewall between, or the peer's own policy; asked 3 times for IKE_INTERMEDIATE", last: "nothing has come by UDP 4500"},
		"UDP 4500 blocked, ESP in UDP": {lost: from("192.0.2.1", 4500), change: encap,
			callee: "nothing has come by UDP 4500, the port of its next message;", caller: "UDP 4500 does not", last: "the port of its next message"},
		"UDP 4500 blocked, the policy lets it in": {lost: from("192.0.2.1", 4500), change: encap, barred: func(netip.AddrPort, netip.AddrPort) string { return "" },
			callee: "nothing has come by UDP 4500, the port of its next message; a firewall between keeps it from us", caller: "a firewall between", last: "a firewall between"},
		"UDP 4500 blocked by policies": {lost: from("192.0.2.1", 4500), change: encap, barred: func(local, remote netip.AddrPort) string {
			if local.Port() == 4500 && remote.Port() == 4500 {
				return barred
			}
			return ""
		}, callee: "the port of its next message; what comes there is " + barred,
			caller: "UDP 500 answers, UDP 4500 does not: what comes from there is " + barred + "; asked 3 times for IKE_INTERMEDIATE", last: barred},
		"its answers by UDP 500 are lost": {lost: from("192.0.2.2"), barred: func(local, _ netip.AddrPort) string { return barred },
			callee: "192.0.2.1 has asked 3 times for IKE_SA_INIT, and does not hear the answers by UDP 500: a firewall between, or its own policy",
			caller: "no answer yet, asked 3 times; what comes from there is " + barred, last: "has asked 5 times for IKE_SA_INIT"},
		"its answers by UDP 4500 are lost": {lost: from("192.0.2.2", 4500),
			callee: "192.0.2.1 has asked 3 times for IKE_INTERMEDIATE, and does not hear the answers by UDP 4500",
			caller: "UDP 4500 does not", last: "has asked 5 times for IKE_INTERMEDIATE"},
		"a part of the next message is lost": {lost: after(1), // IKE_INTERMEDIATE is in two
			callee: "192.0.2.1 has begun a key exchange and does not go on after IKE_SA_INIT: a firewall between, or it has given up", last: "after IKE_SA_INIT"},
		"IKE_AUTH is lost": {lost: after(2),
			callee: "192.0.2.1 has begun a key exchange and does not go on after IKE_INTERMEDIATE: a firewall between, or it has given up", last: "after IKE_INTERMEDIATE"},
		"IKE_AUTH is lost, and answers before": {lost: func() way {
			answers, rest := 0, after(2)()
			return func(d Datagram) (Datagram, bool) {
				if d.Remote == netip.MustParseAddrPort("192.0.2.1:500") {
					answers++
					return d, answers > 2
				}
				return rest(d)
			}
		}, callee: "", last: "192.0.2.1 has begun a key exchange and does not go on after IKE_INTERMEDIATE"}, // of that it is told after 7 s
		"by UDP 4500 from the start": {lost: after(1), change: func(p *Peer) { p.Endpoint = netip.AddrPortFrom(p.Endpoint.Addr(), 4500) },
			callee: "192.0.2.1 has begun a key exchange by UDP 4500 and does not go on: nothing more has come; this host's own policy or a firewall", last: "nothing more has come"},
	} {
		bothWays(t, name, func(t *testing.T, jobs int) {
			s := newSim(t, 11)
			s.jobs = jobs
			pa, pb := pskPeers()
			if row.change != nil {
				row.change(pa)
				row.change(pb)
			}
			a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}, Barred: row.barred})
			b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Barred: row.barred})
			s.nat = row.lost()
			s.call(a, "b", "net")
			s.run(5 * time.Second)
			if n := b.has(Silent); n != btoi(row.callee != "") || n != b.told(Silent, row.callee) {
				t.Errorf("the callee is told %d times, want %q", n, row.callee)
			}
			if e := b.firstOf(Silent); row.callee != "" && (e.Peer != "a" || !e.Stranger || e.Remote.Addr() != a.addr || e.Time.Sub(simStart) < quietAfter) {
				t.Errorf("the callee is told %s of %q, stranger %t, after %s", e, e.Peer, e.Stranger, e.Time.Sub(simStart))
			}
			if row.caller != "" && a.told(Silent, row.caller) != 1 {
				t.Errorf("the caller is not told %q", row.caller)
			}
			s.run(3 * time.Minute)
			if n := b.told(Failed, row.last); (n > 0) != (row.last != "") {
				t.Errorf("in the end the callee is told %d times %q", n, row.last)
			}
			if n := b.has(Silent); n > 1 {
				t.Errorf("the callee is told %d times", n)
			}
			if t.Failed() {
				s.dump()
			}
		})
	}
}

// A peer that calls again and again is told of once as long as that goes on, and anew
// when it had come up meanwhile.
func TestStalledCallsAgain(t *testing.T) {
	s := newSim(t, 12)
	pa, pb := pskPeers()
	pa.Children[0].Start = true
	a, b := s.twoNodes(pa, pb)
	a.cfg.Source = func(netip.Addr) netip.Addr { return a.addr }
	shut := true
	s.nat = func(d Datagram) (Datagram, bool) { return d, !shut || d.Remote.Port() != 4500 }
	s.take(a, a.Start(s.now))
	s.run(30 * time.Minute)
	if n, failed := b.has(Silent), b.has(Failed); n != 1 || failed < 10 || b.told(Failed, "nothing has come by UDP 4500") != failed {
		t.Errorf("told %d times that a call does not go on, and %d times that one is over", n, failed)
	}
	shut = false
	s.run(3 * time.Minute)
	if b.has(ChildUp) == 0 {
		t.Fatal("it does not come up")
	}
	if n := len(b.guard.stalled.pages); n != 0 {
		t.Errorf("%d addresses are still known as such", n)
	}
	shut = true
	s.run(10 * time.Minute) // dead peer detection, and calls
	if n := b.has(Silent); n != 2 {
		s.dump()
		t.Errorf("told %d times in all", n)
	}
}

// Whoever is here already is not told of because of another call from that address:
// anybody may have sent it.
func TestStalledBesideOneThatIsUp(t *testing.T) {
	s := newSim(t, 13)
	pa, pb := pskPeers()
	a, b := s.twoNodes(pa, pb)
	s.call(a, "b", "net")
	s.run(10 * time.Second)
	if b.has(ChildUp) != 1 {
		t.Fatal("it does not come up")
	}
	d := Datagram{Local: netip.MustParseAddrPort("192.0.2.2:500"), Remote: netip.MustParseAddrPort("192.0.2.1:500"), Data: initMessage(t, 9)}
	s.take(b, b.Handle(s.now, d))
	if b.guard.total != 1 {
		t.Fatal("not half-open")
	}
	s.run(20 * time.Second)
	if n := b.has(Silent); n != 0 {
		t.Errorf("told %d times", n)
	}
}

// Strangers with many addresses cause no more events than failures of theirs may, one
// for an address however often it calls, and what is remembered of them is bounded.
func TestStalledStrangers(t *testing.T) {
	s := newSim(t, 14)
	_, pb := pskPeers()
	pb.Endpoint = netip.AddrPort{}
	b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Limits: Limits{CookieAfter: 1 << 20}})
	msg := initMessage(t, 9)
	begin := func(from netip.AddrPort, spi int) {
		binary.BigEndian.PutUint64(msg, uint64(spi))
		b.Handle(s.now, Datagram{Local: netip.MustParseAddrPort("192.0.2.2:500"), Remote: from, Data: append([]byte(nil), msg...)})
	}
	for i := range 3 { // of one address
		begin(addrN(0), i+1)
	}
	s.run(6 * time.Second)
	if n := b.has(Silent); n != 1 {
		t.Errorf("told %d times of one address", n)
	}
	for round := range 40 {
		for i := range 100 {
			begin(addrN(1+round*100+i), 1000+round*100+i)
		}
		s.run(time.Second)
	}
	s.run(10 * time.Second)
	second := map[int64]int{}
	for _, e := range b.log {
		if !e.Stranger {
			t.Fatalf("event %s is of nobody who calls", e)
		}
		second[e.Time.Unix()]++
	}
	for at, n := range second {
		if n > 2*strangerEvents { // a second of the guard's is not one of the clock's
			t.Errorf("%d events in second %d", n, at)
		}
	}
	if n := b.has(Silent); n < 100 || n > 45*strangerEvents {
		t.Errorf("told %d times of 4,000 addresses", n)
	}
	for i := range 2 * maxStalled {
		b.guard.stalled.write(single(addrN(i).Addr()), s.now)
	}
	if n := len(b.guard.stalled.pages); n != maxStalled {
		t.Errorf("%d addresses are remembered", n)
	}
}

// Whoever waits for work of this host is not told of as one who does not go on.
func TestStalledByOurWork(t *testing.T) {
	s := newSim(t, 15)
	pa, pb := pskPeers()
	a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}})
	s.jobs, s.late = 2, 100 // each job takes three minutes
	b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}})
	s.call(a, "b", "net")
	s.run(time.Minute)
	if n := b.has(Silent); n != 0 || s.lates == 0 {
		t.Errorf("told %d times, %d jobs", n, s.lates)
	}
	if b.told(Failed, "the call of 192.0.2.1 has waited for this host's own work") != 1 {
		t.Error("in the end this host does not say that it was its own work")
	}
	if t.Failed() {
		s.dump()
	}
}
