package ike

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A silent peer is told of within five seconds, once, with what is known; it is given
// up when it always was. One with a lossy line is not told of.
func TestSilence(t *testing.T) {
	lost := 0
	for name, row := range map[string]struct {
		nat   func(Datagram) (Datagram, bool)
		times Retransmit
		want  string // within five seconds, in a's events; empty: nothing
		last  string // in the failure; empty: it comes up
		peer  string // in b's events
	}{
		"nobody": {func(d Datagram) (Datagram, bool) { return d, false }, Retransmit{}, "no answer yet, asked 3 times", "asked 6 times", ""},
		"nobody, seldom asked": {func(d Datagram) (Datagram, bool) { return d, false }, Retransmit{First: time.Minute, Factor: 1, Tries: 2},
			"no answer yet, asked once", "asked twice", ""},
		"UDP 4500 blocked": {func(d Datagram) (Datagram, bool) { return d, d.Remote.Port() != 4500 }, Retransmit{},
			"UDP 500 answers, UDP 4500 does not: a firewall between, or the peer's own policy; asked 3 times for IKE_INTERMEDIATE",
			"UDP 500 answers, UDP 4500 does not", "nothing has come by UDP 4500"},
		"one is lost": {func(d Datagram) (Datagram, bool) { lost++; return d, lost > 1 }, Retransmit{}, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, 7)
			pa, pb := pskPeers()
			pa.Retransmit = row.times
			a, b := s.twoNodes(pa, pb)
			s.nat = row.nat
			s.call(a, "b", "net")
			s.run(5 * time.Second)
			if st := a.Status(); row.last != "" && (len(st) != 1 || st[0].Up || s.now.Sub(st[0].Since) != 5*time.Second) {
				t.Errorf("after 5 s the call is %+v", st)
			}
			if n := a.has(Silent); n != btoi(row.want != "") || n != a.told(Silent, row.want) {
				t.Errorf("told %d times, want %q", n, row.want)
			}
			s.run(3 * time.Minute)
			if n := a.told(Failed, row.last); (n > 0) != (row.last != "") {
				t.Errorf("in the end told %d times %q", n, row.last)
			}
			if row.peer != "" && b.told(Failed, row.peer) == 0 {
				t.Errorf("the peer is not told %q", row.peer)
			}
			if n := a.has(Silent); n > 1 || a.Stats().Failures[NoFailure] != 0 {
				t.Errorf("told %d times", n)
			}
			if t.Failed() {
				s.dump()
			}
		})
	}
}

// A peer that is called again and again, because it has to be there, is told of once
// before the first failure; then the failures tell.
func TestSilenceOfCallsAgain(t *testing.T) {
	s := newSim(t, 7)
	pa, pb := pskPeers()
	pa.Children[0].Start = true
	a, _ := s.twoNodes(pa, pb)
	a.cfg.Source = func(netip.Addr) netip.Addr { return a.addr }
	s.nat = func(d Datagram) (Datagram, bool) { return d, false }
	s.take(a, a.Start(s.now))
	s.run(10 * time.Minute)
	if n, failed := a.has(Silent), a.has(Failed); n != 1 || failed < 4 {
		t.Errorf("told %d times of silence, %d of failure", n, failed)
	}
}

// What the kernel or ICMP says of a call is told at once, and once; it ends nothing,
// and is told of nothing that is up or goes elsewhere.
func TestUnreachable(t *testing.T) {
	s := newSim(t, 8)
	pa, pb := pskPeers()
	a, _ := s.twoNodes(pa, pb)
	shut := true
	s.nat = func(d Datagram) (Datagram, bool) { return d, !shut }
	s.call(a, "b", "net")
	here, there := netip.MustParseAddrPort("192.0.2.1:500"), netip.MustParseAddrPort("192.0.2.2:500")
	say := func(l, r netip.AddrPort) int {
		before := a.has(Silent)
		s.take(a, a.Unreachable(s.now, l, r, "192.0.2.2 says no"))
		return a.has(Silent) - before
	}
	nat := func(x netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(x.Addr(), 4500) }
	if n := say(nat(here), nat(there)) + say(here, netip.MustParseAddrPort("192.0.2.3:500")); n != 0 {
		t.Error("told of what was not sent")
	}
	if say(here, there) != 1 || say(here, there) != 0 {
		t.Error("not told once")
	}
	s.run(5 * time.Second)
	if n := a.has(Silent); n != 1 {
		t.Errorf("told %d times", n)
	}
	shut = false
	s.run(10 * time.Second)
	if a.has(ChildUp) != 1 {
		t.Error("an ICMP error has ended the call")
	}
	if say(here, there)+say(nat(here), nat(there)) != 0 {
		t.Error("told of a peer that is there")
	}
}

// The kernel's errors that say something of the way to a peer have a sentence.
func TestUnsentText(t *testing.T) {
	d := Datagram{Local: netip.MustParseAddrPort("192.0.2.1:500"), Remote: netip.MustParseAddrPort("192.0.2.2:500")}
	for err, want := range map[error]string{
		unix.ENETUNREACH: "no route to 192.0.2.2", unix.EHOSTUNREACH: "does not reach 192.0.2.2", unix.EPERM: "lets nothing out to 192.0.2.2",
		unix.EADDRNOTAVAIL: "does not have the address 192.0.2.1", unix.ENOBUFS: "",
	} {
		if got := unsentText(fmt.Errorf("send: %w", err), &d); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%v: %q", err, got)
		}
	}
}

// A peer without a route is told of as the policy comes in force.
func TestNoRouteIsTold(t *testing.T) {
	pa, _ := pskPeers()
	pa.Children[0].Start = true
	s := newSim(t, 9)
	a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}, Source: func(netip.Addr) netip.Addr { return netip.Addr{} }})
	s.take(a, a.Start(s.now))
	s.run(time.Minute)
	if n := a.told(Silent, "no route to 192.0.2.2"); n != 1 {
		t.Errorf("told %d times", n)
	}
	if _, err := a.Initiate(s.now, Call{Peer: "b", Child: "net"}); err == nil || !strings.Contains(err.Error(), "no route") {
		t.Errorf("a call: %v", err)
	}
}

// Calls that come before the peers of the policy are known wait for them: nobody is
// unknown because the daemon has just started.
func TestCallsAtTheStart(t *testing.T) {
	pa, pb := pskPeers()
	var calls []Datagram
	sim := newSim(t, 10)
	a, _ := sim.twoNodes(pa, pb)
	sim.tap = func(d Datagram) { calls = append(calls, d) }
	sim.call(a, "b", "net")
	events := make(chan Event, 16)
	answers := make(chan Datagram, 16)
	s, err := Listen(ServerConfig{Config: Config{Rand: rand.Reader}, Event: func(e Event) { events <- e },
		Send: func(d Datagram) error { answers <- d; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	s.Deliver(Datagram{Local: calls[0].Remote, Remote: calls[0].Local, Data: calls[0].Data})
	update := func(c *Core, now time.Time) Output {
		o, err := c.Update(now, []*Peer{pb})
		if err != nil {
			t.Error(err)
		}
		return o
	}
	if !s.Post(update) {
		t.Fatal("the first work is refused")
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx, time.Second) }()
	for {
		select {
		case e := <-events:
			t.Errorf("event %s", e)
			stop()
			<-done
			return
		case d := <-answers:
			if h, err := parseHeader(d.Data); err != nil || h.exchange != exIKESAInit || h.spiR == 0 { // as in a refusal
				t.Errorf("answer %v, %v", h, err)
			}
			stop()
			<-done
			return
		}
	}
}
