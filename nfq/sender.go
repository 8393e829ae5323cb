package nfq

import (
	"encoding/binary"
	"log/slog"
	"net/netip"
	"unsafe"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// sender gathers the sealed datagrams of one worker and sends many with one
// system call, in their order: ESP in UDP by the UDP socket, of which the
// kernel cuts one message into datagrams of equal length (UDP_SEGMENT), and all
// else by the raw socket. The datagrams stay in the worker's Output until then.
//
//	| header | datagram 1 | header | datagram 2 | header | last |     in the Output
//	           `--- iovec      `--- iovec            `--- iovec       one message
//
// What a UDP socket is told of the outer header (addresses, type of service,
// time to live, flow label) is read from the header that the engine has made,
// so that a datagram is the same whichever way it takes.
type sender struct {
	w    *worker
	msgs []mmsghdr
	iovs []unix.Iovec
	ctls []control
	pkts [][]byte        // whole datagrams, one for each iovec
	from []engine.Sealer // of each message
	n, k int             // messages and datagrams gathered
	used int             // bytes gathered
	kept int             // datagrams that were there when the last messages were sent
	fd   int             // that they go out by
	open udpRun          // what a next datagram must be to join the last message
	link uint32          // that they go out by, for link-local destinations
}

// udpRun is a message of several UDP datagrams, from the same address to the
// same address.
type udpRun struct {
	head  [ipv6UDP]byte // of the first datagram: IP and UDP headers
	size  int           // bytes of each datagram but the last; 0: none can join
	n     int
	bytes int
}

// control is what a message says beside its bytes.
type control struct {
	name [unix.SizeofSockaddrInet6]byte
	data [160]byte
}

const (
	// sendMessages and sendDatagrams are how many are gathered at most.
	sendMessages  = 256
	sendDatagrams = 1024
	// sendBytes is how many bytes are gathered before they are sent: what the
	// second cache of a core holds with ease.
	sendBytes = 64 << 10
	// runDatagrams is UDP_MAX_SEGMENTS of linux/udp.h, before Linux 6.7.
	runDatagrams = 64
	// runBytes is how long a message may be; headers are to fit into 64 KiB.
	runBytes = 1<<16 - 1 - ipv6UDP

	ipv4UDP = 20 + 8
	ipv6UDP = 40 + 8
)

func newSender(w *worker) *sender {
	return &sender{
		w: w, fd: -1,
		msgs: make([]mmsghdr, sendMessages), ctls: make([]control, sendMessages), from: make([]engine.Sealer, sendMessages),
		iovs: make([]unix.Iovec, sendDatagrams), pkts: make([][]byte, sendDatagrams),
	}
}

// add takes the sealed datagrams of a packet that leaves by link. payload is
// where in each the payload of UDP begins, if a UDP socket is to send it.
func (s *sender) add(datagrams [][]byte, payload int, link uint32) {
	var direct *shortWay
	if payload == 0 {
		direct = s.w.fw.shortcut.way(datagrams, s.w.fw.Now)
	}
	for _, b := range datagrams {
		at, fd := s.way(b, payload)
		via := direct
		if via != nil && via.fits(b) {
			fd = s.w.fw.shortcut.fd
		} else {
			via = nil
		}
		if fd < 0 {
			s.w.stats.unsent.Add(1)
			continue
		}
		if s.k > 0 && (fd != s.fd || link != s.link || s.n == sendMessages || s.k == sendDatagrams) {
			s.flush()
		}
		s.fd, s.link = fd, link
		switch {
		case via != nil:
			s.direct(via)
		case at == 0 || !s.join(b, at):
			s.message(b, at)
		}
		s.pkts[s.k] = b
		s.iovs[s.k].Base = &b[at]
		s.iovs[s.k].SetLen(len(b) - at)
		s.k++
		s.used += len(b)
	}
	s.w.out.Keep()
}

// way says by which socket a datagram goes, and from which byte on.
func (s *sender) way(b []byte, payload int) (at, fd int) {
	in := s.w.fw.inject
	v6 := b[0]>>4 == 6
	if payload == ipv4UDP && !v6 && in.port4.bound.Load() && b[6]&0x40 != 0 && binary.BigEndian.Uint16(b[20:]) == portNAT {
		return payload, in.port4.fd
	}
	if payload == ipv6UDP && v6 && in.port6.bound.Load() && binary.BigEndian.Uint16(b[40:]) == portNAT {
		return payload, in.port6.fd
	}
	if v6 {
		sumUDP6(b)
		return 0, in.raw6
	}
	return 0, in.raw4
}

// sumUDP6 fills in a UDP checksum that was left to the UDP socket.
func sumUDP6(b []byte) {
	if b[6] == packet.UDP && len(b) >= ipv6UDP && b[ipv6UDP-2]|b[ipv6UDP-1] == 0 {
		packet.SetChecksum(b[ipv6UDP-8:], netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), packet.UDP)
	}
}

