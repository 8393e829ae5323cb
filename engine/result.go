package engine

// Result is the answer for one packet.
type Result struct {
	// Verdict is what happens to this packet. Discard unless said otherwise.
	Verdict Verdict
	// Reason says why, from a closed list; each reason has a counter.
	Reason Reason
	// Rule is the index in Policy.Rules of the rule that decided, or one of
	// NoRule and DefaultRule.
	Rule int32
	// Reject asks for an answer: a TCP reset or an ICMP unreachable.
	Reject bool
	// Log asks for an event.
	Log bool
	// Established says that the packet belongs to a flow that was let
	// through before; its rule is the one that let the flow open.
	Established bool
	// NewFlow says that this packet opened a flow.
	NewFlow bool
}

// Values of Result.Rule that are not an index.
const (
	NoRule      int32 = -1 // no rule was asked (a malformed packet)
	DefaultRule int32 = -2 // the policy block's default decided
)

// Reason is why a packet got its verdict.
type Reason uint8

// The reasons. Discards that are not by rule are grouped by what an
// administrator has to look at. RFC 4301 section 4.4.1 and 5.
const (
	ReasonNone           Reason = iota // the zero value: nobody decided; discards
	ReasonRule                         // a rule matched
	ReasonDefault                      // no rule matched: the policy block's default
	ReasonFlow                         // belongs to a flow that was let through
	ReasonRelated                      // an ICMP error about such a flow
	ReasonNoSA                         // policy says protect, and there is no SA
	ReasonClear                        // arrived in the clear, policy says protect
	ReasonWrongSA                      // came out of an SA that policy does not name for it (RFC 4301 5.2 step 4)
	ReasonTCPState                     // TCP segment that fits no flow and opens none
	ReasonFlowTableFull                // no room for another flow
	ReasonFragmentOrphan               // later fragment whose first was not seen
	ReasonFragmentFull                 // no room to remember another fragmented datagram
	ReasonUnrelatedICMP                // ICMP error about a flow that does not exist
	ReasonTruncated                    // from here on: packet.Fault, one for one
	ReasonBadVersion
	ReasonBadHeaderLength
	ReasonBadLength
	ReasonBadChain
	ReasonBadFragment
	ReasonBadTransport
	reasonCount
)

var reasonNames = [reasonCount]string{
	"undecided", "rule", "default", "flow", "related",
	"no-sa", "clear-text", "wrong-sa", "tcp-state", "flow-table-full",
	"fragment-orphan", "fragment-table-full", "unrelated-icmp",
	"truncated", "bad-version", "bad-header-length", "bad-length",
	"bad-extension-chain", "bad-fragment", "bad-transport",
}

// String gives the reason's name as counters, events and people know it.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}

// Reasons is how many reasons there are.
const Reasons = int(reasonCount)
