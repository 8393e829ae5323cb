package rules

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestAddressFunctions: cidrhost, cidrcontains, try and flatten give what the functions of
// those names give elsewhere, and take ranges, single addresses, both families and files.
func TestAddressFunctions(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"some.txt": "172.21.0.0/16\nfd21::/64\n", "none.txt": "# nobody\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ expr, want string }{
		{`cidrhost("10.12.112.0/20", 16)`, "10.12.112.16"},
		{`cidrhost("10.12.112.0/20", 268)`, "10.12.113.12"},
		{`cidrhost("10.0.0.0/8", -2)`, "10.255.255.254"},
		{`cidrhost("192.0.2.0/24", 255)`, "192.0.2.255"},
		{`cidrhost("fd00:fd12:3456:7890::/72", 34)`, "fd00:fd12:3456:7890::22"},
		{`cidrhost("2001:db8::/32", -1)`, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"},
		{`cidrhost("2001:db8::/32", 79228162514264337593543950335)`, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"},
		{`cidrhost("::/0", "18446744073709551616")`, "0:0:0:1::"},
		{`cidrhost("192.0.2.7", 0)`, "192.0.2.7"},
		{`cidrhost("2001:db8::7", -1)`, "2001:db8::7"},
		{`cidrhost("192.0.2.5-192.0.2.9", 4)`, "192.0.2.9"},
		{`cidrhost("any", 1)`, "0.0.0.1"},
		{`cidrhost(file("some.txt"), 5)`, "172.21.0.5"},
		{`cidrcontains("192.168.16.0/20", "192.168.18.1")`, "true"},
		{`cidrcontains("192.168.16.0/20", "192.168.20.0/22")`, "true"},
		{`cidrcontains("192.168.16.0/20", "192.168.0.0/16")`, "false"},
		{`cidrcontains("fe80::/48", "fe80::1")`, "true"},
		{`cidrcontains("fe80::/48", "192.0.2.1")`, "false"},
		{`cidrcontains("::/0", "192.0.2.1")`, "false"},
		{`cidrcontains("any", "2001:db8::1")`, "true"},
		{`cidrcontains(["192.0.2.0/25", ["192.0.2.128/25", "fd00::/8"]], "192.0.2.100-192.0.2.200")`, "true"},
		{`cidrcontains(["192.0.2.0/26", "192.0.2.128/25"], "192.0.2.0/24")`, "false"},
		{`cidrcontains([], "192.0.2.1")`, "false"},
		{`cidrcontains(file("none.txt"), "192.0.2.1")`, "false"},
		{`cidrcontains(file("some.txt"), "fd21::7")`, "true"},
		{`cidrcontains(file("some.txt"), ["fd21::7", "172.21.3.0/24"])`, "true"},
		{`cidrcontains(["172.21.0.0/17"], file("some.txt"))`, "false"},
		{`cidrcontains(toset(["192.0.2.1"]), "192.0.2.1")`, "true"},
		{`try(cidrhost("gw.example.net", 0), "a name")`, "a name"},
		{`try(cidrhost("192.0.2.0/24", 1), "a name")`, "192.0.2.1"},
		{`try({ a = 1 }.b, [1][4], "third")`, "third"},
		{`try([for i in range(100) : cidrhost("x", i)], [for i in range(100) : { a = i }.b], "after many mistakes")`, "after many mistakes"},
		{`length(flatten([file("none.txt"), ["192.0.2.1", [file("some.txt")]], file("none.txt")]))`, "2"},
	} {
		p := load(t, shut+"rule \"r\" {\n  action      = \"bypass\"\n  direction   = \"in\"\n  description = \"= ${"+tt.expr+"}\"\n}\n")
		if got := p.rules[len(p.rules)-1].Description; got != "= "+tt.want {
			t.Errorf("%s is %s, want %s", tt.expr, got, tt.want)
		}
	}
	for _, tt := range []struct{ expr, want string }{
		{`cidrhost("192.0.2.0/30", 4)`, `"hostnum" parameter: the addresses of 192.0.2.0/30 have the numbers 0 to 3, or -1 to -4 from the end; there is none with 4`},
		{`cidrhost("192.0.2.0/30", -5)`, `there is none with -5`},
		{`cidrhost("2001:db8::1", 1)`, `2001:db8::1 is one address, which has the number 0, and -1 from the end; there is none with 1`},
		{`cidrhost("::/0", 1e300)`, `there is none with 1e+300`},
		{`cidrhost("192.0.2.0/24", 1.5)`, `the number of an address is a whole number, not 1.5`},
		{`cidrhost("192.0.2.5/24", 1)`, `"prefix" parameter: "192.0.2.5/24" has bits behind the prefix length: write 192.0.2.0/24`},
		{`cidrhost("192.0.2.0/33", 1)`, `it is from 0 to 32 for IPv4`},
		{`cidrhost("gw.example.net", 1)`, `is a name, and names are not looked up`},
		{`cidrhost(["192.0.2.0/24"], 1)`, `one network is wanted here, not tuple: [for a in flatten([LIST]) : cidrhost(a, 0)] gives`},
		{`cidrhost(file("none.txt"), 0)`, `the file holds no address`},
		{`cidrhost(true, 0)`, `an address, a network or a range is wanted here, not bool`},
		{`cidrcontains("192.0.2.0/24", [])`, `an address, a network or a range is wanted here, or a list that holds one`},
		{`cidrcontains(["192.0.2.0/24", "x:y"], "192.0.2.1")`, `"containing" parameter: "x:y" is not an address`},
		{`cidrcontains({ a = 1 }, "192.0.2.1")`, `not object`},
		{`try()`, `an expression is wanted`},
		{`try(cidrhost("x", 0), cidrhost("192.0.2.1", 2))`, `none of its expressions has a value; of the last: Invalid value for "hostnum" parameter`},
		{`try(local.nothing, 1)`, `There is no local.nothing`},
	} {
		text := shut + "rule \"r\" {\n  action      = \"bypass\"\n  direction   = \"in\"\n  description = \"${" + tt.expr + "}\"\n}\n"
		p, d := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(text)})
		if said := fmt.Sprint(d.Err()); p != nil || !strings.Contains(said, tt.want) || !strings.HasPrefix(said, "<stdin>:8:") {
			t.Errorf("%s:\n%s\nwant %q, in line 8", tt.expr, said, tt.want)
		}
	}
}

// TestNoPackets: a test whose packets are made from locals may have none of them, and one
// that is written without is still a mistake.
func TestNoPackets(t *testing.T) {
	p := load(t, shut+`
locals {
  none = []
  some = ["203.0.113.9"]
}
test "some" {
  expect "discard" { packets = [for a in local.none : "in tcp ${a}:1 -> 192.0.2.1:22"] }
  expect "discard" { packets = [for a in local.some : "in tcp [${a}]:1 -> [192.0.2.1]:22"] }
}
test "none" {
  expect "bypass" { packets = [for a in local.some : "in tcp ${a}:1 -> 192.0.2.1:22" if cidrcontains("::/0", a)] }
}
`)
	fixedPoint(t, p)
	results := p.RunTests()
	if len(results) != 1 || !results[0].Pass || len(p.Tests) != 1 {
		t.Errorf("%d tests: %+v", len(p.Tests), results)
	}
	_, d := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(shut + "test \"t\" {\n  expect \"bypass\" {\n    packets = []\n  }\n}\n")})
	if said := fmt.Sprint(d.Err()); !strings.Contains(said, "an empty list says nothing") {
		t.Error(said)
	}
}
