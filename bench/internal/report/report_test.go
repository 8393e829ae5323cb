package report

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 2, 100}, 3},
	} {
		if got := Median(c.in); got != c.want {
			t.Errorf("Median(%v) = %v, want %v", c.in, got, c.want)
		}
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("the median of nothing is a number")
	}
	in := []float64{3, 1, 2}
	if Median(in); in[0] != 3 {
		t.Error("Median sorts what belongs to its caller")
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for part, want := range map[float64]float64{0: 1, 0.5: 50, 0.99: 99, 0.991: 100, 1: 100} {
		if got := Percentile(hundred, part); got != want {
			t.Errorf("Percentile(1..100, %v) = %v, want %v", part, got, want)
		}
	}
	if got := Percentile([]float64{7}, 0.99); got != 7 {
		t.Errorf("of one value: %v", got)
	}
	if !math.IsNaN(Percentile(nil, 0.5)) {
		t.Error("the percentile of nothing is a number")
	}
}

// filled is a run whose second turn was on a machine half as fast, and whose
// third turn lacks one contestant.
func filled() *Report {
	r := new(Report)
	u := Unit{Name: "Gbit/s"}
	for turn, speed := range []float64{1, 0.5, 1} {
		r.Add(Key{"tcp1", "none", 10}, u, turn, 20*speed)
		if turn < 2 {
			r.Add(Key{"tcp1", "ipfw", 10}, u, turn, 16*speed)
		}
	}
	r.Add(Key{"tcp1", "ipfw", 10000}, u, 0, 1)
	return r
}

func TestRatioIsTakenWithinTurns(t *testing.T) {
	r := filled()
	ipfw, none := r.Find(Key{"tcp1", "ipfw", 10}), r.Find(Key{"tcp1", "none", 10})
	if got := ipfw.Ratio(none); got != 0.8 {
		t.Errorf("ratio %v, want 0.8: the medians alone say %v", got, ipfw.Median/none.Median)
	}
	if got := r.Find(Key{"udp", "ipfw", 10}); got != nil {
		t.Errorf("found %v", got)
	}
	if !math.IsNaN(ipfw.Ratio(nil)) || !math.IsNaN((*Measure)(nil).Ratio(none)) {
		t.Error("a ratio to nothing is a number")
	}
	zero := &Measure{Samples: []Sample{{0, 0}}}
	if !math.IsNaN(ipfw.Ratio(zero)) {
		t.Error("a ratio to 0 is a number")
	}
}

func TestSpread(t *testing.T) {
	m := filled().Find(Key{"tcp1", "none", 10})
	if m.Min != 10 || m.Max != 20 || m.Median != 20 || m.Spread() != 0.25 {
		t.Errorf("%+v spread %v", m, m.Spread())
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	r := filled()
	r.Write(&b, Section{Title: "One TCP stream, 10 rules", Workload: "tcp1", Rules: 10,
		Contestants: []string{"none", "nftables", "ipfw"}, Against: []string{"none", "c-loop"}})
	r.Write(&b, Section{Title: "Nothing was measured here", Workload: "udp64", Contestants: []string{"none"}})
	want := `
One TCP stream, 10 rules
        Gbit/s  spread  / none
  none    20.0    ±25%    1.00
  ipfw    12.0    ±33%   0.800
`
	if got := b.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestBars(t *testing.T) {
	r := &Report{Bars: []Bar{
		{Text: "bulk / none", Want: 0.97, Got: 0.981},
		{Text: "UDP / C loop", Want: 0.85, Got: 0.849},
		{Text: "memory", Want: 150, AtMost: true, Got: 151, Unit: "MB"},
		{Text: "latency / wireguard-go", Want: 1, AtMost: true, Got: 1},
		{Text: "native / wireguard-go", Want: 1, Got: math.NaN()},
	}}
	var b strings.Builder
	r.WriteBars(&b)
	want := `
The bars
                             bar  measured
  bulk / none           >= 0.970     0.981           met
  UDP / C loop          >= 0.850     0.849        MISSED
  memory                <= 150 MB       151        MISSED
  latency / wireguard-go  <= 1.00      1.00           met
  native / wireguard-go   >= 1.00         -  not measured
`
	if got, want := strings.Join(strings.Fields(b.String()), " "), strings.Join(strings.Fields(want), " "); got != want {
		t.Errorf("got:\n%s", b.String())
	}
	for i, lines := 0, strings.Split(strings.Trim(b.String(), "\n"), "\n"); i < len(lines); i++ {
		if i > 1 && len([]rune(lines[i])) != len([]rune(lines[2])) {
			t.Errorf("the right edge is ragged:\n%s", b.String())
		}
	}
	out, err := json.Marshal(r.Bars)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"got":0.981,"verdict":"met"`, `"got":null,"verdict":"not measured"`, `"at_most":true`} {
		if !strings.Contains(string(out), part) {
			t.Errorf("JSON lacks %s:\n%s", part, out)
		}
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.0123: "0.012", 0.5: "0.500", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 12345: "12345", -1.5: "-1.50"} {
		if got := Figure(v); got != want {
			t.Errorf("Figure(%v) = %s, want %s", v, got, want)
		}
	}
}
