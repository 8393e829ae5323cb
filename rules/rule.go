package rules

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"github.com/zclconf/go-cty/cty"
)

var (
	// Words in the order of the engine's constants.
	actionWords   = []string{engine.Discard.String(), engine.Bypass.String(), engine.Protect.String()}
	defaultWords  = actionWords[:2]
	openerWords   = []string{"either", "local", "remote"}
	sideWords     = []string{"in", "out", "both", "forward"}
	ruleArguments = append([]string{"description", "enabled", "essential", "action", "with", "direction", "opened_by",
		"reject", "log", "audit", "half_open", "answers_multicast"}, selectors...)
)

// settings reads the policy block.
func (l *loader) settings() {
	blocks := l.blocks["policy"]
	if len(blocks) == 0 {
		l.missing(hcl.Range{}, "No policy block",
			"%s. It says what happens to traffic that no rule names: policy { inbound = \"discard\", outbound = \"bypass\" }.", l.withoutPolicy())
		return
	}
	for _, b := range blocks[1:] {
		l.fail(b.TypeRange, "Second policy block", "The policy block is at %s; there is one only.", l.place(blocks[0].TypeRange))
	}
	k := l.open(blocks[0], []string{"inbound", "outbound", "forward", "essentials", "on_failure", "offload",
		"queue", "queues", "mark_mask", "log", "log_rate", "clear_icmp_errors", "half_open"}, map[string]func(*hclsyntax.Block){"timeouts": l.timeouts})
	s := &l.policy.Settings
	s.Place = l.place(blocks[0].TypeRange)
	def := &l.policy.Engine.Default
	def[engine.In] = k.fallback("inbound", true)
	def[engine.Out] = k.fallback("outbound", true)
	def[engine.Forward] = k.fallback("forward", false)
	l.inbound = k.at("inbound")
	s.Essentials = k.flag("essentials", true)
	s.FailOpen = k.word("on_failure", []string{"closed", "open"}, 0) == 1
	l.policy.Engine.ClearErrors = k.word("clear_icmp_errors", []string{"discard", "bypass"}, 0) == 1
	l.policy.Engine.HalfOpen = k.word("half_open", defaultWords, 0) == 1
	s.Offload = k.word("offload", []string{"flow", "none"}, 0) == 0
	s.Queue = uint16(k.integer("queue", 1, 65535, DefaultQueue))
	s.Queues = uint16(k.integer("queues", 0, 256, 0))
	if int(s.Queue)+int(s.Queues) > 65536 {
		l.fail(k.at("queues"), "Wrong value", "The queues from %d on would go past 65535, the last that there is.", s.Queue)
	}
	s.MarkMask = uint32(k.integer("mark_mask", 1, 1<<32-1, DefaultMarkMask))
	if n := bits.OnesCount32(s.MarkMask); n < 8 || bits.Len32(s.MarkMask)-bits.TrailingZeros32(s.MarkMask) != n {
		l.fail(k.at("mark_mask"), "Wrong value", "mark_mask %#x is not one unbroken range of at least 8 bits, like 0xff000000.", s.MarkMask)
	}
	s.Log = k.logWhat()
	s.LogRate = uint32(k.integer("log_rate", 0, 1<<32-1, DefaultLogRate))
}

// logWhat reads which packets get an event without a rule that asks for it; false
// is none of them.
func (k block) logWhat() LogWhat {
	if it, ok := k.one("log", "a word, "+oneOf(logNames)); ok && it.v.Type() == cty.Bool {
		if it.v.True() {
			return LogDiscards
		}
		return LogNone
	}
	return LogWhat(k.word("log", logNames, int(LogDiscards)))
}

// timeoutArgs are the arguments of a timeouts block.
func timeoutArgs(t *engine.Timeouts) []timeoutArg {
	return []timeoutArg{
		{"tcp_syn_sent", &t.TCPSynSent}, {"tcp_syn_recv", &t.TCPSynReceived}, {"tcp_established", &t.TCPEstablished},
		{"tcp_half_closed", &t.TCPHalfClosed}, {"tcp_time_wait", &t.TCPTimeWait}, {"udp", &t.UDP},
		{"udp_unreplied", &t.UDPUnreplied}, {"icmp", &t.ICMP}, {"generic", &t.Generic},
	}
}

