package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Networks behind a tunnel without a route are told at the start, on a reload and in
// the status; those behind none, and those that a route leads to, are not.
func TestNoRouteIsTold(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "k"), []byte(goodPSK), 0o600); err != nil {
		t.Fatal(err)
	}
	policy := func(mode, direction, remote string) string {
		return "policy {\n  inbound = \"discard\"\n  outbound = \"bypass\"\n}\n" +
			"rule \"offices\" {\n  action = \"protect\"\n  with = \"x\"\n  direction = \"" + direction + "\"\n  remote_address = " + remote + "\n}\n" +
			"ipsec \"x\" {\n  mode = \"" + mode + "\"\n  ike = \"x\"\n}\n" +
			"ike \"x\" {\n  remote_endpoint = \"192.0.2.2\"\n  psk_file = \"" + filepath.Join(dir, "k") + "\"\n}\n"
	}
	for _, row := range []struct{ name, policy, want string }{
		{"forward", policy("tunnel", "forward", `"10.2.0.0/16"`), "10.2.0.0/16"},
		{"this host", policy("tunnel", "both", `"10.2.0.0/16"`), "10.2.0.0/16"},
		{"IPv6", policy("tunnel", "forward", `"2001:db8:2::/48"`), "2001:db8:2::/48"},
		{"one address", policy("tunnel", "out", `"10.2.0.7"`), "10.2.0.7"},
		{"a range", policy("tunnel", "forward", `"10.2.0.1-10.2.0.99"`), "10.2.0.1-10.2.0.99"},
		{"one of two", policy("tunnel", "forward", `["10.3.0.0/16", "10.2.0.0/16"]`), "10.2.0.0/16"},
		{"there is a route", policy("tunnel", "forward", `"10.3.0.0/16"`), ""},
		{"inbound", policy("tunnel", "in", `"10.2.0.0/16"`), ""},
		{"everything", policy("tunnel", "both", `"0.0.0.0/0"`), ""},
		{"transport", policy("transport", "both", `"10.2.0.0/16"`), ""},
		{"a pool", strings.Replace(policy("tunnel", "in", `"10.2.0.0/16"`), "psk_file", "pool = \"10.2.0.0/16\"\n  psk_file", 1), "10.2.0.0/16, from which ike \"x\""},
		{"a pool with a route", strings.Replace(policy("tunnel", "in", `"10.3.0.0/16"`), "psk_file", "pool = \"10.3.0.0/16\"\n  psk_file", 1), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			check := func(where string, list []Diagnostic) {
				t.Helper()
				var got []string
				for _, d := range list {
					if d.Summary == "No route" {
						got = append(got, d.Detail)
					}
				}
				if row.want == "" && got != nil || row.want != "" && (len(got) != 1 || !strings.Contains(got[0], "No route to "+row.want)) {
					t.Errorf("%s: %q, want %s", where, got, row.want)
				}
			}
			d := start(t, row.policy)
			told := func() (list []Diagnostic) {
				for _, e := range d.events(t) {
					if e.Kind == KindRoute {
						list = append(list, e.Diagnostics...)
					}
				}
				return list
			}
			check("start", told())
			s, err := d.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			check("status", s.Policy.Warnings)
			if row.want == "" {
				return
			}
			if _, err := d.Reload(t.Context(), ReloadRequest{}); err != nil {
				t.Fatal(err)
			}
			if n := len(told()); n != 2 {
				t.Errorf("%d events after a reload", n)
			}
		})
	}
}
