package engine

import (
	"slices"
	"sync/atomic"

	"github.com/ipfw/ipfw/engine/classify"
)

// spd is a policy made ready for lookup. It never changes, but for counters
// and token buckets.
type spd struct {
	given      *Policy // as it came
	policy     *Policy // the same, with its long lists sorted
	generation uint32
	tables     [directionCount][2]*classify.Classifier // by direction, then IPv4 and IPv6
	state      []ruleState                             // by rule index
	defaults   [directionCount]*counter
	protects   []int32 // the rules that protect
	// anyHalfOpen says that something in the policy says half_open.
	anyHalfOpen bool
	timeouts    timeouts
	questions   *questions // nil: no rule says AnswersMulticast
	// relates says that a rule says RelatedTo, marks that one says DSCP.
	relates, marks bool
	// interfaces says that the policy names some: see ways.go. sealing finds the
	// forward rules whose local side a packet comes from, by IPv4 and IPv6; nil
	// if none of them protects.
	interfaces bool
	sealing    *[2]*classify.Classifier
}

// ruleState is what a rule needs while it is in force.
type ruleState struct {
	*ruleCounter
	// boxed says that the classifier's boxes say all that the selector says,
	// so that a candidate needs no second look.
	boxed  bool
	bucket *limiter
}

type counter struct{ packets, bytes atomic.Uint64 }

// ruleCounter goes from policy to policy with the name of its rule, so that no
// packet is lost that is counted meanwhile.
type ruleCounter struct {
	counter
	flows atomic.Uint64
}

func (c *counter) add(packets, bytes int) {
	c.packets.Add(uint64(packets))
	c.bytes.Add(uint64(bytes))
}

// mode says what a lookup is for.
type mode uint8

const (
	fresh mode = iota // a packet that opens something: limits count it
	again             // a flow that is open already: limits have counted it
)

// compile makes a policy ready. Rules that were in force before under the
// same name keep their counters and token buckets.
func compile(p *Policy, old *spd) *spd {
	s := &spd{given: p, policy: indexed(p), generation: 1, state: make([]ruleState, len(p.Rules))}
	p = s.policy
	s.timeouts = p.Timeouts.compile()
	s.anyHalfOpen = p.HalfOpen || slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.HalfOpen })
	if old != nil {
		s.generation = old.generation + 1
	}
	var boxes [directionCount][2][]classify.Box
	for i := range p.Rules {
		s.state[i].ruleCounter = new(ruleCounter)
		s.state[i].boxed = appendBoxes(&boxes, &p.Rules[i], int32(i))
		if p.Rules[i].Action == Protect && !p.Rules[i].Audit {
			s.protects = append(s.protects, int32(i))
		}
		if l := p.Rules[i].Limit; l != nil {
			s.state[i].bucket = newLimiter(*l)
		}
	}
	for d := range boxes {
		s.tables[d][0] = classify.Build(boxes[d][0], classify.IPv4)
		s.tables[d][1] = classify.Build(boxes[d][1], classify.IPv6)
	}
	for d := range s.defaults {
		s.defaults[d] = new(counter)
	}
	s.interfaces = p.NamesInterfaces()
	s.relates = p.Relates()
	s.marks = slices.ContainsFunc(p.Rules, func(r Rule) bool { return len(r.DSCP) > 0 })
	s.sealing = sealingTables(p)
	s.keepQuestions(old)
	if old != nil {
		s.inherit(old)
	}
	return s
}

// inherit carries counters and buckets over from the policy before.
func (s *spd) inherit(old *spd) {
	byName := make(map[string]int, len(old.policy.Rules))
	for i := range old.policy.Rules {
		byName[old.policy.Rules[i].Name] = i
	}
	for i := range s.policy.Rules {
		j, ok := byName[s.policy.Rules[i].Name]
		if !ok {
			continue
		}
		was, is := &old.state[j], &s.state[i]
		is.ruleCounter = was.ruleCounter
		if is.bucket != nil && was.bucket != nil && is.bucket.Limit == was.bucket.Limit {
			is.bucket = was.bucket
		}
	}
	s.defaults = old.defaults
}

// lookup finds the first rule that matches and gives what it says.
func (s *spd) lookup(q *query, now int64, m mode) Result {
	r := Result{opened: q.dir}
	family := 0
	if q.v6 {
		family = 1
	}
	if s.relates && q.master != nil {
		q.masterRule = s.letThrough(q.master)
	}
	table := s.tables[q.dir][family]
	for from := int32(0); ; from++ {
		from = table.First(&q.key, from)
		if from < 0 {
			break
		}
		rule, st := &s.policy.Rules[from], &s.state[from]
		if !st.boxed && rule.mismatch(q) != matches {
			continue
		}
		if m == fresh && st.bucket != nil && !st.bucket.take(q, now) {
			continue
		}
		if rule.Audit {
			if m == fresh {
				st.packets.Add(1)
				if int(r.NAudits) < len(r.Audits) {
					r.Audits[r.NAudits] = from
					r.NAudits++
				}
			}
			continue
		}
		r.Verdict, r.Reason, r.Rule = rule.Action, ReasonRule, from
		r.Log = rule.Log
		r.Reject = rule.Reject && rule.Action == Discard
		return r
	}
	r.Verdict, r.Reason, r.Rule = s.policy.Default[q.dir], ReasonDefault, DefaultRule
	if r.Verdict == Protect { // a default names no SA
		r.Verdict = Discard
	}
	return r
}

// count adds a judged packet to the counters of what decided it.
func (s *spd) count(in *Input, r *Result) {
	n := in.Packet.Len
	switch {
	case r.Rule >= 0:
		s.state[r.Rule].add(1+in.Merged, n)
		if r.NewFlow {
			s.state[r.Rule].flows.Add(1)
		}
	case r.Rule == DefaultRule:
		s.defaults[r.opened].add(1+in.Merged, n)
	}
}
