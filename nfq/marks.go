package nfq

import (
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"
)

// DefaultMask is the range of packet and connection mark bits that ipfw uses
// when its Config names none: the top byte. What others use by habit lies
// below it: kube-proxy 0x4000 and 0x8000, Tailscale 0xff0000, mwan3 0x3f00, with
// masks of their own; wg-quick's 0xca6c, and the small numbers of Docker's swarm,
// firewalld and hand-made rules for several lines, as whole words. Those who
// restore whole words see our bits go before anybody routes by them (clean.go);
// those who compare one in the chain that has restored it do see them; those who
// save whole words on connections (wg-quick, with every packet) wipe them off, so
// that nothing of these is offloaded. Calico and Cilium, which take the upper half
// of the word, need another mask here or there; so does a program that sets all 32
// bits (Mullvad) on connections that ipfw judges.
const DefaultMask uint32 = 0xff000000

// minMaskBits is how wide a mask must be to hold the layout below.
const minMaskBits = 8

// marks is the mask. From its lowest bit upwards it holds:
//
//	bit   name        on        meaning
//	0     reply       packet    runs against the direction its connection was opened in
//	0     crossing    conn.     offloaded by the forward chain: the others do not know it
//	0     crossing    packet    of one that is opened: was judged as one to be forwarded
//	1     injected    packet    ipfw's own: the output chain lets it pass (only where their credential does not tell)
//	2     queued      packet    went up the queue; when it comes back with this
//	                            bit, its connection becomes admitted
//	2     refused     conn.     what the kernel answers is no
//	3     admitted    both      ipfw has let packets of this connection through
//	4     offloaded   both      the kernel answers for the rest of the flow ...
//	4     expected    packet    on its way up and with reply: see expectations
//	5-7   generation  both      ... as long as the table's generation is this one
//
// reply and injected together, and alone, say of a packet in the prerouting hook,
// behind mangle, that it came by our device, for those who ask for its way back with
// the mark: see reversepath.go.
//
// injected and queued together say opened, on a packet that came out of an SA
// before connection tracking. The input chain writes it on what comes by our
// device, and lets it pass; its connection becomes admitted like one that the
// chain has queued. The forward chain queues it once more, with these bits,
// because its way out is known only there. Where crossing does not say of it what
// the chain does, or the connection says that its destination has been translated
// since, the daemon discards it. What was opened in its place has the bit until
// the next chain, see inPlace.
//
// Bits on a packet live from the chain that queues it to the chain behind
// that, which moves to the connection what has to be remembered and clears
// the rest, so that routing, sockets and other programs see only their own. No
// chain believes those that it finds otherwise: others may have put them there,
// from the connection's mark or of their own.
//
// A packet goes up with the generation of the table that queued it, and only
// that table makes its connection offloaded: what an earlier policy has decided
// never counts under a later one. A generation is used again after 7 others,
// and not before the kernel has been asked for connections that still carry it
// (see Firewall.sweep). Which rule let a flow through is not in the mark: the
// kernel's counters of the connection are, for the engine to read.
//
// A verdict changes the mark only to clear queued, and to set offloaded. In the
// output hook the kernel routes a packet again when a verdict has changed its
// mark, and a routing rule on the whole mark (wg-quick: "not fwmark 0xca6c")
// must not see our bits then. So there only packets whose foreign bits are zero
// set offloaded; the flow of another is offloaded by an answer to it.
type marks uint32

func (m marks) bit(n int) uint32 { return 1 << (bits.TrailingZeros32(uint32(m)) + n) }

func (m marks) reply() uint32    { return m.bit(0) }
func (m marks) injected() uint32 { return m.bit(1) }
func (m marks) queued() uint32   { return m.bit(2) }
func (m marks) admitted() uint32 { return m.bit(3) }
func (m marks) opened() uint32   { return m.injected() | m.queued() }
func (m marks) back() uint32     { return m.reply() | m.injected() }

// again says whether a message is about a packet that came out of an SA and is
// not Arriving any more, and whether its destination is another since then. In
// prerouting (see notMoved) and in the input chain only such come up.
func (m marks) again(msg *message) (opened, moved bool) {
	if msg.mark&m.opened() != m.opened() || msg.hook > unix.NF_INET_FORWARD {
		return false, false
	}
	return true, msg.hook != unix.NF_INET_FORWARD || msg.mark&m.crossing() == 0
}

// expected says of a packet that goes up that a helper expects it. The packet runs
// in the direction of its connection and has no verdict yet, so that reply and
// offloaded together have no other meaning. Where a verdict leaves the mark as it is,
// the save chain must not take it for offloaded.
func (m marks) expected() uint32 { return m.reply() | m.offloaded() }

func (m marks) crossing() uint32  { return m.bit(0) }
func (m marks) refused() uint32   { return m.bit(2) }
func (m marks) offloaded() uint32 { return m.bit(4) }

// generationOf reads it back.
func (m marks) generationOf(mark uint32) uint32 { return mark / m.bit(5) % generations }

// decided are the bits of a connection that say what the kernel answers.
func (m marks) decided() uint32 {
	return m.crossing() | m.refused() | m.offloaded() | m.generation(generations-1)
}

// generations is how many generations the mark tells apart.
const generations = 8

// generation gives the bits of one of them.
func (m marks) generation(g uint32) uint32 { return g % generations * m.bit(5) }

// asked are the bits that say whether the kernel lets a connection pass,
// answered their value for those that it does.
func (m marks) asked() uint32 { return m.admitted() | m.decided() }

func (m marks) answered(g uint32, forward bool) uint32 {
	bits := m.admitted() | m.offloaded() | m.generation(g)
	if forward {
		bits |= m.crossing()
	}
	return bits
}

// denied is the value of the bits decided for connections that the kernel cuts.
func (m marks) denied(g uint32, forward bool) uint32 {
	return m.answered(g, forward)&^m.admitted() | m.refused()
}

// passes says of a connection's mark that the kernel lets it pass in a generation.
func (m marks) passes(mark, g uint32) bool {
	return mark&(m.asked()&^m.crossing()) == m.answered(g, false)
}

// check refuses a mask that is not one range of bits or too narrow.
func (m marks) check() error {
	n := bits.OnesCount32(uint32(m))
	if n < minMaskBits || bits.Len32(uint32(m))-bits.TrailingZeros32(uint32(m)) != n {
		return fmt.Errorf("mark mask %#x: must be one unbroken range of at least %d bits, like %#x",
			uint32(m), minMaskBits, DefaultMask)
	}
	return nil
}
