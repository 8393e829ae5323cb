package engine

import (
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// Result is the answer for one packet. Its zero value discards.
type Result struct {
	// Verdict is what happens to this packet: Discard drops it, Bypass lets
	// it go on as it is. Protect says that the packet is under an SA:
	// outbound it leaves sealed, inbound it has been opened and may go on.
	Verdict Verdict
	// Reason says why, from a closed list; each reason has a counter.
	Reason Reason
	// Rule is the index in Policy.Rules of the rule that decided, or one of
	// NoRule and DefaultRule. For a packet of a flow it is the rule that let
	// the flow open.
	Rule int32

	// TellMTU, when not 0, asks for an ICMP error that tells the packet's
	// sender the longest datagram, in bytes, that can be protected in one
	// piece (RFC 4301 section 8.2).
	TellMTU int

	// Offload, when not 0, says that the kernel may answer the same for the
	// rest of the flow as long as this Engine.Generation is in force.
	Offload uint32

	Reject      bool // answer with a TCP reset or an ICMP unreachable
	Log         bool // the rule asks for an event
	Established bool // the packet belongs to a flow that was let through
	NewFlow     bool // the packet opened a flow

	sa     *esp.SA   // that must seal the packet
	opened Direction // of the packet that opened the flow
	alone  bool      // the packet was judged without a flow of its own
	// longest is how long a TCP packet of this side of its flow may be, in
	// bytes, where packets are put together; 0 if nobody has said.
	longest uint16

	// Audits are the first audit rules (rule attribute `audit`) that matched
	// before the rule that decided, by index; NAudits of them are valid.
	Audits  [4]int32
	NAudits uint8
}

// Opened is the direction of the packet that opened the flow, or of the packet
// itself if it belongs to none: that of the default which decided.
func (r *Result) Opened() Direction { return r.opened }

// Values of Result.Rule that are not an index.
const (
	NoRule      int32 = -1 // no rule was asked (a malformed packet)
	DefaultRule int32 = -2 // the policy block's default decided
)

// Reason is why a packet got its verdict.
type Reason uint8

// The reasons. Discards that are not by rule are grouped by what an
// administrator has to look at (RFC 4301 sections 4.4.1, 5.1 and 5.2).
const (
	ReasonNone            Reason = iota // the zero value: nobody decided; discards
	ReasonRule                          // a rule matched
	ReasonDefault                       // no rule matched: the policy block's default
	ReasonFlow                          // belongs to a flow that was let through
	ReasonRelated                       // an ICMP error about such a flow
	ReasonNoSA                          // policy says protect, and there is no SA
	ReasonHeld                          // there is no SA, but a copy waits for one: it is counted again when it goes
	ReasonClear                         // arrived in the clear, policy says protect
	ReasonClearError                    // ICMP in the clear about a packet that policy protects
	ReasonWrongSA                       // came out of an SA that policy does not name for it (RFC 4301 section 5.2 step 4)
	ReasonOtherPeer                     // of a flow with another peer that has the same address behind a NAT (RFC 3948 section 5.2)
	ReasonTranslated                    // came out of an SA, and another program has changed its destination since it was judged
	ReasonUnknownSA                     // came out of an SA, and when its way out was known nobody knew of which
	ReasonTurnsBack                     // came out of an SA, and would leave in the clear by the interface that its sealed self came by
	ReasonMustSeal                      // came out of an SA, and would leave in the clear where policy protects
	ReasonTCPState                      // TCP segment that fits no flow and opens none
	ReasonFlowTableFull                 // no room for another flow
	ReasonFragmentOrphan                // later fragment whose first fragment was not seen
	ReasonFragmentHeld                  // a fragment out of an SA waits for the others of its datagram, which is counted again when it is whole
	ReasonFragmentOverlap               // fragment over bytes already seen (RFC 5722)
	ReasonFragmentFull                  // no room to remember another fragmented datagram
	ReasonSourceRoute                   // source route not used up: the destination is a stop, not the end (RFC 6274 section 3.13.2.3, RFC 5095)
	ReasonTooBig                        // too long to protect in one piece, and not to be fragmented: its sender is told
	ReasonIKE                           // IKE on its way to the key exchange (RFC 3948 section 2.2)
	ReasonKeepalive                     // NAT keepalive, for nobody (RFC 3948 section 2.3)
	ReasonLoopback                      // never leaves the host: the kernel lets it pass before the policy is asked; in dry runs only
	ReasonNeverOpened                   // of a recorded flow whose opening packet this policy refuses: it would not have been sent; in dry runs only
	ReasonTruncated                     // from here on: packet.Fault, one for one
	ReasonBadVersion
	ReasonBadHeaderLength
	ReasonBadLength
	ReasonBadChain
	ReasonBadFragment
	ReasonBadTransport
	reasonESP   // from here on: esp.Fault, one for one
	reasonCount = reasonESP + Reason(esp.Faults) - 1
)

// ReasonOf gives the reason for a packet that Parse refused.
func ReasonOf(f packet.Fault) Reason {
	r := ReasonTruncated + Reason(f) - 1
	if f == packet.OK || r >= reasonESP {
		return ReasonNone
	}
	return r
}

// reasonOfESP gives the reason for a packet that IPsec refused.
func reasonOfESP(f esp.Fault) Reason {
	r := reasonESP + Reason(f) - 1
	if f == esp.OK || r >= reasonCount {
		return ReasonNone
	}
	return r
}

var reasonNames = [reasonESP]string{
	"undecided", "rule", "default", "flow", "related",
	"no-sa", "held", "clear-text", "clear-error", "wrong-sa", "other-peer",
	"translated", "unknown-sa", "turns-back", "must-seal", "tcp-state", "flow-table-full",
	"fragment-orphan", "fragment-held", "fragment-overlap", "fragment-table-full", "source-route", "too-big", "ike", "nat-keepalive", "loopback", "never-opened",
	"truncated", "bad-version", "bad-header-length", "bad-length",
	"bad-extension-chain", "bad-fragment", "bad-transport",
}

// String gives the reason's name as counters, events and people know it.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	if r < reasonCount {
		return "ipsec-" + esp.Fault(r-reasonESP+1).String()
	}
	return "unknown"
}

// Auditable says whether a discard for this reason is an event that RFC 4301
// sections 5.1 and 5.2, RFC 4302 section 4 and RFC 4303 section 4 want in an
// audit log: what IPsec has refused, but for dummy packets, which are meant to
// be thrown away.
func (r Reason) Auditable() bool {
	switch r {
	case ReasonNoSA, ReasonClear, ReasonClearError, ReasonWrongSA, ReasonOtherPeer,
		ReasonTranslated, ReasonUnknownSA, ReasonTurnsBack, ReasonMustSeal:
		return true
	}
	return r >= reasonESP && r < reasonCount && r != reasonOfESP(esp.Dummy)
}

// Reasons is how many reasons there are.
const Reasons = int(reasonCount)
