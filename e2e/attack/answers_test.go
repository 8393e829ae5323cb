package attack

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// What a host asks everybody on its link lets nobody in but neighbours, to the
// port that asked, by the device that the question left by, and in time.
func TestAnswersNobodyAskedFor(t *testing.T) {
	a := attack(t, "G25", offPath, "answers to questions that were not asked there, or not lately")
	for _, offload := range []string{"flow", "none"} {
		for _, v := range []*family{&v4, &v6} {
			a.play(t, v.name+" "+offload, v, func(t *testing.T, v *family) { tryAnswers(t, a, v, offload) })
		}
	}
}

func tryAnswers(t *testing.T, a *attempt, v *family, offload string) {
	s := newSite(t, v)
	policy := func(answers string) string {
		return fmt.Sprintf("policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n  offload  = %q\n}\n", offload) + answers + `
rule "open" {
  action     = "bypass"
  direction  = "in"
  protocol   = "udp"
  local_port = 9000
}
`
	}
	within := func(time string) string {
		return fmt.Sprintf("rule \"answers\" {\n  action            = \"bypass\"\n  direction         = \"in\"\n  protocol          = \"udp\"\n  answers_multicast = %q\n}\n", time)
	}
	s.run(policy(within("1m")))
	reload := func(answers string) {
		t.Helper()
		s.File("gateway/policy.hcl", policy(answers))
		s.daemon.Ask("reload")
	}
	lan := tap(t, s.lan, "l0", s.gateway, "lan0")
	asker, other := receive(t, s.gateway, at(v.self, 6000)), receive(t, s.gateway, at(v.self, 6001))
	beside, open := receive(t, s.gateway, at(v.lanSelf, 6000)), receive(t, s.gateway, at(v.self, 9000))
	group := at(netip.MustParseAddr(map[string]string{"v4": "239.255.255.250", "v6": "ff02::c%wan0"}[v.name]), 1900)
	neighbor := v.far.Next() // an address of the link that is nobody's
	var last time.Time       // when it was last asked
	// answered asks, attacks, and is answered, until the honest answer is there.
	answered := func(what string, attacks func()) {
		t.Helper()
		honest := marker("honest")
		eventually(t, what, func() bool {
			if err := asker.send(group, "question"); err != nil {
				t.Fatal(err)
			}
			last = time.Now()
			attacks()
			s.wan.send(udp(t, neighbor, 1900, v.self, 6000, honest))
			time.Sleep(20 * time.Millisecond)
			return asker.has(honest)
		})
	}
	// refused looks whether anything forged has come, when what was sent behind it
	// has, by both devices.
	forged := marker("forged")
	refused := func(what string) {
		t.Helper()
		behind := marker("behind")
		s.wan.send(udp(t, neighbor, 1900, v.self, 9000, behind+"-wan"))
		lan.send(udp(t, v.lanHost, 1900, v.self, 9000, behind+"-lan"))
		open.await(behind + "-wan")
		open.await(behind + "-lan")
		time.Sleep(grace)
		for _, b := range []*inbox{asker, other, beside} {
			if n := b.count(forged); n > 0 {
				t.Errorf("%s: %d forged came in at %v", what, n, b.conn.LocalAddr())
			}
		}
	}

	s.wan.send(udp(t, neighbor, 1900, v.self, 6000, forged))
	refused("nobody was asked")
	answered("a neighbour's answer comes", func() {
		s.wan.send(udp(t, neighbor, 1900, v.self, 6001, forged))    // another port
		s.wan.send(udp(t, v.stranger, 1900, v.self, 6000, forged))  // from behind a router
		s.wan.send(udp(t, v.lanHost, 1900, v.self, 6000, forged))   // a neighbour by another device
		lan.send(udp(t, v.lanHost, 1900, v.self, 6000, forged))     // by the device that was not asked
		lan.send(udp(t, neighbor, 1900, v.self, 6000, forged))      // the same under a neighbour's address
		s.wan.send(udp(t, neighbor, 1900, v.lanSelf, 6000, forged)) // another address
		lan.send(udp(t, v.lanHost, 1900, v.lanSelf, 6000, forged))  // where nobody was asked
	})
	refused("others were asked")
	reload(within("1s"))
	time.Sleep(time.Until(last.Add(1100 * time.Millisecond)))
	s.wan.send(udp(t, neighbor, 1900, v.self, 6000, forged))
	refused("a second is over")
	answered("answers in time come", func() {})
	reload(within("1m"))
	answered("answers in time come", func() {})
	reload("")
	s.wan.send(udp(t, neighbor, 1900, v.self, 6000, forged))
	refused("the policy has no such rule")
	a.saw(v.name+" "+offload, "%d honest answers, none forged", asker.count("honest"))
}
