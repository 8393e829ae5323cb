package e2e

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// BenchmarkLive measures one TCP stream and a flood of 64-byte UDP through a
// whole daemon against no firewall at all, in turn in one run, and reports
// medians and their ratio. Run it alone:
//
//	go test ./e2e -run '^$' -bench Live -benchtime 1x
func BenchmarkLive(b *testing.B) {
	for _, w := range []struct {
		name, unit string
		args       []string
		figure     func(iperfSum) float64
	}{
		{"tcp", "Gbit/s", nil, func(s iperfSum) float64 { return s.BitsPerSecond / 1e9 }},
		{"udp64", "kpps", []string{"-u", "-b", "0", "-l", "64"}, func(s iperfSum) float64 {
			return s.Packets * (1 - s.LostPercent/100) / s.Seconds / 1e3
		}},
	} {
		b.Run(w.name, func(b *testing.B) {
			l, client, server := lab.Pair(b)
			lab.Need(b, "iperf3")
			policy := l.File("policy.hcl", bypassPolicy)
			server.Start("iperf3", "-s")
			time.Sleep(500 * time.Millisecond)
			measure := func() float64 {
				out := client.Run(append([]string{"iperf3", "-J", "-c", "10.77.0.1", "-t", "4"}, w.args...)...)
				var r struct {
					End struct {
						Received iperfSum `json:"sum_received"`
						Sum      iperfSum `json:"sum"`
					} `json:"end"`
				}
				if err := json.Unmarshal([]byte(out), &r); err != nil {
					b.Fatal(err)
				}
				if w.args != nil {
					return w.figure(r.End.Sum)
				}
				return w.figure(r.End.Received)
			}
			var none, ipfw []float64
			for b.Loop() {
				for range 3 {
					none = append(none, measure())
					d := server.IPFW(policy)
					ipfw = append(ipfw, measure())
					d.Signal(15)
					if err := d.Wait(5 * time.Second); err != nil {
						b.Fatal(err)
					}
				}
			}
			slices.Sort(none)
			slices.Sort(ipfw)
			b.ReportMetric(none[len(none)/2], "none-"+w.unit)
			b.ReportMetric(ipfw[len(ipfw)/2], "ipfw-"+w.unit)
			b.ReportMetric(ipfw[len(ipfw)/2]/none[len(none)/2], "ratio")
			b.Logf("none %.2f, ipfw %.2f %s", none, ipfw, w.unit)
		})
	}
}

// iperfSum is one of the sums at the end of iperf3's report.
type iperfSum struct {
	Seconds       float64 `json:"seconds"`
	BitsPerSecond float64 `json:"bits_per_second"`
	Packets       float64 `json:"packets"`
	LostPercent   float64 `json:"lost_percent"`
}
