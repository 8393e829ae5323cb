package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// replayReport is what `ipfw replay --json` prints.
type replayReport struct {
	Capture struct {
		Packets uint64    `json:"packets"`
		Bytes   uint64    `json:"bytes"`
		First   time.Time `json:"first,omitzero"` // of no packet: absent
		Last    time.Time `json:"last,omitzero"`
	} `json:"capture"`
	Local     []string          `json:"local"`
	Verdicts  map[string]uint64 `json:"verdicts"`  // what policy says: bypass, discard, protect
	Reasons   map[string]uint64 `json:"reasons"`   // why, by reason
	Malformed map[string]uint64 `json:"malformed"` // part of the discards
	Skipped   map[string]uint64 `json:"skipped"`   // not judged at all
	MidStream int               `json:"mid_stream_flows"`
	Rules     []ruleHits        `json:"rules"`
	Unhit     []ruleRef         `json:"unhit"`
	// the rules with related_to: what helpers expect no capture tells, so they match
	// nothing
	Related []string       `json:"related_rules,omitempty"`
	Flows   []flowReport   `json:"flows"`
	Omitted map[string]int `json:"omitted_flows,omitempty"` // by verdict
	Lost    uint64         `json:"packets_of_unlisted_flows,omitempty"`

	policy *engine.Policy
	rows   []outcomeRow
	span   time.Duration
	links  []uint16
}

// replayEnd ends what `ipfw replay --packets --json` prints.
type replayEnd struct {
	Report *replayReport `json:"report"`
}

// ruleHits is how often a rule, or a default, has decided.
type ruleHits struct {
	ruleRef
	Essential bool   `json:"essential,omitempty"`
	Packets   uint64 `json:"packets"`
	Bytes     uint64 `json:"bytes"`
	Flows     uint64 `json:"flows"`
}

// flowReport is one outcome of one flow.
type flowReport struct {
	Flow    string   `json:"flow"`
	Verdict string   `json:"verdict"`
	Reason  string   `json:"reason"`
	Rule    *ruleRef `json:"rule"`
	Packets uint64   `json:"packets"`
	Bytes   uint64   `json:"bytes"`
}

// report sums up the run.
func (r *replayer) report() *replayReport {
	p := r.engine.Policy()
	st := r.engine.Stats()
	x := &replayReport{
		Local: []string{}, Verdicts: map[string]uint64{}, Reasons: map[string]uint64{},
		Malformed: map[string]uint64{}, Skipped: map[string]uint64{}, Unhit: []ruleRef{}, policy: p,
	}
	x.Capture.Packets, x.Capture.Bytes = r.frames, r.bytes
	x.links = r.links
	if r.frames > 0 {
		x.Capture.First, x.Capture.Last = time.Unix(0, r.first).UTC(), time.Unix(0, r.in.Now).UTC()
	}
	x.span = time.Duration(r.in.Now - r.first)
	for _, l := range r.side.local {
		x.Local = append(x.Local, l.String())
	}
	for v, n := range r.judged {
		x.Verdicts[engine.Verdict(v).String()] = n
	}
	for i, n := range st.Reasons {
		if n += r.reasons[i]; n > 0 {
			x.Reasons[engine.Reason(i).String()] = n
		}
	}
	for i, n := range r.faults {
		if n > 0 {
			x.Malformed[packet.Fault(i).String()] = n
		}
	}
	for i, n := range r.skipped {
		if n > 0 {
			x.Skipped[skipNames[i]] = n
		}
	}
	for i, s := range st.Rules {
		ref := ruleRef{p.Rules[i].Name, p.Rules[i].Place}
		s.Packets += r.hits[i].Packets
		s.Bytes += r.hits[i].Bytes
		x.Rules = append(x.Rules, ruleHits{ref, p.Rules[i].Essential, s.Packets, s.Bytes, s.Flows})
		if len(p.Rules[i].RelatedTo) > 0 {
			x.Related = append(x.Related, ref.Name)
		}
		if s.Packets == 0 {
			x.Unhit = append(x.Unhit, ref)
		}
	}
	x.rows, x.Lost = r.flows.sorted(), r.flows.lost
	// A reply counts for the default that let its flow open.
	var defaults [len(ways)]ruleHits
	for _, row := range x.rows {
		if row.rule == engine.DefaultRule {
			h := &defaults[row.flowOutcome.asked]
			h.Name = engine.DefaultName(row.flowOutcome.asked)
			h.Packets += row.packets
			h.Bytes += row.bytes
			if row.verdict != engine.Discard {
				h.Flows++
			}
		}
	}
	for _, h := range defaults {
		if h.Packets > 0 {
			x.Rules = append(x.Rules, h)
		}
	}
	for _, row := range r.flows.rows {
		if row.midStream {
			x.MidStream++
		}
	}
	return x
}

