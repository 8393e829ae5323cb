package engine

import (
	"strings"
	"testing"
)

// TestDryRun: where there can be an SA, a packet that has to leave sealed
// leaves; where there cannot, it is discarded. Neither is said of one that
// has to come sealed.
func TestDryRun(t *testing.T) {
	may := func(r *Rule, in *Input) bool { return r.With == "lan" && in.Packet.Dst.String() == "10.0.0.7" }
	e := New(webServer(t), Options{Outbound: Pretend(may)})
	for _, row := range []struct {
		verdict Verdict
		reason  Reason
		leaves  bool
		line    string
		fate    string
	}{
		{Protect, ReasonRule, true, "out tcp 10.0.0.5:445 -> 10.0.0.7:50000", `leaves sealed under "lan"`},
		{Protect, ReasonFlow, true, "out tcp 10.0.0.5:445 -> 10.0.0.7:50000 established", `leaves sealed under "lan"`},
		{Discard, ReasonNoSA, true, "out tcp 10.0.0.5:445 -> 10.0.0.8:50000", "counted as no-sa"},
		{Discard, ReasonNoSA, true, "out tcp 10.0.0.5:445 -> 10.0.0.8:50000 established", "counted as no-sa"},
		{Discard, ReasonClear, false, "in tcp 10.0.0.7:50000 -> 10.0.0.5:445", "counted as clear-text"},
		{Protect, ReasonRule, false, "in tcp 10.0.0.7:50000 -> 10.0.0.5:445 protected lan", "came out of the right SA"},
		{Protect, ReasonFlow, false, "in tcp 10.0.0.7:50000 -> 10.0.0.5:445 established protected lan", "came out of the right SA"},
	} {
		trial, err := ParseTrial(row.line)
		if err != nil {
			t.Fatal(err)
		}
		x, err := trial.Explain(e)
		if err != nil {
			t.Fatal(err)
		}
		o := &x.Outcome
		if o.Verdict != Protect || o.Result.Verdict != row.verdict || o.Result.Reason != row.reason || o.Leaves() != row.leaves || !strings.Contains(x.Fate, row.fate) {
			t.Errorf("%s: %v, %v %v, leaves %t: %s", row.line, o.Verdict, o.Result.Verdict, o.Result.Reason, o.Leaves(), x.Fate)
		}
	}
	if len(e.Policy().Rules) == 0 || e.flows.len() != 0 {
		t.Error("a trial changed its engine")
	}
}
