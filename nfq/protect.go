package nfq

import (
	"log/slog"
	"net/netip"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// This file carries out the verdict PROTECT. A packet that leaves either goes
// on as its sealed self, or is dropped, and what was made of it is sent in its
// place. A packet that has arrived sealed goes on as what it held.
//
//	output   -- one for one ----> verdict with the sealed packet, if replaceable
//	output   -- else -----------> sender: UDP or raw socket, marked; drop
//	forward  -------------------> sender; drop
//	arriving -- for this host --> verdict with the opened packet, marked opened, if replaceable
//	arriving -- to be forwarded, or not replaceable --> TUN device; drop
//	arriving -- fragment, the last missing: the whole datagram, in one of these ways, or its pieces by the TUN device
//	opened, at the forward hook > verdict

// sealed gives the answer for a packet that leaves under an SA.
func (w *worker) sealed(m *message) answer {
	out := &w.out
	if out.Replace != nil {
		// What is not cut up yet would be cut up sealed, and in the forward
		// hook the kernel would send it where the clear one was to go.
		if m.hook == unix.NF_INET_LOCAL_OUT && m.info&skbGSO == 0 && w.replaceable(m.payload, out.Replace) {
			w.stats.sealed.Add(1)
			return answer{accept: true, replace: true}
		}
		out.Send = append(out.Send, out.Replace)
		out.Replace = nil
	}
	w.send.add(out.Send, out.Payload, m.outDev)
	return answer{}
}

// opened gives the answer for a packet that was taken as it arrived.
func (w *worker) opened(m *message, r *engine.Result) answer {
	switch {
	case r.Verdict == engine.Bypass && r.Reason == engine.ReasonIKE && w.fw.cfg.IKE != nil:
		w.ikeArrived(m)
		return answer{}
	case r.Verdict == engine.Bypass && r.Reason == engine.ReasonIKE:
		return answer{accept: true} // to meet the rules as any packet does
	case r.Verdict != engine.Protect:
		return answer{}
	case len(w.out.Send) > 0: // sealed again, for another peer
		return w.sealed(m)
	case w.out.Pieces != nil:
		w.deliver(w.out.Pieces...)
		return answer{}
	case w.out.Replace == nil:
		return answer{}
	}
	b := w.out.Replace
	if w.out.Opened().Dir != engine.Forward && (w.replaceable(m.payload, b) || onLink(b)) {
		w.stats.opened.Add(1)
		return answer{accept: true, replace: true, setMark: true, mark: m.mark&^uint32(w.fw.marks) | w.fw.marks.opened()}
	}
	w.deliver(b)
	return answer{}
}

// deliver hands what one packet has become to the kernel, by the TUN device.
func (w *worker) deliver(list ...[]byte) bool {
	for _, b := range list {
		if err := w.fw.tunnel.receive(b); err != nil {
			w.stats.unsent.Add(1)
			w.fw.cfg.Logger.Debug("opened packet not delivered", slog.Any("error", err))
			return false
		}
	}
	w.stats.opened.Add(1)
	return true
}

// tooBig tells the sender of the packet just judged the longest one that can
// be protected.
func (w *worker) tooBig(m *message, mtu int, now int64) {
	w.answer(m, now, func(b []byte, p *packet.Packet, from netip.Addr) []byte {
		return packet.TooBig(b, p, from, mtu)
	})
}

// destination reads it from an IP header.
func destination(b []byte) (netip.Addr, bool) {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(b[16:20])), true
	case len(b) >= 40 && b[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(b[24:40])), true
	}
	return netip.Addr{}, false
}
