package attack

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// A local user who holds UDP 4500 does not leave the host open.
func TestPortIsTaken(t *testing.T) {
	a := attack(t, "G10", user, "holds UDP 4500 before the daemon starts")
	for _, where := range []string{"loopback", "any"} {
		for _, v := range []*family{&v4, &v6} {
			a.play(t, v.name+" "+where, v, func(t *testing.T, v *family) {
				s := newSite(t, v)
				hold := at(v.loopback, 4500)
				if where == "any" {
					hold = v.any(4500)
				}
				p := as(t, s.gateway, nil, nil, "hold", hold.String())
				eventually(t, "an unprivileged program binds port 4500", func() bool { return strings.Contains(p.out.String(), "bound") })
				box := receive(t, s.gateway, v.any(9999))
				open := marker("open")
				s.wan.send(udp(t, v.far, 40000, v.self, 9999, open))
				box.await(open) // nobody guards the host yet
				d := s.gateway.StartIPFW(s.File("gateway/policy.hcl", s.ikeFor()))
				ended := until(t, patience, func() bool {
					_, err := s.gateway.Try(patience, lab.Binary(t), "status", "--socket", d.Socket)
					return err == nil || d.Wait(0) == nil || !strings.Contains(fmt.Sprint(d.Wait(0)), "still running")
				})
				if !ended {
					t.Fatal("the daemon neither starts nor ends")
				}
				evil := marker("evil")
				for range 3 {
					s.wan.send(udp(t, v.far, 40001, v.self, 9999, evil))
				}
				time.Sleep(2 * grace)
				if box.has(evil) {
					t.Errorf("the host is open. The daemon says: %s", d.Output())
				}
				who := strings.Contains(d.Output(), fmt.Sprint(p.cmd.Process.Pid))
				if !who {
					t.Errorf("the daemon does not say which process holds the port: %s", d.Output())
				}
				_, err := s.gateway.Try(patience, lab.Binary(t), "status", "--socket", d.Socket)
				a.saw(v.name+" "+where, "host open: %v; process named: %v; daemon runs: %v", box.has(evil), who, err == nil)
				if where == "loopback" && err != nil {
					t.Errorf("the daemon does not start, and the port is taken on loopback only: %s", d.Output())
				}
			})
		}
	}
}
