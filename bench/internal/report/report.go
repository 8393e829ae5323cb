// Package report keeps what a benchmark has measured, and says it in ratios:
// absolute figures depend on the machine and the minute, ratios within one run
// much less so.
//
// A ratio is taken within each turn, between neighbours in time, and the
// median of those is what counts.
//
// Limits: spread is the range of all turns, because there are few of them.
package report

import (
	"math"
	"slices"
	"time"
)

// Report is one run.
type Report struct {
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"` // the whole run
	Kernel  string    `json:"kernel"`
	// Ways says which of the kernel's ways ipfw uses, by contestant.
	Ways     map[string]string `json:"ways,omitempty"`
	CPUs     int               `json:"cpus"`
	Go       string            `json:"go"`
	Revision string            `json:"revision"` // of the tree, as git describes it
	Command  []string          `json:"command"`
	// Congestion is the congestion control of the TCP streams, of all contestants.
	Congestion string `json:"congestion"`

	// Rates are the requests a second at which latency was measured, by group.
	Rates       map[string]int    `json:"rates,omitempty"`
	Contestants map[string]string `json:"contestants"` // what each is, in words
	Measures    []*Measure        `json:"measures"`    // in the order of the first sample
	Bars        []Bar             `json:"bars"`
	Notes       []string          `json:"notes"` // what was not measured, and why
}

// Key names a measure.
type Key struct {
	Workload   string `json:"workload"`
	Contestant string `json:"contestant"`
	Rules      int    `json:"rules"` // of the policy; 0 where it does not matter
}

// Measure is one contestant under one workload, turn after turn.
type Measure struct {
	Key
	Unit    string   `json:"unit"`
	Less    bool     `json:"less_is_better,omitempty"`
	Samples []Sample `json:"samples"`
	Median  float64  `json:"median"`
	Min     float64  `json:"min"`
	Max     float64  `json:"max"`
}

// Sample is the figure of one turn.
type Sample struct {
	Turn  int     `json:"turn"` // from 0
	Value float64 `json:"value"`
}

// Unit is what a workload's figures mean.
type Unit struct {
	Name string // "Gbit/s"
	Less bool   // less is better
}

// Add puts a figure down.
func (r *Report) Add(k Key, u Unit, turn int, value float64) {
	m := r.Find(k)
	if m == nil {
		m = &Measure{Key: k, Unit: u.Name, Less: u.Less}
		r.Measures = append(r.Measures, m)
	}
	m.Samples = append(m.Samples, Sample{turn, value})
	vs := m.values()
	m.Median, m.Min, m.Max = Median(vs), slices.Min(vs), slices.Max(vs)
}

// Find gives the measure of that key, nil if there is none.
func (r *Report) Find(k Key) *Measure {
	for _, m := range r.Measures {
		if m.Key == k {
			return m
		}
	}
	return nil
}

func (m *Measure) values() []float64 {
	vs := make([]float64, len(m.Samples))
	for i, s := range m.Samples {
		vs[i] = s.Value
	}
	return vs
}

// At gives the figure of a turn.
func (m *Measure) At(turn int) (value float64, ok bool) {
	for _, s := range m.Samples {
		if s.Turn == turn {
			return s.Value, true
		}
	}
	return 0, false
}

// Spread is half the range of the samples, as a part of the median; NaN if
// the median is 0.
func (m *Measure) Spread() float64 {
	if m.Median == 0 {
		return math.NaN()
	}
	return (m.Max - m.Min) / 2 / math.Abs(m.Median)
}

// Ratio is m over other: the median of what the turns say that have both. It
// is NaN if there is none, or other measured 0.
func (m *Measure) Ratio(other *Measure) float64 {
	if m == nil || other == nil {
		return math.NaN()
	}
	var rs []float64
	for _, s := range m.Samples {
		if o, ok := other.At(s.Turn); ok && o != 0 {
			rs = append(rs, s.Value/o)
		}
	}
	return Median(rs)
}

// Median is the middle value, the mean of the two middle ones if their number
// is even, NaN of none.
func Median(vs []float64) float64 {
	if len(vs) == 0 {
		return math.NaN()
	}
	vs = slices.Sorted(slices.Values(vs))
	n := len(vs)
	return (vs[(n-1)/2] + vs[n/2]) / 2
}

// Percentile is the smallest value that at least the given part (0 to 1) of
// them does not exceed; NaN of none.
func Percentile(vs []float64, part float64) float64 {
	if len(vs) == 0 {
		return math.NaN()
	}
	vs = slices.Sorted(slices.Values(vs))
	i := int(math.Ceil(part*float64(len(vs)))) - 1
	return vs[min(max(i, 0), len(vs)-1)]
}
