package engine

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// Policy is the SPD (RFC 4301 section 4.4.1): rules in order, of which the
// first that matches decides, and what happens to traffic that none names.
// A Policy is never changed once an Engine has it.
type Policy struct {
	Rules []Rule
	// Default is the verdict for each Direction when no rule matches;
	// Bypass or Discard.
	Default [directionCount]Verdict
	// ClearErrors leaves it to the rules whether ICMP messages that arrive in
	// the clear, and speak of packets that a rule protects, come in (RFC 4301
	// section 6.1.1). Otherwise they are discarded.
	ClearErrors bool
	// HalfOpen lets the defaults pass what belongs to a TCP connection of which
	// only the answers come this way: see Rule.HalfOpen.
	HalfOpen bool
	// Timeouts say how long flows are remembered.
	Timeouts Timeouts
}

// Rule is one SPD entry. Engine code refers to it by its index in
// Policy.Rules; people and SAs refer to it by Name.
type Rule struct {
	Name        string // unique in the policy
	Place       string // "file:line", for people
	Description string

	Action Verdict
	With   string // for Protect: the name of the ipsec block whose SAs carry it

	// In, Out and Forward say to which sides' opening packets the rule
	// applies; In and Out together are direction "both".
	In, Out, Forward bool
	// OpenedBy narrows a Forward rule to one opener.
	OpenedBy Opener

	Selector

	// HalfOpen says of a rule that bypasses that TCP segments pass which begin no
	// connection, such as a SYN with ACK without a SYN before: with asymmetric
	// routes this host sees one direction only. They count as answers.
	HalfOpen bool

	// AnswersMulticast, when not 0, narrows a rule to unicast UDP answers to what
	// this host has asked a multicast group or everybody on a link, no longer
	// ago than this: from a neighbour, to the address and port that asked, by the
	// interface that the question left by. Each is judged by itself, and opens
	// no flow. For rules that bypass what comes in.
	AnswersMulticast time.Duration

	Reject    bool // answer a discard with TCP reset or ICMP unreachable
	Log       bool
	Audit     bool   // log the match, then let the next rules decide
	Limit     *Limit // nil: no limit
	Essential bool   // ipfw's own, from `essentials`
}

// Opener says which side of the forward path may open a flow.
type Opener uint8

// The openers; local is the network behind this host.
const (
	OpenedByEither Opener = iota
	OpenedByLocal
	OpenedByRemote
)

// Selector says which packets a rule speaks of (RFC 4301 section 4.4.1.1).
// An empty list matches everything. Local is this host's side of the packet:
// the destination inbound, the source outbound, and for Forward the network
// behind this host.
type Selector struct {
	Protocols   []uint8
	Local       []AddrRange
	Remote      []AddrRange
	LocalPorts  []PortRange // only packets that have ports can match
	RemotePorts []PortRange
	Interfaces  []string // names, "*" at the end matches any rest; inbound interface in, outbound out, either one for Forward
	ICMP        []ICMPSel
	DSCP        []uint8
	// RelatedTo are names of rules that bypass: only flows match which the kernel's
	// connection tracking expects of one that such a rule lets through. See expected.go.
	RelatedTo []string

	index *selectorIndex // nil: no list is long, or the policy is not in force
}

// AddrRange is all addresses from First to Last, both included, of one family.
type AddrRange struct{ First, Last netip.Addr }

// RangeOf gives the addresses of a network.
func RangeOf(p netip.Prefix) AddrRange { return AddrRange{p.Masked().Addr(), lastOf(p)} }

// Everywhere gives every address, IPv4's in front of IPv6's.
func Everywhere() [2]AddrRange {
	var last16 [16]byte
	for i := range last16 {
		last16[i] = 0xff
	}
	return [2]AddrRange{
		{netip.IPv4Unspecified(), broadcast},
		{netip.IPv6Unspecified(), netip.AddrFrom16(last16)},
	}
}

// PortRange is all ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// String writes it as a policy does: "80", "1024-65535".
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// ICMPSel is one ICMP or ICMPv6 type, or one code of it.
type ICMPSel struct {
	Protocol uint8 // packet.ICMP or packet.ICMPv6
	Type     uint8
	Code     int16 // -1: any code
}

// Limit is a token bucket (rule block `limit`). What is over it does not match.
type Limit struct {
	Events uint32        // tokens gained ...
	Per    time.Duration // ... in this time
	Burst  uint32        // size of the bucket
	// ByRemote and ByLocal keep one bucket for each address; neither: one
	// bucket for the rule.
	ByRemote, ByLocal bool
}
