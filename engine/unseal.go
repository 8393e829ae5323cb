package engine

import (
	"encoding/binary"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// Unseal is the first half of what Process does with a packet that arrives: it
// proves and opens b, from the SPI of an ESP packet to its ICV. in.Packet says
// whence and where to. If b is what a UDP socket has received on port 4500, that
// is addresses, ports, TOS and TTL; otherwise it is the whole datagram as
// packet.Parse reads it, with neither options nor extension headers.
//
// The result is PROTECT, and not counted, when u holds the clear packet: then it
// has to be judged by Process, alone or with others that it continues. Packets
// that are given with the same Now count as come at the same moment; of those
// that continue one another only the first is told to Options.Opened. It is
// BYPASS with ReasonIKE for an IKE message, which Process has to judge as what
// comes in by UDP.
func (e *Engine) Unseal(in *Input, b []byte, u *Unsealed) Result {
	r := e.unseal(in, b, u)
	if r.Verdict != Protect {
		return e.finish(e.spd.Load(), in, r)
	}
	return r
}

func (e *Engine) unseal(in *Input, b []byte, u *Unsealed) Result {
	u.comes(in)
	if in.Packet.Protocol == packet.UDP {
		if r, ok := notESP(b); ok {
			return r
		}
	}
	if e.options.SAD == nil {
		return Result{Reason: reasonOfESP(esp.UnknownSPI), Rule: NoRule}
	}
	payload, next, sa, rekey, f := e.options.SAD.OpenPayload(&u.recent, b, in.Packet.Dst, in.Now)
	if f == esp.OK && !rekey && next == packet.TCP && u.continues(in, sa, payload) {
		return Result{Verdict: Protect, Rule: NoRule}
	}
	u.Plain, u.last, u.SumOpen = nil, inside{}, false
	if r, ok := e.proved(in, b, sa, rekey, f); !ok {
		return r
	}
	if sa.Mode() == esp.Tunnel {
		if payload, f = sa.Inner(payload, next, in.Packet.TOS); f != esp.OK {
			return Result{Reason: reasonOfESP(f), Rule: NoRule}
		}
		return e.parse(u, in, sa, payload, nil)
	}
	whole := len(payload)
	if next == packet.TCP && whole >= 20 {
		payload = payload[:max(20, min(whole, int(payload[12]>>4)*4))]
	}
	head := u.header(&in.Packet, next, whole)
	at := len(head)
	head = append(head, payload...)
	u.room = head
	data := payload[len(payload):whole]
	if u.SumOpen = next == packet.TCP && sa.OpenSums(); !u.SumOpen {
		sa.MendChecksum(head, at, next, data)
	}
	r := e.parse(u, in, sa, head, data)
	if r.Verdict == Protect && next == packet.TCP {
		u.last = insideOf(sa, payload)
		u.Serial++
	}
	return r
}

// notESP deals with what comes to port 4500 and is not ESP.
func notESP(b []byte) (Result, bool) {
	switch esp.Classify(b) {
	case esp.IKEMessage:
		return Result{Verdict: Bypass, Reason: ReasonIKE, Rule: NoRule}, true
	case esp.NATKeepalive:
		return Result{Reason: ReasonKeepalive, Rule: NoRule}, true
	}
	return Result{}, false
}

// proved deals with what the SAD says of a packet that arrived. sealed is what
// Unseal was given, nil for Process.
func (e *Engine) proved(in *Input, sealed []byte, sa *esp.SA, rekey bool, f esp.Fault) (Result, bool) {
	if rekey && e.options.Rekey != nil {
		e.options.Rekey(sa)
	}
	if f == esp.UnknownSPI && e.options.Early != nil && e.options.Early(in, sealed) {
		return Result{Reason: ReasonHeld, Rule: NoRule}, false
	}
	if f != esp.OK {
		return Result{Reason: reasonOfESP(f), Rule: NoRule}, false
	}
	if e.options.Opened != nil {
		e.options.Opened(sa, in)
	}
	return Result{}, true
}

// header makes an IP header for n bytes of protocol next in place of the one
// that p describes, or, without UDP, begins with.
func (u *Unsealed) header(p *packet.Packet, next uint8, n int) []byte {
	b := u.room[:0]
	if p.Protocol != packet.UDP {
		b = append(b, p.Bytes[:p.Transport]...)
		if p.Version == 6 {
			binary.BigEndian.PutUint16(b[4:], uint16(n))
			b[6] = next
			return b
		}
		binary.BigEndian.PutUint16(b[2:], uint16(p.Transport+n))
		b[9], b[10], b[11] = next, 0, 0
		binary.BigEndian.PutUint16(b[10:], packet.Checksum(b, 0))
		return b
	}
	if p.Version == 6 {
		b = append(b, 6<<4|p.TOS>>4, p.TOS<<4, 0, 0, byte(n>>8), byte(n), next, p.TTL)
		src, dst := p.Src.As16(), p.Dst.As16()
		return append(append(b, src[:]...), dst[:]...)
	}
	n += 20
	b = append(b, 4<<4|5, p.TOS, byte(n>>8), byte(n), 0, 0, 0x40, 0, p.TTL, next, 0, 0)
	src, dst := p.Src.As4(), p.Dst.As4()
	b = append(append(b, src[:]...), dst[:]...)
	binary.BigEndian.PutUint16(b[10:], packet.Checksum(b, 0))
	return b
}

// parse reads the clear packet: head, and data behind it.
func (e *Engine) parse(u *Unsealed, in *Input, sa *esp.SA, head, data []byte) Result {
	if r, ok := e.inside(in, sa, head, len(head)+len(data), &u.Input); !ok {
		return r
	}
	p := &u.Input.Packet
	u.Data = data
	if data == nil && p.Protocol == packet.TCP && !p.Fragment {
		u.Data = p.Bytes[p.Payload:p.Len]
		p.Bytes = p.Bytes[:p.Payload]
	}
	return Result{Verdict: Protect, Rule: NoRule}
}

// inside reads what came out of an SA, n bytes that begin with head, in a packet
// of which in tells.
func (e *Engine) inside(in *Input, sa *esp.SA, head []byte, n int, inner *Input) (Result, bool) {
	*inner = Input{Now: in.Now, InIf: in.InIf, SA: sa.Owner().Name, Holder: sa.Holder(), Arriving: true, Tracked: in.Tracked, Again: in.Again, from: sa}
	if fault := packet.Parse(&inner.Packet, head, n); fault != packet.OK {
		return Result{Reason: ReasonOf(fault), Rule: NoRule}, false
	}
	// In transport mode the SA is for the one peer, whatever range of them
	// its rule names (RFC 4301 section 5.2 step 4).
	if src, _, _ := sa.Endpoints(); sa.Mode() == esp.Transport && src.IsValid() && src != inner.Packet.Src {
		return Result{Reason: ReasonWrongSA, Rule: NoRule}, false
	}
	if !e.isLocal(inner.Packet.Dst) {
		inner.Dir = Forward
	}
	// Of a fragment that is asked when its datagram is whole.
	if e.options.Carries != nil && !inner.Packet.Fragment && !e.options.Carries(sa, inner) {
		return Result{Reason: ReasonWrongSA, Rule: NoRule}, false
	}
	return Result{}, true
}

// admit judges what came out of an SA: the second half of what Process does
// with a packet that arrives. It gives what it has judged, a whole datagram.
func (e *Engine) admit(s *spd, in *Input, out *Output) (Result, *Input) {
	var r Result
	judged := in
	if in.Packet.Fragment && in.from != nil {
		r, judged = e.assemble(s, in, out)
	} else {
		r = e.judge(s, in)
	}
	r.Reject = false // the answer would leave in the clear
	if r.alone && judged.Dir == Forward && r.Verdict == Protect {
		e.noted.note(judged)
	}
	return r, judged
}
