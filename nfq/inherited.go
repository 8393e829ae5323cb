package nfq

import (
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// inherited are the connections that a predecessor had let through, as the kernel
// knows them at the start. A packet that comes out of an SA has no connection
// yet when it is judged, and no mark that would tell. By whom a connection was
// expected is told by no packet once it has begun, also where the predecessor took
// its table along and left its marks.
type inherited struct {
	flows atomic.Pointer[map[tuple]struct{}] // both directions of each; nil: none
	// masters are those of the connections that were expected, by both directions of
	// each as the rules see it; nil: none.
	masters atomic.Pointer[map[tuple]engine.Ends]
}

// inheritedTime is how long after the start they are looked for. It outlasts TCP's
// longest wait before it repeats itself (RFC 6298 section 2.5), twice.
const inheritedTime = 2 * time.Minute

// inheritedMost bounds what is remembered. Flows beyond it have to be opened anew.
const inheritedMost = 1 << 20

// inherit asks the kernel for them.
func (f *Firewall) inherit() {
	if f.connections == nil {
		return
	}
	flows, masters := map[tuple]struct{}{}, map[tuple]engine.Ends{}
	admitted := f.marks.admitted()
	err := f.connections.dump(admitted, admitted, func(c *connection) {
		if len(flows) < inheritedMost {
			flows[c.orig], flows[c.reply] = struct{}{}, struct{}{}
			c.addMaster(masters)
		}
	})
	if err != nil {
		f.cfg.Logger.Warn("the kernel does not tell which flows an earlier ipfw had let through: those that are protected, or expected by a helper, have to be opened anew", slog.Any("error", err))
		return
	}
	if len(flows) > 0 && f.tookOver {
		f.inherited.flows.Store(&flows)
	}
	if len(masters) > 0 {
		f.inherited.masters.Store(&masters)
	}
}

// addMaster notes who expected the connection. A master may be over, and where its
// destination was translated is not known then: it counts as one that was not.
func (c *connection) addMaster(masters map[tuple]engine.Ends) {
	m := &c.master
	if !m.src.IsValid() {
		return
	}
	seen := c.orig // behind destination and before source translation
	seen.dst, seen.dstPort = c.reply.src, c.reply.srcPort
	ends := engine.Ends{Protocol: m.proto, Source: netip.AddrPortFrom(m.src, m.srcPort), Dest: netip.AddrPortFrom(m.dst, m.dstPort)}
	masters[seen], masters[seen.turned()] = ends, ends
}

func (t tuple) turned() tuple {
	return tuple{src: t.dst, dst: t.src, srcPort: t.dstPort, dstPort: t.srcPort, proto: t.proto}
}

// Inherited says whether a predecessor had let through the flow of a packet that
// came out of an SA.
func (f *Firewall) Inherited(p *packet.Packet) bool {
	flows := f.inherited.flows.Load()
	if flows == nil || f.inheritedOver() {
		return false
	}
	_, there := (*flows)[tupleOf(p)]
	return there
}

// inheritedOver forgets all when its time is over.
func (f *Firewall) inheritedOver() bool {
	if f.Now() <= int64(inheritedTime) {
		return false
	}
	f.inherited.flows.Store(nil)
	f.inherited.masters.Store(nil)
	return true
}

// tupleOf is the direction of a connection that a packet runs in.
func tupleOf(p *packet.Packet) tuple {
	t := tuple{src: p.Src, dst: p.Dst, proto: p.Protocol}
	switch {
	case p.HasPorts:
		t.srcPort, t.dstPort = p.SrcPort, p.DstPort
	case p.HasICMP:
		t.srcPort, t.dstPort = p.EchoID, p.EchoID
	}
	return t
}

// Master gives the connection that expects the packet's flow, if one does and it is
// known: of a packet that is Expected, and of one of a flow that a predecessor had
// let through.
func (f *Firewall) Master(in *engine.Input) (engine.Ends, bool) {
	if in.Expected {
		return f.expectations.master(&in.Packet)
	}
	masters := f.inherited.masters.Load()
	if masters == nil || f.inheritedOver() {
		return engine.Ends{}, false
	}
	ends, known := (*masters)[tupleOf(&in.Packet)]
	return ends, known
}
