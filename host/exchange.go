package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/ike/eap"
	"github.com/ipfw/ipfw/nfq"
	"github.com/ipfw/ipfw/packet"
	"github.com/ipfw/ipfw/rules"
)

// exchange ties the key exchange to packets. The engine asks it for SAs; what
// has none yet waits here while the peer is called.
//
//	packet --> outbound --no SA--> hold, call -----> ike.Server <--> peer
//	              ^                  |                   |
//	              |  again, sealed <-+-- release <-- act +--> SAD, pairs
//	arriving --> opened: seen, roamed -------------------+
//	              `--unknown SPI--> early, until act has its SA
type exchange struct {
	d     *daemon
	pairs *pairs
	hold  *hold
	early *early
	names *names
	// resolvers of the host, told of those of gateways
	resolvers *resolvers

	server atomic.Pointer[ike.Server] // nil while the policy has no ike block
	// hearing is the same, and while it says farewell: peers answer that.
	hearing atomic.Pointer[ike.Server]
	// valid is for how long the certificates in force hold.
	valid atomic.Pointer[[]validity]
	// counts are what the key exchange last said of itself.
	counts atomic.Pointer[ike.Stats]
	// endpoints say where peers are, by ike block.
	endpoints atomic.Pointer[map[string]whereabouts]

	mu     sync.Mutex // orders commit and stop
	ended  bool       // nothing begins any more
	peers  []ikePeer  // in force
	cancel context.CancelFunc
	done   chan struct{} // of a Server that runs
	kick   chan struct{} // there are names to look up

	failed lastFailures
	icmp   throttle // of ICMP errors that the key exchange is told of

	// The Server's goroutine only:
	fresh []string      // blocks with a new SA in this step
	came  []earlyPacket // before the SAs of this step
	loans loans
}

func newExchange(d *daemon) *exchange {
	x := &exchange{d: d, pairs: d.keeper.agreed, hold: newHold(), early: newEarly(), kick: make(chan struct{}, 1),
		icmp: throttle{perSecond: malformedRate, burst: malformedBurst}}
	x.names, x.resolvers = newNames(x.tell), newResolvers(nfq.Device, x.tell)
	x.endpoints.Store(&map[string]whereabouts{})
	return x
}

// prepare reads the peers of a policy, with their keys, and opens the ports for
// the first ones. Nothing of it is in force before commit.
func (x *exchange) prepare(p *rules.Policy) (peers []ikePeer, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if peers, err = peersOf(p); err != nil || len(peers) == 0 || x.server.Load() != nil || x.ended {
		return peers, err
	}
	s, err := ike.Listen(ike.ServerConfig{
		Config: ike.Config{Rand: rand.Reader, Source: x.source, Unfit: x.unfit, Barred: x.barred, EAP: eap.New},
		Act:    x.act, Acted: x.release, Event: x.event, Send: x.send, Workers: x.d.o.Cores,
	})
	if err != nil {
		return nil, err
	}
	x.server.Store(s)
	x.hearing.Store(s)
	return peers, nil
}

// send sends by UDP port 500 or 4500, which belong to the packets.
func (x *exchange) send(d ike.Datagram) error {
	out := nfq.Datagram{Local: d.Local, Remote: d.Remote, Message: d.Data}
	if d.Keepalive {
		return x.d.firewall.SendKeepalive(&out)
	}
	return x.d.firewall.SendIKE(&out)
}

// heard takes what has come to UDP port 500 or 4500.
func (x *exchange) heard(d *nfq.Datagram) {
	if s := x.hearing.Load(); s != nil {
		s.Deliver(ike.Datagram{Local: d.Local, Remote: d.Remote, Data: bytes.Clone(d.Message)})
	}
}

// commit puts peers in force.
func (x *exchange) commit(peers []ikePeer) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.peers = peers
	var valid []validity
	for i := range peers {
		valid = append(valid, validitiesOf(peers[i].block, peers[i].Peer)...)
	}
	x.valid.Store(&valid)
	x.names.want(peers)
	s := x.server.Load()
	if s != nil && x.done == nil {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		x.cancel, x.done = cancel, done
		x.renewLocked(s.Post) // which Run does before it hears anybody
		go func() { defer close(done); s.Run(ctx, farewell) }()
		go x.names.follow(ctx, x.kick, x.renew)
	} else if s != nil {
		x.renewLocked(waited(s))
	}
	select {
	case x.kick <- struct{}{}:
	default:
	}
	if len(peers) == 0 {
		x.stopLocked()
	}
}