// pick keeps the first top rows of each verdict; 0 keeps all.
func (x *replayReport) pick(top int) {
	x.Flows = []flowReport{}
	shown := map[engine.Verdict]int{}
	for _, row := range x.rows {
		if shown[row.verdict]++; top > 0 && shown[row.verdict] > top {
			if x.Omitted == nil {
				x.Omitted = map[string]int{}
			}
			x.Omitted[row.verdict.String()]++
			continue
		}
		x.Flows = append(x.Flows, flowReport{row.line(), row.verdict.String(), row.reason.String(),
			decider(x.policy, row.rule, row.flowOutcome.asked), row.packets, row.bytes})
	}
}

// printReport prints the report in the form that was asked for.
func (a *app) printReport(x *replayReport, o *replayOptions) error {
	x.pick(o.top)
	switch {
	case o.json && o.packets:
		return a.printJSON(replayEnd{x})
	case o.json:
		return a.printJSON(x)
	}
	if x.Capture.Packets == 0 {
		a.printf("The capture holds no packet, so nothing of the policy was tried: nothing was captured, or a filter kept everything out.\n")
		return nil
	}
	a.printFlows(x)
	a.printHits(x)
	a.printTotals(x)
	return nil
}

func (a *app) printFlows(x *replayReport) {
	if len(x.Flows) > 0 {
		w := a.table()
		fmt.Fprintln(w, "VERDICT\tPACKETS\tBYTES\tFLOW\tRULE")
		for _, f := range x.Flows {
			fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", f.Verdict, f.Packets, f.Bytes, f.Flow, f.because())
		}
		a.flushTable(w)
	}
	for _, v := range []string{"discard", "protect", "bypass"} {
		if n := x.Omitted[v]; n > 0 {
			a.printf("... and %d more flows with %s (--top 0 shows all)\n", n, v)
		}
	}
	if x.Lost > 0 {
		a.printf("... and %d packets of flows beyond the first %d\n", x.Lost, maxFlowRows)
	}
	if len(x.Flows) > 0 {
		a.printf("\n")
	}
}

// because names the rule, and the reason where it is not the rule's word.
func (f *flowReport) because() string {
	var words []string
	if f.Rule != nil {
		words = append(words, f.Rule.Name)
	}
	if f.Reason != engine.ReasonRule.String() {
		words = append(words, f.Reason)
	}
	return strings.Join(words, ", ")
}

func (a *app) printHits(x *replayReport) {
	w := a.table()
	if !x.untouched() {
		fmt.Fprintln(w, "RULE\tPACKETS\tFLOWS\tPLACE")
	}
	for _, h := range x.Rules {
		if h.Packets > 0 {
			place := h.Place
			if place == "" {
				place = "-"
			}
			fmt.Fprintf(w, "%s\t%d\t%d\t%s\n", h.Name, h.Packets, h.Flows, place)
		}
	}
	if !x.untouched() {
		fmt.Fprintln(w)
	}
	a.flushTable(w)
	var own []string
	essential := 0
	for _, h := range x.Rules {
		switch {
		case h.Packets > 0:
		case h.Essential:
			essential++
		default:
			own = append(own, fmt.Sprintf("%s (%s)", h.Name, h.Place))
		}
	}
	if len(own) > 0 {
		a.printf("Nothing hit: %s\n", strings.Join(own, ", "))
	}
	if len(x.Related) > 0 {
		a.printf("What helpers of the kernel expect no capture tells, so %s: %s\n", matchNothing(len(x.Related)), strings.Join(x.Related, ", "))
	}
	if essential > 0 {
		a.printf("Nothing hit %d of the essential rules, either.\n", essential)
	}
}

func matchNothing(n int) string {
	if n == 1 {
		return "the rule that asks for it matches nothing here"
	}
	return "the rules that ask for it match nothing here"
}

