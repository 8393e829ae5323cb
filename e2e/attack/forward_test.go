package attack

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// What came out of an SA for a network behind the gateway does not leave in the
// clear by another way when that network's link is down.
func TestOpenedPacketsStayIn(t *testing.T) {
	a := attack(t, "G3", nobody, "the LAN's link is down while the peer sends")
	for _, w := range []way{native, {mode: "tunnel", protocol: "esp", udp: true, offload: "none"}, {mode: "tunnel", protocol: "ah"}} {
		for _, v := range []*family{&v4, &v6} {
			a.play(t, v.name+" "+w.String(), v, func(t *testing.T, v *family) {
				s := newSite(t, v)
				block, f := s.link("peer", 0x1001, w)
				s.run(closed(w) + v.gatewayRules() + block)
				box := receive(t, s.lan, v.any(9999))
				good := marker("good")
				f.send(f.udp(5000, "lan", 9999, good))
				box.await(good)
				s.gateway.Run("ip", "link", "set", "lan0", "down")
				secret := marker("SECRET")
				for i := range uint16(3) {
					f.send(f.udp(5000, "lan", 9999, secret))   // a flow that is known
					f.send(f.udp(6000+i, "lan", 9999, secret)) // and new ones
				}
				f.fence()
				bad := s.wan.inClear(secret)
				if len(bad) > 0 {
					t.Errorf("%d protected packets leave in the clear by the WAN: %s", len(bad), say(bad))
				}
				a.saw(v.name+" "+w.String(), "in the clear on the WAN: %d", len(bad))
				s.gateway.Run("sh", "-c", "ip link set lan0 up; ip addr replace "+v.lanSelf.String()+v.lanBits+" dev lan0 nodad")

				again := marker("again")
				eventually(t, "with the link up the LAN is reached", func() bool {
					f.send(f.udp(5000, "lan", 9999, again))
					return box.has(again)
				})
			})
		}
	}
}

// A forward protect rule that names the LAN's device holds for the way out.
func TestForwardRuleWithInterface(t *testing.T) {
	a := attack(t, "G3", nobody, "a forward protect rule with the LAN's interface")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		block, f := s.link("peer", 0x1001, native)
		s.run(closed(native) + strings.Replace(v.gatewayRules(), `"forward"`, "\"forward\"\n  interface = \"lan0\"", 1) + block)
		s.Join(s.gateway, "other0", nil, s.beyond, "o0", nil)
		box := receive(t, s.lan, v.any(9999))
		good := marker("good")
		f.send(f.udp(5000, "lan", 9999, good))
		box.await(good)
		elsewhere := tap(t, s.beyond, "o0", s.gateway, "other0")
		s.gateway.Run("ip", "route", "replace", netip.PrefixFrom(v.lanHost, v.lanHost.BitLen()).String(), "dev", "other0")
		neighbour(s, v, "other0")
		secret := marker("SECRET")
		f.send(f.udp(5000, "lan", 9999, secret))
		f.send(f.udp(5001, "lan", 9999, secret))
		f.fence()
		if n := elsewhere.passed(secret); n > 0 {
			t.Errorf("%d packets of the rule for lan0 leave by other0", n)
		}
		a.saw(v.name, "by lan0: delivered; by another device: %d", elsewhere.passed(secret))
	})
}

// neighbour gives the LAN's host a link address at a device that has nobody.
func neighbour(s *site, v *family, dev string) {
	s.Helper()
	s.gateway.Run("ip", "neigh", "replace", v.lanHost.String(), "lladdr", "02:00:00:00:00:99", "dev", dev, "nud", "permanent")
}

// passed counts what has passed a device either way, in the clear, with a text.
func (w *wire) passed(text string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.frames {
		if !sealed(f.ip) && bytes.Contains(f.ip, []byte(text)) {
			n++
		}
	}
	return n
}

// What other programs' address translation makes of an opened packet is judged as
// what it is then.
func TestTranslationBehindTheTunnel(t *testing.T) {
	a := attack(t, "G3", otherRule, "address translation of others behind the tunnel")
	for _, w := range []way{native, {mode: "tunnel", protocol: "esp", udp: true, offload: "none"}, {mode: "tunnel", protocol: "ah"}} {
		for _, v := range []*family{&v4, &v6} {
			a.play(t, v.name+" "+w.String(), v, func(t *testing.T, v *family) {
				s := newSite(t, v)
				block, f := s.link("peer", 0x1001, w)
				// Only the gateway itself, and of the LAN only port 7000; a port more
				// for what comes in the clear.
				s.run(closed(w) + fmt.Sprintf(`
rule "gateway" {
  action         = "protect"
  with           = "peer"
  direction      = "both"
  remote_address = %[1]q
}
rule "one-port" {
  action         = "protect"
  with           = "peer"
  direction      = "forward"
  protocol       = "udp"
  local_address  = %[2]q
  local_port     = 7000
  remote_address = %[1]q
}
rule "open" {
  action        = "bypass"
  direction     = "forward"
  protocol      = "udp"
  local_address = %[2]q
  local_port    = 80
}
`, v.innerNet, v.lanNet) + block)
				ip := map[string]string{"v4": "ip", "v6": "ip6"}[v.name]
				to := func(a netip.Addr, port int) string {
					if a.Is6() {
						return fmt.Sprintf("[%v]:%d", a, port)
					}
					return fmt.Sprintf("%v:%d", a, port)
				}
				s.gateway.Run("nft", fmt.Sprintf(`table %[1]s other { chain pre { type nat hook prerouting priority -100;
					%[1]s daddr %[2]v udp dport 8080 dnat to %[3]s
					%[1]s daddr %[4]v udp dport 7000 udp sport 7070 redirect to :7001
					}
					}`, ip, v.self, to(v.lanHost, 80), v.lanHost))
				lan, lan7000 := receive(t, s.lan, v.any(80)), receive(t, s.lan, v.any(7000))
				self, self7001 := receive(t, s.gateway, v.any(9999)), receive(t, s.gateway, v.any(7001))
				good := marker("good")
				f.send(f.udp(5000, "self", 9999, good))
				f.send(f.udp(5000, "lan", 7000, good))
				self.await(good)
				lan7000.await(good)
				evil := marker("evil")
				f.send(f.udp(6200, "self", 8080, evil))
				f.fence()
				if lan.has(evil) {
					t.Error("a packet for the gateway itself is forwarded to a host that policy does not name")
				}
				a.saw(v.name+" "+w.String(), "to the gateway, translated into the LAN: %d; into the gateway: %d", lan.count(evil), self7001.count(evil))
			})
		}
	}
}