// undo gives up ports that were opened for a policy that did not come in force.
func (x *exchange) undo() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done == nil {
		x.stopLocked()
	}
}

// renew tells the key exchange where peers are now.
func (x *exchange) renew() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if s := x.server.Load(); s != nil {
		x.renewLocked(waited(s))
	}
}

// waited has a Server do something and waits until it is done.
func waited(s *ike.Server) func(func(*ike.Core, time.Time) ike.Output) bool {
	return func(f func(*ike.Core, time.Time) ike.Output) bool { return s.Call(f) == nil }
}

func (x *exchange) renewLocked(do func(func(*ike.Core, time.Time) ike.Output) bool) {
	list, endpoints := x.names.place(x.peers)
	x.endpoints.Store(&endpoints)
	if !do(func(c *ike.Core, now time.Time) ike.Output {
		o, err := c.Update(now, list)
		if err != nil { // they have been checked
			x.tell("the peers of the policy are not in force: " + err.Error())
		}
		return o
	}) {
		x.tell("the peers of the policy are not in force: the key exchange has stopped")
	}
}

// farewell is how long the end of the daemon waits for peers to hear of it.
const farewell = 2 * time.Second

// stop deletes what was agreed with peers and gives the ports up. Packets must
// still pass.
func (x *exchange) stop() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ended = true
	x.stopLocked()
}

func (x *exchange) stopLocked() {
	s := x.server.Swap(nil)
	if s == nil {
		return
	}
	if x.done != nil {
		x.cancel()
		<-x.done
		x.done = nil
	} else {
		_ = s.Close()
	}
	x.hearing.Store(nil)
	for _, c := range x.pairs.all() {
		x.pairs.remove(c.ID)
		x.loans.end(x.d.firewall, c.ID, x.tell)
	}
	x.resolvers.stop()
}

// source is the address that this host calls a peer from.
func (x *exchange) source(remote netip.Addr) netip.Addr { return x.d.firewall.SourceFor(remote) }

// call is how an SA for a packet is asked for.
type call struct {
	peer          string
	local, remote netip.Addr // local: the zero Addr is as the route has it
}

// callFor says whom to call for a packet that leaves under an ipsec block; false
// where nobody can be called.
func (x *exchange) callFor(b *block, p *packet.Packet) (c call, ok bool) {
	k := b.ike
	if k == nil || k.Initiate == rules.InitiateNever {
		return c, false
	}
	c = call{peer: k.Name, local: b.LocalEndpoint, remote: b.RemoteEndpoint}
	if !c.local.IsValid() {
		c.local = k.LocalEndpoint
	}
	if !b.Tunnel {
		// The packet's own ends are those of the SA.
		c.local, c.remote = p.Src, p.Dst
		return c, x.whyNoSA(b, p) == ""
	}
	if !c.remote.IsValid() {
		c.remote = (*x.endpoints.Load())[k.Name].call
	}
	return c, c.remote.IsValid()
}

// wait is engine.Options.Hold: it keeps a copy of a packet and has the peer
// called.
func (x *exchange) wait(r *engine.Rule, in *engine.Input) bool {
	s, b := x.server.Load(), (*x.d.keeper.blocks.Load())[r.With]
	if s == nil || b == nil {
		return false
	}
	c, ok := x.callFor(b, &in.Packet)
	if _, shared := x.pairs.byAddress(b.Name, &in.Packet); !ok || shared {
		return false // nobody can be called, or another SA would not tell for whom it is
	}
	ask, ok := x.hold.add(need{b.Name, c.remote}, in)
	if ask {
		name, flow := b.Name, flowOf(&in.Packet)
		s.Post(func(core *ike.Core, now time.Time) ike.Output {
			o, err := core.Initiate(now, ike.Call{Peer: c.peer, Child: name, Local: portless(c.local), Remote: portless(c.remote), Packet: flow})
			if err != nil {
				x.tellCaused(fmt.Sprintf("no SA for a packet of rule %q: %s", r.Name, err))
			}
			return o
		})
	}
	return ok
}

