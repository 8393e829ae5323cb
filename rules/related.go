package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/engine"
)

// parseRelated reads the name of a rule, which may stand anywhere in the policy.
func (k block) parseRelated(s string) (string, error) {
	if names := k.l.labels("rule"); !k.l.partial && !contains(names, s) {
		return "", fmt.Errorf("there is no rule %q: related_to names the rule that lets the connection pass which expects this one%s", s, didYouMean(s, names))
	}
	return s, nil
}

// checkRelated reports rules with related_to of which no kernel can know what they
// speak of, once all rules are read.
func (l *loader) checkRelated() {
	actions := map[string]engine.Verdict{}
	for _, r := range l.policy.rules {
		actions[r.Name] = r.Action
	}
	for _, b := range l.blocks["rule"] {
		k := block{l: l, b: b}
		if len(b.Labels) == 0 || !k.has("related_to") {
			continue
		}
		i := slices.IndexFunc(l.policy.rules, func(r rule) bool { return r.Name == b.Labels[0] })
		if i < 0 {
			continue
		}
		r := &l.policy.rules[i]
		if r.Action == engine.Protect {
			l.fail(k.at("related_to"), "Arguments do not fit", `related_to goes with action = "bypass" or "discard": what a peer sends under protection, no helper of the kernel can read, and what it expects comes in the clear.`)
		}
		for _, name := range r.RelatedTo {
			if a, known := actions[name]; known && a != engine.Bypass {
				l.fail(k.at("related_to"), "Arguments do not fit", `Rule %q says action = %q: helpers read what passes in the clear, so related_to names rules that say "bypass".`, name, a)
			}
		}
	}
}

// warnRelated warns of rules whose masters no rule in force lets pass.
func (l *loader) warnRelated() {
	rules := l.policy.Engine.Rules
	passes := map[string]bool{}
	for n := -1; n != len(passes); { // a rule may be related to one that is related itself
		n = len(passes)
		for _, r := range rules {
			if !r.Audit && (len(r.RelatedTo) == 0 || slices.ContainsFunc(r.RelatedTo, func(name string) bool { return passes[name] })) {
				passes[r.Name] = true
			}
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
