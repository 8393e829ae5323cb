package ike

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// testRand is a reproducible source of "randomness".
func testRand(seed uint64) *rand.ChaCha8 {
	var s [32]byte
	for i := range 8 {
		s[i] = byte(seed >> (8 * i))
	}
	return rand.NewChaCha8(s)
}

// node is one Core with the SAD it would fill.
type node struct {
	*Core
	name string
	addr netip.Addr
	// others are more addresses of it
	others []netip.Addr
	sad    map[uint64]*installed
	// expected are SPIs whose keys the peer's answer will bring
	expected map[uint32]bool
	traffic  traffic
	log      []Event
	// around, if set, makes it act oddly while it handles a datagram
	around func(d Datagram, handle func() Output) Output
	// order of use of the outbound SAs by child name
	out map[string]uint64
}

type installed struct {
	ChildSA
	using bool
	seen  bool
}

// sim is a network of Cores with a clock of its own.
type sim struct {
	t     testing.TB
	now   time.Time
	rng   *rand.Rand
	nodes []*node
	wire  []flight
	seq   int
	// Faults, in percent; delay is the most a datagram takes.
	loss, dup int
	delay     time.Duration
	// jobs is Config.Jobs of those that are added; each job takes up to jobTime,
	// and of a hundred as many as late takes three minutes.
	jobs    int
	jobTime time.Duration
	late    int
	lates   int // of them so far
	// nat rewrites a datagram on its way; nil: none.
	nat   func(Datagram) (Datagram, bool)
	tap   func(Datagram)
	trace bool
	count int
}

type flight struct {
	at   time.Time
	seq  int
	d    Datagram
	emit *node // sends a packet of its own, if it has an SA to send by
	pkt  *sealedPacket
	job  *Job // of by
	by   *node
}

// sealedPacket is a packet under way that only the SA with its SPI opens.
type sealedPacket struct {
	to    *node
	spi   uint32
	until time.Time // how long it may wait for its SA
}

// What becomes of packets at a node.
type traffic struct {
	sent, opened, lost int
	waiting            []sealedPacket
}

// emissions has both nodes send packets at random times until end.
func (s *sim) emissions(n int, d time.Duration) {
	for range n {
		s.seq++
		at := s.now.Add(time.Duration(s.rng.Int64N(int64(d) + 1)))
		s.wire = append(s.wire, flight{at: at, seq: s.seq, emit: s.nodes[s.rng.IntN(2)]})
	}
}

// emit sends one packet by the SA in use. Without one it would wait: nothing
// leaves in the clear.
func (s *sim) send(n *node) {
	x := n.sad[n.out["net"]]
	if x == nil {
		return
	}
	n.traffic.sent++
	for _, to := range s.nodes {
		if to.addr == x.Remote {
			s.seq++
			at := s.now.Add(time.Millisecond + time.Duration(s.rng.Int64N(int64(s.delay)+1)))
			s.wire = append(s.wire, flight{at: at, seq: s.seq, pkt: &sealedPacket{to: to, spi: x.SPIOut}})
		}
	}
}

// arrive opens a packet, lets it wait for an SA that is expected, or loses it, as
// the host does.
func (s *sim) arrive(p *sealedPacket) {
	n := p.to
	for _, x := range n.sad {
		if x.SPIIn == p.spi {
			n.traffic.opened++
			if !x.seen { // as the host tells of the first packet of each SA
				x.seen = true
				s.take(n, n.Seen(s.now, p.spi))
			}
			return
		}
	}
	if n.expected[p.spi] {
		p.until = s.now.Add(3 * time.Second)
		n.traffic.waiting = append(n.traffic.waiting, *p)
		return
	}
	if s.trace {
		s.t.Logf("%s    %s loses a packet for %#x", s.now.Sub(simStart), n.name, p.spi)
	}
	n.traffic.lost++
}

// settleWaiting opens what has waited for an SA that is there now, and loses
// what has waited for too long or for nothing.
func (s *sim) settleWaiting(n *node) {
	list := n.traffic.waiting
	n.traffic.waiting = nil
	for _, p := range list {
		switch {
		case !n.expected[p.spi]:
			s.arrive(&p)
		case p.until.Before(s.now):
			n.traffic.lost++
		default:
			n.traffic.waiting = append(n.traffic.waiting, p)
		}
	}
}

var simStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newSim(t testing.TB, seed uint64) *sim {
	return &sim{t: t, now: simStart, rng: rand.New(rand.NewPCG(seed, 1)), delay: 10 * time.Millisecond}
}

func (s *sim) add(name, addr string, cfg Config) *node {
	s.t.Helper()
	cfg.Jobs = s.jobs
	if cfg.Rand == nil {
		cfg.Rand = testRand(uint64(len(s.nodes))*7919 + s.rng.Uint64())
	}
	c, err := New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	n := &node{Core: c, name: name, addr: netip.MustParseAddr(addr), sad: map[uint64]*installed{}, expected: map[uint32]bool{}, out: map[string]uint64{}}
	s.nodes = append(s.nodes, n)
	return n
}

