package attack

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// ikeFor is a policy with an ike block for a peer that is not there.
func (s *site) ikeFor() string {
	s.File("gateway/psk", "a secret of the test, long enough\n")
	return closed(native) + fmt.Sprintf(`
rule "peer" {
  action         = "protect"
  with           = "peer"
  direction      = "both"
  remote_address = %[1]q
}
ipsec "peer" {
  mode = "transport"
  ike  = "peer"
}
ike "peer" {
  remote_endpoint = %[1]q
  local_id        = "gateway.example"
  psk_file        = "psk"
}
`, s.v.lanNobody)
}

// While nobody judges, nothing new gets in: not by the ports of IKE and ESP in
// UDP either, which then belong to whoever binds them.
func TestPortsWhileNobodyJudges(t *testing.T) {
	a := attack(t, "G9", user, "binds UDP 4500 and 500 while the daemon is dead")
	for _, how := range []string{"kill", "shut", "stay-shut", "stop"} {
		for _, v := range []*family{&v4, &v6} {
			a.play(t, v.name+" "+how, v, func(t *testing.T, v *family) {
				s := newSite(t, v)
				policy := s.callers("") // anybody may call
				served := func(when string) {
					if err := s.honest(v.far, "ann.example"); err != nil {
						t.Errorf("an honest caller, %s: %v", when, err)
					}
				}
				switch how {
				case "kill":
					d := s.run(policy)
					served("before")
					d.Kill()
				case "stop":
					d := s.run(policy)
					served("before")
					d.Signal(syscall.SIGSTOP)
				case "shut":
					s.gateway.Run(lab.Binary(t), "shut", "--force", "--socket", filepath.Join(s.Dir, "gateway.sock"), "-c", s.File("gateway/policy.hcl", policy))
				case "stay-shut":
					d := s.run(policy, "--stay-shut")
					d.Signal(syscall.SIGTERM)
					if err := d.Wait(patience); err != nil {
						t.Fatal(err)
					}
				}
				ports := []uint16{4500, 500, 4501}
				var boxes []*inbox
				var holder *program
				if how != "stop" {
					holder = as(t, s.gateway, nil, nil, "hold", at(v.self, 4500).String())
					eventually(t, "an unprivileged program binds port 4500", func() bool { return strings.Contains(holder.out.String(), "bound") })
					defer func() {
						if strings.Contains(holder.out.String(), "received") {
							t.Error("what a stranger sends reaches an unprivileged program at port 4500")
							a.saw(v.name+" "+how, "a stranger's datagram is delivered at 4500")
						}
					}()
					boxes = append(boxes, receive(t, s.gateway, at(v.self, 500)))
				}
				boxes = append(boxes, receive(t, s.gateway, at(v.self, 4501)))
				evil := marker("evil")
				for i := range uint16(3) {
					for _, port := range ports {
						s.wan.send(udp(t, v.far, 40000+i, v.self, port, evil))
					}
				}
				time.Sleep(2 * grace)
				for _, b := range boxes {
					if b.has(evil) {
						t.Errorf("what a stranger sends reaches a program at %v", b.conn.LocalAddr())
						a.saw(v.name+" "+how, "a stranger's datagram is delivered at %v", b.conn.LocalAddr())
					}
				}
				// The honest use: with the daemon back, and its ports, IKE is answered.
				if how == "stop" {
					s.daemon.Signal(syscall.SIGCONT)
				} else {
					for _, b := range boxes {
						_ = b.conn.Close()
					}
					holder.stop()
					s.run(policy)
				}
				served("afterwards")
			})
		}
	}
}
