package main

import (
	"context"
	"fmt"
	"math"

	"github.com/ipfw/ipfw/bench/internal/report"
)

// Latency is measured under a load that everybody can carry: half of what the
// slowest contestant can, so that for nobody the queues alone are measured.
// Clear and protected contestants are two groups, each with a rate of its own,
// or the slowest tunnel would leave the others idle; no firewall is measured
// at both rates.
//
//	stage 1, in turn:  requests in a closed loop          -> capacity
//	stage 2, in turn:  requests at half of the slowest's  -> p50, p99
const (
	requestRate = "request"
	latency     = "latency"
)

// group is the contestants that are measured at one rate.
type group struct {
	name     string // "" or "-protected", at the end of names of figures
	title    string
	protects bool
}

var groups = []group{{"", "in the clear", false}, {"-protected", "protected", true}}

var millisecond = report.Unit{Name: "ms", Less: true}

// has says whether a contestant belongs to the group.
func (g group) has(c *contestant) bool { return c.name == none || c.protects == g.protects }

// percentiles are the figures of one measurement.
var percentiles = []struct {
	name string
	part float64
}{{"p50", 0.5}, {"p99", 0.99}}

func runRequest(s *site) []figure {
	r := s.ask("request", s.web(), s.milliseconds(), fmt.Sprint(workers), "0")
	return []figure{{requestRate, perSecond, float64(r.Done) / r.Seconds}}
}

// rates gives each group half of its slowest contestant's capacity, in
// requests a second; none to a group that was not measured.
func rates(r *report.Report, rules int) map[string]int {
	all := map[string]int{}
	for _, g := range groups {
		slowest := math.Inf(1)
		for i := range contestants {
			c := &contestants[i]
			if m := r.Find(report.Key{Workload: requestRate, Contestant: c.name, Rules: rules}); m != nil && c.protects == g.protects {
				slowest = min(slowest, m.Median)
			}
		}
		if !math.IsInf(slowest, 1) {
			all[g.name] = max(int(slowest/2), 1)
		}
	}
	return all
}

// latencies is stage 2.
func (b *bench) latencies(ctx context.Context) {
	rules := b.ruleCounts()[0]
	b.Rates = rates(b.Report, rules)
	b.inTurn(ctx, []int{rules}, func(c *contestant, _ int) []workload {
		var todo []workload
		for _, g := range groups {
			if rate := b.Rates[g.name]; rate > 0 && g.has(c) {
				todo = append(todo, workload{name: latency + g.name, run: func(s *site) []figure { return runLatency(s, g, rate) }})
			}
		}
		return todo
	})
	b.added(rules)
}

func runLatency(s *site, g group, rate int) (fs []figure) {
	r := s.ask("request", s.web(), s.milliseconds(), fmt.Sprint(workers), fmt.Sprint(rate))
	for _, p := range percentiles {
		fs = append(fs, figure{p.name + g.name, millisecond, report.Percentile(r.Latencies, p.part)})
	}
	return fs
}

// added puts down what each contestant adds to the latency of no firewall, in
// the same turn.
func (b *bench) added(rules int) {
	for _, g := range groups {
		for _, p := range percentiles {
			base := b.Find(report.Key{Workload: p.name + g.name, Contestant: none, Rules: rules})
			for i := range contestants {
				m := b.Find(report.Key{Workload: p.name + g.name, Contestant: contestants[i].name, Rules: rules})
				if m == nil || base == nil || m == base {
					continue
				}
				for _, s := range m.Samples {
					if zero, ok := base.At(s.Turn); ok {
						b.Add(report.Key{Workload: p.name + g.name + "-added", Contestant: m.Contestant, Rules: rules}, millisecond, s.Turn, s.Value-zero)
					}
				}
			}
		}
	}
}
