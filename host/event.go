package host

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
	"github.com/ipfw/ipfw/rules"
)

// Kind says what an Event is about.
type Kind string

// The kinds of events. The first three speak of one packet.
const (
	KindPacket    Kind = "packet"    // a rule with `log`, a reject, or a sample of the others
	KindAudit     Kind = "audit"     // a rule with `audit` would have decided
	KindMalformed Kind = "malformed" // bytes that are no packet; at most 10 in a second

	KindStart Kind = "start"
	// KindConnections says what becomes of the TCP connections that were there
	// at the start.
	KindConnections Kind = "connections"
	KindStop        Kind = "stop"
	KindReload      Kind = "reload"        // another policy is in force
	KindBadPolicy   Kind = "reload-failed" // the old policy stays; Diagnostics says why
	KindConfirm     Kind = "confirm"       // somebody confirmed the policy in force
	KindRollback    Kind = "rollback"      // nobody did: the previous one is back
	KindOverflow    Kind = "queue-overflow"
	KindTable       Kind = "table"      // somebody else has changed the nftables table, Count times
	KindSuppressed  Kind = "suppressed" // Count malformed or refused packets had no event

	// KindIPsec is a packet that IPsec has refused, an auditable event of RFC
	// 4301 section 5.2, RFC 4302 section 4 or RFC 4303 section 4: no SA, a
	// replay, a wrong integrity value, clear text where protection is asked
	// for; at most 10 in a second.
	KindIPsec Kind = "ipsec"
	// KindSA is an SA that came, was replaced, or has ended.
	KindSA Kind = "sa"
	// KindIKE is news of the key exchange: who has come and gone, and what has
	// failed, with the reason; see IKEEvent.
	KindIKE Kind = "ike"
	// KindValidity is about certificates and revocation lists that do not hold, or
	// not for long; Diagnostics says which. It is told at the start and once a day.
	KindValidity Kind = "validity"
	// KindRoute is about networks behind tunnels to which this host has no route.
	KindRoute Kind = "route"
	// KindState is about a file of the daemon's own that is damaged.
	KindState Kind = "state"
	// KindWarning is what a part of the daemon cannot do, as its log says it: keep a file,
	// say, or use something that the kernel lacks.
	KindWarning Kind = "warning"
	// KindKeys says that keys were asked for and given out.
	KindKeys Kind = "keys"
)

// Event is one thing that happened, as `ipfw events` and the log show it.
// It is a plain value: writing one to the ring allocates nothing.
type Event struct {
	// Seq counts the events of this daemon from 1. A gap was lost by this
	// reader, who was too slow.
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Kind Kind      `json:"kind"`

	// Verdict and Reason are what became of the packet; for KindAudit,
	// Verdict is what the rule would have done.
	Verdict string `json:"verdict,omitempty"`
	Reason  string `json:"reason,omitempty"`
	// Rule and Place name the rule that decided; empty: the default did,
	// or no rule was asked.
	Rule  string `json:"rule,omitempty"`
	Place string `json:"place,omitempty"`
	// Rejected says that the sender was asked to get an answer.
	Rejected bool `json:"rejected,omitempty"`
	// Sampled says of KindPacket that no rule has asked for it: it is one of many,
	// of which Count have had no event since the one before.
	Sampled bool `json:"sampled,omitempty"`
	// Packet is the packet; empty when there is none.
	Packet Packet `json:"packet,omitzero"`

	// IKE says more of a KindIKE event.
	IKE *IKEEvent `json:"ike,omitempty"`

	Message     string       `json:"message,omitempty"`
	Diagnostics []Diagnostic `json:"diagnostics,omitempty"`
	Generation  uint64       `json:"generation,omitempty"` // of the policy in force, for start and reload
	Count       uint64       `json:"count,omitempty"`

	logged bool // the log has it already
	caused bool // by what somebody has sent, beside those kinds of which all are
}

