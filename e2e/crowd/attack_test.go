package crowd

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// figures asks for the long versions, with others beside us.
func figures() bool { return os.Getenv("IPFW_IKE_FIGURES") != "" }

// Under each flood honest callers get through, all of them, and what the server
// sends to strangers is less than what it gets from them.
func TestFlood(t *testing.T) {
	s := newSite(t)
	d := s.server.IPFW(s.policy(""))
	pid := d.Cmd.Process.Pid
	time.Sleep(100 * time.Millisecond)
	list := []string{"none", "init"}
	honest := 20
	if figures() {
		list, honest = []string{"none", "init", "none", "init-4500", "cookie", "one", "fragments", "garbage", "none"}, 100
	}
	c := gather(t, s.crowd, honest*len(list), nil)
	for i, kind := range list {
		t.Run(fmt.Sprint(kind, i), func(t *testing.T) {
			s.underFlood(t, d, pid, c, kind, i*honest, (i+1)*honest)
		})
	}
}

func (s *site) underFlood(t *testing.T, d *lab.Daemon, pid int, c *crowd, kind string, from, to int) {
	before, mem := ask(t, d), resident(t, pid)
	_, sent0 := arrived(s.attacker, "f0")
	p0, _ := arrived(s.attacker, "f0")
	var f *flood
	if kind != "none" {
		f = s.flood(t, kind, 0, 8*time.Second)
		time.Sleep(time.Second)
	}
	// Calls spread over the time of the flood.
	began := time.Now()
	for i := from; i < to; i++ {
		c.call(i)
		time.Sleep(time.Until(began.Add(time.Duration(i-from+1) * 5 * time.Second / time.Duration(to-from))))
	}
	during, memDuring := ask(t, d), resident(t, pid)
	c.callAll(0, 0, 1, 70*time.Second)
	took, missing := c.delays()
	var rate float64
	var packets, bytes int
	if f != nil {
		rate, packets, bytes = f.end()
	}
	after := ask(t, d)
	_, sent1 := arrived(s.attacker, "f0")
	p1, _ := arrived(s.attacker, "f0")
	answers := p1 - p0
	out := sent1 - sent0 - 42*answers // of UDP
	t.Logf("%-10s %7.0f packets/s | %d of %d honest, p50 %.1f p95 %.1f max %.1f ms | half-open %d, cookies %d, dropped %d, lost %d, failures %v | MB %.1f %.1f %.1f | out/in %d/%d bytes, %d/%d packets | queues %v",
		kind, rate, to-from-missing, to-from, ms(part(took, .5)), ms(part(took, .95)), ms(part(took, 1)),
		during.IKE.HalfOpen, after.IKE.Cookies-before.IKE.Cookies, after.IKE.Dropped-before.IKE.Dropped, after.IKE.Lost-before.IKE.Lost,
		failed(before, after), mem, memDuring, resident(t, pid), out, bytes, answers, packets, after.Queues)
	if missing > 0 {
		t.Errorf("%d of %d honest callers were not served under %q: %v", missing, to-from, kind, c.fails)
	}
	if f != nil && out > bytes { // without a flood there is ARP only
		t.Errorf("%d bytes were answered to %d of strangers", out, bytes)
	}
}

// failed are the failures between two looks, by reason.
func failed(before, after status) map[string]uint64 {
	m := map[string]uint64{}
	for k, n := range after.IKE.Failures {
		if n -= before.IKE.Failures[k]; n > 0 {
			m[k] = n
		}
	}
	return m
}
