package engine

import (
	"math/rand/v2"
	"net/netip"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// Process judges a packet and does what its verdict asks for: it seals what
// must leave protected and opens what arrives as ESP or AH. A packet whose
// Arriving field is set has not met the input or forward chain yet; if it has
// an SA as well, it came out of that by Unseal.
//
//	Outbound:  Judge -> PROTECT -> SA -> cut to size -> esp Seal -> out.Replace or out.Send
//	Arriving:  SAD by SPI -> esp Open -> Parse inner -> Judge -> PROTECT by this very SA -> out.Replace
//	                                     Fragment -> until its datagram is whole
func (e *Engine) Process(in *Input, out *Output) Result {
	out.reset()
	s := e.spd.Load()
	var r Result
	judged := in
	if in.Arriving && in.SA != "" {
		r, judged = e.admit(s, in, out)
	} else if in.Arriving {
		r = e.arrive(s, in, out)
		if r.Rule != NoRule {
			judged = &out.inner
		}
	} else if r = e.judge(s, in); r.Verdict == Protect && r.sa != nil {
		e.seal(in, &r, out)
	} else if r.Reason == ReasonNoSA && e.options.Hold != nil && !in.Packet.Quotes() && e.options.Hold(&s.policy.Rules[r.Rule], in) {
		r.Reason = ReasonHeld
	}
	if in.Packet.HasICMP && in.Dir == In && !in.Arriving && e.options.PathReport != nil {
		if !e.pathReport(in) && r.Verdict == Bypass {
			r = Result{Reason: ReasonClearError, Rule: r.Rule, opened: r.opened}
		}
	}
	if e.options.ICMPError != nil && in.Dir == In && !in.Arriving && in.Packet.ICMPError() {
		e.options.ICMPError(in)
	}
	return e.finish(s, judged, r)
}

// pathReport passes on an ICMP error about a sealed packet of this host. Whether
// the error itself may come in is for the rules to say, but for false: it speaks
// of what no SA has sent, and would have the kernel's route to the far end
// believe it.
func (e *Engine) pathReport(in *Input) bool {
	mtu, ok := in.Packet.ReportedMTU()
	if !ok {
		return true
	}
	var quoted packet.Packet
	if in.Packet.Quoted(&quoted) != packet.OK {
		return true
	}
	switch quoted.Protocol {
	case packet.ESP, packet.AH, packet.UDP:
		return quoted.Src == in.Packet.Dst && e.options.PathReport(&quoted, mtu, in.Now)
	}
	return true
}

// seal protects the packet in the SA of its result, in pieces that fit the
// path. On failure the result becomes a discard.
func (e *Engine) seal(in *Input, r *Result, out *Output) {
	p, sa := &in.Packet, r.sa
	mtu := pathMTU(sa, in)
	most := sa.MaxInner(mtu)
	if p.Protocol == packet.TCP && !p.Fragment {
		packet.ClampMSS(p, uint16(max(0, sa.MSS(mtu, p.Version == 6))), in.PartialChecksum)
		e.sealTCP(in, r, out, most)
		return
	}
	if p.Len > most && e.mustNotFragment(in) {
		e.told.tell(p, in.Now)
		*r = Result{Reason: ReasonTooBig, Rule: r.Rule, TellMTU: most}
		if p.Version == 6 {
			r.TellMTU = max(most, minMTU6)
		}
		return
	}
	if in.PartialChecksum && !p.Fragment {
		packet.SetChecksum(p.Bytes[p.Transport:p.Len], p.Src, p.Dst, p.Protocol)
	}
	if p.Version == 6 && p.Len > most && sa.Mode() == esp.Tunnel && !p.Fragment {
		e.sealPieces(in, r, out, most)
		return
	}
	batch, f := sa.Reserve(1, in.Now)
	if f == esp.OK {
		batch.OpenUDPSum = in.UDPSocket && sa.SealedLenOf(p.Bytes[:p.Len]) <= mtu
		f = out.seal(&batch, sa, p.Bytes[:p.Len], mtu)
	}
	batch.Done()
	e.sealed(in, r, out, f, batch.Rekey)
}

// sealPieces seals the fragments of an IPv6 packet, each by itself. Where the
// tunnel ends a whole one would stand before a link that it does not fit, with
// nobody who may cut it: IPv6 is fragmented by its source alone, and what has
// come in pieces from there goes on in pieces (RFC 8200 section 5).
func (e *Engine) sealPieces(in *Input, r *Result, out *Output, most int) {
	p, sa := &in.Packet, r.sa
	pieces, err := packet.Fragment(p.Bytes[:p.Len], most, rand.Uint32())
	if err != nil {
		*r = Result{Reason: ReasonTooBig, Rule: r.Rule}
		return
	}
	batch, f := sa.Reserve(len(pieces), in.Now)
	for i := 0; i < len(pieces) && f == esp.OK; i++ {
		f = out.seal(&batch, sa, pieces[i], 1<<16)
	}
	batch.Done()
	e.sealed(in, r, out, f, batch.Rekey)
}

// sealTCP seals a TCP packet, cut into segments where it is longer than the
// path carries.
func (e *Engine) sealTCP(in *Input, r *Result, out *Output, most int) {
	sa := r.sa
	most = segmentLength(&in.Packet, most, r.longest)
	if err := out.segment.Reset(&in.Packet, most); err != nil {
		*r = Result{Reason: ReasonTooBig, Rule: r.Rule}
		return
	}
	batch, f := sa.Reserve(out.segment.Count(), in.Now)
	batch.OpenUDPSum = in.UDPSocket
	head, tail := sa.Room()
	for f == esp.OK {
		buf := out.room(head + most + tail)
		seg, more := out.segment.Next(buf[head:head:len(buf)])
		if !more {
			break
		}
		var sealed []byte
		if sealed, out.Payload, f = batch.SealInPlace(buf, head, len(seg)); f == esp.OK {
			out.Send = append(out.Send, sealed)
		}
	}
	batch.Done()
	e.sealed(in, r, out, f, batch.Rekey)
}

// seal appends one sealed datagram to Send, or its fragments when it is longer
// than the path carries: ESP is fragmented after it is made, never before
// (RFC 4303 section 3.3.4).
func (o *Output) seal(b *esp.Batch, sa *esp.SA, pkt []byte, mtu int) esp.Fault {
	head, tail := sa.Room()
	buf := o.room(head + len(pkt) + tail)
	copy(buf[head:], pkt)
	sealed, payload, f := b.SealInPlace(buf, head, len(pkt))
	if f != esp.OK {
		return f
	}
	if len(sealed) <= mtu {
		o.Send, o.Payload = append(o.Send, sealed), payload
		return esp.OK
	}
	pieces, err := packet.Fragment(sealed, mtu, fragmentID(sealed))
	if err != nil {
		return esp.TooBig
	}
	o.Send = append(o.Send, pieces...)
	return esp.OK
}

// sealed finishes the result of sealing.
func (e *Engine) sealed(in *Input, r *Result, out *Output, f esp.Fault, rekey bool) {
	if rekey && e.options.Rekey != nil {
		e.options.Rekey(r.sa)
	}
	if f != esp.OK {
		out.Send, out.Payload = out.Send[:0], 0
		*r = Result{Reason: reasonOfESP(f), Rule: r.Rule}
		return
	}
	out.sa = r.sa
	if _, _, udp := r.sa.Endpoints(); udp == (esp.Encap{}) {
		out.Payload = 0
	} else if in.UDPSocket && out.Payload > 0 {
		return
	}
	// One that became one of the same family can go on in its place, and the
	// kernel finds it another way if it has another destination; but not on
	// the forward path, where the way is found already.
	if len(out.Send) == 1 && in.Dir == Out && out.Send[0][0]>>4 == in.Packet.Version {
		out.Replace, out.Send = out.Send[0], out.Send[:0]
	}
}

// defaultMTU is taken for an interface that is not known.
const defaultMTU = 1500

// pathMTU is the longest sealed datagram that may leave: the interface's MTU,
// or less where the network has said so.
func pathMTU(sa *esp.SA, in *Input) int {
	mtu := in.MTU
	if mtu <= 0 {
		mtu = defaultMTU
	}
	if reported := sa.PathMTU(in.Now); reported != 0 {
		mtu = min(mtu, reported)
	}
	return mtu
}

// minMTU6 is what every link carries that IPv6 runs over, in bytes (RFC 8200
// section 5): no sender can be told less.
const minMTU6 = 1280

// mustNotFragment says whether a packet's sender wants to hear that it is too
// big, rather than have it cut: IPv4 with DF, and IPv6 that this host only
// forwards (RFC 4301 section 8.1, RFC 8200 section 5). What has come in pieces
// may go in pieces: what is longer than the link it came by, or comes from a
// sender who has been told.
func (e *Engine) mustNotFragment(in *Input) bool {
	p := &in.Packet
	if in.InMTU > 0 && p.Len > in.InMTU {
		return false
	}
	if p.Version == 6 {
		return in.Dir == Forward && p.Len > minMTU6 && !e.told.lately(p, in.Now)
	}
	return p.DontFragment
}

// arrive takes a packet from the wire before connection tracking: ESP and AH
// to this host are opened and judged by what they hold, IKE goes on to meet
// the rules as any packet does.
func (e *Engine) arrive(s *spd, in *Input, out *Output) Result {
	p := &in.Packet
	if p.Fragment {
		return Result{Reason: reasonOfESP(esp.Fragment), Rule: NoRule}
	}
	if p.Protocol == packet.UDP {
		if r, ok := notESP(p.Bytes[p.Payload:p.Len]); ok {
			return r
		}
	}
	if e.options.SAD == nil {
		return Result{Reason: reasonOfESP(esp.UnknownSPI), Rule: NoRule}
	}
	clear, sa, rekey, f := e.options.SAD.Open(p.Bytes[:p.Len], in.Now)
	if r, ok := e.proved(in, nil, sa, rekey, f); !ok {
		return r
	}
	inner := &out.inner
	if r, ok := e.inside(in, sa, clear, len(clear), inner); !ok {
		return r
	}
	r, _ := e.admit(s, inner, out)
	if r.Verdict == Protect && out.Replace == nil && out.Pieces == nil {
		out.Replace = clear
	}
	return r
}

// isLocal says whether packets to an address end at this host.
func (e *Engine) isLocal(a netip.Addr) bool {
	return e.options.IsLocal == nil || a.IsMulticast() || e.options.IsLocal(a)
}

// fragmentID gives the fragments of a sealed packet their identification: in
// IPv4 the packet's own, which AH covers (RFC 4302 section 3.3.3.1.1.1); in
// IPv6 the integrity value at the end, which is as good as random.
func fragmentID(sealed []byte) (id uint32) {
	if sealed[0]>>4 == 4 {
		return uint32(sealed[4])<<8 | uint32(sealed[5])
	}
	for _, b := range sealed[len(sealed)-4:] {
		id = id<<8 | uint32(b)
	}
	return id
}
