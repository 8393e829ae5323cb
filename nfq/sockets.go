package nfq

import (
	"encoding/binary"
	"log/slog"
	"net/netip"

	"github.com/ipfw/ipfw/engine"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// This file is about TCP connections that are older than the table. Connection
// tracking may not know them, and then the next packet does not tell who opened
// them. The sockets do. Of what this host has opened the far end has acknowledged a
// SYN, which counts as one byte that nobody has written; the SYN of who accepts
// is not counted (tcpi_bytes_acked, struct tcp_info in linux/tcp.h):
//
//	acknowledged + still to be acknowledged - sent, repetitions left out
//	    = 1: this host opened it    = 0: the other side did
//
// Where that is not to be had (a FIN of ours counts as well; Linux before 4.19),
// the other side has opened what ends at a port on which this host listens.

// Connection is a TCP connection of this host that was there at the start, or a flow
// of UDP that FindDatagrams tells of.
type Connection struct {
	UDP           bool
	Local, Remote netip.AddrPort
	Opener        engine.Opener // OpenedByEither: it is not known
	Cookie        uint64        // names the socket until the next boot, SO_COOKIE of socket(7)
	Inode         uint32        // as /proc/PID/fd has it; 0: no process has it open any more
}

// Of linux/inet_diag.h and linux/sock_diag.h, which x/sys has not.
const (
	sockDiagByFamily    = 20
	sizeofInetDiagReqV2 = 56
	sizeofInetDiagMsg   = 72
	inetDiagID          = 4  // struct inet_diag_sockid in struct inet_diag_msg
	inetDiagCookie      = 44 // two 32-bit halves, low first
	inetDiagQueue       = 60 // idiag_wqueue in it: bytes that are not acknowledged
	inetDiagInode       = 68 // idiag_inode in it
	inetDiagInfo        = 2  // attribute: struct tcp_info
	sizeofTCPInfo       = 216

	// Offsets in struct tcp_info: 64-bit bytes_acked, bytes_sent and
	// bytes_retrans, 32-bit notsent_bytes.
	tcpiAcked, tcpiNotSent, tcpiSent, tcpiRetrans = 120, 144, 200, 208

	tcpEstablished, tcpCloseWait, tcpListen = 1, 8, 10
	// Connections: established, SYN received, closing by either side.
	tcpConnected = 1<<1 | 1<<3 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11
)

// FindConnections asks the kernel for the TCP connections of the network namespace,
// and tells who has opened them. It asks twice: what is sent between two looks of
// the kernel at one socket shifts the sum. So does what a firewall of this host
// drops on its way out, for it counts as sent: ask before there is one.
func FindConnections() ([]Connection, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	first, _, err := dumpSockets(conn)
	if err != nil {
		return nil, err
	}
	second, listens, err := dumpSockets(conn)
	if err != nil {
		return nil, err
	}
	list := make([]Connection, 0, len(second))
	for ends, s := range second {
		opener := s.opener
		switch was := first[ends].opener; {
		case opener == engine.OpenedByEither:
			opener = was
		case was != engine.OpenedByEither && was != opener:
			opener = engine.OpenedByEither
		}
		c := Connection{Local: ends[0], Remote: ends[1], Opener: opener, Cookie: s.cookie, Inode: s.inode}
		any4 := netip.AddrPortFrom(netip.IPv4Unspecified(), c.Local.Port())
		any6 := netip.AddrPortFrom(netip.IPv6Unspecified(), c.Local.Port()) // takes IPv4 as well
		if opener == engine.OpenedByEither && (listens[c.Local] || listens[any6] || c.Local.Addr().Is4() && listens[any4]) {
			c.Opener = engine.OpenedByRemote
		}
		list = append(list, c)
	}
	return list, nil
}

type socket struct {
	opener engine.Opener
	cookie uint64
	inode  uint32
}

// dumpSockets gives the TCP connections by their ends, local first, and where
// somebody listens.
func dumpSockets(conn *netlink.Conn) (all map[[2]netip.AddrPort]socket, listens map[netip.AddrPort]bool, err error) {
	all, listens = map[[2]netip.AddrPort]socket{}, map[netip.AddrPort]bool{}
	err = eachSocket(conn, unix.IPPROTO_TCP, tcpConnected|1<<tcpListen, func(b []byte) {
		local, remote, state, _ := parseSocket(b)
		if state == tcpListen {
			listens[local] = true
			return
		}
		cookie := b[inetDiagCookie:]
		all[[2]netip.AddrPort{local, remote}] = socket{openerOf(b),
			uint64(binary.NativeEndian.Uint32(cookie)) | uint64(binary.NativeEndian.Uint32(cookie[4:]))<<32,
			binary.NativeEndian.Uint32(b[inetDiagInode:])}
	})
	return all, listens, err
}

// eachSocket gives the struct inet_diag_msg, and the attributes behind it, of each
// socket of a protocol that is in one of the states, of both families.
func eachSocket(conn *netlink.Conn, protocol byte, states uint32, yield func([]byte)) error {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		req := make([]byte, sizeofInetDiagReqV2)
		req[0], req[1], req[2] = family, protocol, 1<<(inetDiagInfo-1)
		binary.NativeEndian.PutUint32(req[4:], states)
		msgs, err := conn.Execute(netlink.Message{
			Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request | netlink.Dump}, Data: req})
		if err != nil {
			return err
		}
		for _, m := range msgs {
			if _, _, _, ok := parseSocket(m.Data); ok {
				yield(m.Data)
			}
		}
	}
	return nil
}

