package host

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
	"github.com/ipfw/ipfw/rules"
)

// keeper holds the SAs of the daemon. It makes those of manual blocks, gives
// the engine the one for each packet, and puts them away when their time is
// over or the policy no longer names them.
//
//	policy --prepare--> blocks --put--> in force --settle--> old SAs linger, then are wiped
//	                       |               +------undo-----> as it was before
//	                       +--drop: wiped
type keeper struct {
	sad     *esp.SAD
	numbers *numbers
	ring    *ring
	agreed  *pairs // by IKE

	blocks atomic.Pointer[blocks] // in force

	mu      sync.Mutex // whoever changes blocks or going
	going   []lingering
	reports throttle
}

// blocks are the ipsec blocks of a policy by name.
type blocks map[string]*block

// block is an ipsec block and its SAs.
type block struct {
	*rules.IPsec
	ike   *rules.IKE // where its keys come from; nil: manual
	rules []string   // that say with = this block, in order
	pair  []*sa      // manual: inbound, outbound
}

// sa is an SA set by hand, and what it was made of but for its keys.
type sa struct {
	*esp.SA
	id   [32]byte
	made esp.Config
}

// lingering is an SA that still serves what is under way.
type lingering struct {
	*sa
	until int64
}

// linger is how long SAs live on that others have taken the place of:
// packets of the peer, who has not moved yet, and of our own workers.
const linger = int64(10 * time.Second)

// pathReports is how many ICMP errors are looked at in a second: each costs a
// search, and anybody can send them.
const pathReports = 100

func newKeeper(n *numbers, r *ring) *keeper {
	sad := esp.NewSAD()
	k := &keeper{sad: sad, agreed: newPairs(sad), numbers: n, ring: r, reports: throttle{perSecond: pathReports, burst: pathReports}}
	k.blocks.Store(&blocks{})
	return k
}

// prepare makes the SAs of a policy that are not there yet. Nothing of it is in
// force before put.
func (k *keeper) prepare(p *rules.Policy, now int64) (blocks, error) {
	next := blocks{}
	for i := range p.IPsec {
		s := &p.IPsec[i]
		b := &block{IPsec: s, rules: rulesWith(&p.Engine, s.Name)}
		next[s.Name] = b
		if s.Manual == nil {
			b.ike, _ = p.FindIKE(s.IKE)
			continue
		}
		if err := k.manual(b, now); err != nil {
			k.drop(next)
			return nil, fmt.Errorf("%s: ipsec %q: %w", s.Place, s.Name, err)
		}
	}
	return next, nil
}

// rulesWith names the rules that an ipsec block carries.
func rulesWith(p *engine.Policy, name string) (list []string) {
	for i := range p.Rules {
		if r := &p.Rules[i]; r.Action == engine.Protect && r.With == name {
			list = append(list, r.Name)
		}
	}
	return list
}

