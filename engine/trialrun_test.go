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

// TestAnswersElsewhere: who is asked as one of a group, or as one of all, answers
// from an address of its own, and who has none yet is answered by another. Such
// answers are of no flow, and explain does not promise that they pass.
func TestAnswersElsewhere(t *testing.T) {
	p := webServer(t)
	p.Default = [directionCount]Verdict{In: Bypass, Out: Bypass, Forward: Bypass}
	e := New(p, Options{})
	for line, want := range map[string]string{
		"in udp 0.0.0.0:68 -> 255.255.255.255:67":            "outbound traffic decide",
		"in udp 0.0.0.0:68 -> 192.0.2.1:67":                  "outbound traffic decide",
		"in udp [fe80::9]:546 -> [ff02::1:2]:547":            "outbound traffic decide",
		"out udp 192.0.2.1:5353 -> 224.0.0.251:5353":         "inbound traffic decide",
		"out udp [fe80::1]:40000 -> [ff02::1:3]:5355":        "inbound traffic decide",
		"out icmpv6 echo-request fe80::1 -> ff02::1":         "inbound traffic decide",
		"out udp 192.0.2.1:1 -> 239.1.1.1:2 established":     "inbound traffic decide",
		"forward udp 10.1.0.5:40000 -> 239.255.255.250:1900": "forwarded traffic decide",
		"in icmpv6 neighbor-solicitation fe80::1 -> ff02::1": "has no answer",
		"out udp 192.0.2.1:5353 -> 192.0.2.2:5353":           "belong to the flow and pass",
		"in tcp [fe80::9]:40000 -> [fe80::1]:80":             "belong to the flow and pass",
	} {
		trial, err := ParseTrial(line)
		if err != nil {
			t.Fatal(err)
		}
		x, err := trial.Explain(e)
		if err != nil {
			t.Fatal(err)
		}
		if x.Outcome.Verdict != Bypass || !strings.Contains(x.Reply, want) {
			t.Errorf("%s: %v; %s", line, x.Outcome.Verdict, x.Reply)
		}
	}
}