type timeoutArg struct {
	name string
	at   *time.Duration
}

// timeouts reads a timeouts block.
func (l *loader) timeouts(b *hclsyntax.Block) {
	args := timeoutArgs(&l.policy.Engine.Timeouts)
	var names []string
	for _, a := range args {
		names = append(names, a.name)
	}
	k := l.open(b, names, nil)
	for _, a := range args {
		*a.at = k.duration(a.name, time.Second, 30*24*time.Hour)
	}
}

// fallback reads what happens to traffic that no rule names.
func (k block) fallback(arg string, required bool) engine.Verdict {
	if required && !k.require(arg, `say what happens to traffic that no rule names, "discard" or "bypass"`) {
		return engine.Discard
	}
	if it, ok := k.one(arg, oneOf(defaultWords)); ok && isText(it, "protect") {
		k.l.fail(it.r, "Wrong value", `%s is "discard" or "bypass": what is to be protected needs a rule that says with which ipsec block.`, arg)
		return engine.Discard
	}
	return engine.Verdict(k.word(arg, defaultWords, int(engine.Discard)))
}

// rules reads the rule blocks.
func (l *loader) rules() {
	for _, b := range l.blocks["rule"] {
		r := l.rule(b)
		if len(b.Labels) == 0 {
			continue
		}
		l.unique(b, l.places)
		l.policy.rules = append(l.policy.rules, r)
	}
	l.checkRelated()
}

// unique reports a name that another block of the kind has, or that cannot be one.
func (l *loader) unique(b *hclsyntax.Block, seen map[string]hcl.Range) {
	name := b.Labels[0]
	if strings.TrimSpace(name) == "" || len(name) > 128 || strings.IndexFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) >= 0 {
		l.fail(b.LabelRanges[0], "Wrong name", "A name has from 1 to 128 characters, none of them a control character.")
		return
	}
	if first, twice := seen[name]; twice {
		l.fail(b.LabelRanges[0], "Name used twice", "%s %q is at %s already: names are unique, because counters and tests go by them.",
			b.Type, name, l.place(first))
		return
	}
	seen[name] = b.DefRange()
}

// rule reads one rule block.
func (l *loader) rule(b *hclsyntax.Block) rule {
	var r rule
	k := l.open(b, ruleArguments, map[string]func(*hclsyntax.Block){"limit": func(in *hclsyntax.Block) { r.Limit = l.limit(in) }})
	r.Name, r.Place = k.name, l.place(b.DefRange())
	r.Description = k.str("description", "text")
	r.disabled = !k.flag("enabled", true)
	r.Essential = k.flag("essential", false)
	r.Reject, r.Log, r.Audit = k.flag("reject", false), k.flag("log", false), k.flag("audit", false)
	k.action(&r)
	if r.HalfOpen = k.word("half_open", defaultWords, int(k.l.halfOpenDefault(r.Action))) == 1; r.HalfOpen && r.Action != engine.Bypass {
		k.l.fail(k.at("half_open"), "Arguments do not fit", `half_open = "bypass" goes with action = "bypass" only; this rule says %q.`, r.Action)
	}
	k.direction(&r)
	r.Selector, r.empty, r.addresses = k.selector()
	k.answersMulticast(&r)
	return r
}

// answersMulticast reads for how long a rule lets in answers to this host's own
// questions to groups.
func (k block) answersMulticast(r *rule) {
	const arg = "answers_multicast"
	if !k.has(arg) {
		return
	}
	r.AnswersMulticast = k.duration(arg, time.Second, time.Minute)
	misfit := func(other, want string) {
		k.l.fail(k.at(arg), "Arguments do not fit", "%s is for UDP answers that come in to what this host has asked a group: it goes with %s = %q only.", arg, other, want)
	}
	switch {
	case k.has("action") && r.Action != engine.Bypass:
		misfit("action", "bypass")
	case k.has("direction") && (!r.In || r.Out):
		misfit("direction", "in")
	case len(r.Protocols) != 1 || r.Protocols[0] != packet.UDP:
		misfit("protocol", "udp")
	}
}