// untouched says that no rule and no default has decided anything.
func (x *replayReport) untouched() bool { return len(x.Unhit) == len(x.Rules) }

func (a *app) printTotals(x *replayReport) {
	a.printf("%s, %s of traffic: %s %d, %s %d, %s %d\n", plural(x.Capture.Packets, "packet"), x.span.Round(time.Millisecond),
		a.verdict(engine.Bypass), x.Verdicts["bypass"], a.verdict(engine.Discard), x.Verdicts["discard"],
		a.verdict(engine.Protect), x.Verdicts["protect"])
	if n := x.Reasons[engine.ReasonNeverOpened.String()]; n > 0 {
		a.printf("%s would never have been sent, because policy refuses the one that opens its flow (%s).\n", plural(n, "packet"), engine.ReasonNeverOpened)
	}
	var words []string
	for f := range packet.Faults {
		if n := x.Malformed[packet.Fault(f).String()]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, packet.Fault(f)))
		}
	}
	if words != nil {
		a.printf("Malformed, discarded: %s\n", strings.Join(words, ", "))
	}
	words = nil
	for _, name := range skipNames[1:] {
		if n := x.Skipped[name]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, name))
		}
	}
	if words != nil {
		a.printf("Not judged: %s\n", strings.Join(words, ", "))
	}
	if len(x.links) > 0 {
		a.printf("Frames of %s cannot be read: capture on an interface that has Ethernet or plain IP (tcpdump -D lists them), or by \"any\".\n", linkTypes(x.links))
	}
	if x.Verdicts["bypass"]+x.Verdicts["discard"]+x.Verdicts["protect"] == 0 {
		a.printf("No packet of this capture was judged, so nothing of the policy was tried.\n")
	}
	if x.Skipped[skipNames[elsewhere]] > 0 {
		a.printf("Packets from elsewhere to elsewhere are judged for the networks that --forward names.\n")
	}
	if x.MidStream > 0 {
		a.printf("%s open before the capture began, judged as if the first packet in it had opened it.\n", wasWere(x.MidStream, "TCP flow"))
	}
}

// linkTypes names kinds of link by their numbers (LINKTYPE_ of tcpdump.org).
func linkTypes(list []uint16) string {
	const most = 8
	s := "link type "
	if len(list) > 1 {
		s = "link types "
	}
	for i, l := range list[:min(most, len(list))] {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprint(l)
	}
	if n := len(list) - most; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	return s
}

// table aligns columns by tabs.
func (a *app) table() *tabwriter.Writer { return tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0) }

func (a *app) flushTable(w *tabwriter.Writer) { w.Flush() }

// packetReport is one line of `ipfw replay --packets --json`.
type packetReport struct {
	Packet  uint64    `json:"packet"` // its number in the file, from 1
	Time    time.Time `json:"time"`
	Line    string    `json:"line,omitempty"` // as `ipfw explain` takes it; none for a malformed packet
	Bytes   int       `json:"bytes"`
	Verdict string    `json:"verdict"`
	Reason  string    `json:"reason"`
	Rule    *ruleRef  `json:"rule"`
}

// packetPrinter prints each packet's verdict.
func (a *app) packetPrinter(p *engine.Policy, asJSON bool) func(*judgement) error {
	return func(j *judgement) error {
		x := packetReport{
			Packet: j.number, Time: time.Unix(0, j.in.Now).UTC(), Bytes: j.in.Packet.Len,
			Verdict: policyVerdict(&j.result).String(), Reason: j.result.Reason.String(),
		}
		if j.result.Reason < engine.ReasonTruncated {
			x.Line = rowOf(j.in).line()
			x.Rule = decider(p, j.result.Rule, j.result.Opened())
		}
		if asJSON {
			return a.printJSON(x)
		}
		why := x.Reason
		switch {
		case j.result.Reason == engine.ReasonDefault && x.Rule != nil:
			why = strings.Trim(x.Rule.Name, "()")
		case x.Rule != nil:
			why += ": " + strings.Trim(x.Rule.Name, "()")
		}
		a.printf("%6d  %s  %s  %s (%s)\n", j.number, x.Time.Format("15:04:05.000000"),
			a.verdict(policyVerdict(&j.result)), x.Line, why)
		return nil
	}
}