// textBytes is how much memory the texts of an event hold, in bytes. Those of
// rules and packets are shared, and short.
func (e *Event) textBytes() int {
	n := len(e.Message)
	for i := range e.Diagnostics {
		n += len(e.Diagnostics[i].Summary) + len(e.Diagnostics[i].Detail) + len(e.Diagnostics[i].File)
	}
	if i := e.IKE; i != nil {
		n += len(i.RemoteID) + len(i.Suite) + len(i.Ours) + len(i.Theirs) + len(i.Nearest) + len(i.Detail)
	}
	return n
}

// byOthers says that the event was caused by what somebody has sent to this host:
// anybody can cause as many of them as the network carries.
func (e *Event) byOthers() bool {
	switch e.Kind {
	case KindPacket, KindAudit, KindMalformed, KindIPsec:
		return true
	case KindIKE:
		return e.caused || e.IKE != nil && (e.IKE.Failure != "" || e.IKE.stranger)
	}
	return false
}

// warns says that an event of the key exchange is of something that did not work.
func (e *Event) warns() bool {
	return e.caused || e.IKE != nil && (e.IKE.Failure != "" || e.IKE.What == ike.Silent.String() || e.IKE.What == ike.Expires.String())
}

// byPeers says that the event tells what a peer that has authenticated does: as
// many children as it likes, one after the other.
func (e *Event) byPeers() bool { return e.Kind == KindIKE && e.IKE != nil && !e.byOthers() }

// Diagnostic is one thing a policy was refused for, or is warned of.
type Diagnostic = rules.Diagnostic

// Protocol is an IANA protocol number that JSON and people see by name.
type Protocol uint8

// String gives the IANA keyword, or the number of a protocol that has none.
func (p Protocol) String() string { return packet.ProtocolName(uint8(p)) }

// MarshalText gives the name.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a name or a number from 0 to 255.
func (p *Protocol) UnmarshalText(b []byte) error {
	if n, ok := packet.ProtocolNumber(string(b)); ok {
		*p = Protocol(n)
		return nil
	}
	n, err := strconv.ParseUint(string(b), 10, 8)
	if err != nil {
		return fmt.Errorf("%q is not an IP protocol", b)
	}
	*p = Protocol(n)
	return nil
}

// Packet is what an event keeps of a packet: enough to ask `ipfw explain`
// about it, and nothing of its payload.
type Packet struct {
	Direction   string     `json:"direction"`
	Protocol    Protocol   `json:"protocol"`
	Source      netip.Addr `json:"source"`
	Destination netip.Addr `json:"destination"`
	// Ports are 0 for protocols that have none.
	SourcePort      uint16 `json:"source_port,omitempty"`
	DestinationPort uint16 `json:"destination_port,omitempty"`
	ICMP            bool   `json:"icmp,omitempty"` // ICMPType and ICMPCode are set
	ICMPType        uint8  `json:"icmp_type,omitempty"`
	ICMPCode        uint8  `json:"icmp_code,omitempty"`
	SPI             uint32 `json:"spi,omitempty"`
	Sequence        uint32 `json:"sequence,omitempty"` // low half, of ESP and AH
	// FlowLabel is that of an IPv6 header; audits of IPsec want it (RFC 4303
	// section 3.4.2).
	FlowLabel    uint32 `json:"flow_label,omitempty"`
	TCPFlags     uint8  `json:"tcp_flags,omitempty"`
	Fragment     bool   `json:"fragment,omitempty"`
	InInterface  string `json:"in_interface,omitempty"`
	OutInterface string `json:"out_interface,omitempty"`
	SA           string `json:"sa,omitempty"` // the ipsec block it came out of
	Length       int    `json:"length_bytes"` // of the datagram, in bytes
}