// halfOpenDefault is what a rule says of half-seen connections that says nothing.
func (l *loader) halfOpenDefault(action engine.Verdict) engine.Verdict {
	if l.policy.Engine.HalfOpen && action == engine.Bypass {
		return engine.Bypass
	}
	return engine.Discard
}

// action reads action and what depends on it.
func (k block) action(r *rule) {
	if !k.require("action", oneOf(actionWords)) {
		return
	}
	it, ok := k.one("action", "a word, "+oneOf(actionWords))
	if ok && isText(it, "reject") {
		k.l.fail(it.r, "Wrong value", `action is bypass, discard or protect; to answer what is discarded, write action = "discard" and reject = true.`)
		return
	}
	action := k.word("action", actionWords, -1)
	if action < 0 {
		return
	}
	r.Action = engine.Verdict(action)
	if r.Action == engine.Protect {
		if k.require("with", "action = \"protect\" says with which ipsec block: with = \"NAME\"") {
			k.with(r)
		}
		if k.l.policy.Settings.FailOpen {
			k.l.fail(k.at("action"), "Arguments do not fit", `The policy block says on_failure = "open": without the daemon, what must be protected would leave in the clear. Leave on_failure out, or protect nothing.`)
		}
		if r.Limit != nil {
			k.l.fail(k.b.DefRange(), "Limit on a protect rule", "What is over the limit does not match, and would go on unprotected: limit the traffic in a rule that discards.")
		}
	} else if k.has("with") {
		k.l.fail(k.at("with"), "Arguments do not fit", `with goes with action = "protect" only; this rule says %q.`, r.Action)
	}
	if r.Reject && r.Action != engine.Discard {
		k.l.fail(k.at("reject"), "Arguments do not fit", `reject goes with action = "discard" only; this rule says %q.`, r.Action)
	}
}

// with reads which ipsec block protects.
func (k block) with(r *rule) {
	r.With = k.str("with", "the name of an ipsec block")
	if r.With == "" {
		return
	}
	k.l.uses["ipsec "+r.With] = true
	sa, ok := k.l.policy.FindIPsec(r.With)
	if !ok {
		names := k.l.labels("ipsec")
		if !contains(names, r.With) {
			k.l.missing(k.b.Body.Attributes["with"].Expr.Range(), "Unknown ipsec block", "%s.",
				noBlock("ipsec", r.With, names, fmt.Sprintf(`ipsec %q { mode = "transport", ike = "NAME" }, and the ike block that it names likewise`, r.With)))
		}
		return
	}
	if it, ok := k.one("direction", "a word"); ok && isText(it, "forward") && !sa.Tunnel {
		k.l.fail(k.at("with"), "Arguments do not fit",
			`ipsec %q is in transport mode, which protects what this host itself sends (RFC 4301 section 4.1): forwarded traffic needs mode = "tunnel".`, r.With)
	}
}

// labels gives the names of all blocks of a kind.
func (l *loader) labels(kind string) []string {
	var out []string
	for _, b := range l.blocks[kind] {
		if len(b.Labels) > 0 {
			out = append(out, b.Labels[0])
		}
	}
	return out
}

// withoutPolicy says which files have no policy block.
func (l *loader) withoutPolicy() string {
	names := keys(l.texts)
	switch len(names) {
	case 0:
		return "Nothing was read that has a policy block"
	case 1:
		return names[0] + " has no policy block"
	}
	return fmt.Sprintf("None of %s has a policy block", oneOf(names))
}

// noBlock says of the name of a block that is not there which was meant, or how to
// make one.
func noBlock(kind, name string, names []string, how string) string {
	switch meant := suggestion(name, names); {
	case meant != "":
		return fmt.Sprintf("There is no %s %q; did you mean %q?", kind, name, meant)
	case len(names) > 0 && len(names) <= maxListed:
		return fmt.Sprintf("There is no %s %q: there is %s. A block of that name is written %s", kind, name, quotedList(names), how)
	}
	return fmt.Sprintf("There is no %s %q: it is written %s", kind, name, how)
}

