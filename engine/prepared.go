package engine

// Prepared is a policy made ready to be put in force: what it would do can be
// asked before that. Between Prepare and Put no other policy may come in force.
type Prepared struct{ spd *spd }

// Prepare makes a policy ready. Nothing is different until Put.
func (e *Engine) Prepare(p *Policy) *Prepared { return &Prepared{compile(p, e.spd.Load())} }

// Put puts a policy in force as Reload does.
func (e *Engine) Put(p *Prepared) {
	e.reload.Lock()
	defer e.reload.Unlock()
	e.spd.Store(p.spd)
}

// Policy gives the policy. It must not be changed.
func (p *Prepared) Policy() *Policy { return p.spd.given }

// Ask gives what its rules say of a flow that such a packet opens, as Engine.Ask
// does for the policy in force.
func (p *Prepared) Ask(in *Input) Result {
	return p.spd.ask(in)
}

// ask gives what the rules say of a flow that such a packet opens, and counts
// nothing.
func (s *spd) ask(in *Input) Result {
	q := queryOf(in)
	return s.lookup(&q, in.Now, again)
}

// AskFlow gives what the policy in force, and p, say of the live flow that a packet
// belongs to, whichever way it runs; false: no such flow is known. Beside Ask it
// knows the interface that the flow came by.
func (e *Engine) AskFlow(p *Prepared, in *Input) (was, now Result, ok bool) {
	key, _, ok := flowKeyOf(in)
	if !ok {
		return was, now, false
	}
	s := e.spd.Load()
	shard := e.flows.shard(&key)
	shard.Lock()
	f := shard.get(&key, in.Now)
	if f == nil {
		shard.Unlock()
		return was, now, false
	}
	q, half, old := f.query(), f.half, f.generation != s.generation
	was = Result{Verdict: f.verdict, Rule: f.rule}
	shard.Unlock()
	if old {
		was = s.again(&q, half)
	}
	return was, p.spd.again(&q, half), true
}

// Change is a live flow of which a prepared policy says something else than the
// one in force.
type Change struct {
	Flow FlowInfo // as it is; Rule is of the policy in force
	Now  Result   // what the prepared policy says; Rule is of that policy
}

// Changes calls yield, until it returns false, for each live flow that the policy
// cuts (Now.Verdict is Discard), seals from now on, or seals no more. Flows that
// come and go meanwhile may be missed, and so may offloaded ones that the engine
// has forgotten.
func (e *Engine) Changes(p *Prepared, now int64, yield func(*Change) bool) {
	type asked struct {
		flow FlowInfo
		q    query
		half bool
		old  bool // it has not been looked up under the policy in force
	}
	s := e.spd.Load()
	var batch []asked
	for i := range e.flows.shards {
		shard := &e.flows.shards[i]
		batch = batch[:0]
		shard.Lock()
		for f := shard.oldest; f != nil; f = f.newer {
			if f.expires > now && f.verdict != Discard {
				batch = append(batch, asked{f.info(now), f.query(), f.half, f.generation != s.generation})
			}
		}
		shard.Unlock()
		for j := range batch {
			a := &batch[j]
			if a.old {
				was := s.again(&a.q, a.half)
				a.flow.Verdict, a.flow.Rule = was.Verdict, was.Rule
			}
			c := Change{Flow: a.flow, Now: p.spd.again(&a.q, a.half)}
			if a.flow.Verdict != Discard && c.Now.Verdict != a.flow.Verdict && !yield(&c) {
				return
			}
		}
	}
}