// packetOf keeps of an input what outlives the packet's bytes.
func packetOf(in *engine.Input) Packet {
	p := &in.Packet
	out := Packet{
		Direction: in.Dir.String(), Protocol: Protocol(p.Protocol),
		Source: p.Src, Destination: p.Dst, SourcePort: p.SrcPort, DestinationPort: p.DstPort,
		ICMP: p.HasICMP, ICMPType: p.ICMPType, ICMPCode: p.ICMPCode, SPI: p.SPI, Sequence: p.SPISeq,
		TCPFlags: p.TCPFlags, Fragment: p.Fragment,
		InInterface: in.InIf, OutInterface: in.OutIf, SA: in.SA, Length: p.Len,
	}
	if p.Version == 6 && len(p.Bytes) >= 4 {
		out.FlowLabel = binary.BigEndian.Uint32(p.Bytes) & 0xfffff
	}
	return out
}

// String gives the packet in one line, as `ipfw explain` takes it.
func (p Packet) String() string {
	var b strings.Builder
	b.WriteString(p.Direction + " " + p.Protocol.String())
	if p.ICMP {
		b.WriteString(" " + packet.ICMPTypeName(uint8(p.Protocol), p.ICMPType))
	}
	ports := p.SourcePort != 0 || p.DestinationPort != 0
	b.WriteString(" " + endpoint(p.Source, p.SourcePort, ports) + " -> " + endpoint(p.Destination, p.DestinationPort, ports))
	if p.SPI != 0 {
		fmt.Fprintf(&b, " spi 0x%x", p.SPI)
	}
	if p.Protocol == packet.TCP && p.TCPFlags&(packet.SYN|packet.ACK) == packet.SYN {
		b.WriteString(" syn")
	}
	if p.SA != "" {
		b.WriteString(" protected " + p.SA)
	}
	if p.Fragment {
		b.WriteString(" fragment")
	}
	if p.InInterface != "" {
		b.WriteString(" on " + p.InInterface)
	} else if p.OutInterface != "" {
		b.WriteString(" on " + p.OutInterface)
	}
	return b.String()
}

func endpoint(a netip.Addr, port uint16, withPort bool) string {
	switch {
	case !a.IsValid():
		return "?"
	case withPort:
		return netip.AddrPortFrom(a, port).String()
	default:
		return a.String()
	}
}

// String gives the event in one line for people, without its time.
func (e Event) String() string {
	var b strings.Builder
	switch e.Kind {
	case KindPacket:
		b.WriteString(e.Verdict + " " + e.Packet.String() + " by " + e.by())
		if e.Rejected {
			b.WriteString(", answered")
		}
		if e.Sampled && e.Count > 0 {
			fmt.Fprintf(&b, "; %d more since the last are not shown", e.Count)
		}
	case KindAudit:
		fmt.Fprintf(&b, "audit: rule %q would %s %s", e.Rule, e.Verdict, e.Packet)
	case KindIPsec:
		b.WriteString(e.Verdict + " " + e.Packet.String())
		if e.Rule != "" {
			b.WriteString(" by " + e.by())
		} else {
			b.WriteString(", " + e.Reason)
		}
		if e.Packet.Sequence != 0 {
			fmt.Fprintf(&b, ", sequence number %d", e.Packet.Sequence)
		}
		if e.Count > 0 {
			fmt.Fprintf(&b, "; %d more like it since the last are not shown", e.Count)
		}
	case KindMalformed:
		b.WriteString("discard a malformed packet (" + e.Reason + ")")
	default:
		b.WriteString(string(e.Kind))
	}
	if e.Message != "" {
		b.WriteString(": " + packet.Printable(e.Message)) // one line, whoever's words are in it
	}
	for _, d := range e.Diagnostics {
		b.WriteString("\n  " + d.String())
	}
	return b.String()
}

// by says who decided.
func (e Event) by() string {
	s := engine.DefaultNameOf(e.Packet.Direction)
	switch {
	case e.Rule != "":
		s = fmt.Sprintf("rule %q", e.Rule)
		if e.Place != "" {
			s += " (" + e.Place + ")"
		}
	case e.Reason != engine.ReasonDefault.String():
		return e.Reason
	}
	if e.Reason != engine.ReasonRule.String() && e.Reason != engine.ReasonDefault.String() {
		s += ", " + e.Reason
	}
	return s
}
