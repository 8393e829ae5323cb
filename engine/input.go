package engine

import "github.com/ipfw/ipfw/packet"

// Input is one packet and what the kernel says of it beside its bytes.
type Input struct {
	Packet packet.Packet
	Dir    Direction
	InIf   string // interface it came in by; empty outbound
	OutIf  string // interface it goes out by; empty inbound

	// Now is the time of the packet in nanoseconds on any clock that never
	// goes back; the engine has no clock of its own.
	Now int64

	// Tracked, when true, says that the kernel's connection tracking knows
	// the flow and that ipfw had let it through before: the connection mark
	// says so (a daemon that takes over sees flows it did not see open).
	Tracked bool
	// Reply says, when Tracked, that the packet runs against the direction
	// in which the flow was opened.
	Reply bool

	// SA is the SA the packet came out of, by ipsec block name; empty for a
	// packet that arrived in the clear.
	SA string
}
