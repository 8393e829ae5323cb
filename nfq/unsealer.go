package nfq

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// Opener is a Handler that can open ESP apart from judging what it held:
// engine.Engine does. Encapsulated needs one.
type Opener interface {
	Handler
	// Unseal opens an ESP packet that a UDP socket has received; see
	// engine.Unseal. What comes out is given to Handle, alone or merged with
	// others that it continues.
	Unseal(in *engine.Input, b []byte, u *engine.Unsealed) engine.Result
	// Now is the time of packets that are given to Unseal, on the Handler's
	// own clock.
	Now() int64
}

// unsealer opens ESP packets, has them judged by what they held, and hands them
// to the kernel by the TUN device.
//
//	UDP socket, ring of the intake --> Unseal --> merger --> Handle --> TUN device
//	    `--> IKE message --> Handle --> Config.IKE
type unsealer struct {
	w      *worker
	opener Opener
	merge  *merger
	u      engine.Unsealed
	vnet   [sizeofVnetHeader]byte
}

func newUnsealer(w *worker, o Opener) *unsealer {
	u := &unsealer{w: w, opener: o}
	u.merge = newMerger(u.deliver)
	return u
}

// portReader reads ESP in UDP and IKE from port 4500, many datagrams in one
// (UDP_GRO), or IKE from port 500.
type portReader struct {
	*unsealer
	socket *udpSocket

	ring  []mmsghdr
	iov   []unix.Iovec
	ctls  []control
	slots []byte
}

// marker is how many zero bytes stand in front of an IKE message.
const marker = 4

// unsealSlots is how many messages are read at once; each holds up to 64 KiB.
const unsealSlots = 16

func newPortReader(w *worker, o Opener, s *udpSocket) *portReader {
	u := &portReader{unsealer: newUnsealer(w, o), socket: s}
	u.ring = make([]mmsghdr, unsealSlots)
	u.iov = make([]unix.Iovec, unsealSlots)
	u.ctls = make([]control, unsealSlots)
	u.slots = make([]byte, unsealSlots<<16)
	for i := range u.ring {
		u.iov[i].Base = &u.slots[i<<16]
		u.iov[i].SetLen(1 << 16)
		u.ring[i].hdr = unix.Msghdr{Name: &u.ctls[i].name[0], Iov: &u.iov[i], Control: &u.ctls[i].data[0]}
		u.ring[i].hdr.SetIovlen(1)
	}
	return u
}

// receive works until the context ends.
func (u *portReader) receive(ctx context.Context) {
	defer context.AfterFunc(ctx, u.socket.stop)()
	for !u.socket.stopped() {
		n, errno := u.recvmmsg()
		switch errno {
		case 0:
			u.socket.got(n)
			u.read(n)
		case unix.EAGAIN:
			u.socket.wait()
		case unix.EINTR:
		default:
			// An ICMP error about what was sent; the engine hears of those
			// that matter.
			u.w.fw.cfg.Logger.Debug("UDP", slog.Int("port", int(u.socket.port)), slog.Any("error", os.NewSyscallError("recvmmsg", errno)))
		}
	}
	u.socket.resume()
}

// recvmmsg fills the ring with what is there.
func (u *portReader) recvmmsg() (n int, errno syscall.Errno) {
	for i := range u.ring {
		h := &u.ring[i].hdr
		h.Namelen = uint32(len(u.ctls[i].name))
		h.SetControllen(len(u.ctls[i].data))
	}
	r, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(u.socket.fd),
		uintptr(unsafe.Pointer(&u.ring[0])), unsealSlots, unix.MSG_DONTWAIT, 0, 0)
	return int(r), errno
}

// read deals with the first n messages in the ring.
func (u *portReader) read(n int) {
	u.w.stats.Lock()
	defer u.w.stats.Unlock()
	now := u.opener.Now()
	for i := range n {
		u.message(&u.ring[i], u.slots[i<<16:][:u.ring[i].len], &u.ctls[i], now)
	}
	u.merge.flush()
}

// message deals with the datagrams of one message.
func (u *portReader) message(m *mmsghdr, b []byte, c *control, now int64) {
	in := &u.w.in
	*in = engine.Input{Now: now, Arriving: true}
	link, size := c.read(&m.hdr, &in.Packet, u.socket.port)
	if size == 0 || size > len(b) {
		size = len(b)
	}
	if m.hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || !in.Packet.Dst.IsValid() || len(b) == 0 {
		u.w.stats.unreadable.Add(1)
		return
	}
	from := u.w.fw.links.link(link)
	in.InIf, in.InMTU = from.name, from.mtu
	header := in.Packet.Payload
	for u.u.Again = false; len(b) > 0; u.u.Again = true {
		n := min(size, len(b))
		in.Packet.Len = header + n
		if u.socket.port == portIKE {
			u.w.stats.bytes.Add(uint64(n))
			u.ike(b[:n:n], link)
		} else {
			u.datagram(b[:n:n], link)
		}
		b = b[n:]
	}
}

