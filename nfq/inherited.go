package nfq

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/ipfw/ipfw/packet"
)

// inherited are the connections that a predecessor had let through, as the kernel
// knows them at the start. A packet that comes out of an SA has no connection
// yet when it is judged, and no mark that would tell.
type inherited struct {
	flows atomic.Pointer[map[tuple]struct{}] // both directions of each; nil: none
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
	flows := map[tuple]struct{}{}
	admitted := f.marks.admitted()
	err := f.connections.dump(admitted, admitted, func(c *connection) {
		if len(flows) < inheritedMost {
			flows[c.orig], flows[c.reply] = struct{}{}, struct{}{}
		}
	})
	if err != nil {
		f.cfg.Logger.Warn("the kernel does not tell which flows an earlier ipfw had let through: those that are protected have to be opened anew", slog.Any("error", err))
		return
	}
	if len(flows) > 0 {
		f.inherited.flows.Store(&flows)
	}
}

// Inherited says whether a predecessor had let through the flow of a packet that
// came out of an SA.
func (f *Firewall) Inherited(p *packet.Packet) bool {
	flows := f.inherited.flows.Load()
	if flows == nil {
		return false
	}
	if f.Now() > int64(inheritedTime) {
		f.inherited.flows.Store(nil)
		return false
	}
	t := tuple{src: p.Src, dst: p.Dst, proto: p.Protocol}
	switch {
	case p.HasPorts:
		t.srcPort, t.dstPort = p.SrcPort, p.DstPort
	case p.HasICMP:
		t.srcPort, t.dstPort = p.EchoID, p.EchoID
	}
	_, there := (*flows)[t]
	return there
}
