package main

import (
	"fmt"
	"math"

	"github.com/ipfw/ipfw/bench/internal/report"
)

// Who is compared with whom.
var (
	clearRivals     = []string{none, nft, cLoop, goCallback}
	protectedRivals = []string{none, wireguard, strongswan}
)

// sections are the parts of the table.
func sections(r *report.Report, rules []int) (all []report.Section) {
	add := func(g group, workload, title string, rules int) {
		s := report.Section{Title: title + ", " + g.title, Workload: workload, Rules: rules, Against: clearRivals}
		if g.protects {
			s.Against = protectedRivals
		} else {
			s.Title += fmt.Sprintf("; %d rules", rules)
		}
		protected := false
		for i := range contestants {
			if c := &contestants[i]; g.has(c) && !c.before {
				s.Contestants = append(s.Contestants, c.name)
				protected = protected || c.protects && r.Find(report.Key{Workload: workload, Contestant: c.name, Rules: rules}) != nil
			}
		}
		if protected || !g.protects {
			all = append(all, s)
		}
	}
	for _, w := range workloads {
		for _, n := range rules {
			for _, g := range groups {
				add(g, w.name, w.title, n)
				switch w.name {
				case tcpOne:
					add(g, cpuPerGB, "Processor time of the whole machine for each GB of that stream", n)
				case udpSmall:
					add(g, udpSent, "Of those datagrams, how many the sender could send", n)
				}
			}
		}
	}
	for _, g := range groups {
		for _, p := range percentiles {
			title := fmt.Sprintf("%s of a request, %d of them a second", p.name, r.Rates[g.name])
			add(g, p.name+g.name, title, rules[0])
		}
		add(g, percentiles[0].name+g.name+"-added", "Added to no firewall's "+percentiles[0].name, rules[0])
	}
	return all
}

// bars are what ipfw is to reach. A bar against the C loop is against the
// better one of the two.
func bars(r *report.Report) []report.Bar {
	find := func(workload, who string) *report.Measure {
		return r.Find(report.Key{Workload: workload, Contestant: who, Rules: fewRules})
	}
	ratio := func(text string, want float64, workload, who, to string) report.Bar {
		return report.Bar{Text: text, Want: want, Got: find(workload, who).Ratio(find(workload, to))}
	}
	toLoop := func(text string, want float64, workload string) report.Bar {
		b := ratio(text+" / bare C loop (the better one)", want, workload, ipfwNone, cLoop)
		if batch := ratio("", want, workload, ipfwNone, cBatch); batch.Got < b.Got || math.IsNaN(b.Got) {
			b.Got = batch.Got
		}
		return b
	}
	added := ratio("added to the median request, ESP in UDP / wireguard-go", 1, "p50-protected-added", ipfwUDP, wireguard)
	added.AtMost = true
	all := []report.Bar{
		ratio("one TCP stream, offload = flow / no firewall", 0.97, tcpOne, ipfwFlow, none),
		ratio("new connections, offload = flow / nftables", 0.70, connRate, ipfwFlow, nft),
		toLoop("one TCP stream, offload = none", 0.90, tcpOne),
		toLoop("64-byte UDP, offload = none", 0.85, udpSmall),
		ratio("one TCP stream, offload = none / go-nfqueue", 4, tcpOne, ipfwNone, goCallback),
		ratio("64-byte UDP, offload = none / go-nfqueue", 4, udpSmall, ipfwNone, goCallback),
		ratio("one TCP stream, ESP in UDP, AES-GCM-128 / wireguard-go", 2, tcpOne, ipfwUDP, wireguard),
		ratio("one TCP stream, native ESP, AES-GCM-128 / wireguard-go", 1, tcpOne, ipfwNative, wireguard),
		ratio("one TCP stream, ESP in UDP, AES-GCM-128 / strongSwan in user space", 4, tcpOne, ipfwUDP, strongswan),
	}
	all = append(all, lookupBars(r)...)
	most := report.Bar{Text: fmt.Sprintf("memory, %d rules and %d flows", manyRules, manyFlows), Want: 150, AtMost: true, Unit: "MB", Got: math.NaN()}
	for _, who := range []string{ipfwFlow, ipfwNone} { // the worse one counts
		if m := r.Find(report.Key{Workload: memory, Contestant: who, Rules: manyRules}); m != nil && !(m.Median <= most.Got) {
			most.Got = m.Median
		}
	}
	return append(all, added, most)
}
