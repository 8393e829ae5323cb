package crowd

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/ipfw/ipfw/ike"
)

// figures asks for the long versions, with others beside us.
func figures() bool { return os.Getenv("IPFW_IKE_FIGURES") != "" }

// target is a responder that is attacked: ipfw's daemon, or another's.
type target struct {
	pid int
	ask func() status // nil: it is not ours
}

func (s *site) ipfw(t testing.TB, policy string) target {
	d := s.server.IPFW(policy)
	time.Sleep(100 * time.Millisecond)
	return target{d.Cmd.Process.Pid, func() status { return ask(t, d) }}
}

// Under each flood honest callers get through, all of them, and what the server
// sends to strangers is less than what it gets from them.
func TestFlood(t *testing.T) {
	s := newSite(t)
	d := s.ipfw(t, s.policy(""))
	list := []string{"none", "init", "psk-many", "garbage-many"}
	if figures() {
		list = []string{"none", "init", "none", "init-4500", "cookie", "one", "fragments", "garbage", "none",
			"psk-one", "psk-many", "garbage-one", "garbage-many"}
	}
	s.underFloods(t, d, gather(t, s.crowd, honest()*len(list), nil), list)
}

// The same with signatures: what they cost is paid for each who sends one.
func TestFloodSigned(t *testing.T) {
	s := newSite(t)
	list := []string{"none", "sign-many"}
	if figures() {
		list = []string{"none", "sign-one", "sign-many"}
	}
	policy, change := s.signed(honest() * len(list))
	s.underFloods(t, s.ipfw(t, policy), gather(t, s.crowd, honest()*len(list), change), list)
}

// TestFloodBeside floods ipfw and strongSwan in turn, with callers who want an IKE
// SA and no child (RFC 6023): charon in user space has no transport mode.
// "strongswan-open" has neither cookies nor limits of half-open IKE SAs.
func TestFloodBeside(t *testing.T) {
	list, targets := []string{"psk-many"}, []string{"ipfw", "strongswan"}
	if figures() {
		list, targets = []string{"none", "init", "psk-many", "garbage-one", "garbage-many"}, append(targets, "strongswan-open")
	}
	for _, who := range targets {
		t.Run(who, func(t *testing.T) {
			s := newSite(t)
			d := target{}
			if who == "ipfw" {
				d = s.ipfw(t, s.policy(""))
			} else {
				d = s.charon(nil, false, who == "strongswan-open")
			}
			c := gather(t, s.crowd, honest()*len(list), func(_ int, p *ike.Peer) { p.Childless, p.DPD = true, -1 })
			c.done = ike.IKEUp
			s.underFloods(t, d, c, list)
		})
	}
}

// honest is how many honest callers come under each flood.
func honest() int {
	if figures() {
		return 100
	}
	return 20
}

func (s *site) underFloods(t *testing.T, d target, c *crowd, list []string) {
	for i, kind := range list {
		t.Run(fmt.Sprint(kind, i), func(t *testing.T) {
			s.underFlood(t, d, c, kind, i*honest(), (i+1)*honest())
		})
	}
}

func (s *site) underFlood(t *testing.T, d target, c *crowd, kind string, from, to int) {
	var before, during, after status
	look := func(st *status) {
		if d.ask != nil {
			*st = d.ask()
		}
	}
	look(&before)
	mem, used := resident(t, d.pid), cpuTime(t, d.pid)
	packets0, bytes0 := arrived(s.attacker, "f0")
	out0 := sent(s.attacker, "f0")
	span := 2 * time.Second
	if figures() {
		span = 5 * time.Second
	}
	var f *flood
	if kind != "none" {
		f = s.flood(t, kind, 0, span*8/5)
		time.Sleep(time.Second)
	}
	// Calls spread over the time of the flood.
	began := time.Now()
	for i := from; i < to; i++ {
		c.call(i)
		time.Sleep(time.Until(began.Add(time.Duration(i-from+1) * span / time.Duration(to-from))))
	}
	look(&during)
	memDuring := resident(t, d.pid)
	c.callAll(0, 0, 1, 70*time.Second)
	took, missing := c.delays()
	rate := 0.0
	if f != nil {
		rate, _, _ = f.end()
	}
	look(&after)
	packets1, bytes1 := arrived(s.attacker, "f0")
	answers := packets1 - packets0
	out, in := bytes1-bytes0-42*answers, sent(s.attacker, "f0")-out0 // of UDP; what came in has its headers
	line := fmt.Sprintf("%-12s %7.0f a second | %d of %d honest, p50 %.1f p95 %.1f max %.1f ms | MB %.1f %.1f %.1f, CPU %.1f s | %d bytes to strangers for %d",
		kind, rate, to-from-missing, to-from, ms(part(took, .5)), ms(part(took, .95)), ms(part(took, 1)),
		mem, memDuring, resident(t, d.pid), (cpuTime(t, d.pid) - used).Seconds(), out, in)
	if d.ask != nil {
		line += fmt.Sprintf(" | half-open %d, cookies %d, dropped %d, lost %d, failures %v", during.IKE.HalfOpen,
			after.IKE.Cookies-before.IKE.Cookies, after.IKE.Dropped-before.IKE.Dropped, after.IKE.Lost-before.IKE.Lost, failed(before, after))
	}
	t.Log(line)
	if d.ask == nil {
		return // theirs: to be seen, not to be judged
	}
	if missing > 0 {
		t.Errorf("%d of %d honest callers were not served under %q: %v", missing, to-from, kind, c.fails)
	}
	if f != nil && out > in { // without a flood there is ARP only
		t.Errorf("%d bytes were answered to %d of strangers", out, in)
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
