package rules

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// manyRules writes a policy like those that grow over the years: addresses,
// ports, a few lists.
func manyRules(n int) string {
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	b.WriteString(shut)
	for i := range n {
		fmt.Fprintf(&b, "\nrule \"rule-%d\" {\n  action         = %q\n  direction      = \"in\"\n  protocol       = %q\n  remote_address = [\"10.%d.%d.0/24\", \"2001:db8:%x::/48\"]\n  local_port     = [%d, \"8000-8099\"]\n}\n",
			i, []string{"bypass", "discard"}[r.IntN(2)], []string{"tcp", "udp"}[r.IntN(2)], r.IntN(256), r.IntN(256), r.IntN(65536), r.IntN(1024))
	}
	return b.String()
}

func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10000} {
		text := manyRules(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if p, d := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(text)}); p == nil {
					b.Fatal(d.Err())
				}
			}
		})
	}
}
