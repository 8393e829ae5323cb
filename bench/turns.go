package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/ipfw/ipfw/bench/internal/report"
)

// place is a contestant in its laboratory, with what it is to be measured by.
type place struct {
	*site
	c    *contestant
	todo []workload
	lost bool // it failed, and is gone
}

// inTurn sets up all contestants, each between hosts of its own, and then goes
// round: one workload for each of them, one after the other, then the next
// workload, and all of it again turn after turn. Who is compared is measured
// within seconds of one another, so that what the machine does meanwhile hits
// all alike; and each turn another one begins. Those that wait have nothing to
// do.
//
// A contestant that fails is noted, and not asked again.
func (b *bench) inTurn(ctx context.Context, counts []int, todo func(*contestant, int) []workload) {
	for _, rules := range counts {
		places := b.open(ctx, rules, todo)
		for turn := range b.turns {
			for _, name := range names(places) {
				for i := range places {
					p := places[(i+turn)%len(places)]
					at := slices.IndexFunc(p.todo, func(w workload) bool { return w.name == name })
					if at < 0 || p.lost || ctx.Err() != nil {
						continue
					}
					if err := caught(func() { b.measure(p, p.todo[at], turn) }); err != nil {
						b.lose(ctx, p, fmt.Sprintf("was not measured any more after %s in turn %d", name, turn+1), err)
					}
				}
			}
		}
		closeAll(places)
	}
}

// open sets the contestants up that have something to do.
func (b *bench) open(ctx context.Context, rules int, todo func(*contestant, int) []workload) (places []*place) {
	for i := range contestants {
		p := &place{c: &contestants[i]}
		if ctx.Err() != nil || !slices.Contains(b.contestants, p.c.name) || slices.Contains(b.lost, p.c.name) {
			continue
		}
		if p.todo = todo(p.c, rules); len(p.todo) == 0 {
			continue
		}
		b.Contestants[p.c.name] = p.c.what
		p.site = &site{harness: new(harness), b: b, rules: rules}
		places = append(places, p)
		if err := caught(func() { p.start(p.c) }); err != nil {
			b.lose(ctx, p, "could not be measured", err)
		} else if d := p.daemon; d != nil && !p.c.before {
			b.Ways[p.c.name] = waysOf(d.Ask("status"))
		}
	}
	return places
}

// waysOf gives the line of ipfw status that names the kernel, and which of its ways
// ipfw uses there.
func waysOf(status string) string {
	for line := range strings.Lines(status) {
		if strings.HasPrefix(line, "Linux ") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// lose takes a contestant out. That the run was ended from outside is no
// failure of anybody's.
func (b *bench) lose(ctx context.Context, p *place, what string, err error) {
	p.close()
	p.lost = true
	if ctx.Err() != nil {
		return
	}
	b.lost = append(b.lost, p.c.name)
	note := fmt.Sprintf("%s %s: %v", p.c.name, what, err)
	b.Notes = append(b.Notes, note)
	fmt.Fprintln(b.log, note)
}

// closeAll removes everything, all at the same time: whoever ends a program
// does not want to wait.
func closeAll(places []*place) {
	var wg sync.WaitGroup
	for _, p := range places {
		wg.Go(p.close)
	}
	wg.Wait()
}

// names are those of all workloads, in their order.
func names(places []*place) (all []string) {
	for _, p := range places {
		for _, w := range p.todo {
			if !slices.Contains(all, w.name) {
				all = append(all, w.name)
			}
		}
	}
	return all
}

func (b *bench) measure(p *place, w workload, turn int) {
	var figures []figure
	b.profiled(p, w, func() { figures = w.run(p.site) })
	for _, f := range figures {
		b.Add(report.Key{Workload: f.workload, Contestant: p.c.name, Rules: p.rules}, f.unit, turn, f.value)
		fmt.Fprintf(b.log, "turn %d/%d  %-14s %6d rules  %-8s %s %s\n", turn+1, b.turns, p.c.name, p.rules, f.workload, report.Figure(f.value), f.unit.Name)
	}
}
