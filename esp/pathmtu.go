package esp

import (
	"sync/atomic"
	"time"

	"github.com/ipfw/ipfw/packet"
)

// The least path MTU that is believed, in bytes, by family. A report of less is
// more likely an attack than a link: RFC 8201 section 4 forbids it in IPv6, and
// of IPv4 every host takes datagrams of 576 bytes (RFC 791 section 3.1), so that
// links which do not carry them have died out.
const (
	MinMTU4 = 576
	MinMTU6 = 1280
)

// mtuLife is how long a report counts; then the path may be tried again (RFC
// 1191 section 6.3, RFC 8201 section 4).
const mtuLife = int64(10 * time.Minute)

// recentPackets is how far back the packet that an ICMP error quotes may lie.
const recentPackets = 1 << 16

// plateaus are the MTUs to fall back to when a router does not say one: RFC
// 1191 section 7.1.
var plateaus = [...]int{32000, 17914, 8166, 4352, 2002, 1492, 1006, 576}

// path is what the network has said of the way to the far end. Nobody vouches
// for it.
type path struct {
	mtu atomic.Int64
	at  atomic.Int64
}

// PathMTU is the path MTU towards the far end that the network reported, in
// bytes of whole sealed datagrams; 0 when it has said nothing, or nothing of
// late. The interface's MTU holds beside it.
func (sa *SA) PathMTU(now int64) int {
	if mtu := sa.path.mtu.Load(); mtu != 0 && now-sa.path.at.Load() < mtuLife {
		return int(mtu)
	}
	return 0
}

// PathReport hears an ICMP error "fragmentation needed" or "packet too big":
// quoted is the packet of ours that it quotes (packet.Quoted), mtu what it says
// the next link takes (0: an old router that does not), link the MTU that held
// so far without any report. It reports whether it believed it. ICMP carries no
// proof, so only what can be true and does little harm is believed: the SPI and
// the sequence number must be those of a packet that was sent lately, which only
// somebody on the way knows (RFC 4301 section 8.2.1).
func (sa *SA) PathReport(quoted *packet.Packet, mtu, link int, now int64) bool {
	if sa.cfg.Direction != Out {
		return false
	}
	current := link
	if known := sa.PathMTU(now); known != 0 {
		current = min(known, link)
	}
	if _, sent := sa.Sent(quoted); !sent {
		return false
	}
	mtu, ok := PlausibleMTU(quoted, mtu, current)
	if !ok {
		return false
	}
	sa.path.mtu.Store(int64(mtu))
	sa.path.at.Store(now)
	return true
}

// Narrow says what the path MTU is known to be, from this host's own routes.
func (sa *SA) Narrow(mtu int, now int64) {
	sa.path.mtu.Store(int64(mtu))
	sa.path.at.Store(now)
}

// Sent holds a quoted packet against what this SA sends. between says that it
// runs between the SA's addresses, and ports if it goes in UDP; sent that it is
// also a packet of this SA, and a recent one.
func (sa *SA) Sent(q *packet.Packet) (between, sent bool) {
	o := sa.outer.Load()
	if sa.cfg.Direction != Out || !o.src.IsUnspecified() && q.Src != o.src || q.Dst != o.dst {
		return false, false
	}
	spi, seq, known := q.SPI, q.SPISeq, q.HasSPI && q.Protocol == uint8(sa.Protocol())
	if o.udp != 0 {
		if q.Protocol != packet.UDP || !q.HasPorts || q.SrcPort != o.encap.SrcPort || q.DstPort != o.encap.DstPort {
			return false, false
		}
		// The ESP header follows the UDP header. Routers that quote no more
		// than RFC 792 asked for do not show it.
		if b := q.Bytes[min(q.Transport+udpHeader, len(q.Bytes)):]; len(b) >= espHeader {
			spi, seq, known = be.Uint32(b), be.Uint32(b[4:]), true
		}
	}
	last := sa.seq.Load()
	ago := uint32(last) - seq
	return true, known && spi == sa.cfg.SPI && uint64(ago) < min(last, recentPackets)
}

// PlausibleMTU judges what an ICMP error says: mtu bytes, 0 if it names none,
// where current bytes were thought to pass. The packet it quotes must be longer
// than what it says can pass; nothing grows by an error, and nothing falls
// below the least MTU. It gives the MTU to use from now on.
func PlausibleMTU(quoted *packet.Packet, mtu, current int) (int, bool) {
	least := MinMTU4
	if quoted.Version == 6 {
		least = MinMTU6
	} else if mtu == 0 {
		for _, p := range plateaus {
			if p < quoted.Len && p < current {
				mtu = p
				break
			}
		}
	}
	if mtu < least || mtu >= current || mtu >= quoted.Len {
		return 0, false
	}
	return mtu, true
}
