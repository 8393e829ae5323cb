package host

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// What keeps the key exchange from hearing a peer is named with its line, if it is this
// host's own policy, by whichever interface the peer comes.
func TestBarred(t *testing.T) {
	psk := pskFile(t)
	dev := ""
	list, err := net.Interfaces()
	for _, i := range list {
		if i.Flags&net.FlagLoopback == 0 {
			dev = i.Name
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	rule := func(name, more string) string {
		return fmt.Sprintf("rule %q {\n  action = \"bypass\"\n  direction = \"in\"\n  protocol = \"udp\"\n  %s\n}\n", name, more)
	}
	const let = ": let a rule before that bypass UDP to local_port 500 and 4500"
	for _, row := range []struct {
		name, policy, rules string
		want                string // of port 4500
		only                bool   // where this host has one interface
	}{
		{"essentials", "", "", "", false},
		{"both ports", "essentials = false", rule("ike", "local_port = [500, 4500]"), "", false},
		{"a rule that protects", "essentials = false", rule("ike", "local_port = 500"), `discarded here by rule "all" (POLICY:12)` + let, false},
		{"a rule that discards", "essentials = false", rule("ike", "local_port = 500") + strings.Replace(rule("nat", "local_port = 4500"), "bypass", "discard", 1),
			`discarded here by rule "nat" (POLICY:12)` + let, false},
		{"of somebody else", "essentials = false", rule("ike", "local_port = [500, 4500]\n  remote_address = \"192.0.2.1\""), `discarded here by rule "all" (POLICY:13)` + let, false},
		{"no interface of this host", "essentials = false", rule("ike", "local_port = [500, 4500]\n  interface = \"nosuch7\""), `discarded here by rule "all" (POLICY:13)` + let, false},
		{"an interface of this host", "essentials = false", rule("ike", fmt.Sprintf("local_port = [500, 4500]\n  interface = %q", dev)), "", true},
	} {
		for _, family := range [][2]string{{"198.51.100.10", "203.0.113.9"}, {"2001:db8::10", "2001:db8:1::9"}} {
			t.Run(row.name+" "+family[0], func(t *testing.T) {
				if row.only && dev == "" {
					t.Skip("this host has no interface but lo")
				}
				d := start(t, fmt.Sprintf(`policy {
  inbound  = "discard"
  outbound = "bypass"
  %s
}
%srule "all" {
  action         = "protect"
  with           = "all"
  direction      = "both"
  remote_address = %q
}
ipsec "all" {
  mode = "transport"
  ike  = "peer"
}
ike "peer" {
  remote_endpoint = %[3]q
  psk_file        = %[4]q
}
`, row.policy, row.rules, family[1], psk))
				x := d.kernel.h.(*daemon).exchange
				at := func(a string, port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(a), port) }
				if got := strings.ReplaceAll(x.barred(at(family[0], 4500), at(family[1], 4500)), d.policy, "POLICY"); got != row.want {
					t.Errorf("%q, want %q", got, row.want)
				}
				if row.want == "" || strings.Contains(row.rules, "500\n") {
					if got := x.barred(at(family[0], 500), at(family[1], 500)); got != "" {
						t.Errorf("port 500: %q", got)
					}
				}
			})
		}
	}
	d := start(t, shutPolicy)
	got := d.kernel.h.(*daemon).exchange.barred(netip.MustParseAddrPort("198.51.100.10:4500"), netip.MustParseAddrPort("203.0.113.9:4500"))
	if want := "discarded here by the policy block's inbound default: let a rule bypass UDP to local_port 500 and 4500"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
