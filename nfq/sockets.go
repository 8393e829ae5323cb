package nfq

import (
	"encoding/binary"
	"log/slog"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// This file is about TCP connections that are older than the table. Connection
// tracking may not know them, and then the next packet does not tell who opened
// them. The sockets do: the other side has opened what ends at a port on which
// this host listens.

// Connection is a TCP connection of this host that was there at the start.
type Connection struct {
	Local, Remote netip.AddrPort
	Accepted      bool // the other side opened it
}

// Of linux/inet_diag.h and linux/sock_diag.h, which x/sys has not.
const (
	sockDiagByFamily    = 20
	sizeofInetDiagReqV2 = 56
	sizeofInetDiagMsg   = 72
	inetDiagID          = 4 // struct inet_diag_sockid in struct inet_diag_msg

	tcpListen = 10
	// Connections: established, SYN received, closing by either side.
	tcpConnected = 1<<1 | 1<<3 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11
)

// findConnections asks the kernel for the TCP connections of the namespace, and
// tells by its listening sockets which of them it has accepted.
func findConnections() ([]Connection, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var list []Connection
	listens := map[netip.AddrPort]bool{}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		req := make([]byte, sizeofInetDiagReqV2)
		req[0], req[1] = family, unix.IPPROTO_TCP
		binary.NativeEndian.PutUint32(req[4:], tcpConnected|1<<tcpListen)
		msgs, err := conn.Execute(netlink.Message{
			Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request | netlink.Dump}, Data: req})
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			local, remote, state, ok := parseSocket(m.Data)
			switch {
			case !ok:
			case state == tcpListen:
				listens[local] = true
			default:
				list = append(list, Connection{Local: local, Remote: remote})
			}
		}
	}
	for i := range list {
		local := list[i].Local
		any4 := netip.AddrPortFrom(netip.IPv4Unspecified(), local.Port())
		any6 := netip.AddrPortFrom(netip.IPv6Unspecified(), local.Port()) // takes IPv4 as well
		list[i].Accepted = listens[local] || listens[any6] || local.Addr().Is4() && listens[any4]
	}
	return list, nil
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

// keepFound finds out what connections there are. From now on every new one is
// judged.
func (f *Firewall) keepFound() {
	list, err := findConnections()
	if err != nil {
		f.cfg.Logger.Warn("the kernel does not tell which connections there are: of those that are older than ipfw it is not known who opened them", slog.Any("error", err))
		return
	}
	f.found = list
	f.accepted = make(map[[2]netip.AddrPort]bool, len(list))
	for _, c := range list {
		f.accepted[[2]netip.AddrPort{c.Local, c.Remote}] = c.Accepted
	}
}

// Found gives the TCP connections that were there at the start.
func (f *Firewall) Found() []Connection { return f.found }

// Accepted says whether a TCP connection of this host was there at the start, and
// whether the other side had opened it.
func (f *Firewall) Accepted(local, remote netip.AddrPort) (accepted, found bool) {
	accepted, found = f.accepted[[2]netip.AddrPort{local, remote}]
	return accepted, found
}
