package host

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
	"github.com/ipfw/ipfw/rules"
)

// pair is the two SAs of a child that IKE has agreed.
type pair struct {
	ike.ChildSA // without keys
	in, out     *esp.SA
	holder      *esp.Holder // where the peer's address may be that of others as well
	using       bool        // what we send goes by it

	replaced atomic.Bool // another does its work

	seen atomic.Bool // the key exchange knows that the peer uses it
	// roamed is the last packet from elsewhere than the peer was that the key
	// exchange has been told of; nil: none since the peer has moved.
	roamed atomic.Pointer[roaming]

	reported uint64 // packets that the key exchange knows of; its tick's only
}

// roaming is where a packet came from, and when.
type roaming struct {
	from netip.AddrPort
	at   int64
}

// roamEach is how often the key exchange is told at most of one pair, in
// nanoseconds: it may not follow (with MOBIKE another address is for the peer to
// tell), and then all that comes is from elsewhere.
const roamEach = int64(time.Second)

// tellRoamed says that the key exchange is to be told of a packet from elsewhere.
// What it did not follow is not told again, but the next place is.
func (c *pair) tellRoamed(from netip.AddrPort, now int64) bool {
	was := c.roamed.Load()
	if was != nil && (was.from == from || now-was.at < roamEach) {
		return false
	}
	return c.roamed.CompareAndSwap(was, &roaming{from, now})
}

// pairs are the children in the SAD. One goroutine, the key exchange's, changes
// them; packets find theirs without a lock.
//
//	out: ipsec block -> longest prefix of the remote selectors -> selectors
//	in:  SPI (SAD)   -> SA.Data                                -> selectors
type pairs struct {
	sad *esp.SAD

	mu   sync.Mutex
	byID map[uint64]*pair
	far  map[netip.Addr][]*pair // by the peer's address
	near map[netip.Addr]*near   // by our own
	who  map[who]*holding
	// ways leads to the SAs that what leaves under an ipsec block goes by.
	ways atomic.Pointer[map[string]*atomic.Pointer[ways]]
}

// ways are the pairs in use of one ipsec block, by the prefixes of their remote
// selectors, the newest first.
type ways = bart.Table[[]*pair]

// near is how many pairs use an address of ours, and the address of a peer to
// which it leads.
type near struct {
	n    int
	peer netip.Addr
}

func newPairs(sad *esp.SAD) *pairs {
	p := &pairs{sad: sad, byID: map[uint64]*pair{}, far: map[netip.Addr][]*pair{}, near: map[netip.Addr]*near{}, who: map[who]*holding{}}
	p.ways.Store(&map[string]*atomic.Pointer[ways]{})
	return p
}

// ends are what selectors are held against: a packet's two sides.
type ends struct {
	local, remote         netip.Addr
	localPort, remotePort uint16
	proto                 uint8
	noPorts               bool // a fragment that does not hold them
}

// endsOf reads the sides of a packet that leaves, or that has come out of an SA.
func endsOf(p *packet.Packet, leaving bool) ends {
	e := ends{p.Dst, p.Src, p.DstPort, p.SrcPort, p.Protocol, p.LaterFragment()}
	if leaving {
		e = ends{p.Src, p.Dst, p.SrcPort, p.DstPort, p.Protocol, p.LaterFragment()}
	}
	if p.HasICMP { // RFC 7296 section 3.13.1: type and code are the port
		e.localPort = uint16(p.ICMPType)<<8 | uint16(p.ICMPCode)
		e.remotePort = e.localPort
	}
	return e
}

// carries says that a packet is within what the two ends have agreed on. An ICMP
// error may also belong to the traffic that it speaks of (RFC 4301 section 6.2).
func (c *pair) carries(p *packet.Packet, leaving bool) bool {
	e := endsOf(p, leaving)
	if c.holds(&e) {
		return true
	}
	if !p.ICMPError() {
		return false
	}
	var quoted packet.Packet
	if p.Quoted(&quoted) != packet.OK {
		return false
	}
	e = endsOf(&quoted, !leaving)
	return c.holds(&e)
}

func (c *pair) holds(e *ends) bool {
	return within(c.LocalTS, e.local, e.localPort, e) && within(c.RemoteTS, e.remote, e.remotePort, e)
}

// within holds one side of a packet against selectors. OPAQUE is for what has no
// ports to be seen, and any other range of ports is not (RFC 4301 section 4.4.1.1).
func within(list []ike.TrafficSelector, a netip.Addr, port uint16, e *ends) bool {
	for i := range list {
		t := &list[i]
		if t.First.BitLen() == a.BitLen() && t.First.Compare(a) <= 0 && a.Compare(t.Last) <= 0 &&
			(t.Protocol == 0 || t.Protocol == e.proto) && (t.AnyPort() || !e.noPorts && t.FirstPort <= port && port <= t.LastPort || e.noPorts && t.Opaque()) {
			return true
		}
	}
	return false
}

