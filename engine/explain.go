package engine

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ipfw/ipfw/packet"
)

// Explanation tells why a packet gets its verdict.
type Explanation struct {
	Outcome Outcome
	// Steps are the rules that were asked, in order, up to the one that
	// decided, which is the last unless the default did.
	Steps []Step
	// Fate is what happens to this packet, and Reply what happens to the
	// answer; one sentence each.
	Fate  string
	Reply string
}

// Step is one rule's answer.
type Step struct {
	Rule    int32 // index in Policy.Rules
	Matched bool
	Why     string // why it did not match, or what its match means
}

// Explain runs a trial and tells, rule by rule, how its verdict came about.
func (t Trial) Explain(e *Engine) (Explanation, error) {
	o, err := t.Run(e)
	if err != nil {
		return Explanation{}, err
	}
	x := Explanation{Outcome: o}
	x.Steps = e.Policy().steps(&o)
	x.Fate = fate(e.Policy(), &o)
	x.Reply = reply(e.Policy(), &o)
	return x, nil
}

// steps asks each rule up to the one that decided. A packet of an established
// flow is explained by the packet that opened the flow.
func (p *Policy) steps(o *Outcome) []Step {
	if o.Result.Rule == NoRule || o.Input.Packet.LaterFragment() {
		return nil
	}
	var steps []Step
	in := o.Input
	q := queryOf(&in)
	if r := &o.Result; r.Established && (in.Dir != Forward && r.Opened() != in.Dir || r.Rule >= 0 && p.Rules[r.Rule].mismatch(&q) != matches) {
		q = turned(&in)
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		s := Step{Rule: int32(i), Matched: int32(i) == o.Result.Rule}
		f := r.mismatch(&q)
		switch {
		case s.Matched:
			s.Why = "matches"
		case f == matches && r.Audit:
			s.Why = "matches, but only audits: it is logged, and the next rules decide"
		case f == matches && r.Limit != nil:
			s.Why = "matches only below its limit"
		default:
			s.Why = r.why(f, &q)
		}
		steps = append(steps, s)
		if s.Matched {
			break
		}
	}
	return steps
}

// turned is the question that the other side's packet of the same flow asks.
func turned(in *Input) query {
	o := *in
	p := &o.Packet
	p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
	if p.HasICMP {
		p.ICMPType = echoRequest
		if p.Version == 6 {
			p.ICMPType = echoRequest6
		}
	}
	o.InIf, o.OutIf = o.OutIf, o.InIf
	if o.Dir != Forward {
		o.Dir = 1 - o.Dir
	}
	return queryOf(&o)
}

// why says in words what stands in the way of a match.
func (r *Rule) why(f field, q *query) string {
	local, remote := netipAddr(q.key.Local, q.v6), netipAddr(q.key.Remote, q.v6)
	switch f {
	case fieldDirection:
		if q.dir == Forward && r.Forward {
			return "the other side opens this flow, and the rule lets only one side open"
		}
		return fmt.Sprintf("direction is %s, the rule is for %s", q.dir, r.directionWord())
	case fieldProtocol:
		return fmt.Sprintf("protocol is %s, the rule wants %s", packet.ProtocolName(q.key.Proto), r.protocolWords())
	case fieldICMP:
		return fmt.Sprintf("icmp type is %s, the rule wants another",
			packet.ICMPTypeName(q.key.Proto, uint8(q.key.LocalPort>>8)))
	case fieldLocal:
		return fmt.Sprintf("local address %s is not in %s", local, addrWords(r.Local))
	case fieldRemote:
		return fmt.Sprintf("remote address %s is not in %s", remote, addrWords(r.Remote))
	case fieldLocalPort:
		return fmt.Sprintf("local port %d is not %s", q.key.LocalPort, portWords(r.LocalPorts))
	case fieldRemotePort:
		return fmt.Sprintf("remote port %d is not %s", q.key.RemotePort, portWords(r.RemotePorts))
	case fieldInterface:
		return fmt.Sprintf("interface %s is not %s", interfaceWords(q), strings.Join(r.Interfaces, ", "))
	case fieldAnswers:
		if !isHost(local) {
			return fmt.Sprintf("it goes to %s, and not as an answer to this host's own address", local)
		}
		return "it answers nothing that this host has just asked a group (add \"answer\" if it does)"
	case fieldDSCP:
		return fmt.Sprintf("dscp is %d, the rule wants another", q.dscp)
	case fieldRelated:
		if q.masterRule == "" {
			return fmt.Sprintf("it is for what a helper expects of a flow that %s lets pass, which only the kernel knows: add \"related %s\" if it does", ruleWords(r.RelatedTo), r.RelatedTo[0])
		}
		return fmt.Sprintf("it is expected of a flow that rule %q lets pass, the rule wants %s", q.masterRule, ruleWords(r.RelatedTo))
	}
	return "matches"
}

func interfaceWords(q *query) string {
	switch {
	case q.inIf == "" && q.outIf == "":
		return "is not given (add \"on IFACE\"), so it"
	case q.inIf == "" || q.dir == Out:
		return q.outIf
	case q.outIf == "" || q.dir == In:
		return q.inIf
	}
	return q.inIf + " or " + q.outIf
}

func (r *Rule) directionWord() string {
	switch {
	case r.In && r.Out:
		return "in and out"
	case r.In:
		return "in"
	case r.Out:
		return "out"
	}
	return "forward"
}

func (r *Rule) protocolWords() string {
	list := r.Protocols
	if len(list) == 0 {
		return "a protocol with ports"
	}
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = packet.ProtocolName(p)
	}
	return strings.Join(names, " or ")
}

const wordsShown = 4

func addrWords(list []AddrRange) string {
	return listWords(list, func(r AddrRange) string { return r.String() })
}

func ruleWords(names []string) string {
	if len(names) == 1 {
		return "rule " + strconv.Quote(names[0])
	}
	return "one of the rules " + listWords(names, strconv.Quote)
}

func portWords(list []PortRange) string {
	return listWords(list, PortRange.String)
}

func listWords[T any](list []T, word func(T) string) string {
	var words []string
	for i, v := range list {
		if i == wordsShown {
			words = append(words, fmt.Sprintf("%d more", len(list)-i))
			break
		}
		words = append(words, word(v))
	}
	return strings.Join(words, ", ")
}

// String gives an address, a CIDR or "first-last", whichever says it shortest.
func (r AddrRange) String() string {
	if r.First == r.Last {
		return r.First.String()
	}
	for bits := 0; bits < r.First.BitLen(); bits++ {
		p, err := r.First.Prefix(bits)
		if err == nil && p.Addr() == r.First && lastOf(p) == r.Last {
			return p.String()
		}
	}
	return r.First.String() + "-" + r.Last.String()
}

// lastOf is the highest address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