// take does what a Core asked for.
func (s *sim) take(n *node, o Output) {
	for _, a := range o.Actions {
		if s.trace {
			s.t.Logf("%s    %s %s %#x/%#x use=%v", s.now.Sub(simStart), n.name, a.Kind, a.Child.SPIIn, a.Child.SPIOut, a.Use)
		}
		x := n.sad[a.Child.ID]
		switch a.Kind {
		case Expect:
			n.expected[a.Child.SPIIn] = true
		case Forget:
			delete(n.expected, a.Child.SPIIn)
		case Install:
			delete(n.expected, a.Child.SPIIn)
			if x != nil {
				s.t.Fatalf("%s: child %d installed twice", n.name, a.Child.ID)
			}
			n.sad[a.Child.ID] = &installed{ChildSA: a.Child, using: a.Use}
			if a.Use {
				n.out[a.Child.Name] = a.Child.ID
			}
		case UseSA:
			if x == nil {
				s.t.Fatalf("%s: use of a child that is not installed", n.name)
			}
			x.using = true
			n.out[a.Child.Name] = a.Child.ID
		case Move:
			if x == nil {
				s.t.Fatalf("%s: move of a child that is not installed", n.name)
			}
			in, out := x.In, x.Out
			x.ChildSA = a.Child
			x.In, x.Out = in, out
		case Remove:
			if x == nil {
				s.t.Fatalf("%s: removal of a child that is not installed", n.name)
			}
			delete(n.sad, a.Child.ID)
			if n.out[a.Child.Name] == a.Child.ID {
				delete(n.out, a.Child.Name)
			}
		}
	}
	if len(o.Actions) > 0 {
		s.settleWaiting(n)
	}
	n.log = append(n.log, o.Events...)
	for _, j := range o.Jobs {
		s.seq++
		at := s.now.Add(time.Duration(s.rng.Int64N(int64(s.jobTime) + 1)))
		if s.rng.IntN(100) < s.late {
			s.lates++
			at = at.Add(3 * time.Minute)
		}
		s.wire = append(s.wire, flight{at: at, seq: s.seq, job: &j, by: n})
	}
	for _, d := range o.Send {
		if s.tap != nil {
			s.tap(d)
		}
		if s.nat != nil {
			var ok bool
			if d, ok = s.nat(d); !ok {
				continue
			}
		}
		if s.rng.IntN(100) < s.loss {
			continue
		}
		s.fly(d)
		if s.rng.IntN(100) < s.dup {
			s.fly(d)
		}
	}
}

func (s *sim) fly(d Datagram) {
	s.seq++
	at := s.now.Add(time.Millisecond + time.Duration(s.rng.Int64N(int64(s.delay)+1)))
	s.wire = append(s.wire, flight{at: at, seq: s.seq, d: d})
}

// step does the next thing that is due before end; false: nothing is.
func (s *sim) step(end time.Time) bool {
	first := 0
	for i := range s.wire {
		if x, y := &s.wire[i], &s.wire[first]; x.at.Before(y.at) || x.at.Equal(y.at) && x.seq < y.seq {
			first = i
		}
	}
	var due time.Time
	var who *node
	for _, n := range s.nodes {
		if t, ok := n.Next(); ok && (who == nil || t.Before(due)) {
			due, who = t, n
		}
	}
	if len(s.wire) > 0 && (who == nil || s.wire[first].at.Before(due)) {
		f := s.wire[first]
		if f.at.After(end) {
			s.now = end
			return false
		}
		s.wire[first] = s.wire[len(s.wire)-1]
		s.wire = s.wire[:len(s.wire)-1]
		s.now = f.at
		switch {
		case f.emit != nil:
			s.send(f.emit)
			return true
		case f.pkt != nil:
			s.arrive(f.pkt)
			return true
		case f.job != nil:
			s.take(f.by, f.by.Done(s.now, f.job.ID, f.job.Run()))
			return true
		}
		for _, n := range s.nodes {
			if (n.addr == f.d.Remote.Addr() || slices.Contains(n.others, f.d.Remote.Addr())) && !f.d.Keepalive {
				s.count++
				if h, err := parseHeader(f.d.Data); s.trace && err == nil {
					s.t.Logf("%s -> %s %s id %d response %v %x/%x next %d, %d bytes", s.now.Sub(simStart), n.name, exchangeName(h.exchange),
						h.id, h.response(), h.spiI>>48, h.spiR>>48, h.next, len(f.d.Data))
				}
				d := Datagram{Local: f.d.Remote, Remote: f.d.Local, Data: slices.Clone(f.d.Data)}
				handle := func() Output { return n.Handle(s.now, d) }
				if n.around != nil {
					s.take(n, n.around(d, handle))
				} else {
					s.take(n, handle())
				}
			}
		}
		return true
	}
	if who == nil || due.After(end) {
		s.now = end
		return false
	}
	if due.After(s.now) {
		s.now = due
	}
	s.take(who, who.Tick(s.now))
	return true
}

