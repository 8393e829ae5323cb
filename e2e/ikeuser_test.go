package e2e

import (
	"strings"
	"syscall"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// Two people on the road get an address each from a gateway, reach what is
// behind it and are reached from there. One of them is behind a NAT. (That one
// cannot speak with the other's address is TestPairCarries.)
//
//	ann 10.77.1.2 --- 10.77.1.254 nat 10.77.2.254 --- 10.77.2.1 gateway 10.1.0.1 --- 10.1.0.9 inside
//	                              bob 10.77.3.2 --- 10.77.3.1 |
func TestIKERemoteUsers(t *testing.T) {
	t.Parallel()
	l, ann, _, gateway := natLab(t)
	bob, inside := l.Host("bob"), l.Host("inside")
	l.Join(gateway, "g1", []string{"10.1.0.1/24"}, inside, "i0", []string{"10.1.0.9/24"})
	l.Join(gateway, "g2", []string{"10.77.3.1/24"}, bob, "b0", []string{"10.77.3.2/24"})
	bob.Run("ip", "route", "add", "default", "via", "10.77.3.1")
	inside.Run("ip", "route", "add", "default", "via", "10.1.0.1")
	gateway.Sysctl("net.ipv4.ip_forward", "1")
	gateway.Run("ip", "route", "add", "default", "via", "10.77.2.254") // as a gateway has: the pool needs some route
	l.RawKeys(false, "ann", "bob", "gateway")

	g := &ikeHost{Host: gateway, name: "gateway", policy: l.File("gateway/policy.hcl", `
policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "callers" {
  action         = "protect"
  with           = "callers"
  direction      = "forward"
  local_address  = "10.1.0.0/16"
  remote_address = "10.99.0.0/24"
}
ipsec "callers" {
  mode = "tunnel"
  ike  = "users"
}
ike "users" {
  pool        = "10.99.0.0/24"
  local_id    = "gateway"
  public_keys = "peers/"
  private_key = "own.key"
}
`)}
	user := func(h *lab.Host, name, gatewayAddr string) *ikeHost {
		return &ikeHost{Host: h, name: name, policy: l.File(name+"/policy.hcl", `
policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "work" {
  action         = "protect"
  with           = "work"
  direction      = "both"
  remote_address = "10.1.0.0/16"
}
ipsec "work" {
  mode = "tunnel"
  ike  = "work"
}
ike "work" {
  remote_endpoint = "`+gatewayAddr+`"
  request_address = true
  initiate        = "start"
  local_id        = "`+name+`"
  remote_id       = "gateway"
  public_keys     = "peers/"
  private_key     = "own.key"
}
`)}
	}
	a, b := user(ann, "ann", "10.77.2.1"), user(bob, "bob", "10.77.3.1")
	wire := gateway.Capture("any", "net 10.77.0.0/16 or net 10.99.0.0/16")
	g.run(t)
	a.run(t)
	b.run(t)
	address := func(h *ikeHost) string {
		var found string
		l.Eventually(waitLong, h.name+" has an address", func() bool {
			for _, f := range strings.Fields(h.Run("ip", "-4", "-o", "addr", "show", "dev", "ipfw0")) {
				if strings.HasPrefix(f, "10.99.0.") {
					found = strings.TrimSuffix(f, "/32")
				}
			}
			return found != ""
		})
		return found
	}
	annAddr, bobAddr := address(a), address(b)
	if annAddr == bobAddr {
		t.Fatalf("both have %s", annAddr)
	}
	for _, h := range []*ikeHost{a, b} {
		if out, err := h.Try(waitLong, "ping", "-c", "3", "-i", "0.2", "-W", "5", "10.1.0.9"); err != nil {
			t.Fatalf("%s: %v\n%s%s%s\ngateway:\n%s", h.name, err, out, h.daemon.Ask("status"), h.daemon.Ask("sas"), g.daemon.Ask("status"))
		}
	}
	inside.Run("ping", "-c", "2", "-i", "0.2", "-W", "5", bobAddr)

	// Whoever leaves gives the address back.
	b.daemon.Signal(syscall.SIGTERM)
	if err := b.daemon.Wait(waitLong); err != nil {
		t.Fatal(err)
	}
	l.Eventually(waitLong, "the gateway forgets bob", func() bool {
		return !strings.Contains(g.daemon.Ask("ike", "list", "--json"), `"bob"`)
	})
	if out, err := b.Try(waitLong, "ip", "-4", "-o", "addr"); err != nil || strings.Contains(out, "10.99.0.") {
		t.Errorf("bob keeps the address: %s", out)
	}
	clear := "(host " + annAddr + " or host " + bobAddr + ") and net 10.77.0.0/16"
	if n := wire.Count(clear); n > 0 {
		t.Errorf("%d packets in the clear:\n%s", n, wire.Text(clear))
	}
	if n := wire.Count("udp port 4500"); n < 10 {
		t.Errorf("only %d packets of ann, behind the NAT, in UDP", n)
	}
}
