package rules

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/ipfw/ipfw/engine"
)

// tests reads the test blocks.
func (l *loader) tests() {
	seen := map[string]hcl.Range{}
	for _, b := range l.blocks["test"] {
		t := Test{Place: l.place(b.DefRange())}
		expects := 0
		k := l.open(b, nil, map[string]func(*hclsyntax.Block){"expect": func(in *hclsyntax.Block) {
			expects++
			if e, ok := l.expect(in); ok {
				t.Expects = append(t.Expects, e)
			}
		}})
		t.Name = k.name
		if len(b.Labels) == 0 {
			continue
		}
		l.unique(b, seen)
		if expects == 0 {
			l.missing(b.DefRange(), "Test without expectation", `%s expects nothing: write expect "bypass" { packet = "..." } in it.`, k.subject())
		}
		if len(t.Expects) > 0 {
			l.policy.Tests = append(l.policy.Tests, t)
		}
	}
}

// expect reads one expect block. It is false for one whose packets are made from locals
// that give none, such as all networks of IPv6 where there is none: that is no mistake.
func (l *loader) expect(b *hclsyntax.Block) (e Expect, ok bool) {
	k := l.open(b, []string{"packet", "packets", "rule"}, nil)
	e = Expect{Place: l.place(b.DefRange())}
	switch {
	case len(b.Labels) == 0:
		l.missing(b.TypeRange, "Name missing", `An expect block says which verdict: expect "bypass" { ... }.`)
	case len(b.Labels) > 1:
		l.fail(b.LabelRanges[1], "One name too many", "An expect block has one verdict.")
	default:
		v := indexOf(actionWords, b.Labels[0])
		if v < 0 {
			l.fail(b.LabelRanges[0], "Wrong value", "A verdict is %s, not %q%s.", oneOf(actionWords), b.Labels[0], didYouMean(b.Labels[0], actionWords))
		} else {
			e.Verdict = engine.Verdict(v)
		}
	}
	if k.has("packet") && k.has("packets") {
		l.fail(k.at("packets"), "Arguments do not fit", "packet is for one, packets for a list: write one of the two.")
	}
	check := func(it item, s string) bool {
		t, err := engine.ParseTrial(s)
		if err != nil {
			l.fail(it.r, "Packet not understood", "%s.", upperFirst(err.Error()))
			return false
		}
		if names := l.policy.ruleNames(); t.RelatedTo != "" && !contains(names, t.RelatedTo) {
			l.missing(it.r, "Unknown rule", "There is no rule %q%s.", t.RelatedTo, didYouMean(t.RelatedTo, names))
			return false
		}
		return true
	}
	none := false
	for _, arg := range []string{"packet", "packets"} {
		const want = `a packet in one line, as in "in tcp 203.0.113.9:40000 -> 198.51.100.10:443"`
		if a := b.Body.Attributes[arg]; a == nil || len(localRefs(a.Expr)) == 0 {
			e.Packets = append(e.Packets, k.words(arg, want, check)...)
			continue
		}
		items, set, good := k.list(arg)
		none = none || set && good && len(items) == 0
		e.Packets = append(e.Packets, k.wordsOf(items, arg, want, check)...)
	}
	if !k.has("packet") && !k.has("packets") {
		l.missing(b.DefRange(), "Argument missing", "An expect block has a packet, or packets in a list.")
	}
	e.Rule = k.str("rule", "the name of a rule")
	if names := l.policy.ruleNames(); e.Rule != "" && !contains(names, e.Rule) {
		l.missing(k.b.Body.Attributes["rule"].Expr.Range(), "Unknown rule", "There is no rule %q%s.", e.Rule, didYouMean(e.Rule, names))
	}
	return e, !none || len(e.Packets) > 0
}

// TestResult is what one packet of a test block came to.
type TestResult struct {
	Test   string         `json:"test"`
	Place  string         `json:"place"` // of the expect block
	Packet string         `json:"packet"`
	Want   engine.Verdict `json:"-"`
	Got    engine.Verdict `json:"-"`
	// WantRule is empty when the test names none. GotRule is empty when the
	// policy block's default decided, or no rule was asked.
	WantRule string `json:"want_rule,omitempty"`
	GotRule  string `json:"got_rule,omitempty"`
	GotPlace string `json:"got_place,omitempty"` // of that rule
	Reason   string `json:"reason"`              // the engine's
	Pass     bool   `json:"pass"`
	// Why says in one sentence what is different; empty when Pass.
	Why string `json:"why,omitempty"`
}

// RunTests runs every packet of every test block through the evaluator that
// the daemon uses.
func (p *Policy) RunTests() []TestResult {
	e := p.DryRun(engine.Options{})
	var out []TestResult
	for _, t := range p.Tests {
		for _, x := range t.Expects {
			for _, line := range x.Packets {
				out = append(out, x.run(e, t.Name, line))
			}
		}
	}
	return out
}

func (x *Expect) run(e *engine.Engine, test, line string) TestResult {
	r := TestResult{Test: test, Place: x.Place, Packet: line, Want: x.Verdict, WantRule: x.Rule}
	o, err := runTrial(e, line)
	if err != nil {
		r.Why = err.Error()
		return r
	}
	r.Got, r.Reason = o.Verdict, o.Result.Reason.String()
	by := "by " + engine.DefaultName(o.Result.Opened())
	switch {
	case o.Rule != nil:
		r.GotRule, r.GotPlace = o.Rule.Name, o.Rule.Place
		by = "by rule " + quoted(*o.Rule)
	case o.Result.Rule == engine.NoRule:
		by = "before any rule was asked"
	}
	if o.Result.Reason != engine.ReasonDefault { // which the name says
		by += " (" + r.Reason + ")"
	}
	switch {
	case r.Got != r.Want:
		r.Why = fmt.Sprintf("expected %s, but got %s %s", r.Want, r.Got, by)
	case r.WantRule != "" && r.WantRule != r.GotRule:
		r.Why = fmt.Sprintf("expected %s by rule %q, but got it %s", r.Want, r.WantRule, by)
	default:
		r.Pass = true
	}
	return r
}

func runTrial(e *engine.Engine, line string) (engine.Outcome, error) {
	t, err := engine.ParseTrial(line)
	if err != nil {
		return engine.Outcome{}, err
	}
	return t.Run(e)
}