// outbound gives the SA for a packet that leaves under an ipsec block. holder is
// who it is for; nil: its destination tells.
func (s *pairs) outbound(block string, p *packet.Packet, holder *esp.Holder) *esp.SA {
	if holder.Here() {
		return holder.Data.(*holding).outbound(block, p)
	}
	sa, _ := s.byAddress(block, p)
	return sa
}

// byAddress is outbound for a packet whose destination tells who it is for; nil
// and true: it does not, because several peers have that address.
func (s *pairs) byAddress(block string, p *packet.Packet) (sa *esp.SA, ok bool) {
	at := (*s.ways.Load())[block]
	if at == nil {
		return nil, false
	}
	t := at.Load()
	for at := netip.PrefixFrom(p.Dst, p.Dst.BitLen()); ; {
		found, list, ok := t.LookupPrefixLPM(at)
		if !ok {
			return nil, false
		}
		if c, ok := choose(list, p); ok {
			return c, true
		}
		if found.Bits() == 0 {
			return nil, false
		}
		at = netip.PrefixFrom(p.Dst, found.Bits()-1)
	}
}

// choose gives the SA of the first pair in a list that carries a packet; false:
// none does. nil and true: several peers have that address, and which of them is
// meant nothing tells. A guess would show one peer what is for another.
func choose(list []*pair, p *packet.Packet) (*esp.SA, bool) {
	var one *pair
	for _, c := range list {
		switch {
		case one != nil && c.holder == one.holder, !c.carries(p, true), c.out.Closed():
		case one != nil:
			return nil, true
		case c.holder == nil:
			return c.out, true
		default:
			one = c
		}
	}
	if one == nil {
		return nil, false
	}
	return one.out, true
}

// install makes both SAs of a child, the inbound one first, so that nothing can
// come that we do not open. b is its ipsec block.
func (s *pairs) install(c *ike.ChildSA, b *rules.IPsec, use bool, now int64) (*pair, error) {
	x := &pair{ChildSA: *c}
	x.In, x.Out = ike.Keys{}, ike.Keys{}
	defer c.In.Wipe()
	defer c.Out.Wipe()
	in, out, err := configsOf(c, b, now)
	if err != nil {
		return nil, err
	}
	in.Data, out.Data = x, x
	x.holder = s.hold(c)
	in.Holder, out.Holder = x.holder, x.holder
	made := false
	defer func() {
		if !made {
			s.letGo(x)
		}
	}()
	x.in, err = esp.New(in)
	if err == nil {
		x.out, err = esp.New(out)
	}
	for _, k := range []esp.Key{in.EncryptionKey, in.IntegrityKey, out.EncryptionKey, out.IntegrityKey} {
		k.Wipe()
	}
	if err != nil {
		return nil, err
	}
	if err := s.sad.Insert(x.in); err != nil {
		return nil, err
	}
	if err := s.sad.Insert(x.out); err != nil {
		s.sad.Remove(x.in)
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	made = true
	s.byID[x.ID] = x
	s.enter(x)
	if use {
		s.route(x)
	}
	return x, nil
}

// configsOf is what the SAs of a child are made of.
func configsOf(c *ike.ChildSA, b *rules.IPsec, now int64) (in, out esp.Config, err error) {
	proto := esp.ESP
	if c.Protocol == ike.ProtoAH {
		proto = esp.AH
	}
	suite, err := esp.NewSuite(proto, c.Encryption, c.Integrity)
	if err != nil {
		return in, out, err
	}
	base := esp.Config{
		Mode: esp.Transport, Suite: suite, ESN: c.ESN, ReplayWindow: b.ReplayWindow, Created: now,
		Owner: esp.Owner{Name: c.Name, Peer: c.Remote, ID: c.ID},
		Soft:  esp.Lifetime{Bytes: b.LifetimeBytes, Packets: b.LifetimePackets},
		// The other half of its life is there to agree on another.
		Hard: esp.Lifetime{Bytes: b.LifetimeBytes + b.LifetimeBytes/4, Packets: b.LifetimePackets + b.LifetimePackets/4},
	}
	base.ThroughNAT = c.UDPEncap
	if c.Mode == ike.Tunnel {
		base.Mode, base.Outer = esp.Tunnel, b.Outer
		if proto == esp.ESP && !c.NoTFC {
			base.TFC = b.TFC
		}
	}
	in, out = base, base
	in.SPI, in.Direction, in.Src, in.Dst = c.SPIIn, esp.In, c.Remote, c.Local
	out.SPI, out.Direction, out.Src, out.Dst = c.SPIOut, esp.Out, c.Local, c.Remote
	in.Encap, out.Encap = encapOf(c)
	in.EncryptionKey, in.IntegrityKey = esp.NewKey(c.In.Encryption), esp.NewKey(c.In.Integrity)
	out.EncryptionKey, out.IntegrityKey = esp.NewKey(c.Out.Encryption), esp.NewKey(c.Out.Integrity)
	return in, out, nil
}

func encapOf(c *ike.ChildSA) (in, out esp.Encap) {
	if !c.UDPEncap {
		return in, out
	}
	return esp.Encap{SrcPort: c.RemotePort, DstPort: c.LocalPort}, esp.Encap{SrcPort: c.LocalPort, DstPort: c.RemotePort}
}

// use makes a pair the one that packets leave by.
func (s *pairs) use(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.byID[id]; x != nil {
		s.unroute(x) // so that it becomes the newest
		s.route(x)
	}
}

// move takes a pair to other addresses or ports (RFC 4555).
func (s *pairs) move(c *ike.ChildSA) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.byID[c.ID]
	if x == nil {
		return
	}
	in, out := encapOf(c)
	s.leave(x)
	defer s.enter(x)
	x.Local, x.Remote, x.UDPEncap, x.LocalPort, x.RemotePort = c.Local, c.Remote, c.UDPEncap, c.LocalPort, c.RemotePort
	x.in.Move(c.Remote, c.Local, in)
	x.out.Move(c.Local, c.Remote, out)
	x.roamed.Store(nil)
}

