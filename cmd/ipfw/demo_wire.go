package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/ipfw/ipfw/packet"
)

// wire listens on the demo's cable: a packet socket that sees every frame that
// enters or leaves a namespace, whatever any firewall makes of it.
type wire struct {
	fd    int
	index int // of the interface
}

// etherTypes of what is looked at (IANA "EtherTypes"), and how long a header
// is.
const (
	etherIPv4   = 0x0800
	etherIPv6   = 0x86dd
	etherHeader = 14
	wireBuffer  = 4 << 20 // bytes: far more than the demo sends
)

// openWire begins to listen in a namespace.
func openWire(n *namespace) (*wire, error) {
	w := &wire{fd: -1}
	err := n.do(func() error {
		link, err := net.InterfaceByName(demoLink)
		if err != nil {
			return err
		}
		w.index = link.Index
		const proto = unix.ETH_P_ALL
		all := uint16(proto&0xff<<8 | proto>>8) // network byte order
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, wireBuffer); err != nil {
			return err
		}
		return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: w.index})
	})
	if err != nil {
		w.close()
		return nil, fmt.Errorf("cannot listen on the cable: %w", err)
	}
	return w, nil
}

func (w *wire) close() {
	if w.fd >= 0 {
		unix.Close(w.fd)
		w.fd = -1
	}
}

// frames gives what has passed since it was last asked.
func (w *wire) frames() ([]frame, error) {
	var list []frame
	for {
		buf := make([]byte, 1<<16)
		n, _, err := unix.Recvfrom(w.fd, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return list, w.lost()
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return list, fmt.Errorf("cannot listen on the cable: %w", err)
		}
		list = append(list, frame(buf[:n:n]))
	}
}

// lost is an error if frames passed that were not kept: then nobody can say
// that nothing crossed in the clear.
func (w *wire) lost() error {
	stats, err := unix.GetsockoptTpacketStats(w.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err == nil && stats.Drops > 0 {
		err = fmt.Errorf("%d frames passed on the cable that the demo did not catch", stats.Drops)
	}
	return err
}

// send puts a frame on the cable, past all firewalls.
func (w *wire) send(f frame) error {
	if err := unix.Sendto(w.fd, f, 0, &unix.SockaddrLinklayer{Ifindex: w.index}); err != nil {
		return fmt.Errorf("cannot send on the cable: %w", err)
	}
	return nil
}

// frame is an Ethernet frame.
type frame []byte

// datagram gives the IP datagram in the frame, nil if there is none.
func (f frame) datagram() []byte {
	if len(f) < etherHeader {
		return nil
	}
	if typ := binary.BigEndian.Uint16(f[12:]); typ != etherIPv4 && typ != etherIPv6 {
		return nil
	}
	return f[etherHeader:]
}

// packet parses the IP datagram in the frame.
func (f frame) packet() (p packet.Packet, ok bool) {
	b := f.datagram()
	return p, b != nil && packet.Parse(&p, b, len(b)) == packet.OK
}
