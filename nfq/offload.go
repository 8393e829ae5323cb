package nfq

import (
	"bytes"
	"fmt"
	"log/slog"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/ipfw/ipfw/engine"
	"golang.org/x/sys/unix"
)

// This file lets the kernel answer for flows that the engine has let through
// (for those that it cuts see refuse.go):
//
//	first packet --> queue --> verdict with the mark offloaded and the generation
//	                           it was queued under --> *_save chain --> connection
//	the rest     --> connection has offloaded and the table's generation --> accept
//
// A new policy is a new generation in one nftables transaction: from then on no
// connection has it, and the next packet of each comes up again.

// canOffload says whether the kernel can answer for the rest of a packet's flow.
func (f *Firewall) canOffload(m *message) bool {
	switch m.hook {
	case unix.NF_INET_LOCAL_IN, unix.NF_INET_FORWARD:
	case unix.NF_INET_LOCAL_OUT:
		if m.mark&^uint32(f.marks) != 0 {
			return false // see marks
		}
	default:
		return false
	}
	return f.offload.Load() != 0
}

// offloads says whether the kernel is to answer for the rest of a flow, by the
// result for one of its packets. The policy that decided must be the one that
// the table stands for.
func (w *worker) offloads(r *engine.Result) bool {
	return r.Offload != 0 && w.in.Offloadable && r.Offload == w.fw.offload.Load()
}

// offloadMark is the packet mark that says so to the save chain.
func (m marks) offloadMark(mark uint32) uint32 {
	return mark&^(m.reply()|m.admitted()) | m.offloaded()
}

// Decided says that the policy in force has got another engine.Generation, and
// decides the same as before.
func (f *Firewall) Decided(generation uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.offload.Load() != 0 {
		f.offload.Store(generation)
	}
	if f.cfg.Offload != 0 {
		f.cfg.Offload = generation // for when the table is renewed
	}
}

// Offloading says whether the kernel answers for flows.
func (f *Firewall) Offloading() bool { return f.offload.Load() != 0 }

// nextGeneration finds the generation for a new policy's table, and makes sure
// that no connection has it; with an error some may.
func (f *Firewall) nextGeneration() (uint32, error) {
	if err := f.connections.begin(); err != nil {
		return 0, err
	}
	g := (f.generation + 1) % generations
	return g, f.sweep(g)
}

// sweepTries bounds the search for connections of an old generation: the first
// search finds them all unless the kernel moves its table meanwhile.
const sweepTries = 10

// sweep takes the marks of a generation off the connections that have it: those
// that have been silent since it was last in force.
func (f *Firewall) sweep(g uint32) error {
	type named struct {
		name   []byte
		family uint8
	}
	mask := f.marks.offloaded() | f.marks.generation(generations-1)
	for range sweepTries {
		var old []named
		err := f.connections.dump(f.marks.offloaded()|f.marks.generation(g), mask, func(c *connection) {
			name, family := c.name()
			old = append(old, named{name, family})
		})
		if err != nil || len(old) == 0 {
			return err
		}
		for _, c := range old {
			if err := f.connections.mark(c.name, c.family, 0, f.marks.decided()); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("connections with the marks of generation %d come again and again", g)
}

// generationIn gives the generation of a table that a predecessor has left.
func (r *ruleset) generationIn(name string, m marks) (g uint32, err error) {
	mask := native32(m.asked())
	err = r.eachRule(name, func(rule *nftables.Rule) {
		for i, e := range rule.Exprs {
			b, ok := e.(*expr.Bitwise)
			if !ok || !bytes.Equal(b.Mask, mask) || i+1 == len(rule.Exprs) {
				continue
			}
			if c, ok := rule.Exprs[i+1].(*expr.Cmp); ok && len(c.Data) == 4 {
				g = m.generationOf(nativeUint32(c.Data))
			}
		}
	})
	return g, err
}

// Carried tells what the kernel has carried of the flows that it answers for:
// of those that have ended since the last call, and with live of all others. It
// takes a few milliseconds for each ten thousand flows.
func (f *Firewall) Carried(live bool, yield func(*engine.Carried)) error {
	if f.connections == nil {
		return nil
	}
	tell := func(ended bool) func(c *connection) {
		return func(c *connection) {
			if c.mark&f.marks.offloaded() == 0 {
				return
			}
			out := c.carried(c.mark&f.marks.crossing() != 0)
			out.Ended = ended
			yield(&out)
		}
	}
	f.refusals.tell(yield)
	if err := f.connections.ended(tell(true)); err != nil || !live {
		return err
	}
	return f.connections.dump(f.marks.offloaded(), f.marks.offloaded(), tell(false))
}

// openOffload prepares what offload needs. A kernel that has not all of it
// sends every packet up.
func (f *Firewall) openOffload() (err error) {
	if f.connections, err = openConnections(); err != nil {
		f.connections = nil
		f.cfg.Logger.Warn("this kernel does not tell about its connections (CONFIG_NF_CT_NETLINK): no flow is offloaded", slog.Any("error", err))
		return nil
	}
	f.generation, err = f.rules.generationIn(f.cfg.Table, f.marks)
	return err
}
