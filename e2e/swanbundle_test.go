package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// What `ipfw pki bundle --for strongswan` makes is all that strongSwan needs to
// reach, with an address of the pool, what is behind an ipfw gateway.
func TestStrongSwanBundle(t *testing.T) { strongSwanBundle(t, false) }

// The same by EAP-TLS; a certificate that is revoked gets no further.
func TestStrongSwanBundleEAP(t *testing.T) { strongSwanBundle(t, true) }

func strongSwanBundle(t *testing.T, eap bool) {
	l, road, gateway := lab.Pair(t)
	lab.Need(t, "ping", "tcpdump")
	pki(t, l, gateway, "init")
	pki(t, l, gateway, "issue", "vpn.example.org", "--also", "10.77.0.1")
	pki(t, l, gateway, "issue", "ann@example.org")
	bundle := filepath.Join(l.Dir, "bundle")
	args, auth := []string{"bundle", "ann@example.org", "--for", "strongswan", "--gateway", "10.77.0.1",
		"--gateway-id", "vpn.example.org", "--network", "10.1.0.0/16", "--out", bundle}, ""
	if eap {
		args, auth = append(args, "--eap"), `  remote_auth = "eap-tls"`
	}
	pki(t, l, gateway, args...)

	gateway.Run("ip", "addr", "add", "10.1.0.1/32", "dev", "lo")
	gateway.Run("ip", "route", "add", "default", "via", "10.77.0.2")
	g := &ikeHost{Host: gateway, name: "gateway", policy: l.File("policy.hcl", `
policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "callers" {
  action         = "protect"
  with           = "callers"
  direction      = "both"
  local_address  = "10.1.0.0/16"
  remote_address = "10.99.0.0/24"
}
ipsec "callers" {
  mode = "tunnel"
  ike  = "users"
}
ike "users" {
  pool        = "10.99.0.0/24"
  local_id    = "vpn.example.org"
  remote_id   = "*@example.org"
  certificate = "ca/vpn.example.org.pem"
  private_key = "ca/vpn.example.org.key"
  ca          = "ca/ca.pem"
  crl         = "ca/ca.crl"
`+auth+`
}
`)}
	wire := gateway.Capture("s0", "host 10.77.0.2 or net 10.99.0.0/24")
	g.run(t)
	swan := road.Charon("")
	if err := os.CopyFS(swan.Dir, os.DirFS(bundle)); err != nil {
		t.Fatal(err)
	}
	conf, err := os.ReadFile(filepath.Join(bundle, "conf.d/ipfw.conf"))
	if err != nil {
		t.Fatal(err)
	}
	swan.Load(string(conf))
	swan.Do("--initiate", "--child", "ipfw")
	if out := g.daemon.Ask("ike", "list", "--json"); !strings.Contains(out, `"remote_id":"ann@example.org"`) || !strings.Contains(out, `"leased":["10.99.0.2"]`) {
		t.Errorf("the gateway says %s", out)
	}
	road.Run("ping", "-c", "3", "-i", "0.2", "-W", "5", "-I", "10.99.0.2", "10.1.0.1")
	gateway.Run("ping", "-c", "3", "-i", "0.2", "-W", "5", "-I", "10.1.0.1", "10.99.0.2")
	sealed(t, wire)
	if !eap {
		return
	}
	swan.Do("--terminate", "--ike", "ipfw")
	pki(t, l, gateway, "revoke", "ann@example.org")
	g.daemon.Ask("reload")
	if out, err := swan.Try("--initiate", "--child", "ipfw", "--timeout", "10"); err == nil {
		t.Errorf("a revoked certificate gets in:\n%s", out)
	}
	l.Eventually(waitLong, "the refusal is told", func() bool {
		out := g.daemon.Ask("events", "--json")
		return strings.Contains(out, `"failure":"bad-certificate"`) && strings.Contains(out, "revoked on")
	})
}