// datagram deals with one datagram, of which the worker's input tells the rest.
func (u *unsealer) datagram(b []byte, link uint32) {
	u.w.stats.bytes.Add(uint64(len(b)))
	in := &u.w.in
	switch r := u.opener.Unseal(in, b, &u.u); {
	case r.Verdict == engine.Protect:
		u.merge.add(&u.u)
	case r.Verdict == engine.Bypass && r.Reason == engine.ReasonIKE:
		u.ike(b[marker:], link)
	default:
		u.count(1, false)
	}
}

// ike hands an IKE message on if policy lets its datagram in.
func (u *unsealer) ike(b []byte, link uint32) {
	in := u.w.in
	in.Arriving, in.Dir, in.Alone, in.Again = false, engine.In, true, in.Packet.DstPort == portNAT
	r := u.w.handler.Handle(&in, &u.w.out, packet.OK)
	f := u.w.fw.cfg.IKE
	if r.Verdict != engine.Bypass || f == nil {
		u.count(1, false)
		return
	}
	u.count(1, true)
	p := &in.Packet
	f(&Datagram{
		Local: netip.AddrPortFrom(p.Dst, p.DstPort), Remote: netip.AddrPortFrom(p.Src, p.SrcPort),
		Link: link, Message: b,
	})
}

// deliver judges what the merger has made and hands it to the kernel.
func (u *unsealer) deliver(t *train) {
	n := t.n + t.past
	t.in.Merged = n - 1
	r := u.w.handler.Handle(&t.in, &u.w.out, packet.OK)
	if r.Verdict != engine.Protect {
		u.count(n, false)
		return
	}
	if out := &u.w.out; out.Pieces != nil {
		u.count(n, u.w.deliver(out.Pieces...))
		return
	} else if out.Replace != nil {
		u.count(n, u.w.deliver(out.Replace))
		return
	}
	u.vnet = t.vnetHeader()
	t.iov[0] = unix.Iovec{Base: &u.vnet[0], Len: sizeofVnetHeader}
	if err := u.w.fw.tunnel.writev(t.iov); err != nil {
		u.count(n, false)
		u.w.stats.unsent.Add(1)
		u.w.fw.cfg.Logger.Debug("opened packet not delivered", slog.Any("error", err))
		return
	}
	u.count(n, true)
	u.w.stats.opened.Add(uint64(n))
}

func (u *unsealer) count(n int, accepted bool) { u.w.stats.count(uint64(n), accepted) }

// read fills in p what the kernel says of a message beside its bytes: where it
// came from and went to, and how. size is the length of the datagrams of which
// there are several; 0 if it is one. port is the socket's.
func (c *control) read(h *unix.Msghdr, p *packet.Packet, port uint16) (link uint32, size int) {
	p.Protocol, p.HasPorts, p.DontFragment = packet.UDP, true, true
	p.SrcPort, p.DstPort = binary.BigEndian.Uint16(c.name[2:]), port
	switch binary.NativeEndian.Uint16(c.name[:]) {
	case unix.AF_INET:
		p.Version, p.Transport, p.Payload = 4, 20, ipv4UDP
		p.Src = netip.AddrFrom4([4]byte(c.name[4:]))
	case unix.AF_INET6:
		p.Version, p.Transport, p.Payload = 6, 40, ipv6UDP
		p.Src = netip.AddrFrom16([16]byte(c.name[8:]))
	}
	b := c.data[:h.Controllen]
	for len(b) >= unix.SizeofCmsghdr {
		m := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := int(m.Len)
		if n < unix.SizeofCmsghdr || n > len(b) {
			break
		}
		v := b[unix.CmsgLen(0):n]
		switch {
		case m.Level == unix.IPPROTO_UDP && m.Type == udpGRO && len(v) >= 4:
			size = int(binary.NativeEndian.Uint32(v))
		case m.Level == unix.IPPROTO_IP && m.Type == unix.IP_PKTINFO && len(v) >= unix.SizeofInet4Pktinfo:
			link = binary.NativeEndian.Uint32(v)
			p.Dst = netip.AddrFrom4([4]byte(v[8:]))
		case m.Level == unix.IPPROTO_IPV6 && m.Type == unix.IPV6_PKTINFO && len(v) >= unix.SizeofInet6Pktinfo:
			p.Dst = netip.AddrFrom16([16]byte(v))
			link = binary.NativeEndian.Uint32(v[16:])
		case m.Level == unix.IPPROTO_IP && m.Type == unix.IP_TOS && len(v) >= 1:
			p.TOS = v[0]
		case m.Level == unix.IPPROTO_IP && m.Type == unix.IP_TTL && len(v) >= 4,
			m.Level == unix.IPPROTO_IPV6 && m.Type == unix.IPV6_HOPLIMIT && len(v) >= 4:
			p.TTL = uint8(binary.NativeEndian.Uint32(v))
		case m.Level == unix.IPPROTO_IPV6 && m.Type == unix.IPV6_TCLASS && len(v) >= 4:
			p.TOS = uint8(binary.NativeEndian.Uint32(v))
		}
		b = b[min(len(b), (n+7)&^7):]
	}
	return link, size
}
