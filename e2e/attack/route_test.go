package attack

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// A flow that a rule lets through by one device does not go on by another when
// the route changes: the usual kill switch.
func TestFlowDoesNotChangeItsDevice(t *testing.T) {
	a := attack(t, "G4", nobody, "the route of a live flow changes to another device")
	for _, offload := range []string{"flow", "none"} {
		for _, v := range []*family{&v4, &v6} {
			a.play(t, v.name+" "+offload, v, func(t *testing.T, v *family) { tryRouteChange(t, a, v, offload) })
		}
	}
}

func tryRouteChange(t *testing.T, a *attempt, v *family, offload string) {
	s := newSite(t, v)
	w := way{mode: "tunnel", protocol: "esp", offload: offload}
	block, f := s.link("peer", 0x1001, w)
	target := netip.MustParseAddr(map[string]string{"v4": "203.0.113.5", "v6": "2001:db8:5::5"}[v.name])
	alt := map[string][2]string{"v4": {"198.18.0.1/24", "198.18.0.2/24"}, "v6": {"fd18::1/64", "fd18::2/64"}}[v.name]
	s.Join(s.gateway, "vpn0", []string{alt[0]}, s.beyond, "v0", []string{alt[1]})
	vpn := tap(t, s.beyond, "v0", s.gateway, "vpn0")
	s.run(closed(w) + fmt.Sprintf(`
rule "vpn" {
  action    = "bypass"
  direction = "out"
  interface = "vpn0"
}
rule "vpn-lan" {
  action    = "bypass"
  direction = "forward"
  interface = "vpn0"
}
rule "else" {
  action         = "protect"
  with           = "peer"
  direction      = "both"
  remote_address = %q
}
`, target) + block)
	host := netip.PrefixFrom(target, target.BitLen()).String()
	s.gateway.Run("ip", "route", "replace", host, "via", netip.MustParsePrefix(alt[1]).Addr().String(), "dev", "vpn0")
	conn := connected(t, s, v, at(v.self, 6100), at(target, 7777))
	lan := receive(t, s.lan, at(v.lanHost, 6200))
	before := marker("before")
	for range 3 { // with offload the kernel answers from the second packet on
		conn.send(before)
		if err := lan.send(at(target, 7777), before); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the flow passes by the VPN, forwarded too", func() bool { return vpn.passed(before) >= 2 })
	}
	s.gateway.Run("ip", "route", "replace", host, "via", v.far.String(), "dev", "wan0")
	after := marker("after")
	for range 5 {
		_, _ = conn.conn.Write([]byte(after)) // refused is what is hoped for
		_ = lan.send(at(target, 7777), after)
	}
	fresh := connected(t, s, v, at(v.self, 6101), at(target, 7777))
	sealedText := marker("fresh")
	fresh.send(sealedText)
	f.await(sealedText) // a new flow leaves sealed
	time.Sleep(grace)
	bad := s.wan.find(func(ip []byte) bool { return !sealed(ip) && bytes.Contains(ip, []byte(after)) })
	if len(bad) > 0 {
		t.Errorf("%d packets of flows of the VPN's rule leave in the clear by the WAN: %s", len(bad), say(bad))
	}
	a.saw(v.name+" "+offload, "in the clear by the other device: %d; sealed: %d", len(bad), f.has(after))
	s.gateway.Run("ip", "route", "replace", host, "via", netip.MustParsePrefix(alt[1]).Addr().String(), "dev", "vpn0")
	back := marker("back")
	eventually(t, "with the route back a flow passes by the VPN", func() bool {
		_, _ = conn.conn.Write([]byte(back))
		return vpn.passed(back) > 0
	})
}