// flowOf is what the key exchange is told of a packet that needs an SA. Of ICMP
// all types are asked for, as by appendSelectors.
func flowOf(p *packet.Packet) ike.Flow {
	e := endsOf(p, true)
	side := func(a netip.Addr, port uint16) ike.TrafficSelector {
		t := ike.TrafficSelector{First: a, Last: a, Protocol: e.proto, LastPort: 65535}
		if p.HasPorts {
			t.FirstPort, t.LastPort = port, port
		}
		return t
	}
	return ike.Flow{Local: side(e.local, e.localPort), Remote: side(e.remote, e.remotePort)}
}

func portless(a netip.Addr) netip.AddrPort {
	if !a.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, 0)
}

// act does what the key exchange asks of the SAD.
func (x *exchange) act(list []ike.Action) {
	for i := range list {
		a := &list[i]
		switch a.Kind {
		case ike.Install:
			x.install(a)
			x.came = append(x.came, x.early.take(a.Child.SPIIn, x.d.now())...)
		case ike.UseSA:
			x.pairs.use(a.Child.ID)
			x.fresh = append(x.fresh, a.Child.Name)
		case ike.Move:
			x.pairs.move(&a.Child)
			x.loans.moved(x.d.firewall, &a.Child, x.tell)
		case ike.Expect:
			x.early.expect(a.Child.SPIIn)
		case ike.Forget:
			x.early.forget(a.Child.SPIIn)
		case ike.Remove:
			x.pairs.remove(a.Child.ID)
			x.loans.end(x.d.firewall, a.Child.ID, x.tell)
			x.resolvers.end(a.Child.ID)
		}
	}
}

func (x *exchange) install(a *ike.Action) {
	b := (*x.d.keeper.blocks.Load())[a.Child.Name]
	if b == nil {
		a.Child.In.Wipe()
		a.Child.Out.Wipe()
		return // a policy without it has just come in force
	}
	if b.Encap == rules.EncapNone && a.Child.UDPEncap {
		a.Child.In.Wipe()
		a.Child.Out.Wipe()
		x.tellCaused(fmt.Sprintf("a NAT is between this host and %s of ike %q, and ipsec %q says encapsulation = \"none\": what goes there is discarded; look at encapsulation in %s", a.Child.Remote, a.Child.Peer, b.Name, b.Place))
		if s, id := x.server.Load(), a.Child.ID; s != nil {
			s.Post(func(c *ike.Core, now time.Time) ike.Output { return c.DeleteChild(now, id) })
		}
		return
	}
	if _, err := x.pairs.install(&a.Child, b.IPsec, a.Use, x.d.now()); err != nil {
		x.tellCaused(fmt.Sprintf("the SAs that ike %q has agreed for ipsec %q cannot be used: %s", a.Child.Peer, a.Child.Name, err))
		return
	}
	x.loans.begin(x.d.firewall, &a.Child, x.tell)
	if len(a.Child.Assigned) > 0 {
		everything := func(t ike.TrafficSelector) bool {
			return ike.SelectorOf(netip.PrefixFrom(t.First, 0)) == ike.TrafficSelector{First: t.First, Last: t.Last, LastPort: 65535}
		}
		x.resolvers.begin(a.Child.ID, servers{a.Child.DNS, a.Child.Domains, slices.ContainsFunc(a.Child.RemoteTS, everything)})
	}
	if a.Use {
		x.fresh = append(x.fresh, a.Child.Name)
	}
}

// release opens what came too early, and sends the packets that have waited for
// what is there now. Each is
// judged again, under the policy and the SAs of this moment: the host's own on
// their way through the kernel, so that connection tracking sees the first
// packet of a flow; others, and such as are too long for that, here.
func (x *exchange) release() {
	x.open(x.came)
	blocks := x.fresh
	x.came, x.fresh = nil, nil
	var in engine.Input
	var out engine.Output
	for _, b := range blocks {
		ready := func(p *heldPacket) bool {
			return packet.Parse(&in.Packet, p.bytes, len(p.bytes)) == packet.OK && x.pairs.outbound(b, &in.Packet, p.in.Holder) != nil
		}
		for _, p := range x.hold.take(b, ready) {
			in = p.in
			in.Now, in.Again = x.d.now(), true
			if packet.Parse(&in.Packet, p.bytes, len(p.bytes)) != packet.OK {
				continue
			}
			if in.PartialChecksum && !in.Packet.Fragment {
				packet.SetChecksum(p.bytes[in.Packet.Transport:], in.Packet.Src, in.Packet.Dst, in.Packet.Protocol)
				in.PartialChecksum = false
			}
			if in.Dir == engine.Out && x.d.firewall.Again(p.bytes) == nil {
				x.hold.released.Add(1)
				continue
			}
			if r := x.d.engine.Process(&in, &out); r.Verdict == engine.Protect {
				x.sendHeld(&out)
			} // else a reason is counted; it may wait again
		}
	}
}

