package nfq

import (
	"log/slog"
	"net/netip"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// Handler judges packets. Each queue has one goroutine that calls it, so with
// several queues it is called concurrently. in and out are valid until Handle
// returns and the answer is given; where f is not packet.OK the packet could
// not be read and is dropped, whatever the result says. out is what becomes
// of the packet beside the result: engine.Process fills it.
type Handler interface {
	Handle(in *engine.Input, out *engine.Output, f packet.Fault) engine.Result
}

// worker turns the messages of one queue into engine inputs, and results into
// answers.
type worker struct {
	fw      *Firewall
	handler Handler
	in      engine.Input
	out     engine.Output
	send    *sender
	message message // room for a receiver's
	stats   *queueStats
	reply   []byte // room for the answer to a rejected packet
}

func newWorker(fw *Firewall, h Handler, stats *queueStats) *worker {
	w := &worker{fw: fw, handler: h, stats: stats}
	w.send = newSender(w)
	return w
}

// directions by netfilter hook. What arrives, in prerouting, has none yet;
// the engine finds out.
var directions = [...]engine.Direction{
	unix.NF_INET_LOCAL_IN:  engine.In,
	unix.NF_INET_FORWARD:   engine.Forward,
	unix.NF_INET_LOCAL_OUT: engine.Out,
}

// judge gives the answer for one packet; now is the Firewall's clock.
func (w *worker) judge(m *message, now int64) answer {
	if m.hook > unix.NF_INET_LOCAL_OUT {
		w.stats.unreadable.Add(1)
		return answer{} // somebody else's rule sent it here
	}
	in := &w.in
	fault := packet.Parse(&in.Packet, m.payload, m.wireLen)
	in.Dir = directions[m.hook]
	outLink := w.fw.links.link(m.outDev)
	inLink := w.fw.links.link(m.inDev)
	in.InIf, in.InMTU = inLink.name, inLink.mtu
	in.OutIf, in.MTU = outLink.name, outLink.mtu
	in.Now = now
	in.PartialChecksum = m.info&skbPartial != 0
	in.Opened, in.Moved = w.fw.marks.again(m)
	in.Arriving = m.hook == unix.NF_INET_PRE_ROUTING && !in.Opened
	in.Tracked = !in.Arriving && m.mark&w.fw.marks.admitted() != 0
	in.UDPSocket = w.fw.encap.Load()
	in.Expected = !in.Arriving && !in.Opened && m.mark&w.fw.marks.expected() == w.fw.marks.expected()
	in.Reply = !in.Expected && m.mark&w.fw.marks.reply() != 0
	in.Offloadable = w.fw.canOffload(m)
	in.SA, in.Holder = "", nil

	if in.Arriving && fault == packet.OK && w.ikeByQueue(&in.Packet) {
		w.ikeArrived(m)
		w.count(m, false)
		return answer{}
	}
	mended := fault == packet.OK && w.mend()
	r := w.handler.Handle(in, &w.out, fault)
	a := answer{}
	switch {
	case fault != packet.OK:
	case in.Opened:
		a.accept = r.Verdict == engine.Protect // with the queued bit
	case in.Arriving:
		a = w.opened(m, &r)
	case r.Verdict == engine.Protect:
		a = w.sealed(m)
	case r.Verdict == engine.Bypass:
		if a = w.passed(m, &r); mended && w.replaceable(m.payload, in.Packet.Bytes[:in.Packet.Len]) {
			w.out.Replace, a.replace = in.Packet.Bytes[:in.Packet.Len], true
		}
	case r.Verdict == engine.Discard && r.Offload != 0:
		w.refused(m, &r)
	case r.Verdict == engine.Discard && r.Reject:
		w.reject(m, now)
	case r.Verdict == engine.Discard && r.TellMTU > 0:
		w.tooBig(m, r.TellMTU, now)
	}
	if !in.Opened || !a.accept { // else it was counted as it arrived
		w.count(m, a.accept)
	}
	return a
}

// mend gives a packet back the checksum that the kernel has spoilt in queueing it.
func (w *worker) mend() bool {
	p := &w.in.Packet
	return p.Protocol == packet.SCTP && !p.Fragment && len(p.Bytes) >= p.Len && packet.MendSCTP(p.Bytes[p.Transport:p.Len])
}

func (w *worker) count(m *message, accepted bool) {
	w.stats.count(1, accepted)
	w.stats.bytes.Add(uint64(m.wireLen))
}

// passed gives the answer for a packet that goes on as it is.
func (w *worker) passed(m *message, r *engine.Result) answer {
	if w.offloads(r) {
		return answer{accept: true, setMark: true, mark: w.fw.marks.offloadMark(m.mark)}
	}
	if r.NewFlow || r.Established {
		return answer{accept: true} // with the queued bit: its connection is remembered
	}
	return answer{accept: true, setMark: true, mark: m.mark &^ uint32(w.fw.marks)}
}

// reject answers the packet just judged: a reset for TCP, an ICMP error for
// everything else.
func (w *worker) reject(m *message, now int64) {
	w.answer(m, now, func(b []byte, p *packet.Packet, from netip.Addr) []byte {
		if p.Protocol == packet.TCP {
			return packet.Reset(b, p)
		}
		return packet.Unreachable(b, p, from)
	})
}

// answer sends to the sender of the packet just judged what compose makes of it,
// if the rate of answers allows.
func (w *worker) answer(m *message, now int64, compose func(b []byte, p *packet.Packet, from netip.Addr) []byte) {
	p := &w.in.Packet
	if !w.fw.rejects.take(now) {
		w.stats.suppressed.Add(1)
		return
	}
	from := p.Dst // inbound: the host that was asked answers
	switch w.in.Dir {
	case engine.Out:
		from = p.Src // this host answers itself
		if !w.fw.IsLocal(from) {
			return // ... and nobody else, whatever a program has put there
		}
	case engine.Forward:
		from = w.fw.inject.sourceFor(p.Src, m.inDev)
	}
	w.reply = compose(w.reply[:0], p, from)
	if len(w.reply) == 0 {
		return // nothing may be answered
	}
	if err := w.fw.inject.send(w.reply, p.Src, m.inDev); err != nil {
		w.stats.sendErrors.Add(1)
		w.fw.cfg.Logger.Debug("answer not sent", slog.Any("to", p.Src), slog.Any("error", err))
		return
	}
	w.stats.rejected.Add(1)
}
