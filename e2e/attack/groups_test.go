package attack

import (
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// Groups that cost much are not there unless the policy names them.
func TestCostlyGroups(t *testing.T) {
	a := attack(t, "G12", offPath, "MODP-4096 for two messages of a stranger")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		d := s.run(s.callers(""))
		addrs := s.addresses(128)
		const rounds = 24
		next := 0
		cost := func(group uint16) (ticks, taken int) {
			was := cpuTicks(t, d.Cmd.Process.Pid)
			for range rounds {
				c := newInitiator(t, s.beyond, addrs[next], v.self)
				next++
				list, err := c.begin(group, 30)
				if err != nil {
					t.Fatal(err)
				}
				if find(list, plKE) != nil {
					taken++
					if c.ei == nil { // we have no keys, and send something of that length
						c.ei = make([]byte, 36)
					}
					c.mid = 1
					junk := c.sealed(exAuth, payloadOf{plIDi, make([]byte, 200)})
					junk[len(junk)-1] ^= 1
					if _, err := c.conn.Write(junk); err != nil {
						t.Fatal(err)
					}
				}
				c.close()
			}
			if err := s.honest(v.far, "ann.example"); err != nil { // all of that is done
				t.Fatalf("an honest caller: %v", err)
			}
			return cpuTicks(t, d.Cmd.Process.Pid) - was, taken
		}
		small, ok := cost(groupX25519)
		large, taken := cost(groupMODP4096)
		if ok != rounds {
			t.Errorf("X25519 is taken %d times of %d", ok, rounds)
		}
		if taken > 0 {
			t.Errorf("MODP-4096 is taken from a stranger though no policy names it: %d handshakes cost %d0 ms, with X25519 %d0 ms", taken, large, small)
		}
		a.saw(v.name, "MODP-4096 taken %d times of %d: %d0 ms of the daemon, X25519 %d0 ms", taken, rounds, large, small)
		// The honest use: who names it has it.
		s.File("gateway/policy.hcl", strings.Replace(s.callers(""), "  psk_file", "  key_exchange = [\"modp-4096\"]\n  psk_file", 1))
		s.gateway.Run(lab.Binary(t), "reload", "--force", "--socket", d.Socket)
		c := newInitiator(t, s.beyond, v.far, v.self)
		defer c.close()
		eventually(t, "a policy that names MODP-4096 has it", func() bool {
			list, err := c.begin(groupMODP4096, 3)
			return err == nil && find(list, plKE) != nil
		})
	})
}
