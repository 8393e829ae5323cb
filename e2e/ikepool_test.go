package e2e

import (
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// A caller that asks a gateway for no address has none of its pool: neither the
// address of another caller nor all of them, however often it tries. The gateway
// says what to do.
//
//	ann 10.77.1.2 --- 10.77.1.1 gateway 10.1.0.1 --- 10.1.0.9 inside
//	bob 10.77.2.2 --- 10.77.2.1 |
func TestIKEPoolNotAsked(t *testing.T) {
	l := lab.New(t)
	gateway, ann, bob, inside := l.Host("gateway"), l.Host("ann"), l.Host("bob"), l.Host("inside")
	l.Join(gateway, "g0", []string{"10.1.0.1/24"}, inside, "i0", []string{"10.1.0.9/24"})
	l.Join(gateway, "g1", []string{"10.77.1.1/24"}, ann, "a0", []string{"10.77.1.2/24"})
	l.Join(gateway, "g2", []string{"10.77.2.1/24"}, bob, "b0", []string{"10.77.2.2/24", "10.99.0.2/32"})
	ann.Run("ip", "route", "add", "default", "via", "10.77.1.1")
	bob.Run("ip", "route", "add", "default", "via", "10.77.2.1")
	inside.Run("ip", "route", "add", "default", "via", "10.1.0.1")
	gateway.Run("ip", "route", "add", "default", "via", "10.77.2.2") // the pool needs some route
	gateway.Sysctl("net.ipv4.ip_forward", "1")
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
  opened_by      = "remote"
  local_address  = "10.1.0.0/16"
  remote_address = "10.99.0.0/24"
}
ipsec "callers" {
  mode = "tunnel"
  ike  = "users"
}
ike "users" {
  pool        = ["10.99.0.0/24"]
  local_id    = "gateway"
  public_keys = "peers/"
  private_key = "own.key"
}
`)}
	caller := func(h *lab.Host, name, gatewayAddr, rule, more string) *ikeHost {
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
`+rule+`}
ipsec "work" {
  mode = "tunnel"
  ike  = "work"
}
ike "work" {
  remote_endpoint = "`+gatewayAddr+`"
  initiate        = "start"
  local_id        = "`+name+`"
  remote_id       = "gateway"
  public_keys     = "peers/"
  private_key     = "own.key"
`+more+`}
`)}
	}
	a := caller(ann, "ann", "10.77.1.1", "", "  request_address = true\n")
	b := caller(bob, "bob", "10.77.2.1", "  local_address  = \"10.99.0.0/24\"\n", "")
	g.run(t)
	a.run(t)
	l.Eventually(waitLong, "ann reaches the inside", func() bool {
		_, err := a.Try(waitLong, "ping", "-c", "1", "-W", "2", "10.1.0.9")
		return err == nil
	})
	b.run(t)
	for range 5 { // each asks for a child by CREATE_CHILD_SA again
		_, _ = b.Try(waitLong, "ping", "-c", "1", "-W", "1", "-I", "10.99.0.2", "10.1.0.9")
	}
	l.Eventually(waitLong, "the gateway has told", func() bool {
		return strings.Contains(g.daemon.Ask("events", "--json"), "request_address = true")
	})
	list := g.daemon.Ask("ike", "list", "--json")
	if !strings.Contains(list, `"ann"`) || !strings.Contains(list, `"bob"`) {
		t.Errorf("the gateway does not list both:\n%s", list)
	}
	if strings.Contains(list, "10.99.0.0/") {
		t.Errorf("somebody has all of the pool:\n%s", list)
	}
	if out, err := a.Try(waitLong, "ping", "-c", "3", "-i", "0.2", "-W", "5", "10.1.0.9"); err != nil {
		t.Errorf("ann has lost her address to bob: %v\n%s\n%s", err, out, list)
	}
	if out, err := b.Try(waitLong, "ping", "-c", "1", "-W", "1", "-I", "10.99.0.2", "10.1.0.9"); err == nil {
		t.Errorf("bob speaks with ann's address:\n%s", out)
	}
}
