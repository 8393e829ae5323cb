package ike

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// certPeers are two with certificates, whose IKE_AUTH is in several fragments.
func certPeers(t *testing.T) (a, b *Peer) {
	a, b = pskPeers()
	withCerts(t, newPKI(t), a, b, "ecdsa")
	b.Endpoint = netip.AddrPort{}
	return a, b
}

// What comes while a job is under way is not lost: a message in fragments, of
// which the first makes the job, needs no retransmission.
func TestJobsHold(t *testing.T) {
	s := newSim(t, 4)
	s.jobs, s.jobTime = 1, 200*time.Millisecond
	pa, pb := certPeers(t)
	a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}, Limits: Limits{FragmentSize: 300}})
	b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Limits: Limits{FragmentSize: 300}})
	s.call(a, "b", "net")
	s.run(10 * time.Second)
	if len(s.pairs(a, b, "net")) != 1 || a.Stats().Retransmits+b.Stats().Retransmits != 0 {
		s.dump()
		t.Errorf("%d pairs, %d and %d retransmissions", len(a.sad), a.Stats().Retransmits, b.Stats().Retransmits)
	}
	for _, n := range s.nodes {
		// Two key exchanges, our signature, their chain: IKE_SA_INIT,
		// IKE_INTERMEDIATE and IKE_AUTH.
		if n.jobs.nextID < 4 {
			t.Errorf("%s has given out %d jobs", n.name, n.jobs.nextID)
		}
		noJobs(t, n.Core)
	}
}

// noJobs fails if something is left of jobs.
func noJobs(t *testing.T, c *Core) {
	t.Helper()
	for s := range c.jobs.waiting {
		if c.jobs.waiting[s].Len() != 0 || c.jobs.bytes[s] != 0 {
			t.Errorf("%d jobs wait with %d bytes", c.jobs.waiting[s].Len(), c.jobs.bytes[s])
		}
	}
	if len(c.jobs.given) != 0 {
		t.Errorf("%d jobs are out", len(c.jobs.given))
	}
}

// Who is up is answered at once, whatever strangers have others compute: also a
// rekey with a key exchange of its own.
func TestJobsDoNotStop(t *testing.T) {
	s := newSim(t, 4)
	s.jobs = 2
	pa, pb := pskPeers()
	pb.Endpoint, pb.RemoteID = netip.AddrPort{}, ""
	for _, p := range []*Peer{pa, pb} {
		p.Children[0].Proposals = []Proposal{childProp(tGCM128, tX25519, tESN)}
	}
	a, b := s.twoNodes(pa, pb)
	s.call(a, "b", "net")
	s.run(5 * time.Second)
	msg := initMessage(t, 9)
	var out []Job
	for i := range 60 {
		binary.BigEndian.PutUint64(msg, uint64(i+1))
		o := b.Handle(s.now, Datagram{Local: netip.MustParseAddrPort("192.0.2.2:500"), Remote: addrN(i), Data: append([]byte(nil), msg...)})
		out = append(out, o.Jobs...)
		if len(o.Send) != 0 {
			t.Fatal("answered before the job is done")
		}
		// The same message again is not another job.
		if o = b.Handle(s.now, Datagram{Local: netip.MustParseAddrPort("192.0.2.2:500"), Remote: addrN(i), Data: append([]byte(nil), msg...)}); len(o.Jobs)+len(o.Send) != 0 {
			t.Fatal("a retransmission is answered, or done twice")
		}
	}
	if len(out) != 2 || b.jobs.waiting[unknown].Len() != 58 {
		t.Fatalf("%d jobs out, %d wait", len(out), b.jobs.waiting[unknown].Len())
	}
	s.take(a, a.Rekey(s.now, "", "net"))
	s.run(2 * time.Second)
	if a.has(ChildRekeyed) != 1 || b.has(ChildRekeyed) != 1 || a.Stats().Retransmits != 0 {
		t.Errorf("rekeyed %d and %d times", a.has(ChildRekeyed), b.has(ChildRekeyed))
	}
	// All of them are answered when somebody does the work, in any order.
	answers := 0
	for len(out) > 0 {
		j := out[len(out)-1]
		o := b.Done(s.now, j.ID, j.Run())
		out = append(out[:len(out)-1], o.Jobs...)
		answers += len(o.Send)
	}
	if answers != 60 {
		t.Errorf("%d answers to 60", answers)
	}
	s.run(time.Minute)
	noJobs(t, b.Core)
}

