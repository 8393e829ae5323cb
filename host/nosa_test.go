package host

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/engine"
)

// A packet for an address that its ike block does not speak with is no reason to
// call anybody: it is discarded as `explain` says, and told with its sentence.
func TestNobodyToCall(t *testing.T) {
	psk := pskFile(t)
	for _, row := range []struct{ name, ipsec, ike, to, want string }{
		{"the peer", "", `remote_endpoint = "203.0.113.9"`, "203.0.113.9", ""},
		{"one of a range", "", `remote_endpoint = "203.0.113.8/30"`, "203.0.113.10", ""},
		{"anybody", "", "", "203.0.113.10", ""},
		{"another address", "", `remote_endpoint = "203.0.113.9"`, "203.0.113.10", `ike "files" does not speak with 203.0.113.10`},
		{"beside a range", "", `remote_endpoint = "203.0.113.8/30"`, "203.0.113.12", `ike "files" does not speak with 203.0.113.12`},
		{"the end of the SA", `remote_endpoint = "203.0.113.9"`, "", "203.0.113.10", "its SA is with 203.0.113.9 only"},
		{"from elsewhere", "", `local_endpoint = "198.51.100.11"`, "203.0.113.9", `ike "files" speaks from this host's address 198.51.100.11 only`},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := start(t, fmt.Sprintf(`policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "smb" {
  action         = "protect"
  with           = "smb"
  direction      = "out"
  remote_address = "203.0.113.0/24"
}
ipsec "smb" {
  mode = "transport"
  ike  = "files"
  %s
}
ike "files" {
  %s
  psk_file = %q
}
`, row.ipsec, row.ike, psk))
			r, _ := d.kernel.packet(t, engine.Out, toPeer(row.to))
			if row.want == "" {
				if r.Reason != engine.ReasonHeld {
					t.Errorf("%v, want it to wait for the peer", r.Reason)
				}
				return
			}
			if r.Reason != engine.ReasonNoSA {
				t.Errorf("%v, want no-sa", r.Reason)
			}
			if e := d.waitFor(t, KindIPsec); e.Reason != "no-sa" || !strings.Contains(e.String(), `by rule "smb"`) ||
				!strings.HasSuffix(e.String(), ", no-sa: no SA can be there for this packet: "+row.want) {
				t.Errorf("event %s, want it to say %s", e, row.want)
			}
		})
	}
}

// Of a peer with a DNS name, where it is now counts; while the name has no address
// packets may wait for one.
func TestWhereabouts(t *testing.T) {
	at := netip.MustParseAddr
	for _, row := range []struct {
		w    whereabouts
		a    string
		want bool
	}{
		{whereabouts{call: at("192.0.2.1"), named: true}, "192.0.2.1", true},
		{whereabouts{call: at("192.0.2.1"), named: true}, "192.0.2.2", false},
		{whereabouts{call: at("192.0.2.1"), named: true, from: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, "10.1.2.3", true},
		{whereabouts{named: true}, "192.0.2.2", true},
		{whereabouts{}, "192.0.2.2", true},
	} {
		if got := row.w.has(at(row.a)); got != row.want {
			t.Errorf("%+v at %s: %t", row.w, row.a, got)
		}
	}
}