// parseSocket reads a struct inet_diag_msg: family, state, timer, retransmits, and
// the ends of the socket.
func parseSocket(b []byte) (local, remote netip.AddrPort, state uint8, ok bool) {
	if len(b) < sizeofInetDiagMsg {
		return local, remote, 0, false
	}
	id := b[inetDiagID:]
	end := func(addr, port []byte) netip.AddrPort {
		a := netip.AddrFrom16([16]byte(addr)).Unmap()
		if b[0] == unix.AF_INET {
			a = netip.AddrFrom4([4]byte(addr))
		}
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
	}
	return end(id[4:20], id), end(id[20:36], id[2:]), b[1], true
}

// openerOf tells by the counters of a connection that parseSocket has read, and
// that has sent no FIN.
func openerOf(b []byte) engine.Opener {
	if state := b[1]; state != tcpEstablished && state != tcpCloseWait {
		return engine.OpenedByEither
	}
	attrs, err := netlink.UnmarshalAttributes(b[sizeofInetDiagMsg:])
	if err != nil {
		return engine.OpenedByEither
	}
	for _, a := range attrs {
		if a.Type != inetDiagInfo || len(a.Data) < sizeofTCPInfo {
			continue
		}
		i := a.Data
		waiting := binary.NativeEndian.Uint32(b[inetDiagQueue:]) - binary.NativeEndian.Uint32(i[tcpiNotSent:])
		sent := binary.NativeEndian.Uint64(i[tcpiSent:]) - binary.NativeEndian.Uint64(i[tcpiRetrans:])
		switch binary.NativeEndian.Uint64(i[tcpiAcked:]) + uint64(waiting) - sent {
		case 0:
			return engine.OpenedByRemote
		case 1:
			return engine.OpenedByLocal
		}
	}
	return engine.OpenedByEither
}

// keepFound finds out what connections there are. From now on every new one is
// judged.
func (f *Firewall) keepFound() {
	list, err := FindConnections()
	if err != nil {
		f.cfg.Logger.Warn("the kernel does not tell which connections there are: of those that are older than ipfw it is not known who opened them", slog.Any("error", err))
		return
	}
	f.found = list
	f.openers = make(map[[2]netip.AddrPort]engine.Opener, len(list))
	for _, c := range f.cfg.Older {
		f.openers[[2]netip.AddrPort{c.Local, c.Remote}] = c.Opener
	}
	for i := range list {
		c := &list[i]
		if older := f.Opener(c.Local, c.Remote); older != engine.OpenedByEither {
			c.Opener = older
		}
		f.openers[[2]netip.AddrPort{c.Local, c.Remote}] = c.Opener
	}
}

// Found gives the TCP connections that were there at the start.
func (f *Firewall) Found() []Connection { return f.found }

// Opener says who has opened a TCP connection of this host that was there at the
// start; of any other it is not known.
func (f *Firewall) Opener(local, remote netip.AddrPort) engine.Opener {
	return f.openers[[2]netip.AddrPort{local, remote}]
}