// What waits for strangers is bounded, also in bytes, for each standing by
// itself: who has proved something finds room, and goes first.
func TestJobsBounded(t *testing.T) {
	_, pb := pskPeers()
	pb.Endpoint = netip.AddrPort{}
	b := newSim(t, 4).add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Limits: Limits{CookieAfter: 1 << 20, HalfOpen: 1 << 20}})
	b.cfg.Jobs = 1
	msg := initMessage(t, 9)
	spi := uint64(0)
	from := func(at netip.AddrPort, more int) Output {
		spi++
		m := append([]byte(nil), msg...)
		if more > 0 { // a Vendor ID
			list, _, err := parsePayloads(msg[16], msg[headerLen:])
			if err != nil {
				t.Fatal(err)
			}
			m = encodePlain(header{spiI: 1, exchange: exIKESAInit, flags: flagInitiator}, append(list, payload{kind: plVendor, body: make([]byte, more)}))
		}
		binary.BigEndian.PutUint64(m, spi)
		return b.Handle(simStart, Datagram{Local: netip.MustParseAddrPort("192.0.2.2:500"), Remote: at, Data: m})
	}
	first := from(addrN(0), 0)
	for i := range 3000 {
		from(addrN(i), 0)
	}
	if n := b.jobs.waiting[unknown].Len(); n != maxWaiting || len(b.sas) != maxWaiting+1 {
		t.Errorf("%d jobs wait, %d IKE SAs", n, len(b.sas))
	}
	known := netip.MustParseAddrPort("198.51.100.1:500")
	b.guard.praise(group(known.Addr()), simStart)
	from(known, 0)
	if b.jobs.waiting[proven].Len() != 1 {
		t.Fatal("one that has authenticated before finds no room")
	}
	o := b.Done(simStart, first.Jobs[0].ID, first.Jobs[0].Run())
	for i := 0; b.jobs.waiting[proven].Len() > 0; i++ {
		if i > len(jobTurns) {
			t.Fatal("one that has authenticated before waits behind strangers")
		}
		o = b.Done(simStart, o.Jobs[0].ID, o.Jobs[0].Run())
	}
	for len(o.Jobs) > 0 {
		o = b.Done(simStart, o.Jobs[0].ID, o.Jobs[0].Run())
	}
	noJobs(t, b.Core)
	for i := range 3000 {
		from(addrN(5000+i), 7000)
	}
	if n := b.jobs.bytes[unknown]; n > maxJobBytes || n < maxJobBytes-maxInit {
		t.Errorf("%d bytes wait, at most %d may", n, maxJobBytes)
	}
}

// A result that comes after the end of its handshake is wiped, and brings
// nothing back; what a job had not begun with is wiped too.
func TestJobsTooLate(t *testing.T) {
	for _, jobs := range []int{1, 2} {
		s := newSim(t, 4)
		pa, pb := certPeers(t)
		a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}})
		b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}})
		b.cfg.Jobs = 2
		s.call(a, "b", "net")
		var judge *job
		for judge == nil {
			for _, sa := range b.sas {
				// Three key exchanges come before.
				if sa.job != nil && b.jobs.nextID == 4 {
					judge = sa.job
				}
			}
			if judge == nil && !s.step(s.now.Add(time.Second)) {
				t.Fatal("IKE_AUTH makes no job")
			}
		}
		var r Result
		if jobs == 1 { // it runs when the policy takes the peer away
			r = Result{judge.run()}
		}
		if p, ok := r.outcome.(proof); jobs == 1 && (!ok || p.fail != nil || allZero(p.keys.d)) {
			t.Fatalf("%+v", r.outcome)
		}
		s.take(b, b.Terminate(s.now, "", ""))
		if jobs == 2 {
			r = Result{judge.run()}
		}
		o := b.Done(s.now, judge.id, r)
		if len(o.Send)+len(o.Actions)+len(o.Jobs) != 0 || len(b.sas) != 0 {
			t.Errorf("something comes of it: %+v", o)
		}
		if p := r.outcome.(proof); !allZero(p.keys.d) || !allZero(p.keys.pi) || !allZero(p.keys.pr) {
			t.Error("keys are left")
		}
		s.wire = nil
		noJobs(t, b.Core)
	}
}

