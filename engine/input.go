package engine

import (
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// Input is one packet and what the kernel says of it beside its bytes.
type Input struct {
	Packet packet.Packet
	Dir    Direction
	InIf   string // interface it came in by; empty outbound
	OutIf  string // interface it goes out by; empty inbound, and of what is Arriving

	// Now is the time of the packet in nanoseconds on any clock that never
	// goes back; the engine has no clock of its own.
	Now int64

	// Tracked says that ipfw had let this flow through before: the
	// connection mark says so. A daemon that takes over sees flows whose
	// opening it did not see.
	Tracked bool
	// Reply says that by the kernel's connection tracking the packet runs
	// against the direction in which its flow was opened. The kernel
	// remembers only connections whose first packet passed every hook.
	Reply bool

	// Expected says that a helper of the kernel's connection tracking expects the
	// packet's flow, which it begins: see Options.Master.
	Expected bool

	// Offloadable says that the kernel can answer for the rest of the flow.
	Offloadable bool

	// Alone says that no flow is opened: the rules decide on each packet, and
	// nothing is remembered of it. What leaves in answer is not judged.
	Alone bool

	// Arriving says that the packet has just come in from the wire, before
	// connection tracking and the input or forward chain; see Process.
	Arriving bool
	// MTU is that of the interface the packet leaves by, InMTU of the one it
	// came by, in bytes; 0 if it is not known.
	MTU, InMTU int
	// PartialChecksum says that the transport checksum is still to be
	// filled in, because hardware was meant to do it.
	PartialChecksum bool
	// UDPSocket says that sealed datagrams in UDP leave by a UDP socket: they
	// need no UDP checksum, and all of them come in Output.Send.
	UDPSocket bool

	// Again says that the packet has been counted before: it has waited for an
	// SA, or is an IKE message of which UDP's rules are asked. Stats.Again counts
	// such a packet. Merged is how many more packets are merged in this one; each
	// of them counts.
	Again  bool
	Merged int

	// Opened says that the packet came out of an SA, was judged when it arrived,
	// and is now at the hook that Dir says, with its way out: which SA it was
	// the engine knows. Moved says of such a packet that it does not go where it
	// went then, because another program has translated its destination.
	Opened, Moved bool

	// SA is the ipsec block whose SA the packet came out of; empty for a
	// packet that arrived in the clear.
	SA string
	// Holder is who sent a packet that came out of an SA, where its source
	// does not tell. Of a packet that leaves, the engine sets it to who its
	// flow is with, for Options.Outbound.
	Holder *esp.Holder

	master *query  // of the flow that expects this one; nil: there is none, or it is not known
	from   *esp.SA // that the packet came out of, if it has just been opened

	// See answers.go; relate and findQuestion set them.
	asks    bool // it is a question to a group
	answers sinceQuestion
}
