package report

import (
	"encoding/json"
	"fmt"
	"math"
)

// Bar is something to reach.
type Bar struct {
	Text string  `json:"text"`
	Want float64 `json:"want"`
	// AtMost says that Want is the most; else it is the least.
	AtMost bool `json:"at_most,omitempty"`
	// Got is what was measured, NaN if it was not (null in JSON).
	Got float64 `json:"got"`
	// Unit of Want and Got; empty for a ratio.
	Unit string `json:"unit,omitempty"`
}

// Verdict is "met", "MISSED" or "not measured".
func (b *Bar) Verdict() string {
	switch {
	case math.IsNaN(b.Got):
		return "not measured"
	case b.AtMost && b.Got <= b.Want, !b.AtMost && b.Got >= b.Want:
		return "met"
	}
	return "MISSED"
}

// Wanted is the bar in words: ">= 0.97".
func (b *Bar) Wanted() string {
	op := ">="
	if b.AtMost {
		op = "<="
	}
	return fmt.Sprintf("%s %s%s", op, Figure(b.Want), suffix(b.Unit))
}

func suffix(unit string) string {
	if unit == "" {
		return ""
	}
	return " " + unit
}

// MarshalJSON writes what was not measured as null, and the verdict beside it.
func (b Bar) MarshalJSON() ([]byte, error) {
	type plain Bar
	out := struct {
		plain
		Got     *float64 `json:"got"`
		Verdict string   `json:"verdict"`
	}{plain: plain(b), Verdict: b.Verdict()}
	if !math.IsNaN(b.Got) {
		out.Got = &b.Got
	}
	return json.Marshal(out)
}