// remove ends a pair and wipes its keys.
func (s *pairs) remove(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.byID[id]
	if x == nil {
		return
	}
	delete(s.byID, id)
	s.leave(x)
	s.unroute(x)
	s.sad.Remove(x.out)
	s.sad.Remove(x.in)
	s.letGoLocked(x)
}

// enter lets a pair be found by its addresses; leave takes it out. s.mu is held.
func (s *pairs) enter(x *pair) {
	s.far[x.Remote] = append(s.far[x.Remote], x)
	if s.near[x.Local] == nil {
		s.near[x.Local] = &near{}
	}
	s.near[x.Local].n++
	s.near[x.Local].peer = x.Remote
}

func (s *pairs) leave(x *pair) {
	list := s.far[x.Remote]
	if i := slices.Index(list, x); i >= 0 {
		list = slices.Delete(list, i, i+1)
	}
	if s.far[x.Remote] = list; len(list) == 0 {
		delete(s.far, x.Remote)
	}
	if n := s.near[x.Local]; n != nil {
		if n.n--; n.n == 0 {
			delete(s.near, x.Local)
		}
	}
}

// towards gives the pairs with a peer at an address.
func (s *pairs) towards(a netip.Addr) []*pair {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.far[a])
}

// locals are the addresses of this host that pairs use, each with a peer's.
func (s *pairs) locals() map[netip.Addr]netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := make(map[netip.Addr]netip.Addr, len(s.near))
	for a, n := range s.near {
		m[a] = n.peer
	}
	return m
}

// all gives the pairs, in no order.
func (s *pairs) all() []*pair {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*pair, 0, len(s.byID))
	for _, x := range s.byID {
		list = append(list, x)
	}
	return list
}

// route lets packets find a pair; unroute takes it out again. s.mu is held.
func (s *pairs) route(x *pair) {
	x.using = true
	if old := s.byID[x.Replaces]; old != nil {
		old.replaced.Store(true)
	}
	x.replaced.Store(false)
	first := func(list []*pair) []*pair { return append([]*pair{x}, list...) }
	x.held(first)
	s.change(x, first)
}

func (s *pairs) unroute(x *pair) {
	if !x.using {
		return
	}
	x.using = false
	without := func(list []*pair) []*pair {
		return slices.DeleteFunc(slices.Clone(list), func(o *pair) bool { return o == x })
	}
	x.held(without)
	s.change(x, without)
}

// change applies f to the list of each prefix of a pair's remote selectors.
func (s *pairs) change(x *pair, f func([]*pair) []*pair) {
	at := (*s.ways.Load())[x.Name]
	if at == nil {
		next := map[string]*atomic.Pointer[ways]{}
		for name, w := range *s.ways.Load() {
			next[name] = w
		}
		at = &atomic.Pointer[ways]{}
		at.Store(&ways{})
		next[x.Name] = at
		s.ways.Store(&next)
	}
	t := at.Load()
	done := map[netip.Prefix]bool{}
	for _, ts := range x.RemoteTS {
		for _, p := range prefixesOf(engine.AddrRange{First: ts.First, Last: ts.Last}) {
			if done[p] {
				continue
			}
			done[p] = true
			t = t.ModifyPersist(p, func(list []*pair, _ bool) ([]*pair, bool) {
				list = f(list)
				return list, len(list) == 0
			})
		}
	}
	at.Store(t)
}

// carries is for engine.Options.
func (s *pairs) carries(sa *esp.SA, in *engine.Input) bool {
	x, ok := sa.Data().(*pair)
	return !ok || x.carries(&in.Packet, false)
}

// String names the pair for events.
func (c *pair) String() string {
	return fmt.Sprintf("%#08x/%#08x", c.SPIIn, c.SPIOut)
}
