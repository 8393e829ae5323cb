package engine

import (
	"net/netip"
	"sync"
	"time"
)

// Stats are the counters of an engine at one moment.
type Stats struct {
	Policy   *Policy                      // whose rules Rules counts; must not be changed
	Reasons  [Reasons]uint64              // packets by Reason
	Carried  uint64                       // of those, the ones that the kernel has carried by itself
	Again    uint64                       // of those, the ones that were counted before: see Input.Again
	Rules    []RuleStats                  // by index in Policy.Rules
	Defaults [directionCount]DefaultStats // by Direction
	Flows    int                          // flows known now
}

// RuleStats count what one rule has decided. The packets of a flow count for
// the rule that let it open; Flows counts openings.
type RuleStats struct{ Packets, Bytes, Flows uint64 }

// DefaultStats count what no rule has decided.
type DefaultStats struct{ Packets, Bytes uint64 }

// beside counts the packets of reasons that are not of a packet that has just
// been given to the engine, so that all of them add up: a reason is added with
// the lock held.
type beside struct {
	sync.Mutex
	carried, again uint64
}

// Stats gives the counters. While no packet is in the engine, the reasons
// without Carried and Again are as many as the packets that it was given, but for
// those that came out of an SA and passed a second time (see Input.Opened). Rule counters are those of the policy in force;
// a rule that a reload keeps by name keeps its counters.
func (e *Engine) Stats() Stats {
	s := e.spd.Load()
	st := Stats{Policy: s.given, Rules: make([]RuleStats, len(s.state)), Flows: e.flows.len()}
	e.beside.Lock()
	for i := range st.Reasons {
		st.Reasons[i] = e.reasons[i].Load()
	}
	st.Carried, st.Again = e.beside.carried, e.beside.again
	e.beside.Unlock()
	for i := range s.state {
		r := &s.state[i]
		st.Rules[i] = RuleStats{r.packets.Load(), r.bytes.Load(), r.flows.Load()}
	}
	for d := range s.defaults {
		st.Defaults[d] = DefaultStats{s.defaults[d].packets.Load(), s.defaults[d].bytes.Load()}
	}
	return st
}

// Expire forgets flows and fragments whose time is over. The host calls it
// about once a second with the clock of Input.Now.
func (e *Engine) Expire(now int64) {
	e.flows.expire(now)
	e.fragments.expire(now)
	e.assembly.expire(now)
}

// FlowInfo describes one flow for people. Source is the side that opened it.
type FlowInfo struct {
	Protocol     uint8
	Dir          Direction
	Source, Dest netip.AddrPort // the port is the identifier for ICMP echo, else 0 where there is none
	Verdict      Verdict
	Rule         int32  // as in Result
	State        string // of TCP; else "replied" or "unreplied"
	Packets      [2]uint64
	Bytes        [2]uint64 // by the opener and by the other side
	Age          time.Duration
	Idle         time.Duration
	Expires      time.Duration // from now, if nothing comes
	Offloaded    bool          // the kernel answers for it; the rest is as it last told
}

// Flows calls yield for each live flow that the policy in force lets through, until
// it returns false. Flows that come and go meanwhile may be missed.
func (e *Engine) Flows(now int64, yield func(FlowInfo) bool) {
	var batch []FlowInfo
	s := e.spd.Load()
	for i := range e.flows.shards {
		shard := &e.flows.shards[i]
		batch = batch[:0]
		shard.Lock()
		for f := shard.oldest; f != nil; f = f.newer {
			if f.expires <= now {
				continue
			}
			if verdict, rule := s.says(f); verdict != Discard {
				fi := f.info(now)
				fi.Verdict, fi.Rule = verdict, rule
				batch = append(batch, fi)
			}
		}
		shard.Unlock()
		for _, fi := range batch {
			if !yield(fi) {
				return
			}
		}
	}
}

// says gives what the policy in force says of a flow. One that has had no packet
// since a reload is only looked up again when the next one comes (redecide), and
// has the answer, and the rule's index, of a policy before.
func (s *spd) says(f *flow) (Verdict, int32) {
	if f.generation == s.generation {
		return f.verdict, f.rule
	}
	q := f.query()
	r := s.again(&q, f.half)
	return r.Verdict, r.Rule
}

func (f *flow) info(now int64) FlowInfo {
	v6 := f.key.path&pathIPv6 != 0
	ends := [2]netip.AddrPort{
		netip.AddrPortFrom(netipAddr(f.key.a, v6), f.key.aPort),
		netip.AddrPortFrom(netipAddr(f.key.b, v6), f.key.bPort),
	}
	o := f.opener
	fi := FlowInfo{
		Protocol: f.key.proto, Dir: f.dir, Verdict: f.verdict, Rule: f.rule,
		Source: ends[o], Dest: ends[1-o],
		Packets: [2]uint64{f.packets[o], f.packets[1-o]},
		Bytes:   [2]uint64{f.bytes[o], f.bytes[1-o]},
		Age:     time.Duration(now - f.started), Idle: time.Duration(now - f.lastSeen),
		Expires: time.Duration(f.expires - now), Offloaded: f.offloaded,
	}
	switch {
	case f.state != tcpNone:
		fi.State = f.state.String()
	case f.replied:
		fi.State = "replied"
	default:
		fi.State = "unreplied"
	}
	return fi
}