// run lets time pass.
func (s *sim) run(d time.Duration) {
	s.t.Helper()
	end := s.now.Add(d)
	for i := 0; s.step(end); i++ {
		if i > 200000 {
			s.t.Fatal("the cores do not come to rest")
		}
	}
}

func (s *sim) call(n *node, peer, child string) {
	s.t.Helper()
	o, err := n.Initiate(s.now, Call{Peer: peer, Child: child, Local: netip.AddrPortFrom(n.addr, 0)})
	if err != nil {
		s.t.Fatal(err)
	}
	s.take(n, o)
}

// pairs gives the children of a name that both nodes have, and fails if one
// has a child that the other lacks, or keys differ, or traffic of one goes
// where the other does not receive.
func (s *sim) pairs(a, b *node, name string) []*installed {
	s.t.Helper()
	out, err := s.tryPairs(a, b, name)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *sim) tryPairs(a, b *node, name string) (out []*installed, err error) {
	bySPI := map[uint32]*installed{}
	other := 0
	for _, y := range b.sad {
		if y.Name == name {
			bySPI[y.SPIIn] = y
			other++
		}
	}
	for _, x := range a.sad {
		if x.Name != name {
			continue
		}
		y := bySPI[x.SPIOut]
		if y == nil || y.SPIOut != x.SPIIn {
			return nil, fmt.Errorf("%s has child %d (%#x/%#x) that %s does not have", a.name, x.ID, x.SPIIn, x.SPIOut, b.name)
		}
		if !slices.Equal(x.In.Encryption, y.Out.Encryption) || !slices.Equal(x.Out.Encryption, y.In.Encryption) ||
			!slices.Equal(x.In.Integrity, y.Out.Integrity) || len(x.In.Encryption)+len(x.In.Integrity) == 0 {
			return nil, fmt.Errorf("keys of child %d differ", x.ID)
		}
		out = append(out, x)
	}
	if len(out) != other {
		return nil, fmt.Errorf("%s has %d children %q, %s has %d", a.name, len(out), name, b.name, other)
	}
	for _, n := range []*node{a, b} {
		if x := n.sad[n.out[name]]; len(out) > 0 && x == nil {
			return nil, fmt.Errorf("%s has no child %q to send by", n.name, name)
		}
	}
	return out, nil
}

// bothWays runs a test with a Core that does public-key work within its calls,
// and with one that gives it out.
func bothWays(t *testing.T, name string, f func(t *testing.T, jobs int)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { f(t, 0) })
	t.Run(name+", with jobs", func(t *testing.T) { f(t, 2) })
}

// psk gives the two sides of a pre-shared key peering with one tunnel.
func pskPeers() (a, b *Peer) {
	child := func() *Child { return &Child{Name: "net"} }
	key := []byte("a pre-shared key of some length")
	a = &Peer{Name: "b", Endpoint: netip.MustParseAddrPort("192.0.2.2:500"), LocalID: Identity{idFQDN, "a.example"},
		RemoteID: "b.example", PSK: key, Children: []*Child{child()}}
	b = &Peer{Name: "a", Endpoint: netip.MustParseAddrPort("192.0.2.1:500"), LocalID: Identity{idFQDN, "b.example"},
		RemoteID: "a.example", PSK: key, Children: []*Child{child()}}
	return a, b
}

// twoNodes makes a at 192.0.2.1 and b at 192.0.2.2.
func (s *sim) twoNodes(pa, pb *Peer) (a, b *node) {
	s.t.Helper()
	return s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}}), s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}})
}

// has counts the events of a kind.
func (n *node) failure() Failure {
	for _, e := range n.log {
		if e.Failure != NoFailure {
			return e.Failure
		}
	}
	return NoFailure
}

// dump shows what the nodes have reported.
func (s *sim) dump() {
	for _, n := range s.nodes {
		for _, e := range n.log {
			s.t.Logf("%s %s %s ike=%d", e.Time.Sub(simStart), n.name, e, e.IKE)
		}
		for _, st := range n.Status() {
			s.t.Logf("%s: ike %d %x/%x up=%v children %d", n.name, st.ID, st.SPIi, st.SPIr, st.Up, len(st.Children))
		}
	}
}

// has counts the events of a kind.
func (n *node) has(kind EventKind) int {
	k := 0
	for _, e := range n.log {
		if e.Kind == kind {
			k++
		}
	}
	return k
}
