package engine

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"

	"github.com/ipfw/ipfw/engine/classify"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// This file is about packets for a network behind this host that came out of an
// SA. They are judged twice: as they arrive, by the SA, and at the forward
// hook, when the kernel has found them a way out in the clear.
//
//	arriving --> SA is the rule's? --> flow remembers SA, interface --> routing, others' DNAT
//	forward hook --> flow by addresses --> rule with both interfaces --> may it leave in the clear there?
//
// Which SA it was the kernel cannot tell, so the flow does, and noted for the
// few packets that have none.

// arrival is how packets of one side of a flow have last come out of an SA.
type arrival struct {
	sa   string // the ipsec block
	inIf string // by which the sealed packet came
	// passed is what the last of them was let through with, so that the next
	// need not be looked up.
	passed passage
}

type passage struct {
	generation uint32
	rule       int32
	outIf      string
}

// arrive notes how a packet that is let through came.
func (f *flow) arrive(in *Input, side uint8) {
	if !in.brought() {
		return
	}
	if f.arrived == nil {
		f.arrived = new([2]arrival)
	}
	if a := &f.arrived[side]; a.sa != in.SA || a.inIf != in.InIf {
		*a = arrival{sa: in.SA, inIf: in.InIf}
	}
}

// judgeOpened judges a packet that came out of an SA once more, where its way
// out is known.
func (e *Engine) judgeOpened(s *spd, in *Input) Result {
	if in.Moved || in.Dir != Forward {
		return Result{Reason: ReasonTranslated, Rule: NoRule}
	}
	if r, ok := e.judgeOnward(s, in); ok {
		return r
	}
	if !e.noted.recall(in) {
		return Result{Reason: ReasonUnknownSA, Rule: NoRule}
	}
	in.Opened = false
	r := e.judgeWhole(s, in)
	in.Opened = true
	return r
}

// judgeOnward judges one of a flow; false: there is none.
func (e *Engine) judgeOnward(s *spd, in *Input) (Result, bool) {
	key, side, ok := flowKeyOf(in)
	if !ok {
		return Result{}, false
	}
	shard := e.flows.shard(&key)
	shard.Lock()
	defer shard.Unlock()
	f := shard.get(&key, in.Now)
	if f == nil || f.arrived == nil || f.arrived[side].sa == "" {
		return Result{}, false
	}
	a := &f.arrived[side]
	in.SA, in.InIf = a.sa, a.inIf
	if f.generation != s.generation {
		if r := s.redecide(f, in); r.Verdict == Discard {
			shard.remove(f)
			return r, true
		}
	}
	passed := passage{generation: s.generation, rule: f.rule, outIf: in.OutIf}
	if a.passed == passed && f.verdict == Protect {
		return Result{Verdict: Protect, Reason: ReasonFlow, Rule: f.rule, Established: true, opened: f.dir}, true
	}
	r, leaving := s.conduct(f, in, side)
	if r.Verdict == Discard {
		return r, true
	}
	if r = e.conform(s, in, r, leaving); r.Verdict == Protect {
		passed.rule = f.rule
		a.passed = passed
	}
	return r, true
}

// finishOpened counts a packet that was judged for the second time: what passes
// has been counted before.
func (e *Engine) finishOpened(s *spd, in *Input, r Result) Result {
	r.Reject = false // the answer would leave in the clear
	if r.Verdict == Discard {
		e.reasons[r.Reason].Add(1)
		if r.Reason == ReasonRule || r.Reason == ReasonDefault {
			s.count(in, &r)
		}
	}
	return r
}

// conformClear holds against the policy that a packet, which came out of the SA
// that its rule wants, leaves this host in the clear. It must not go back to
// where it came from sealed, unless the rule names that interface, and then not
// to the far side of that very rule; nor where policy would have it sealed (RFC 4301 section 5.2 step 4 hands what is
// forwarded to the outbound SPD).
func (s *spd) conformClear(in *Input, r Result) Result {
	rule := &s.policy.Rules[r.Rule]
	q := queryOf(in)
	switch {
	case in.OutIf != "" && in.OutIf == in.InIf && !rule.Names(in.OutIf):
		r.Verdict, r.Reason = Discard, ReasonTurnsBack
	case s.seals(&q, r.Rule), in.OutIf != "" && in.OutIf == in.InIf && rule.beyond(in.Packet.Dst):
		r.Verdict, r.Reason = Discard, ReasonMustSeal
	}
	return r
}

// beyond says whether an address is at the rule's remote side, also where the
// local side has it as well: a rule that has everything, or a network with the
// remote one in it, for its local side still wants that one sealed, as between
// two callers. Where all local addresses are remote ones, it does not tell.
func (r *Rule) beyond(a netip.Addr) bool {
	if !r.isRemote(a) {
		return false
	}
	if r.index != nil {
		return r.index.outside[familyOf(a)]
	}
	return r.localOutside(a)
}

