package e2e

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// A remote user sends everything through the gateway, of both families. The way
// to the gateway itself stays, and so do the LAN and whoever has called this host
// from elsewhere; when the daemon ends, in whatever way, all is as it was.
//
//	ann 10.77.1.2 --- 10.77.1.254 way 10.77.2.254 --- 10.77.2.1 gateway 10.1.0.1 --- 10.1.0.9 inside
//	         far 10.77.3.2 --- 10.77.3.254 |
func TestIKEFullTunnel(t *testing.T) {
	l, ann, way, gateway := natLab(t)
	way.Run("nft", "delete table ip n")
	far, inside := l.Host("far"), l.Host("inside")
	l.Join(far, "f0", []string{"10.77.3.2/24"}, way, "n2", []string{"10.77.3.254/24"})
	l.Join(gateway, "g1", []string{"10.1.0.1/24", "fd10::1/64"}, inside, "i0", []string{"10.1.0.9/24", "fd10::9/64"})
	far.Run("ip", "route", "add", "default", "via", "10.77.3.254")
	inside.Run("ip", "route", "add", "default", "via", "10.1.0.1")
	inside.Run("ip", "-6", "route", "add", "default", "via", "fd10::1")
	gateway.Run("ip", "route", "add", "default", "via", "10.77.2.254")
	gateway.Run("ip", "-6", "route", "add", "fd99::/64", "dev", "s0")
	ann.Run("ip", "-6", "addr", "add", "fd77:1::2/64", "dev", "c0", "nodad")
	ann.Run("ip", "-6", "route", "add", "default", "via", "fd77:1::1")
	for _, s := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		gateway.Sysctl(s, "1")
	}
	l.RawKeys(false, "ann", "gateway")
	g := &ikeHost{Host: gateway, name: "gateway", policy: l.File("gateway/policy.hcl", `
policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "callers" {
  action         = "protect"
  with           = "callers"
  direction      = "forward"
  remote_address = ["10.99.0.0/24", "fd99::/64"]
}
ipsec "callers" {
  mode = "tunnel"
  ike  = "users"
}
ike "users" {
  pool        = ["10.99.0.0/24", "fd99::/64"]
  dns         = ["10.1.0.53", "fd10::53"]
  local_id    = "gateway"
  public_keys = "peers/"
  private_key = "own.key"
}
`)}
	a := &ikeHost{Host: ann, name: "ann", policy: l.File("ann/policy.hcl", `
policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "ssh" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = 22
}
rule "lan" {
  action         = "bypass"
  direction      = "both"
  remote_address = "10.77.1.0/24"
}
rule "everything" {
  action    = "protect"
  with      = "work"
  direction = "out"
}
ipsec "work" {
  mode = "tunnel"
  ike  = "work"
}
ike "work" {
  remote_endpoint = "10.77.2.1"
  request_address = true
  initiate        = "start"
  local_id        = "ann"
  remote_id       = "gateway"
  public_keys     = "peers/"
  private_key     = "own.key"
}
`)}
	// What the host would be told of DNS servers, in place of systemd-resolved.
	told := l.File("told", "")
	bin := filepath.Dir(l.File("bin/resolvectl", "#!/bin/sh\necho $* >>"+told+"\n"))
	if err := os.Chmod(filepath.Join(bin, "resolvectl"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	asBefore := func() string {
		return ann.Run("ip", "rule") + ann.Run("ip", "-6", "rule") + ann.Run("ip", "route") + ann.Run("ip", "-6", "route")
	}
	before := asBefore()
	wire := way.Capture("n0", "")
	g.run(t)
	a.run(t)
	echoServer(t, ann, 22)
	try := func() {
		t.Helper()
		for _, to := range []string{"10.1.0.9", "fd10::9"} {
			l.Eventually(waitLong, to+" is reached", func() bool {
				_, err := ann.Try(waitLong, "ping", "-c", "1", "-W", "2", to)
				return err == nil
			})
		}
		ann.Run("ping", "-c", "1", "-W", "5", "10.77.1.254") // the LAN
		echoes(t, far, "10.77.1.2:22")                       // who calls from elsewhere
	}
	try()
	a.daemon.Signal(syscall.SIGTERM)
	if err := a.daemon.Wait(waitLong); err != nil {
		t.Fatal(err)
	}
	const want = "dns ipfw0 10.1.0.53 fd10::53\ndomain ipfw0 ~.\nrevert ipfw0\n"
	if b, err := os.ReadFile(told); err != nil || string(b) != want {
		t.Errorf("%v, systemd-resolved was told\n%s", err, b)
	}
	if after := asBefore(); after != before {
		t.Errorf("after an orderly end:\n%s\nbefore:\n%s", after, before)
	}
	a.run(t)
	try()
	a.daemon.Kill()
	l.Eventually(waitLong, "the routes go with the daemon", func() bool {
		return !strings.Contains(ann.Run("ip", "route", "show", "table", "all"), "ipfw0")
	})
	a.run(t)
	try()
	if n := strings.Count(ann.Run("ip", "rule"), "proto 73"); n != 5 {
		t.Errorf("%d rules after a start over what a killed daemon had left:\n%s", n, ann.Run("ip", "rule"))
	}
	a.daemon.Signal(syscall.SIGTERM)
	if err := a.daemon.Wait(waitLong); err != nil {
		t.Fatal(err)
	}
	if after := asBefore(); after != before {
		t.Errorf("at the end:\n%s\nbefore:\n%s", after, before)
	}
	if n := wire.Count("icmp and host 10.1.0.9"); n > 0 {
		t.Errorf("%d packets crossed the wire in the clear:\n%s", n, wire.Text("host 10.1.0.9"))
	}
}

// echoes fails unless a TCP server answers a host with what it is sent.
func echoes(t *testing.T, h *lab.Host, address string) {
	t.Helper()
	err := within(t, h, func() error {
		c, err := net.DialTimeout("tcp", address, waitLong)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(waitLong))
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		_, err = io.ReadFull(c, make([]byte, 5))
		return err
	})
	if err != nil {
		t.Errorf("%s asks %s: %v", h.Name, address, err)
	}
}
