package engine

import (
	"fmt"
	"strings"
	"testing"
)

// TestAnyPort: a port that is left open stands for AnyPort, and the answers with
// other ports are told, as asking with each port would find them.
func TestAnyPort(t *testing.T) {
	p := &Policy{Default: [directionCount]Verdict{Out: Bypass}, Rules: []Rule{
		{Name: "dns", Action: Bypass, In: true, Selector: Selector{Protocols: []uint8{17}, RemotePorts: []PortRange{{53, 53}, {5353, 5353}}}},
		{Name: "low", Action: Bypass, In: true, Selector: Selector{Protocols: []uint8{6, 17}, RemotePorts: []PortRange{{0, 1023}}}},
		{Name: "high", Action: Bypass, In: true, Selector: Selector{Protocols: []uint8{6}, LocalPorts: []PortRange{{1024, 65535}}}},
	}}
	e := New(p, Options{})
	for _, row := range []struct{ packet, want string }{
		{"in udp 192.0.2.1 -> 192.0.2.2:9", "source 0-52 low, source 53-53 dns, source 54-1023 low, source 5353-5353 dns"},
		{"in udp [2001:db8::1]:any -> [2001:db8::2]:9", "source 0-52 low, source 53-53 dns, source 54-1023 low, source 5353-5353 dns"},
		{"in tcp 192.0.2.1 -> 192.0.2.2:443", "source 0-1023 low"},
		{"in tcp 192.0.2.1:any -> 192.0.2.2:8080", "source 0-1023 low"},
		{"in tcp 192.0.2.1:5000 -> 192.0.2.2:any", "destination 0-1023 default"},
		{"out tcp 192.0.2.1 -> 192.0.2.2:443", ""},
		{"in udp 192.0.2.1 -> 192.0.2.2:9 established", ""},
		{"in icmp 192.0.2.1 -> 192.0.2.2", ""},
	} {
		trial, err := ParseTrial(row.packet)
		if err != nil {
			t.Errorf("%s: %v", row.packet, err)
			continue
		}
		cases, err := trial.OtherPorts(e)
		if err != nil {
			t.Errorf("%s: %v", row.packet, err)
		}
		var got []string
		for _, c := range cases {
			end, rule := "destination", "default"
			if c.Source {
				end = "source"
			}
			if c.Result.Rule >= 0 {
				rule = p.Rules[c.Result.Rule].Name
			}
			got = append(got, fmt.Sprintf("%s %d-%d %s", end, c.Ports.First, c.Ports.Last, rule))
		}
		if s := strings.Join(got, ", "); s != row.want {
			t.Errorf("%s: %s, want %s", row.packet, s, row.want)
		}
	}
	for _, bad := range []string{"in tcp 192.0.2.1:80 -> 192.0.2.2", "in tcp any -> 192.0.2.2:80", "in tcp 192.0.2.1:nosuch -> 192.0.2.2:80", "in icmp 192.0.2.1:any -> 192.0.2.2"} {
		if _, err := ParseTrial(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// TestFlowsAfterReload: a flow that a reload has cut is not listed, though no packet
// of it has come since; one that goes on is listed with the rule that the new policy
// has for it.
func TestFlowsAfterReload(t *testing.T) {
	rule := func(name string, port uint16) Rule {
		return Rule{Name: name, Action: Bypass, In: true, Selector: Selector{Protocols: []uint8{6}, LocalPorts: []PortRange{{port, port}}}}
	}
	e := New(&Policy{Rules: []Rule{rule("ssh", 22), rule("web", 80)}}, Options{})
	for _, port := range []int{22, 80} {
		trial, err := ParseTrial(fmt.Sprintf("in tcp 192.0.2.1:40000 -> 192.0.2.2:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		in, err := trial.input(trial.Spec, In)
		if err != nil {
			t.Fatal(err)
		}
		if r := e.Judge(&in); !r.NewFlow {
			t.Fatalf("%+v", r)
		}
	}
	list := func() string {
		var out []string
		e.Flows(2, func(f FlowInfo) bool {
			out = append(out, fmt.Sprintf("%d %s", f.Dest.Port(), e.Policy().Rules[f.Rule].Name))
			return true
		})
		if len(out) == 2 && strings.HasPrefix(out[0], "80") {
			out[0], out[1] = out[1], out[0]
		}
		return strings.Join(out, ", ")
	}
	if got := list(); got != "22 ssh, 80 web" {
		t.Fatal(got)
	}
	e.Reload(&Policy{Rules: []Rule{rule("other", 81), rule("first", 8080), rule("web", 80)}})
	if got := list(); got != "80 web" {
		t.Errorf("after the reload: %q", got)
	}
}