// manual makes the two SAs of a manual block, or takes those that are in force
// if nothing about them has changed.
func (k *keeper) manual(b *block, now int64) error {
	in, out, err := b.ManualSAs()
	if err != nil {
		return err
	}
	old := (*k.blocks.Load())[b.Name]
	for i, c := range []esp.Config{in, out} {
		if c.Direction == esp.Out && !c.Src.IsValid() {
			c.Src = unspecified(c.Dst)
		}
		s := &sa{id: c.KeyID(), made: c}
		s.made.EncryptionKey, s.made.IntegrityKey = esp.Key{}, esp.Key{}
		if old != nil && len(old.pair) == 2 && old.pair[i].id == s.id && old.pair[i].made == s.made {
			b.pair = append(b.pair, old.pair[i])
		} else {
			c.Created = now
			var lost error
			if c.Sequence, lost = k.numbers.load(s.id); c.Direction == esp.In && c.NoReplayCheck {
				c.Sequence = 0 // it takes all numbers
			} else if lost != nil {
				k.ring.add(&Event{Kind: KindState, Place: b.Place, Message: fmt.Sprintf("the %s SA of ipsec %q: %v", c.Direction, b.Name, lost)})
			}
			switch {
			case !c.ESN && c.Sequence >= 1<<32:
				c.Sequence = 1<<32 - 1
			case c.Sequence >= noneLeft:
				c.Sequence = 1<<64 - 1
			}
			if s.SA, err = esp.New(c); err == nil {
				b.pair = append(b.pair, s)
			}
		}
		c.EncryptionKey.Wipe()
		c.IntegrityKey.Wipe()
		if err != nil {
			return err
		}
	}
	return nil
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// each calls f for every SA set by hand.
func (b blocks) each(f func(*block, *sa)) {
	for _, x := range b {
		for _, s := range x.pair {
			f(x, s)
		}
	}
}

// has says whether an SA belongs to the blocks.
func (b blocks) has(s *sa) bool {
	x := b[s.Owner().Name]
	return x != nil && slices.Contains(x.pair, s)
}

// drop wipes the SAs of blocks that never came in force.
func (k *keeper) drop(next blocks) {
	inForce := *k.blocks.Load()
	next.each(func(_ *block, s *sa) {
		if !inForce.has(s) {
			s.Close()
		}
	})
}

// put makes the SAs of next ready to seal and to open, beside those in force.
// An inbound SA takes the place of one with the same SPI, whose keys have
// changed. On error nothing is different from before.
func (k *keeper) put(next blocks) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := *k.blocks.Load()
	var err error
	next.each(func(b *block, s *sa) {
		if err != nil || old.has(s) {
			return
		}
		for _, g := range k.going { // its keys were there before
			if g.id == s.id {
				s.TakeOver(g.SA)
			}
		}
		old.each(func(_ *block, was *sa) {
			if was.id == s.id {
				s.TakeOver(was.SA)
			}
		})
		if was := k.ours(k.sad.Inbound(s.Protocol(), s.SPI())); s.Direction() == esp.In && was != nil {
			k.sad.Replace(was.SA, s.SA)
			return
		}
		if e := k.sad.Insert(s.SA); e != nil {
			err = fmt.Errorf("%s: ipsec %q: %w", b.Place, b.Name, e)
		}
	})
	k.blocks.Store(&next)
	if err != nil {
		k.undoLocked(old, next)
	}
	return err
}

// ours finds an inbound SA that is there among those of manual blocks; nil: it is
// none.
func (k *keeper) ours(was *esp.SA) (found *sa) {
	if was == nil {
		return nil
	}
	for _, g := range k.going {
		if g.SA == was {
			return g.sa
		}
	}
	k.blocks.Load().each(func(_ *block, s *sa) {
		if s.SA == was {
			found = s
		}
	})
	return found
}

// undo brings old back in place of next.
func (k *keeper) undo(old, next blocks) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.undoLocked(old, next)
}

func (k *keeper) undoLocked(old, next blocks) {
	k.blocks.Store(&old)
	next.each(func(_ *block, s *sa) {
		if old.has(s) {
			return
		}
		k.remove(s, true)
		old.each(func(_ *block, was *sa) {
			if was.id == s.id {
				was.TakeOver(s.SA)
			}
		})
	})
	old.each(func(_ *block, s *sa) {
		if s.Direction() == esp.In && !s.Closed() && k.sad.Inbound(s.Protocol(), s.SPI()) == nil {
			_ = k.sad.Insert(s.SA) // its place has just been left
		}
	})
	k.save() // of those that have gone on from others
}

// settle puts away the SAs of old that next does not have. Those of a block
// that is gone end at once, others when all have moved to their successors.
func (k *keeper) settle(old, next blocks, now int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old.each(func(b *block, s *sa) {
		switch {
		case next.has(s) || s.Closed():
		case next[b.Name] == nil:
			k.remove(s, true)
			k.tell(s.SA, "is gone: the policy names it no more")
		default:
			k.going = append(k.going, lingering{s, now + linger})
			k.tell(s.SA, "is replaced")
		}
	})
	next.each(func(_ *block, s *sa) {
		if !old.has(s) {
			k.tell(s.SA, "is up")
		}
	})
	k.save()
}

// outbound gives the SA that a packet under a rule leaves by, nil if there is
// none. It is called for every such packet.
func (k *keeper) outbound(r *engine.Rule, in *engine.Input) *esp.SA {
	b := (*k.blocks.Load())[r.With]
	if b != nil && b.ike != nil {
		return k.agreed.outbound(b.Name, &in.Packet, in.Holder)
	}
	if b == nil || len(b.pair) != 2 {
		return nil
	}
	// In transport mode the packet goes where its own header says, and the
	// SA is between two hosts only.
	if !b.Joins(in.Packet.Src, in.Packet.Dst) {
		return nil
	}
	if out := b.pair[1].SA; !out.Closed() {
		return out
	}
	return nil
}

