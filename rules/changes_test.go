package rules

import (
	"strings"
	"testing"
)

// What a reload tells of the difference between two policies.
func TestChangesFrom(t *testing.T) {
	rule := func(name, port string) string {
		return "rule \"" + name + "\" {\n  action     = \"bypass\"\n  direction  = \"in\"\n  protocol   = \"tcp\"\n  local_port = " + port + "\n}\n"
	}
	head := "policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n}\n"
	load := func(text string) *Policy {
		t.Helper()
		p, diags := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(text)})
		if p == nil {
			t.Fatal(diags.Err())
		}
		return p
	}
	a, b, c, d := rule("a", "1"), rule("b", "2"), rule("c", "3"), rule("d", "4")
	many := ""
	for _, n := range "efghijklmno" {
		many += rule(string(n), "5")
	}
	for _, row := range []struct{ name, old, new, want string }{
		{"same", head + a + b, head + a + b, "nothing has changed"},
		{"places", head + a + b, "\n\n" + head + "# more\n" + a + b, "nothing has changed"},
		{"added", head + a, head + b + a, `added rule "b"`},
		{"removed", head + a + b, head + b, `removed rule "a"`},
		{"changed", head + a + b, head + a + rule("b", "[2, 3]"), `changed rule "b"`},
		{"moved to the end", head + a + b + c + d, head + b + c + d + a, `moved rule "a"`},
		{"moved to the front", head + a + b + c + d, head + d + a + b + c, `moved rule "d"`},
		{"moved and changed", head + a + b + c + d, head + rule("d", "44") + a + b + c, `changed rule "d"; moved rule "d"`},
		{"disabled", head + a + b, head + a + strings.Replace(b, "{", "{\n  enabled = false", 1), `removed rule "b"`},
		{"policy block", head + a, strings.Replace(head, "\"bypass\"", "\"discard\"", 1) + a, "changed policy"},
		{"log rate", head + a, strings.Replace(head, "{", "{\n  log_rate = 3", 1) + a, "changed policy"},
		{"all", head + a + b + c, head + rule("c", "33") + d + b, `added rule "d"; removed rule "a"; changed rule "c"; moved rule "c"`},
		{"many", head, head + many, `added rule "e", "f", "g", "h", "i", "j", "k", "l" and 3 more`},
	} {
		changes := load(row.new).ChangesFrom(load(row.old))
		if got := changes.String(); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
	ike := func(mode, id string) string {
		return head + "rule \"all\" {\n  action = \"protect\"\n  with = \"x\"\n  direction = \"both\"\n  remote_address = \"192.0.2.2\"\n}\nipsec \"x\" {\n  mode = \"" + mode +
			"\"\n  ike = \"x\"\n}\nike \"x\" {\n  remote_endpoint = \"192.0.2.2\"\n  local_id = \"" + id + "\"\n  psk_file = \"k\"\n}\n"
	}
	changes := load(ike("tunnel", "b")).ChangesFrom(load(ike("transport", "a")))
	if got, want := changes.String(), `changed ipsec "x", ike "x"`; got != want {
		t.Errorf("ipsec and ike: %s, want %s", got, want)
	}
}

// The fast search for what stays against all parts of a list.
func TestRising(t *testing.T) {
	for n := range 7 {
		list := make([]int, n)
		var each func(k int)
		each = func(k int) {
			if k < n {
				for v := range n {
					list[k] = v
					each(k + 1)
				}
				return
			}
			best := 0
			for set := range 1 << n {
				last, size, ok := -1, 0, true
				for i, v := range list {
					if set>>i&1 == 1 {
						ok = ok && v > last
						last = v
						size++
					}
				}
				if ok {
					best = max(best, size)
				}
			}
			last, size := -1, 0
			for i, s := range rising(list) {
				if s {
					if list[i] <= last {
						t.Fatalf("%v: %v does not rise", list, rising(list))
					}
					last = list[i]
					size++
				}
			}
			if size != best {
				t.Fatalf("%v: %v, and %d can stay", list, rising(list), best)
			}
		}
		if n < 6 {
			each(0)
		}
	}
}
