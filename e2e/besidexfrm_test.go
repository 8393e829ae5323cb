//go:build guest

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/e2e/vm"
)

// Another IPsec daemon's policies and SAs in the kernel, with an XFRM interface:
//
//	client 10.99.0.2 == ESP between 10.77.0.2 and .1 == xfrm0 10.99.0.1 server, ipfw
//
// ipfw judges what comes out of them by the interface, where its own policy protects
// nothing. One that protects takes all ESP for this host for its own, and discards
// what it has no SA for.
func TestBesideXFRMPolicies(t *testing.T) {
	t.Parallel()
	vm.Need(t, vm.ESP)
	lab.Need(t, "tcpdump", "ping")
	l, client, server := lab.Pair(t)
	hosts := []*lab.Host{server, client}
	key := "0x" + strings.Repeat("4a", 20)
	for i, h := range hosts {
		outer, inner := []string{"10.77.0.1", "10.77.0.2"}, []string{"10.99.0.1", "10.99.0.2"}
		if out, err := h.Try(waitLong, "ip", "link", "add", "xfrm0", "type", "xfrm", "dev", []string{"s0", "c0"}[i], "if_id", "7"); err != nil {
			t.Skip("this kernel has not XFRM interfaces (CONFIG_XFRM_INTERFACE): " + out)
		}
		h.Run("ip", "addr", "add", inner[i]+"/24", "dev", "xfrm0")
		h.Run("ip", "link", "set", "xfrm0", "up")
		for way := range 2 {
			h.Run("ip", "xfrm", "state", "add", "src", outer[way], "dst", outer[1-way], "proto", "esp", "spi", fmt.Sprintf("%#x", 0x3001+way), "reqid", "9", "mode", "tunnel",
				"aead", "rfc4106(gcm(aes))", key, "128", "if_id", "7")
			dirs := []string{"out"}
			if way != i {
				dirs = []string{"in", "fwd"}
			}
			for _, dir := range dirs {
				h.Run("ip", "xfrm", "policy", "add", "src", inner[way]+"/32", "dst", inner[1-way]+"/32", "dir", dir,
					"tmpl", "src", outer[way], "dst", outer[1-way], "proto", "esp", "reqid", "9", "mode", "tunnel", "if_id", "7")
			}
		}
	}
	for _, port := range []uint16{portOpen, portShut} {
		if err := server.Do(func() error { return lab.Serve(port) }); err != nil {
			t.Fatal(err)
		}
	}
	l.Eventually(waitLong, "the kernel's tunnel carries pings", func() bool { return pings(client, "10.99.0.1") })
	b := &beside{Lab: l, t: t, client: client, server: server}
	before := b.rules()
	const policy = `policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "their-esp" {
  action         = "bypass"
  direction      = "in"
  protocol       = "esp"
  remote_address = "10.77.0.2"
}
rule "inside" {
  action     = "bypass"
  direction  = "in"
  interface  = "xfrm0"
  protocol   = ["tcp", "udp"]
  local_port = 7001
}
`
	b.b = server.IPFW(l.File("policy.hcl", policy))
	inside := netip.MustParseAddr("10.99.0.1")
	wire := client.Capture("c0", "host 10.77.0.2")
	for network, size := range map[string]int{"tcp": 200_000, "udp": 4000} {
		b.carries("out of their SA", network, netip.AddrPortFrom(inside, portOpen), size)
	}
	was := counted(t, b.b, "default")
	for _, addr := range []netip.Addr{inside, besideAddresses[0]} { // out of their SA, and in the clear
		if b.connects(netip.AddrPortFrom(addr, portShut)) {
			t.Errorf("%v is open on port %d", addr, portShut)
		}
	}
	if b.connects(netip.AddrPortFrom(besideAddresses[0], portOpen)) {
		t.Error("what is open inside is open in the clear")
	}
	if n := counted(t, b.b, "default") - was; n < 3 {
		t.Errorf("%d packets were counted as discarded", n)
	}
	if wire.Count("esp") < 100 {
		t.Error("hardly any ESP on the wire")
	}
	sa, _ := l.Blocks("own", lab.Manual{Name: "own", Local: "10.77.0.1", Remote: "10.77.0.9", SPI: 0x5001})
	l.File("policy.hcl", strings.Replace(policy, "rule \"their-esp\"", `rule "own" {
  action         = "protect"
  with           = "own"
  direction      = "both"
  remote_address = "10.77.0.9"
}
rule "their-esp"`, 1)+sa)
	b.b.Ask("reload")
	was = counted(t, b.b, "ipsec-unknown-spi")
	if pings(client, "10.99.0.1") {
		t.Error("ESP without an SA of ipfw gets in beside a policy that protects")
	}
	if counted(t, b.b, "ipsec-unknown-spi") == was {
		t.Errorf("it is not counted:\n%s", b.status())
	}
	b.ends(before)
	l.Eventually(waitLong, "the kernel's tunnel carries pings again", func() bool { return pings(client, "10.99.0.1") })
}