// Real workers, real sockets, raw public keys, and a policy that changes meanwhile:
// for the race detector.
func TestWorkers(t *testing.T) {
	at := netip.MustParseAddr("127.0.0.1")
	pa, pb := pskPeers()
	withRawKeys(t, pa, pb, "ecdsa")
	port := freePort(t)
	pb.Endpoint = netip.AddrPort{}
	pa.Endpoint = netip.AddrPortFrom(at, port)
	net := []TrafficSelector{SelectorOf(netip.PrefixFrom(at, at.BitLen()))}
	for _, p := range []*Peer{pa, pb} {
		p.Children[0].LocalTS, p.Children[0].RemoteTS = net, net
	}
	b := serve(t, port, pb)
	for i := range 4 {
		p := *pa
		p.known, p.Name = nil, fmt.Sprint("b", i)
		a := serve(t, freePort(t), &p)
		if err := a.Call(func(c *Core, now time.Time) Output {
			o, err := c.Initiate(now, Call{Peer: p.Name, Child: "net"})
			if err != nil {
				t.Error(err)
			}
			return o
		}); err != nil {
			t.Fatal(err)
		}
		same := *pb
		same.known = nil
		if err := b.Call(func(c *Core, now time.Time) (o Output) {
			var err error
			if o, err = c.Update(now, []*Peer{&same}); err != nil {
				t.Error(err)
			}
			return o
		}); err != nil {
			t.Fatal(err)
		}
		a.waitFor(t, Install)
		a.stop()
		<-a.done
	}
}

// A half-open IKE SA that waits for our own work is not silent: it loses its place
// to nobody that stands as it does, and is no suspect when the policy ends it.
func TestJobsKeepPlaces(t *testing.T) {
	_, pb := pskPeers()
	pb.Endpoint = netip.AddrPort{}
	b := newSim(t, 4).add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Limits: Limits{CookieAfter: 1 << 20, HalfOpen: 2}})
	b.cfg.Jobs = 1
	msg := initMessage(t, 9)
	now := simStart
	from := func(i int) Output {
		m := append([]byte(nil), msg...)
		binary.BigEndian.PutUint64(m, uint64(i+1))
		return b.Handle(now, Datagram{Local: netip.MustParseAddrPort("192.0.2.2:500"), Remote: addrN(i), Data: m})
	}
	o := from(0)
	from(1)
	now = now.Add(2 * patience)
	if from(2); len(b.sas) != 2 || b.Stats().Failures[TooMany] != 1 {
		t.Fatalf("%d IKE SAs; one that waits for us has lost its place", len(b.sas))
	}
	for len(o.Jobs) > 0 {
		o = b.Done(now, o.Jobs[0].ID, o.Jobs[0].Run())
	}
	now = now.Add(patience - time.Millisecond)
	if from(3); b.Stats().Failures[TooMany] != 2 {
		t.Fatal("one that has just been answered has lost its place")
	}
	now = now.Add(time.Millisecond)
	if o = from(4); len(o.Jobs) != 1 || len(b.sas) != 2 {
		t.Fatal("one that is silent has kept its place")
	}
	for _, sa := range b.sas {
		if sa.job != nil {
			sa.hears = true
		}
	}
	b.Terminate(now, "", "")
	if s := b.guard.standing(group(addrN(4).Addr()), now); s != unknown {
		t.Errorf("whoever waited for us is %d", s)
	}
	b.Done(now, o.Jobs[0].ID, o.Jobs[0].Run())
	noJobs(t, b.Core)
}
