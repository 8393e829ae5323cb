package nfq

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// Datagram is an IKE message on UDP port 500, or on 4500 and then without the four
// zero bytes that tell it from ESP (RFC 3948 section 2.2).
type Datagram struct {
	// Local and Remote are plain IPv4 or IPv6, without a zone.
	Local, Remote netip.AddrPort
	// Link is the index of the interface that it came in by; of one that is
	// sent it matters for link-local addresses only.
	Link    uint32
	Message []byte
}

// SendIKE sends an IKE message from the port of Local, which the Firewall has if
// its Config says so: 500 with KeyExchange, else 4500 with Encapsulated. Where
// Local has no address the kernel chooses it. The message is not judged: it is the daemon's own. Any number of
// goroutines may send at once.
func (f *Firewall) SendIKE(d *Datagram) error {
	if d.Local.Port() == portIKE {
		return f.sendUDP(d.Message, d)
	}
	b := make([]byte, marker, marker+len(d.Message))
	return f.sendUDP(append(b, d.Message...), d)
}

// SendKeepalive sends a NAT keepalive (RFC 3948 section 2.3) as SendIKE sends a
// message; that of d is ignored.
func (f *Firewall) SendKeepalive(d *Datagram) error { return f.sendUDP([]byte{0xff}, d) }

func (f *Firewall) sendUDP(b []byte, d *Datagram) error {
	to := d.Remote.Addr()
	s := f.inject.port4
	switch ike := d.Local.Port() == portIKE; {
	case ike && to.Is6():
		s = f.inject.ike6
	case ike:
		s = f.inject.ike4
	case to.Is6():
		s = f.inject.port6
	}
	byQueue := f.portTaken.Load() != nil
	switch from := d.Local.Addr(); {
	case !s.bound.Load() && !byQueue:
		return fmt.Errorf("UDP port %d is not open: %w", s.port, unix.ENOTCONN)
	case !to.IsValid() || to.Is4In6() || from.IsValid() && from.Is4() != to.Is4():
		return fmt.Errorf("UDP from %s to %s: %w", d.Local, d.Remote, unix.EINVAL)
	}
	if byQueue {
		return f.sendPieces(b, d, s.port)
	}
	err := s.send(b, d.Local.Addr(), d.Remote, d.Link)
	if err == unix.EMSGSIZE && s.port == portNAT {
		return f.sendPieces(b, d, s.port)
	}
	return err
}

// sendPieces sends what is too long for the path in fragments, which not every
// peer can be spared (RFC 7383 is an option); the port itself never makes any.
// What is short enough, it sends whole.
func (f *Firewall) sendPieces(b []byte, d *Datagram, port uint16) error {
	to := d.Remote.Addr()
	from := d.Local.Addr()
	if !from.IsValid() {
		from = f.inject.sourceFor(to, d.Link)
	}
	var id [4]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	number := binary.NativeEndian.Uint32(id[:])
	whole, err := packet.Build(packet.Spec{Src: from, Dst: to, Protocol: packet.UDP, ID: number & 0xffff,
		SrcPort: port, DstPort: d.Remote.Port(), Payload: b})
	if err != nil {
		return err
	}
	pieces, err := packet.Fragment(whole, f.inject.mtuTo(to, d.Link), number)
	if err != nil {
		return err
	}
	for _, p := range pieces {
		if err := f.inject.send(p, to, d.Link); err != nil {
			return err
		}
	}
	return nil
}