// join puts a datagram behind those of the last message if they differ in
// nothing but length and identification, and the last one ends the message.
func (s *sender) join(b []byte, at int) bool {
	r, n := &s.open, len(b)-at
	if r.size < n || r.n == runDatagrams || r.bytes+n > runBytes || !sameFlow(r.head[:at], b[:at]) {
		return false
	}
	if n < r.size {
		r.size = 0
	}
	r.n++
	r.bytes += n
	m := &s.msgs[s.n-1].hdr
	m.SetIovlen(r.n)
	if r.n == 2 {
		s.segmented(m, len(s.pkts[s.k-1])-at)
	}
	return true
}

// sameFlow compares the headers of two datagrams: all of IPv4 and UDP but the
// lengths, the identification and the checksums; all of IPv6 and UDP but the
// lengths and the checksum.
func sameFlow(a, b []byte) bool {
	if len(a) == ipv4UDP {
		return a[1] == b[1] && [2]byte(a[6:]) == [2]byte(b[6:]) && [2]byte(a[8:]) == [2]byte(b[8:]) &&
			[12]byte(a[12:]) == [12]byte(b[12:])
	}
	return [4]byte(a) == [4]byte(b) && [38]byte(a[6:]) == [38]byte(b[6:])
}

// direct begins a message with a datagram that takes the shortcut.
func (s *sender) direct(via *shortWay) {
	m := &s.msgs[s.n].hdr
	s.from[s.n] = s.w.out.Sealer()
	s.n++
	*m = unix.Msghdr{Name: &via.name[0], Namelen: unix.SizeofSockaddrLinklayer, Iov: &s.iovs[s.k]}
	m.SetIovlen(1)
	s.open = udpRun{}
}

// message begins another message with a datagram.
func (s *sender) message(b []byte, at int) {
	m, c := &s.msgs[s.n].hdr, &s.ctls[s.n]
	s.from[s.n] = s.w.out.Sealer()
	s.n++
	*m = unix.Msghdr{Name: &c.name[0], Iov: &s.iovs[s.k]}
	m.SetIovlen(1)
	s.open = udpRun{}
	var port uint16
	if at > 0 {
		port = binary.BigEndian.Uint16(b[at-6:])
	}
	clear(c.name[:])
	if b[0]>>4 == 4 {
		m.Namelen = unix.SizeofSockaddrInet4
		binary.NativeEndian.PutUint16(c.name[:], unix.AF_INET)
		binary.BigEndian.PutUint16(c.name[2:], port)
		copy(c.name[4:], b[16:20])
	} else {
		m.Namelen = unix.SizeofSockaddrInet6
		binary.NativeEndian.PutUint16(c.name[:], unix.AF_INET6)
		binary.BigEndian.PutUint16(c.name[2:], port)
		copy(c.name[8:], b[24:40])
		binary.NativeEndian.PutUint32(c.name[24:], zone(netip.AddrFrom16([16]byte(b[24:40])), s.link))
	}
	if at == 0 {
		return
	}
	s.open = udpRun{size: len(b) - at, n: 1, bytes: len(b) - at}
	copy(s.open.head[:], b[:at])
	m.Control = &c.data[0]
	c.add32(m, unix.SOL_SOCKET, unix.SO_MARK, s.w.fw.inject.mark)
	if b[0]>>4 == 4 {
		var info [unix.SizeofInet4Pktinfo]byte // its second word is the source address
		copy(info[4:], b[12:16])
		c.add(m, unix.IPPROTO_IP, unix.IP_PKTINFO, info[:])
		c.add32(m, unix.IPPROTO_IP, unix.IP_TOS, uint32(b[1]))
		c.add32(m, unix.IPPROTO_IP, unix.IP_TTL, uint32(b[8]))
		return
	}
	var info [unix.SizeofInet6Pktinfo]byte
	copy(info[:], b[8:24])
	binary.NativeEndian.PutUint32(info[16:], zone(netip.AddrFrom16([16]byte(b[8:24])), s.link))
	c.add(m, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, info[:])
	c.add32(m, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, uint32(b[0]<<4|b[1]>>4))
	c.add32(m, unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, uint32(b[7]))
	if label := [4]byte{0, b[1] & 0xf, b[2], b[3]}; label != [4]byte{} {
		c.add(m, unix.IPPROTO_IPV6, ipv6FlowInfo, label[:])
	}
}

