package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/engine"
)

// parseRelated reads the name of a rule, which may stand anywhere in the policy.
func (k block) parseRelated(s string) (string, error) {
	if !k.l.partial && !k.l.hasRule(s) {
		return "", fmt.Errorf("there is no rule %q: related_to names the rule that lets the connection pass which expects this one%s", s, didYouMean(s, k.l.labels("rule")))
	}
	return s, nil
}

// hasRule says that a rule block has the name.
func (l *loader) hasRule(name string) bool {
	if l.ruleSet == nil {
		l.ruleSet = map[string]bool{}
		for _, n := range l.labels("rule") {
			l.ruleSet[n] = true
		}
	}
	return l.ruleSet[name]
}

// checkRelated reports rules with related_to of which no kernel can know what they
// speak of, once all rules are read.
func (l *loader) checkRelated() {
	byName := map[string]*rule{}
	for i := range l.policy.rules {
		r := &l.policy.rules[i]
		byName[r.Name] = r
	}
	for _, b := range l.blocks["rule"] {
		k := block{l: l, b: b}
		if len(b.Labels) == 0 || !k.has("related_to") {
			continue
		}
		r := byName[b.Labels[0]]
		if r == nil {
			continue
		}
		if r.Action == engine.Protect {
			l.fail(k.at("related_to"), "Arguments do not fit", `related_to goes with action = "bypass" or "discard": what a peer sends under protection, no helper of the kernel can read, and what it expects comes in the clear.`)
		}
		for _, name := range r.RelatedTo {
			if m := byName[name]; m != nil && m.Action != engine.Bypass {
				l.fail(k.at("related_to"), "Arguments do not fit", `Rule %q says action = %q: helpers read what passes in the clear, so related_to names rules that say "bypass".`, name, m.Action)
			}
		}
	}
}

// warnRelated warns of rules whose masters no rule in force lets pass.
func (l *loader) warnRelated() {
	rules := l.policy.Engine.Rules
	expected := map[string][]string{} // by a rule, the rules for what its connections expect
	passes := map[string]bool{}
	var found []string
	pass := func(name string) {
		if !passes[name] {
			passes[name] = true
			found = append(found, name)
		}
	}
	for _, r := range rules {
		if r.Audit {
			continue
		}
		if len(r.RelatedTo) == 0 {
			pass(r.Name)
		}
		for _, name := range r.RelatedTo {
			expected[name] = append(expected[name], r.Name)
		}
	}
	for i := 0; i < len(found); i++ { // a rule may be related to one that is related itself; found grows
		for _, name := range expected[found[i]] {
			pass(name)
		}
	}
	for _, r := range rules {
		if len(r.RelatedTo) > 0 && !slices.ContainsFunc(r.RelatedTo, func(name string) bool { return passes[name] }) {
			l.caution(l.places[r.Name], "Rule matches nothing", "No packet can match rule %q: nothing passes by rule %s.", r.Name, relatedWords(r.RelatedTo))
		}
	}
}

// relatedWords names rules for people.
func relatedWords(names []string) string {
	words := make([]string, len(names))
	for i, n := range names {
		words[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(words, " or ")
}
