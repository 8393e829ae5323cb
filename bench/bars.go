package main

import (
	"fmt"
	"math"

	"github.com/ipfw/ipfw/bench/internal/report"
)

// sections are the parts of the table.
func sections(rules []int) (all []report.Section) {
	names := contestantNames()
	for _, n := range rules {
		for _, w := range workloads {
			all = append(all, report.Section{Title: fmt.Sprintf("%s; %d rules", w.title, n), Workload: w.name, Rules: n,
				Contestants: names, Against: []string{none, nft, cLoop, goCallback}})
			if w.name == tcpOne {
				all = append(all, report.Section{Title: fmt.Sprintf("Processor time of the whole machine for each GB of that stream; %d rules", n),
					Workload: cpuPerGB, Rules: n, Contestants: names, Against: []string{none, cLoop}})
			}
		}
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
		b := ratio(text+" / bare C loop", want, workload, ipfwNone, cLoop)
		if batch := ratio("", want, workload, ipfwNone, cBatch); batch.Got < b.Got || math.IsNaN(b.Got) {
			b.Got = batch.Got
		}
		return b
	}
	return []report.Bar{
		ratio("one TCP stream, offload = flow / no firewall", 0.97, tcpOne, ipfwFlow, none),
		ratio("new connections, offload = flow / nftables", 0.70, connRate, ipfwFlow, nft),
		toLoop("one TCP stream, offload = none", 0.90, tcpOne),
		toLoop("64-byte UDP, offload = none", 0.85, udpSmall),
		ratio("one TCP stream, offload = none / go-nfqueue", 4, tcpOne, ipfwNone, goCallback),
		ratio("64-byte UDP, offload = none / go-nfqueue", 4, udpSmall, ipfwNone, goCallback),
	}
}