// segmented says that a message holds datagrams of size bytes.
func (s *sender) segmented(m *unix.Msghdr, size int) {
	var v [2]byte
	binary.NativeEndian.PutUint16(v[:], uint16(size))
	s.ctls[s.n-1].add(m, unix.IPPROTO_UDP, udpSegment, v[:])
}

func (c *control) add32(m *unix.Msghdr, level, typ int32, v uint32) {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], v)
	c.add(m, level, typ, b[:])
}

// add appends a control message.
func (c *control) add(m *unix.Msghdr, level, typ int32, v []byte) {
	at := int(m.Controllen)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c.data[at]))
	h.Level, h.Type = level, typ
	h.SetLen(unix.CmsgLen(len(v)))
	copy(c.data[at+unix.CmsgLen(0):], v)
	m.SetControllen(at + unix.CmsgSpace(len(v)))
}

// flush sends what is gathered.
func (s *sender) flush() {
	if s.k == 0 {
		return
	}
	s.transmit(s.n)
	s.n, s.k, s.used, s.kept = 0, 0, 0, 0
	s.open = udpRun{}
	s.w.out.Release()
}

// flushFull is flush, but for a last message that still has room: a super-packet
// makes a little more than one message can hold, and what is left is worth a
// message of its own only when nothing follows. The datagrams that stay have to
// be new ones.
//
//	| 44 datagrams | 2      first super-packet
//	| 2 + 42 | 4            second
func (s *sender) flushFull() {
	m := &s.msgs[max(s.n-1, 0)].hdr
	if first := s.k - int(m.Iovlen); s.k > s.kept && first >= s.kept && s.open.room() {
		s.transmit(s.n - 1)
		s.keep(first)
		return
	}
	s.flush()
}

// room says that another datagram may join.
func (r *udpRun) room() bool {
	return r.size > 0 && r.n < runDatagrams && r.bytes+r.size <= runBytes
}

// keep makes the last message, whose datagrams begin with the one that is
// called first, the only one.
func (s *sender) keep(first int) {
	last := s.n - 1
	s.kept = copy(s.iovs, s.iovs[first:s.k])
	copy(s.pkts, s.pkts[first:s.k])
	m := &s.msgs[0].hdr
	*m = s.msgs[last].hdr
	s.ctls[0], s.from[0] = s.ctls[last], s.from[last]
	m.Name, m.Control, m.Iov = &s.ctls[0].name[0], &s.ctls[0].data[0], &s.iovs[0]
	s.n, s.k, s.used = 1, s.kept, s.open.bytes
	s.w.out.Turn()
}

// transmit sends the first n messages. One that the UDP socket or the packet
// socket refuses goes by the raw socket, datagram by datagram: some of them may
// pass.
func (s *sender) transmit(n int) {
	for first := 0; first < n; {
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd),
			uintptr(unsafe.Pointer(&s.msgs[first])), uintptr(n-first), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case 0:
			if s.w.fw.shortcut.sends(s.fd) {
				s.w.stats.direct.Add(uint64(sent))
			}
			for range int(sent) {
				s.w.stats.sealed.Add(uint64(s.msgs[first].hdr.Iovlen))
				first++
			}
		default:
			s.refused(first, errno)
			first++
		}
	}
}

// refused deals with a message that was not sent.
func (s *sender) refused(message int, errno error) {
	m := &s.msgs[message].hdr
	first := int((uintptr(unsafe.Pointer(m.Iov)) - uintptr(unsafe.Pointer(&s.iovs[0]))) / unsafe.Sizeof(unix.Iovec{}))
	for _, b := range s.pkts[first : first+int(m.Iovlen)] {
		to, ok := destination(b)
		err := errno
		if ok && (s.w.fw.shortcut.sends(s.fd) || m.Control != nil && errno != unix.EAGAIN && errno != unix.ENOBUFS) {
			if b[0]>>4 == 6 {
				sumUDP6(b)
			}
			err = s.w.fw.inject.send(b, to, s.link)
		}
		if err == nil {
			s.w.stats.sealed.Add(1)
			continue
		}
		s.w.stats.unsent.Add(1)
		if err == unix.EMSGSIZE {
			// The way to the far end is narrower than the one that the clear
			// packet was to take. The next one fits.
			if mtu := s.w.fw.inject.mtuTo(to, s.link); mtu > 0 {
				s.from[message].Narrow(mtu, s.w.in.Now)
			}
		}
		s.w.fw.cfg.Logger.Debug("sealed packet not sent", slog.Any("to", to), slog.Int("bytes", len(b)), slog.Any("error", err))
	}
}