// hiding gives the outbound SAs in force whose blocks ask for dummy packets.
func (k *keeper) hiding() map[*esp.SA]*block {
	var list map[*esp.SA]*block
	for _, b := range *k.blocks.Load() {
		if b.Dummies == 0 {
			continue
		}
		if list == nil {
			list = map[*esp.SA]*block{}
		}
		for s := range k.sad.All() {
			if s.Direction() == esp.Out && s.Owner().Name == b.Name && !s.Closed() && !k.replaced(s, b) {
				list[s] = b
			}
		}
	}
	return list
}

// replaced says of an SA that others have taken its place.
func (k *keeper) replaced(s *esp.SA, b *block) bool {
	if x, ok := s.Data().(*pair); ok {
		return x.replaced.Load()
	}
	return s.Config().Manual && !slices.ContainsFunc(b.pair, func(x *sa) bool { return x.SA == s })
}

// pathReport hears an ICMP error about what may be a sealed packet, and gives
// false if it would be one and none has been sent like it.
func (k *keeper) pathReport(quoted *packet.Packet, mtu int, now int64) bool {
	if quoted.Protocol == packet.UDP && quoted.SrcPort != portNAT {
		return true
	}
	if !k.reports.allow(now) {
		return quoted.Protocol != packet.UDP // of anything else the kernel learns nothing
	}
	const anyLink = 1 << 16 // what is quoted bounds it
	ours, proved := false, false
	hear := func(sa *esp.SA) {
		between, sent := sa.Sent(quoted)
		ours, proved = ours || between, proved || sent
		sa.PathReport(quoted, mtu, anyLink, now)
	}
	k.blocks.Load().each(func(_ *block, s *sa) { hear(s.SA) })
	for _, x := range k.agreed.towards(quoted.Dst) {
		hear(x.out)
	}
	return proved || !ours
}

// portNAT is the port of ESP in UDP (RFC 3948 section 2.1).
const portNAT = 4500

// tick ends what is over, once a second.
func (k *keeper) tick(now int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.going = slices.DeleteFunc(k.going, func(g lingering) bool {
		if g.until <= now {
			k.remove(g.sa, false)
		}
		return g.until <= now
	})
	k.blocks.Load().each(func(_ *block, s *sa) {
		if s.Closed() {
			return
		}
		if _, f := s.Due(now); f != esp.OK {
			k.remove(s, true)
			k.tell(s.SA, "has reached the end of its lifetime: what needs it is discarded until its keys are changed")
		}
	})
	k.save()
}

// remove takes out an SA, whose place another may have taken, and keeps in mind where
// it has ended: its keys may come back. last says that no other has had them since.
// Where another has them now, its number counts, and what this one has sent lies before.
func (k *keeper) remove(s *sa, last bool) {
	k.sad.Remove(s.SA)
	seq, another := s.End(), false
	k.blocks.Load().each(func(_ *block, x *sa) { another = another || x != s && x.id == s.id })
	if another || seq == 0 {
		return
	}
	if s.Direction() == esp.Out {
		seq = min(seq, noneLeft) + inWork
		last = last && seq < noneLeft
	}
	if last {
		k.numbers.exact(s.id, seq)
	} else {
		k.numbers.atLeast(s.id, seq)
	}
}

// inWork is more than the workers can have in hand of packets whose SA has ended.
const inWork = 1 << 20

// save keeps the sequence numbers of SAs set by hand over a restart.
func (k *keeper) save() {
	k.blocks.Load().each(func(_ *block, s *sa) {
		if !s.Closed() {
			k.numbers.save(s.id, s.Direction() == esp.Out, s.Counters().Seq)
		}
	})
}

// close ends all SAs and wipes their keys.
func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.blocks.Load().each(func(_ *block, s *sa) { k.numbers.exact(s.id, s.Counters().Seq) })
	for s := range k.sad.All() {
		k.sad.Remove(s)
	}
	for _, g := range k.going {
		k.remove(g.sa, false)
	}
}

// tell writes an event about an SA.
func (k *keeper) tell(s *esp.SA, what string) {
	k.ring.add(&Event{Kind: KindSA, Message: fmt.Sprintf("%s of ipsec %q %s", s, s.Owner().Name, what)})
}