// sendHeld sends what was made of a packet that had waited.
func (x *exchange) sendHeld(out *engine.Output) {
	if out.Replace != nil {
		out.Send = append(out.Send, out.Replace)
	}
	sent := true
	for _, b := range out.Send {
		sent = x.d.firewall.Send(b) == nil && sent
	}
	if sent {
		x.hold.released.Add(1)
	} else {
		x.hold.lost.Add(1)
	}
}

// opened is engine.Options.Opened: the peer uses a new SA, or it speaks from
// elsewhere. The first packet of each kind is told; more would be the same.
func (x *exchange) opened(sa *esp.SA, in *engine.Input) {
	c, ok := sa.Data().(*pair)
	if !ok {
		return
	}
	s := x.server.Load()
	if s == nil {
		return
	}
	if !c.seen.Load() && c.seen.CompareAndSwap(false, true) {
		spi := c.SPIIn
		if !s.Post(func(core *ike.Core, now time.Time) ike.Output { return core.Seen(now, spi) }) {
			c.seen.Store(false)
		}
	}
	src, _, e := sa.Endpoints()
	from := netip.AddrPortFrom(in.Packet.Src, in.Packet.SrcPort)
	if e.SrcPort == 0 || src == in.Packet.Src && e.SrcPort == in.Packet.SrcPort || !c.tellRoamed(from, in.Now) {
		return
	}
	to := netip.AddrPortFrom(in.Packet.Dst, in.Packet.DstPort)
	spi := c.SPIIn
	if !s.Post(func(core *ike.Core, now time.Time) ike.Output { return core.Roamed(now, spi, to, from) }) {
		c.roamed.Store(nil)
	}
}

// rekey is engine.Options.Rekey: an SA has reached its soft lifetime.
func (x *exchange) rekey(sa *esp.SA) {
	c, ok := sa.Data().(*pair)
	s := x.server.Load()
	if !ok || s == nil {
		return
	}
	id := c.ID
	again := func(core *ike.Core, now time.Time) ike.Output { return core.RekeyChild(now, id) }
	if !s.Post(again) { // it is said once only, and must not be lost
		go func() { _ = s.Call(again) }() // fails only when all ends
	}
}

// tick does what is due once a second.
func (x *exchange) tick(now int64, n uint64) {
	x.hold.expire(now)
	x.open(x.early.expire(now))
	s := x.server.Load()
	if s == nil {
		return
	}
	for local, remote := range x.pairs.locals() {
		if x.d.firewall.IsLocal(local) {
			continue
		}
		if to := x.source(remote); to.IsValid() && to != local {
			s.Post(func(core *ike.Core, now time.Time) ike.Output { return core.AddressChange(now, local, to) })
		}
	}
	if n%reportPeriod == 0 {
		list := x.usage()
		s.Post(func(core *ike.Core, now time.Time) ike.Output { return core.Report(now, list) })
	}
}

// reportPeriod is how many seconds pass between reports of what children carry.
const reportPeriod = 5

// usage is what each child has carried of which that is another than before.
func (x *exchange) usage() []ike.Usage {
	var list []ike.Usage
	for _, c := range x.pairs.all() {
		in, out := c.in.Counters(), c.out.Counters()
		if n := in.Packets + out.Packets; n == c.reported {
			continue
		} else {
			c.reported = n
		}
		u := ike.Usage{ID: c.ID, Bytes: in.Bytes + out.Bytes, Packets: in.Packets + out.Packets}
		if in.Packets > 0 {
			u.LastIn = x.d.started.Add(time.Duration(in.Used))
		}
		list = append(list, u)
	}
	return list
}

func (x *exchange) tell(message string) {
	x.d.ring.add(&Event{Kind: KindIKE, Message: packet.Printable(message)})
}

// tellCaused tells what peers, or packets of anybody, can cause again and again.
func (x *exchange) tellCaused(message string) {
	x.d.ring.add(&Event{Kind: KindIKE, Message: packet.Printable(message), caused: true})
}
