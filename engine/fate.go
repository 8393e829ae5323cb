package engine

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// fate says in one sentence what happens to a packet.
func fate(policy *Policy, o *Outcome) string {
	r := &o.Result
	switch r.Reason {
	case ReasonClear:
		return fmt.Sprintf("it came in the clear, and policy wants it under %q: it is discarded, and counted as %s", o.Rule.With, r.Reason)
	case ReasonLoopback:
		return "it never leaves this host: the kernel lets it pass before the policy is asked, whatever that says"
	case ReasonClearError:
		return fmt.Sprintf("it speaks in the clear of a packet that policy protects: it is discarded, and counted as %s", r.Reason)
	case ReasonNoSA:
		return fmt.Sprintf("it may leave only under %q, which has no SA for it: it is discarded, and counted as %s, never sent in the clear", o.Rule.With, r.Reason)
	case ReasonWrongSA:
		return fmt.Sprintf("it came out of SA %q, which policy does not name for it: it is discarded", o.Input.SA)
	case ReasonTurnsBack:
		return fmt.Sprintf("it would leave in the clear by %s, where its sealed self came from, and rule %q does not name that interface: it is discarded", o.Input.OutIf, o.Rule.Name)
	case ReasonMustSeal:
		return "it would leave in the clear where policy protects: it is discarded"
	case ReasonTCPState:
		return fmt.Sprintf("it belongs to no flow that was let through, and a segment with these flags (%s) opens none: it is discarded, and counted as %s",
			flagWords(o.Input.Packet.TCPFlags), r.Reason)
	case ReasonFlow, ReasonRelated:
		if r.Verdict == Bypass {
			return "it belongs to a flow that was let through: it passes"
		}
	}
	switch {
	case r.Reject:
		return "it is discarded, and its sender is told so"
	case r.Rule == NoRule:
		return fmt.Sprintf("it is discarded without asking any rule (%s)", r.Reason)
	case r.Verdict == Discard:
		return "it is discarded in silence"
	case r.Verdict == Protect && o.Leaves():
		return fmt.Sprintf("it leaves sealed under %q; while there is no SA, it is discarded, and counted as %s, never sent in the clear", o.Rule.With, ReasonNoSA)
	case r.Verdict == Protect:
		return "it came out of the right SA: it passes"
	case opened(policy, o):
		return fmt.Sprintf("the SA with its SPI opens it, and what it holds is judged; without one it is discarded, and counted as %s", reasonOfESP(esp.UnknownSPI))
	}
	if o.Rule != nil && o.Rule.AnswersMulticast > 0 {
		return "it answers what this host has just asked a group: it passes, and opens no flow"
	}
	return "it passes unchanged"
}

// reply says in one sentence what happens to the answer.
func reply(policy *Policy, o *Outcome) string {
	p, r := &o.Input.Packet, &o.Result
	switch {
	case r.Verdict == Discard && o.Verdict == Protect:
		return "there is no answer to a packet that does not pass; under its SA, the answers belong to the flow and are protected too"
	case r.Verdict == Discard:
		return "there is no answer to a packet that does not pass"
	case r.Reason == ReasonLoopback:
		return "the answers never leave this host either"
	case p.HasICMP && !isEcho(p):
		return "a message of this kind has no answer; each is judged by itself"
	case p.Dst.IsMulticast(), p.Dst == broadcast:
		return fmt.Sprintf("whoever answers does so from an address of its own, not from %s, so the answers do not belong to the flow: the rules for %s decide%s",
			p.Dst, answering[o.Input.Dir], answerWords(policy, &o.Input))
	case o.Rule != nil && o.Rule.AnswersMulticast > 0:
		return "what this host sends back opens a flow of its own: the rules for outbound traffic decide"
	case p.Src.IsUnspecified():
		return fmt.Sprintf("the sender has no address yet, so the answers do not go to %s and do not belong to the flow: the rules for %s decide", p.Src, answering[o.Input.Dir])
	case r.Established:
		return "the answers belong to the same flow and pass"
	case p.HasICMP && isEchoReply(p):
		return "it is an answer itself"
	case opened(policy, o):
		return "what it holds has its own, which are judged with it"
	case o.Verdict == Protect:
		return "the answers belong to the flow, and must use the same ipsec block"
	}
	return "the answers belong to the flow and pass, whatever the rules for the other direction say"
}

// answerWords says for how long answers to a question come in by which rules.
func answerWords(policy *Policy, in *Input) string {
	p := &in.Packet
	if in.Dir != Out || p.Protocol != packet.UDP || !isHost(p.Src) {
		return ""
	}
	var words []string
	for i := range policy.Rules {
		r := &policy.Rules[i]
		if r.AnswersMulticast == 0 || r.Audit || !r.isLocal(p.Src) || !inPorts(r.LocalPorts, p.SrcPort) || len(r.Interfaces) > 0 && !r.Names(in.OutIf) {
			continue
		}
		words = append(words, fmt.Sprintf("; rule %q lets those that neighbours send to %s come in for %s", r.Name, netip.AddrPortFrom(p.Src, p.SrcPort), r.AnswersMulticast))
	}
	return strings.Join(words, "")
}

// broadcast is everybody on the network (RFC 919 section 7). What else is a
// broadcast address hangs on the networks of a host, and is not known here.
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// answering names the traffic that answers a direction's packets.
var answering = [...]string{In: "outbound traffic", Out: "inbound traffic", Forward: "forwarded traffic"}

// flagWords names the flags of a TCP segment as a Trial has them.
func flagWords(flags uint8) string {
	var words []string
	for i, name := range [...]string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"} {
		if flags>>i&1 != 0 {
			words = append(words, name)
		}
	}
	return cmp.Or(strings.Join(words, ","), "none")
}

// opened says that the packet is ESP or AH that the host opens before rules are
// asked, as it does where any rule protects.
func opened(policy *Policy, o *Outcome) bool {
	p := &o.Input.Packet
	return o.Input.Dir == In && (p.Protocol == packet.ESP || p.Protocol == packet.AH) && o.Result.Verdict == Bypass &&
		slices.ContainsFunc(policy.Rules, func(r Rule) bool { return r.Action == Protect })
}
