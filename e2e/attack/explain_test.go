package attack

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// What explain says about loopback is what happens.
func TestExplainAboutLoopback(t *testing.T) {
	a := attack(t, "G20", slip, "essentials = false, and a ping to loopback")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		s.run(strings.Replace(closed(native), "{\n", "{\n  essentials = false\n", 1))
		box := receive(t, s.gateway, v.any(9999))
		text := marker("loopback")
		sender := receive(t, s.gateway, at(v.loopback, 0))
		_ = sender.send(at(v.loopback, 9999), text) // refused says the same as lost
		passes := until(t, patience, func() bool { return box.has(text) })
		words := fmt.Sprintf("in udp %v:40000 -> %v:9999 on lo", v.loopback, v.loopback)
		if v.name == "v6" {
			words = "in udp [::1]:40000 -> [::1]:9999 on lo"
		}
		out := s.gateway.Run(lab.Binary(t), "explain", "-c", s.Dir+"/gateway/policy.hcl", words)
		says := strings.HasPrefix(out, "bypass")
		if passes != says {
			t.Errorf("loopback passes: %v; explain says: %s", passes, out)
		}
		a.saw(v.name, "loopback passes: %v, explain says it does: %v", passes, says)
	})
}