// wholeFamily is all addresses of the family of one.
func wholeFamily(a netip.Addr) AddrRange {
	p, _ := a.WithZone("").Prefix(0)
	first := p.Addr().As16()
	last := first
	for i := 16 - a.BitLen()/8; i < 16; i++ {
		last[i] = 0xff
	}
	r := AddrRange{First: netip.AddrFrom16(first), Last: netip.AddrFrom16(last)}
	if a.Is4() {
		r.First, r.Last = r.First.Unmap(), r.Last.Unmap()
	}
	return r
}

// coversAddrs says whether one of the ranges has all of another. No ranges are
// all addresses.
func coversAddrs(list []AddrRange, r AddrRange) bool {
	return len(list) == 0 || slices.ContainsFunc(list, func(l AddrRange) bool { return l.Contains(r.First) && l.Contains(r.Last) })
}

// sealingTables makes spd.sealing.
func sealingTables(p *Policy) *[2]*classify.Classifier {
	if !slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.Forward && r.Action == Protect }) {
		return nil
	}
	var t [2]*classify.Classifier
	for i, family := range []classify.Family{classify.IPv4, classify.IPv6} {
		var boxes []classify.Box
		for j := range p.Rules {
			if r := &p.Rules[j]; r.mayLeave() {
				some, _ := boxesOf(&r.Selector, side{r.Local, r.LocalPorts}, side{r.Remote, r.RemotePorts}, family == classify.IPv6, int32(j))
				boxes = append(boxes, some...)
			}
		}
		t[i] = classify.Build(boxes, family)
	}
	return &t
}

// mayLeave says whether the rule decides about what leaves its local side on the
// forward path: to protect it whoever opens, to let it be only if it may open.
func (r *Rule) mayLeave() bool {
	return r.Forward && !r.Audit && r.Limit == nil && (r.Action == Protect || r.OpenedBy != OpenedByRemote)
}

// seals says whether policy protects what goes this way. by is the rule by whose
// SA the packet came: where it does not tell its sides apart, it came.
func (s *spd) seals(q *query, by int32) bool {
	if s.sealing == nil {
		return false
	}
	table := s.sealing[0]
	if q.v6 {
		table = s.sealing[1]
	}
	src, dst := netipAddr(q.key.Local, q.v6), netipAddr(q.key.Remote, q.v6)
	for from := int32(0); ; from++ {
		if from = table.First(&q.key, from); from < 0 {
			return false
		}
		r := &s.policy.Rules[from]
		if r.mismatchProtocol(q) == matches && r.mismatchEnds(src, dst, q.key.LocalPort, q.key.RemotePort) == matches &&
			r.mismatchRest(q) == matches {
			return r.Action == Protect && from != by
		}
	}
}

// noted are packets that came out of an SA and belong to no flow, such as ICMP
// errors, between the two times that they are judged. One that takes the place
// of another costs that one; bytes that two SAs have brought count for neither.
type noted struct {
	sync.Mutex
	seed  maphash.Seed
	slots []notedPacket // nil: none yet
}

type notedPacket struct {
	hash     uint64
	until    int64
	sa, inIf string
	holder   *esp.Holder
}

const (
	notedPackets = 1024
	notedTime    = 5 * second // in which the kernel has routed it
)

// hash is of what does not change on the way through this host.
func (n *noted) hash(p *packet.Packet) uint64 {
	return maphash.Bytes(n.seed, p.Bytes[p.Transport:p.Len]) ^ maphash.Comparable(n.seed, p.Src) ^ 3*maphash.Comparable(n.seed, p.Dst)
}

func (n *noted) note(in *Input) {
	if len(in.Packet.Bytes) < in.Packet.Len {
		return
	}
	n.Lock()
	defer n.Unlock()
	if n.slots == nil {
		n.slots, n.seed = make([]notedPacket, notedPackets), maphash.MakeSeed()
	}
	h := n.hash(&in.Packet)
	slot := &n.slots[h%notedPackets]
	is := notedPacket{hash: h, until: in.Now + notedTime, sa: in.SA, inIf: in.InIf, holder: in.Holder}
	if slot.hash == h && in.Now < slot.until && (slot.sa != is.sa || slot.holder != is.holder) {
		is.sa = ""
	}
	*slot = is
}

// recall finds out which SA a packet came out of.
func (n *noted) recall(in *Input) bool {
	n.Lock()
	defer n.Unlock()
	if n.slots == nil || len(in.Packet.Bytes) < in.Packet.Len {
		return false
	}
	h := n.hash(&in.Packet)
	slot := &n.slots[h%notedPackets]
	if slot.hash != h || slot.sa == "" || in.Now >= slot.until {
		return false
	}
	in.SA, in.InIf, in.Holder = slot.sa, slot.inIf, slot.holder
	return true
}
