package e2e

import (
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// A host that sleeps until its peer has given it up has its tunnel back after it has
// woken, without anybody's help: with initiate = "start" so that the peer's packets come
// in though nobody here sends, with "traffic" as soon as there is some. The times are
// those that docs/policy.md names for such a host; with IPFW_IKE_FIGURES set it is the
// defaults, of which the figure is printed.
func TestStrongSwanAfterSleep(t *testing.T) {
	t.Parallel()
	times := "dead_peer_detection = \"5s\"\n  retransmit_timeout = \"1s\"\n  retransmit_base = 1.5\n  retransmit_tries = 3"
	if os.Getenv("IPFW_IKE_FIGURES") != "" {
		times = ""
	}
	type sleeper struct {
		*ikeHost
		initiate string
		swan     *lab.Charon
		woke     bool
	}
	us, them := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")
	var sleepers []*sleeper
	var l *lab.Lab
	for _, initiate := range []string{"start", "traffic"} {
		var client, server *lab.Host
		l, client, server = lab.Pair(t)
		lab.Need(t, "ping")
		client.Run("ip", "addr", "add", "10.1.0.1/32", "dev", "lo")
		client.Run("ip", "route", "add", "10.2.0.0/24", "via", "10.77.0.1")
		server.Run("ip", "addr", "add", "10.2.0.1/32", "dev", "lo")
		server.Run("ip", "route", "add", "10.1.0.0/24", "via", "10.77.0.2")
		s := &sleeper{initiate: initiate, swan: server.Charon("")}
		s.swan.Load(alwaysThem("dpd_delay = 3s", "remote_ts = 10.1.0.0/24\n        dpd_action = clear", ""))
		s.ikeHost = &ikeHost{Host: client, name: "client", policy: swanUs(l, "10.77.0.1", `local_address = "10.1.0.0/24"`, "initiate = \""+initiate+"\"\n  "+times)}
		s.run(t)
		sleepers = append(sleepers, s)
	}
	answered := func(s *sleeper) bool {
		if s.initiate == "start" {
			return s.swan.Ping(them, us) == nil
		}
		_, err := s.Try(waitLong, "ping", "-n", "-c", "1", "-W", "1", "-I", "10.1.0.1", "10.2.0.1")
		return err == nil
	}
	for _, s := range sleepers {
		l.Eventually(waitLong, "an answer with initiate = "+s.initiate, func() bool { return answered(s) })
	}
	for _, s := range sleepers {
		s.daemon.Signal(syscall.SIGSTOP)
	}
	for _, s := range sleepers {
		l.Eventually(waitLong, "the peer has given it up", func() bool {
			return !strings.Contains(s.swan.Do("--list-sas", "--raw"), "list-sa event {us {")
		})
	}
	for _, s := range sleepers {
		s.daemon.Signal(syscall.SIGCONT)
	}
	since := time.Now()
	l.Eventually(2*waitLong, "answers after the sleep", func() bool {
		all := true
		for _, s := range sleepers {
			if !s.woke && answered(s) {
				s.woke = true
				t.Logf("initiate = %q: an answer %.0f s after waking", s.initiate, time.Since(since).Seconds())
			}
			all = all && s.woke
		}
		return all
	})
}
