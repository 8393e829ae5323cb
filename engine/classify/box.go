package classify

import (
	"cmp"
	"encoding/binary"
	"net/netip"
)

// Family says how wide the addresses are.
type Family uint8

// The address families.
const (
	IPv4 Family = 4 // 32 bits
	IPv6 Family = 6 // 128 bits
)

// Addr is an address as a number. IPv4: Hi is 0 and Lo holds the 32 bits;
// IPv6: Hi holds the first 64 bits on the wire, Lo the last.
type Addr struct{ Hi, Lo uint64 }

// AddrFrom gives the number of a. An IPv4-mapped IPv6 address counts as IPv6;
// the zero netip.Addr gives the zero Addr.
func AddrFrom(a netip.Addr) Addr {
	if a.Is4() {
		b := a.As4()
		return Addr{Lo: uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return Addr{Hi: binary.BigEndian.Uint64(b[:8]), Lo: binary.BigEndian.Uint64(b[8:])}
}

// Last is the highest address of the family.
func (f Family) Last() Addr {
	if f == IPv4 {
		return Addr{Lo: 1<<32 - 1}
	}
	return Addr{Hi: 1<<64 - 1, Lo: 1<<64 - 1}
}

// Less says that a comes before b.
func (a Addr) Less(b Addr) bool {
	return a.Hi < b.Hi || a.Hi == b.Hi && a.Lo < b.Lo
}

// Compare gives -1, 0 or 1: a comes before b, is b, comes after it.
func (a Addr) Compare(b Addr) int { return cmp.Or(cmp.Compare(a.Hi, b.Hi), cmp.Compare(a.Lo, b.Lo)) }

// Box is a set of packets: five ranges, all bounds included, of which a packet
// must be inside every one (RFC 4301 section 4.4.1.1 calls them selectors). A
// range whose first is above its last holds nothing. A rule with lists of
// ranges is as many boxes with the same Rule.
type Box struct {
	LocalFirst, LocalLast           Addr
	RemoteFirst, RemoteLast         Addr
	LocalPortFirst, LocalPortLast   uint16
	RemotePortFirst, RemotePortLast uint16
	ProtoFirst, ProtoLast           uint8
	// Rule is the place of the rule in its policy, 0 to MaxRule; the lowest
	// that holds a packet wins.
	Rule int32
}

// MaxRule is the highest Rule that a Box may have.
const MaxRule = 1<<28 - 1

// Any is the box of a rule that says nothing: it holds every packet of the
// family.
func (f Family) Any(rule int32) Box {
	return Box{
		LocalLast: f.Last(), RemoteLast: f.Last(),
		LocalPortLast: 1<<16 - 1, RemotePortLast: 1<<16 - 1,
		ProtoLast: 1<<8 - 1, Rule: rule,
	}
}

// Key is what a packet is looked up by. A packet without ports has both ports
// 0: whoever builds boxes decides what that means for a rule with ports, by
// the protocols that he gives its boxes.
type Key struct {
	Local, Remote         Addr
	LocalPort, RemotePort uint16
	Proto                 uint8
}

// Holds says that k is inside b.
func (b *Box) Holds(k *Key) bool {
	return !k.Local.Less(b.LocalFirst) && !b.LocalLast.Less(k.Local) &&
		!k.Remote.Less(b.RemoteFirst) && !b.RemoteLast.Less(k.Remote) &&
		b.LocalPortFirst <= k.LocalPort && k.LocalPort <= b.LocalPortLast &&
		b.RemotePortFirst <= k.RemotePort && k.RemotePort <= b.RemotePortLast &&
		b.ProtoFirst <= k.Proto && k.Proto <= b.ProtoLast
}

// empty says that no packet is inside b.
func (b *Box) empty() bool {
	return b.LocalLast.Less(b.LocalFirst) || b.RemoteLast.Less(b.RemoteFirst) ||
		b.LocalPortLast < b.LocalPortFirst || b.RemotePortLast < b.RemotePortFirst ||
		b.ProtoLast < b.ProtoFirst
}

// Linear is the slow twin of Classifier: boxes in any order, of which every
// one is asked. Right by inspection, and as fast as anything for a few boxes.
type Linear []Box

// First gives the lowest Rule that is at least from and has a box that holds
// k, or -1. Safe for concurrent use.
func (l Linear) First(k *Key, from int32) int32 {
	best := int32(-1)
	for i := range l {
		b := &l[i]
		if b.Rule >= from && (best < 0 || b.Rule < best) && b.Holds(k) {
			best = b.Rule
		}
	}
	return best
}