// maxListed is how many names a message lists.
const maxListed = 12

func quotedList(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strconv.Quote(n)
	}
	return oneOf(out)
}

// direction reads direction and opened_by.
func (k block) direction(r *rule) {
	if !k.require("direction", oneOf(sideWords)+", the side that opens the flow") {
		return
	}
	side := k.word("direction", sideWords, -1)
	if side < 0 {
		return
	}
	r.In, r.Out, r.Forward = side == 0 || side == 2, side == 1 || side == 2, side == 3
	if k.has("opened_by") && !r.Forward {
		k.l.fail(k.at("opened_by"), "Arguments do not fit", `opened_by goes with direction = "forward" only: elsewhere the direction says who opens the flow.`)
		return
	}
	r.OpenedBy = engine.Opener(k.word("opened_by", openerWords, 0))
}

// limit reads a limit block.
func (l *loader) limit(b *hclsyntax.Block) *engine.Limit {
	k := l.open(b, []string{"rate", "burst", "per"}, nil)
	lim := &engine.Limit{}
	if len(b.Labels) > 0 {
		l.fail(b.LabelRanges[0], "Name not wanted", "A limit block has no name.")
	}
	if k.require("rate", `how many in what time, as in "10/minute"`) {
		lim.Events, lim.Per = k.rate("rate")
	}
	lim.Burst = uint32(k.integer("burst", 1, 1<<32-1, uint64(lim.Events)))
	for _, w := range k.words("per", `"remote_address", "local_address" or both`, func(it item, s string) bool {
		if s == "remote_address" || s == "local_address" {
			return true
		}
		l.fail(it.r, "Wrong value", `per is "remote_address", "local_address" or both in a list, not %q%s.`, s, didYouMean(s, []string{"remote_address", "local_address"}))
		return false
	}) {
		lim.ByRemote = lim.ByRemote || w == "remote_address"
		lim.ByLocal = lim.ByLocal || w == "local_address"
	}
	return lim
}

// rate reads how many in what time.
func (k block) rate(arg string) (events uint32, per time.Duration) {
	const want = `how many in what time: "5/second", "10/minute", "100/hour" or "1000/day"`
	if it, ok := k.one(arg, want); ok {
		s, _ := it.text()
		if events, per, ok = parseRate(s); !ok {
			k.l.fail(it.r, "Wrong value", "%s is %s%s.", arg, want, notThis(it))
		}
	}
	return events, per
}

// evaluated puts the rules that are evaluated into the engine's policy:
// essentials first, without those that are disabled or can match nothing.
func (l *loader) evaluated() {
	p := l.policy
	if p.Settings.Essentials {
		own := essentials(p)
		for _, r := range own {
			if at, taken := l.places[r.Name]; taken {
				l.fail(at, "Name used twice", "%q is the name of one of ipfw's own rules: choose another, or write essentials = false.", r.Name)
			}
		}
		p.rules = slices.Concat(own, p.rules)
	}
	p.Engine.Rules = make([]engine.Rule, 0, len(p.rules))
	for _, r := range p.rules {
		if !r.disabled && len(r.empty) == 0 {
			p.Engine.Rules = append(p.Engine.Rules, r.Rule)
		}
	}
}

// ruleNames gives the names of all rules, the essential ones too.
func (p *Policy) ruleNames() []string {
	out := make([]string, len(p.rules))
	for i, r := range p.rules {
		out[i] = r.Name
	}
	return out
}

// sideWord gives the direction as a policy writes it.
func sideWord(r engine.Rule) string {
	switch {
	case r.Forward:
		return "forward"
	case r.In && r.Out:
		return "both"
	case r.Out:
		return "out"
	}
	return "in"
}

// quoted names a rule for people, with its place.
func quoted(r engine.Rule) string {
	if r.Place == "" {
		return fmt.Sprintf("%q (essential)", r.Name)
	}
	return fmt.Sprintf("%q (%s)", r.Name, r.Place)
}
