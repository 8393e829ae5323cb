package esp

import (
	"crypto/rand"
	"fmt"
	"hash/maphash"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// SAD is the security association database (RFC 4301 section 4.4.2). Lookups
// take no lock and wait for nobody; changes copy one small shard. It serves
// 100,000 SAs as it serves two.
//
// An SA is replaced make-before-break: insert the new inbound SA, then the new
// outbound one, which is used from then on, and remove the old pair when the
// peer has moved. Until then both inbound SAs open what comes.
type SAD struct {
	in     [shards]cow[inboundKey, *SA]
	out    [shards]cow[Owner, []*SA] // oldest first
	seed   maphash.Seed
	n      atomic.Int64
	faults [Faults]atomic.Uint64
}

const shards = 1024

// inboundKey is what names an inbound SA: for unicast the SPI and the protocol
// (RFC 4301 section 4.1).
type inboundKey struct {
	spi   uint32
	proto Protocol
}

// cow is a map that is read without a lock and copied to be changed.
type cow[K comparable, V any] struct {
	mu sync.Mutex
	m  atomic.Pointer[map[K]V]
}

func (c *cow[K, V]) get(k K) V {
	if m := c.m.Load(); m != nil {
		return (*m)[k]
	}
	var none V
	return none
}

func (c *cow[K, V]) all() map[K]V {
	if m := c.m.Load(); m != nil {
		return *m
	}
	return nil
}

// edit gives f a copy of the map to change. A copy that f leaves without a
// change, which it says by false, is thrown away.
func (c *cow[K, V]) edit(f func(map[K]V) bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := maps.Clone(c.all())
	if m == nil {
		m = map[K]V{}
	}
	if !f(m) {
		return false
	}
	c.m.Store(&m)
	return true
}

// NewSAD makes an empty SAD.
func NewSAD() *SAD { return &SAD{seed: maphash.MakeSeed()} }

func (d *SAD) inbound(k inboundKey) *cow[inboundKey, *SA] {
	// Peers and people choose SPIs; multiply so that any choice spreads.
	return &d.in[k.spi*0x9e3779b1>>22]
}

func (d *SAD) outbound(o Owner) *cow[Owner, []*SA] {
	return &d.out[maphash.Comparable(d.seed, o)%shards]
}

// Insert adds an SA. An outbound SA becomes the one that its owner uses. An
// inbound SA whose SPI is taken is refused.
func (d *SAD) Insert(sa *SA) error {
	if sa.Direction() == Out {
		d.outbound(sa.Owner()).edit(func(m map[Owner][]*SA) bool {
			m[sa.Owner()] = append(slices.Clip(m[sa.Owner()]), sa)
			return true
		})
		d.n.Add(1)
		return nil
	}
	k := inboundKey{sa.SPI(), sa.Protocol()}
	if !d.inbound(k).edit(func(m map[inboundKey]*SA) bool {
		if m[k] != nil {
			return false
		}
		m[k] = sa
		return true
	}) {
		return fmt.Errorf("an inbound %s SA with SPI %#08x is there already: choose another SPI", k.proto, k.spi)
	}
	d.n.Add(1)
	return nil
}

// Remove takes an SA out and closes it, which wipes its keys. It reports
// whether the SA was there. If it was the one its owner used, the next older
// one is used again.
func (d *SAD) Remove(sa *SA) bool {
	there := false
	if sa.Direction() == Out {
		there = d.outbound(sa.Owner()).edit(func(m map[Owner][]*SA) bool {
			list := m[sa.Owner()]
			i := slices.Index(list, sa)
			if i < 0 {
				return false
			}
			if len(list) == 1 {
				delete(m, sa.Owner())
			} else {
				m[sa.Owner()] = slices.Concat(list[:i], list[i+1:])
			}
			return true
		})
	} else {
		k := inboundKey{sa.SPI(), sa.Protocol()}
		there = d.inbound(k).edit(func(m map[inboundKey]*SA) bool {
			if m[k] != sa {
				return false
			}
			delete(m, k)
			return true
		})
	}
	if there {
		d.n.Add(-1)
	}
	sa.Close()
	return there
}

// Replace puts an inbound SA in the place of another with the same SPI and
// protocol, with no moment at which neither is there. The old one is not
// closed. It reports whether the old one was there.
func (d *SAD) Replace(old, sa *SA) bool {
	k := inboundKey{sa.SPI(), sa.Protocol()}
	return d.inbound(k).edit(func(m map[inboundKey]*SA) bool {
		if m[k] != old || old == nil {
			return false
		}
		m[k] = sa
		return true
	})
}

// Inbound finds the SA for a packet that arrived, nil if there is none.
func (d *SAD) Inbound(p Protocol, spi uint32) *SA {
	k := inboundKey{spi, p}
	return d.inbound(k).get(k)
}

// Outbound finds the SA that an owner's packets are sealed with: the newest.
// nil if there is none.
func (d *SAD) Outbound(o Owner) *SA {
	list := d.outbound(o).get(o)
	if len(list) == 0 {
		return nil
	}
	return list[len(list)-1]
}

// Seal seals pkt with its owner's newest SA, as SA.Seal does. An SA that is
// replaced at this very moment costs no packet.
func (d *SAD) Seal(dst, pkt []byte, o Owner, now int64) (out []byte, sa *SA, rekey bool, f Fault) {
	for {
		sa = d.Outbound(o)
		if sa == nil {
			return dst, nil, false, d.fault(NoSA)
		}
		out, rekey, f = sa.Seal(dst, pkt, now)
		if f != Closed || d.Outbound(o) == sa {
			return out, sa, rekey, f
		}
	}
}

// Open finds the SA of a packet that arrived and opens it in place, as SA.Open
// does. sa is nil exactly when the Fault is one that no SA has counted; then
// the SAD has. The caller must still ask policy whether this packet may come
// out of this SA (RFC 4301 section 5.2 step 4).
func (d *SAD) Open(pkt []byte, now int64) (out []byte, sa *SA, rekey bool, f Fault) {
	sa, p, f := d.match(pkt)
	if f != OK {
		return nil, nil, false, d.fault(f)
	}
	out, rekey, f = sa.openAt(pkt, p, now)
	return out, sa, rekey, f
}

// Recent is the inbound ESP SA that was found last, of one goroutine. Most
// packets are for the same one as the packet before.
type Recent struct {
	spi uint32
	m   *map[inboundKey]*SA // that it was found in; nil: none was. The SAD never changes one
	sa  *SA
}

func (d *SAD) recent(r *Recent, spi uint32) *SA {
	k := inboundKey{spi, ESP}
	m := d.inbound(k).m.Load()
	if m == nil {
		return nil
	}
	if r.m != m || r.spi != spi {
		*r = Recent{spi, m, (*m)[k]}
	}
	return r.sa
}

// OpenPayload finds the SA of an ESP packet that a UDP socket has received for
// address dst, and opens it in place, as SA.OpenPayload does. sa is nil exactly
// when the SAD has counted the Fault.
func (d *SAD) OpenPayload(r *Recent, b []byte, dst netip.Addr, now int64) (payload []byte, next uint8, sa *SA, rekey bool, f Fault) {
	if len(b) < ahHeader {
		return nil, 0, nil, false, d.fault(Short)
	}
	sa = d.recent(r, be.Uint32(b))
	if sa == nil {
		return nil, 0, nil, false, d.fault(UnknownSPI)
	}
	if to := sa.outer.Load().dst; to.IsValid() && to != dst {
		return nil, 0, nil, false, d.fault(UnknownSPI)
	}
	payload, next, rekey, f = sa.OpenPayload(b, now)
	return payload, next, sa, rekey, f
}

// Match finds the SA that would open pkt, and does nothing with either.
func (d *SAD) Match(pkt []byte) (*SA, Fault) {
	sa, _, f := d.match(pkt)
	return sa, f
}

func (d *SAD) match(pkt []byte) (*SA, place, Fault) {
	p, f := find(pkt, false)
	if f != OK {
		return nil, p, f
	}
	proto, spi := ESP, 0
	if Protocol(p.next) == AH {
		proto, spi = AH, 4
	}
	at, f := p.ipsec(pkt[:p.total], proto)
	if f != OK {
		return nil, p, f
	}
	if p.total-at < ahHeader {
		return nil, p, Short
	}
	sa := d.Inbound(proto, be.Uint32(pkt[at+spi:]))
	if sa == nil || !sa.takes(pkt, p.v6) {
		return nil, p, UnknownSPI
	}
	return sa, p, OK
}

// takes reports whether the destination of pkt is the SA's.
func (sa *SA) takes(pkt []byte, v6 bool) bool {
	o := sa.outer.Load()
	switch {
	case !o.dst.IsValid():
		return true
	case o.v6 != v6:
		return false
	case v6:
		return o.dst.As16() == [16]byte(pkt[24:40])
	}
	return o.dst.As4() == [4]byte(pkt[16:20])
}

func (d *SAD) fault(f Fault) Fault {
	d.faults[f].Add(1)
	return f
}

// Faults counts the packets for which there was no SA, by fault.
func (d *SAD) Faults() (list [Faults]uint64) {
	for i := range list {
		list[i] = d.faults[i].Load()
	}
	return list
}

// Len is how many SAs there are, of both directions.
func (d *SAD) Len() int { return int(d.n.Load()) }

// All gives every SA, in no order. SAs that come or go meanwhile may be missed.
func (d *SAD) All() iter.Seq[*SA] {
	return func(yield func(*SA) bool) {
		for i := range shards {
			for _, sa := range d.in[i].all() {
				if !yield(sa) {
					return
				}
			}
			for _, list := range d.out[i].all() {
				for _, sa := range list {
					if !yield(sa) {
						return
					}
				}
			}
		}
	}
}

// NewSPI draws an SPI for an inbound SA that no other has now.
func (d *SAD) NewSPI(p Protocol) (uint32, error) {
	for {
		var b [4]byte
		if _, err := rand.Read(b[:]); err != nil {
			return 0, err
		}
		if spi := be.Uint32(b[:]); spi >= 256 && d.Inbound(p, spi) == nil {
			return spi, nil
		}
	}
}
