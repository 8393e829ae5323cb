package e2e

import (
	"fmt"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// A gateway, a host behind it, a host at the far end of its tunnel, and somebody
// on the wire between them.
//
//	lan 198.51.100.77 -- a0 gateway 192.0.2.1 -- wire -- 192.0.2.2 far (10.2.0.5)
//	                                               `-- mallory 192.0.2.66
type site struct {
	*lab.Lab
	lan, gateway, far, mallory, wire *lab.Host
	g, f                             *lab.Daemon
}

// gatewayPolicy protects all that goes to the far end; farPolicy all that comes
// from there. %s is for the policy block, and for the ipsec block.
const (
	gatewayPolicy = `
policy {
  inbound  = "discard"
  outbound = "discard"
  forward  = "discard"
  %s
}
rule "offices" {
  action         = "protect"
  with           = "peer"
  direction      = "forward"
  local_address  = ["198.51.100.0/24", "fd00:1::/64"]
  remote_address = ["10.2.0.0/16", "fd00:2::/64"]
}
rule "gateway" {
  action         = "protect"
  with           = "peer"
  direction      = "both"
  remote_address = ["10.2.0.0/16", "fd00:2::/64"]
}
`
	farPolicy = `
policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "all" {
  action        = "protect"
  with          = "peer"
  direction     = "both"
  local_address = ["10.2.0.0/16", "fd00:2::/64"]
}
`
)

// siteOptions are what tests want of a site.
type siteOptions struct {
	mtu     int        // of the gateway's LAN; 0: 1500
	policy  string     // more lines of the gateway's policy block
	ipsec   lab.Manual // how the tunnel differs
	far     bool       // the far host has an ipfw
	starter []string   // of the gateway's ipfw
}

func newSite(t *testing.T, o siteOptions) *site {
	t.Helper()
	l := lab.New(t)
	s := &site{Lab: l, lan: l.Host("lan"), gateway: l.Host("gateway"), far: l.Host("far"), mallory: l.Host("mallory")}
	s.wire = l.Lan(map[*lab.Host][]string{
		s.gateway: {"192.0.2.1/24", "2001:db8::1/64"}, s.far: {"192.0.2.2/24", "2001:db8::2/64"}, s.mallory: {"192.0.2.66/24", "2001:db8::66/64"}})
	l.Join(s.gateway, "a0", []string{"198.51.100.1/24", "fd00:1::1/64"}, s.lan, "n0", []string{"198.51.100.77/24", "fd00:1::77/64"})
	if o.mtu != 0 {
		s.gateway.Run("ip", "link", "set", "a0", "mtu", fmt.Sprint(o.mtu))
	}
	s.gateway.Sysctl("net.ipv4.ip_forward", "1")
	s.gateway.Sysctl("net.ipv6.conf.all.forwarding", "1")
	s.far.Run("ip", "addr", "add", "10.2.0.5/32", "dev", "lo")
	s.far.Run("ip", "addr", "add", "fd00:2::5/128", "dev", "lo", "nodad")
	for _, r := range [][]string{{"198.51.100.0/24", "192.0.2.1", "10.2.0.5"}, {"fd00:1::/64", "2001:db8::1", "fd00:2::5"}} {
		// On a busy machine an address is not at once one to send from.
		s.Eventually(waitLong, "a route from "+r[2], func() bool {
			_, err := s.far.Try(waitLong, "ip", "route", "add", r[0], "via", r[1], "src", r[2])
			return err == nil
		})
	}
	s.gateway.Run("ip", "route", "add", "default", "via", "192.0.2.2")
	s.gateway.Run("ip", "route", "add", "default", "via", "2001:db8::2")
	s.lan.Run("ip", "route", "add", "default", "via", "198.51.100.1")
	s.lan.Run("ip", "route", "add", "default", "via", "fd00:1::1")
	o.ipsec.Mode, o.ipsec.Local, o.ipsec.Remote = "tunnel", "192.0.2.1", "192.0.2.2"
	first, second := l.Blocks("a", o.ipsec)
	s.g = s.gateway.IPFWUnder(o.starter, l.File("gateway.hcl", fmt.Sprintf(gatewayPolicy, o.policy)+first))
	if o.far {
		s.f = s.far.IPFW(l.File("far.hcl", farPolicy+second))
	}
	return s
}

// protectedText is in every packet of these tests that is to be protected.
const protectedText = "SECRET!SECRET!"
