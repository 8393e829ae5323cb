package nfq

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// udpSocket is a UDP port of one IP family: 4500, by which ESP in UDP and IKE go
// out and come in (RFC 3948 section 2.1), or 500, which is IKE's alone (RFC 7296
// section 2). Its own mark is a secret of the table, see portMark; what it
// sends is marked otherwise, message by message.
// The socket exists from the beginning, in the namespace of the Firewall; the
// port is taken when a policy first asks for it, and kept until the end.
type udpSocket struct {
	waiter // its fd is -1 on a host without the family
	v6     bool
	port   uint16
	mark   uint32      // of what it sends, see injector
	bound  atomic.Bool // the port is ours
}

// Options of UDP, linux/udp.h.
const (
	udpSegment = 103 // UDP_SEGMENT: bytes of each datagram of those sent in one
	udpGRO     = 104 // UDP_GRO: may be received so
	udpNoCheck = 102 // UDP_NO_CHECK6_RX: over IPv6 too the checksum may be zero
)

// socketBuffer is the size in bytes of the buffers of the port: room for what
// comes while the receiver is at work.
const socketBuffer = 8 << 20

func openUDPSocket(v6 bool, port uint16, mark, own uint32, a *awake) (*udpSocket, error) {
	family, level := unix.AF_INET, unix.IPPROTO_IP
	if v6 {
		family, level = unix.AF_INET6, unix.IPPROTO_IPV6
	}
	s := &udpSocket{waiter: waiter{fd: -1, wake: -1, awake: a}, v6: v6, port: port, mark: mark}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if v6 && errors.Is(err, unix.EAFNOSUPPORT) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	// Always DF, and a size of our own choosing. An IKE_SA_INIT message
	// cannot be shorter than it is, and not every peer knows RFC 7383.
	noCheck := 1
	whole, discover := 1, unix.IP_PMTUDISC_PROBE // IPv6's have the same numbers
	if port == portIKE {
		whole, discover, noCheck = 0, unix.IP_PMTUDISC_DONT, 0
	}
	options := [][3]int{
		{unix.SOL_SOCKET, unix.SO_MARK, int(own)},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer},
		{unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketBuffer},
	}
	if port == portNAT {
		options = append(options, [3]int{unix.IPPROTO_UDP, udpGRO, 1})
	}
	if v6 {
		options = append(options, [][3]int{
			// What an IPv4-to-IPv6 translator makes of ESP in UDP may have no
			// checksum (RFC 3948 section 2.2), and tunnels may do without
			// (RFC 8200 section 8.1, RFC 6935): ESP and IKE have better ones.
			{unix.IPPROTO_UDP, udpNoCheck, noCheck},
			{level, unix.IPV6_V6ONLY, 1},
			{level, unix.IPV6_RECVPKTINFO, 1},
			{level, unix.IPV6_RECVTCLASS, 1},
			{level, unix.IPV6_RECVHOPLIMIT, 1},
			{level, ipv6AutoFlowLabel, 0},
			{level, unix.IPV6_DONTFRAG, whole},
			{level, unix.IPV6_MTU_DISCOVER, discover},
		}...)
	} else {
		options = append(options, [][3]int{
			{level, unix.IP_PKTINFO, 1},
			{level, unix.IP_RECVTOS, 1},
			{level, unix.IP_RECVTTL, 1},
			{level, unix.IP_MTU_DISCOVER, discover},
		}...)
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			return nil, errors.Join(fmt.Errorf("UDP socket option %d/%d: %w", o[0], o[1], privileged(err)), unix.Close(fd))
		}
	}
	s.fd = fd
	if err := s.openWake(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// Options of IPv6, linux/in6.h.
const (
	ipv6FlowInfo      = 11
	ipv6AutoFlowLabel = 70
)

// bind takes the port; again, it does nothing.
func (s *udpSocket) bind() error {
	if s.bound.Load() || s.fd < 0 {
		return nil
	}
	var err error
	if s.v6 {
		err = unix.Bind(s.fd, &unix.SockaddrInet6{Port: int(s.port)})
	} else {
		err = unix.Bind(s.fd, &unix.SockaddrInet4{Port: int(s.port)})
	}
	if err != nil {
		return fmt.Errorf("UDP port %d: %w", s.port, privileged(err))
	}
	s.bound.Store(true)
	return nil
}

// send sends one datagram from the port; from may be the zero Addr.
func (s *udpSocket) send(b []byte, from netip.Addr, to netip.AddrPort, link uint32) error {
	if s.fd < 0 {
		return unix.EAFNOSUPPORT
	}
	if s.v6 {
		var oob []byte
		if from.IsValid() {
			oob = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: from.As16(), Ifindex: zone(from, link)})
		}
		oob = append(oob, markMessage(s.mark)...)
		_, err := unix.SendmsgN(s.fd, b, oob, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16(), ZoneId: zone(to.Addr(), link)}, 0)
		return err
	}
	var oob []byte
	if from.IsValid() {
		oob = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from.As4()})
	}
	oob = append(oob, markMessage(s.mark)...)
	_, err := unix.SendmsgN(s.fd, b, oob, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}, 0)
	return err
}
