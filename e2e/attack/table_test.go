package attack

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// Another program that flushes, deletes or changes the table opens nothing, where
// the kernel lets a table belong to somebody (6.9 and later).
func TestRulesetFlushed(t *testing.T) {
	a := attack(t, "G22", otherRule, "flushes, deletes and changes ipfw's table, under a flood")
	a.each(t, func(t *testing.T, v *family) {
		if !ownedTables(t) {
			t.Skip("SKIPPED: this kernel lets no table belong to a process and stay (Linux 6.9 does)")
		}
		s := newSite(t, v)
		s.run(closed(native) + "rule \"open\" {\n  action     = \"bypass\"\n  direction  = \"in\"\n  protocol   = \"udp\"\n  local_port = 9000\n}\n")
		shut, open := receive(t, s.gateway, v.any(9999)), receive(t, s.gateway, v.any(9000))
		evil, good := marker("evil"), marker("good")
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				for k := range 8 {
					s.wan.send(udp(t, v.far, uint16(1024+(i*8+k)%60000), v.self, 9999, evil))
				}
				time.Sleep(2 * time.Millisecond)
			}
		}()
		for range 3 {
			for _, args := range []string{"flush ruleset", "delete table inet ipfw", "flush table inet ipfw", "flush chain inet ipfw input",
				"insert rule inet ipfw input accept", "add chain inet ipfw input { type filter hook input priority 0; policy accept; }"} {
				_, _ = s.gateway.Try(patience, "nft", args)
				time.Sleep(30 * time.Millisecond)
			}
		}
		close(stop)
		<-done
		eventually(t, "an open port is open", func() bool {
			s.wan.send(udp(t, v.far, 5000, v.self, 9000, good))
			return open.has(good)
		})
		time.Sleep(grace)
		if n := shut.count(evil); n > 0 {
			t.Errorf("%d datagrams get into a shut port", n)
		}
		a.saw(v.name, "into the shut port: %d", shut.count(evil))
	})
}

// ownedTables says whether the kernel is 6.9 or later.
func ownedTables(t testing.TB) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	var major, minor int
	_, _ = fmt.Sscanf(string(text), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 9
}

// A policy's decision is not in force again when numbers of policies come round,
// whoever touches the table meanwhile.
func TestOldDecisionsStayOld(t *testing.T) {
	a := attack(t, "G22", otherRule, "touches the table while policies come and go under a silent flow")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		rule := "rule \"open\" {\n  action     = \"bypass\"\n  direction  = \"in\"\n  protocol   = \"udp\"\n  local_port = 9000\n}\n"
		d := s.run(closed(native) + rule)
		box := receive(t, s.gateway, v.any(9000))
		good, evil := marker("good"), marker("evil")
		for range 5 { // the kernel's from the second on
			s.wan.send(udp(t, v.far, 5000, v.self, 9000, good))
		}
		box.await(good)
		_ = box.send(at(v.far, 5000), good)
		for i := range 18 {
			s.File("gateway/policy.hcl", closed(native)+fmt.Sprintf("# %d\n", i))
			s.gateway.Run(lab.Binary(t), "reload", "--force", "--socket", d.Socket)
			if i%3 == 0 {
				_, _ = s.gateway.Try(patience, "nft", "flush ruleset")
			}
			s.wan.send(udp(t, v.far, uint16(6000+i), v.self, 9000, evil))
			if i > 7 { // the flow was silent for as many policies as there are numbers
				s.wan.send(udp(t, v.far, 5000, v.self, 9000, evil))
			}
		}
		s.File("gateway/policy.hcl", closed(native)+rule)
		again := marker("again")
		s.gateway.Run(lab.Binary(t), "reload", "--force", "--socket", d.Socket)
		eventually(t, "with the rule back the port is open", func() bool {
			s.wan.send(udp(t, v.far, 7000, v.self, 9000, again))
			return box.has(again)
		})
		if n := box.count(evil); n > 0 {
			t.Errorf("%d datagrams get into a port that 18 policies shut", n)
		}
		a.saw(v.name, "through 18 policies that shut the port: %d", box.count(evil))
	})
}
