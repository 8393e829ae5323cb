package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// Each scenario is a folder of policies that can be copied; their own test
// blocks must hold.
func TestScenarioPolicies(t *testing.T) {
	files, _ := filepath.Glob("scenarios/*/*.hcl")
	if len(files) < 10 {
		t.Fatalf("only %d policies found", len(files))
	}
	for _, f := range files {
		if out, err := exec.Command(lab.Binary(t), "test", f).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", f, err, out)
		}
		if out, err := exec.Command(lab.Binary(t), "fmt", "-check", f).CombinedOutput(); err != nil {
			t.Errorf("%s is not formatted: %v\n%s", f, err, out)
		}
	}
}

// get fetches the page of startNginx and says whether it came.
func get(h *lab.Host, url string, extra ...string) bool {
	out, err := h.Try(waitLong, append([]string{"curl", "-s", "-g", "-m", "3", url}, extra...)...)
	return err == nil && strings.Contains(out, "hello")
}

// sealedOnly fails the test if anything but sealed packets has crossed where
// the capture was taken, or nothing at all.
func sealedOnly(t *testing.T, c *lab.Capture, least int) {
	t.Helper()
	if n := c.Count(clearText); n > 0 {
		t.Errorf("%d packets crossed in the clear:\n%s", n, c.Text(clearText))
	}
	if n := c.Count("not (" + clearText + ")"); n < least {
		t.Errorf("only %d sealed packets", n)
	}
}

// A file server and LAN clients: SMB sealed for those who have keys, everything
// else shut.
//
//	alice 10.0.0.7   bob 10.0.0.8   mallory 10.0.0.9
//	      |                |               |
//	------+-----------+----+---------------+------ 10.0.0.0/24
//	              server 10.0.0.2
func TestFileServerScenario(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	server, alice, bob, mallory := l.Host("server"), l.Host("alice"), l.Host("bob"), l.Host("mallory")
	sw := l.Lan(map[*lab.Host][]string{server: {"10.0.0.2/24"}, alice: {"10.0.0.7/24"}, bob: {"10.0.0.8/24"}, mallory: {"10.0.0.9/24"}})
	l.Scenario("file-server")
	l.KeyFiles("server/alice.keys", "alice/server.keys", 32, 32)
	l.KeyFiles("server/bob.keys", "bob/server.keys", 16, 64)
	startNginx(t, l, server, 445, 22)
	d := server.RunScenario()
	a := alice.RunScenario()
	bob.RunScenario()

	wire := sw.Capture("sw0", "host 10.0.0.7 or host 10.0.0.8")
	for _, h := range []*lab.Host{alice, bob} {
		if !get(h, "http://10.0.0.2:445/") {
			t.Errorf("%s gets no file: %s", h.Name, d.Ask("status"))
		}
	}
	// Large files in both directions, several at once.
	big(l, "www/big", 8<<20)
	var all sync.WaitGroup
	for _, h := range []*lab.Host{alice, bob, alice, bob} {
		all.Go(func() {
			if got := h.Run("sh", "-c", "curl -s -m 40 http://10.0.0.2:445/big | sha256sum"); got != sum(l, "www/big") {
				t.Errorf("%s: %s, want %s", h.Name, got, sum(l, "www/big"))
			}
		})
	}
	all.Wait()
	sealedOnly(t, wire, 10000)
	if wire.Contains("hello from nginx") {
		t.Error("the page crossed in the clear")
	}

	shut := sw.Capture("sw0", "host 10.0.0.9 or port 22")
	if get(mallory, "http://10.0.0.2:445/") || get(alice, "http://10.0.0.2:22/") {
		t.Error("the server answers what its policy shuts out")
	}
	lab.Need(t, "nmap")
	out := mallory.Run("nmap", "-n", "-Pn", "-sS", "--max-retries", "1", "-p", "22,445", "10.0.0.2")
	if strings.Contains(out, "open") || strings.Contains(out, "closed") {
		t.Errorf("mallory's nmap:\n%s", out)
	}
	if n := shut.Count("src host 10.0.0.2 and not arp"); n > 0 {
		t.Errorf("the server sent %d packets to strangers:\n%s", n, shut.Text("src host 10.0.0.2"))
	}
	// mallory takes alice's address: without her keys it is clear text.
	alice.Run("ip", "link", "set", "lan0", "down")
	mallory.Run("ip", "addr", "add", "10.0.0.7/24", "dev", "lan0")
	if get(mallory, "http://10.0.0.2:445/", "--interface", "10.0.0.7") {
		t.Error("mallory got in by alice's address")
	}
	for _, reason := range []string{"clear-text", "no-sa"} {
		if reason == "clear-text" && counted(t, d, reason) == 0 {
			t.Errorf("no packet was counted as %s:\n%s", reason, d.Ask("status"))
		}
	}
	if n := counted(t, a, "clear-text"); n != 0 {
		t.Errorf("alice counted %d packets of clear text", n)
	}
	t.Log(d.Ask("status"))
}

// Two offices, one tunnel: hosts behind both gateways, both families inside.
//
//	n 10.1.0.5 -- north 198.51.100.1 -- internet -- 203.0.113.7 south -- s 10.2.0.9
func TestTwoOfficesScenario(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	n, north, internet, south, s := l.Host("n"), l.Host("north"), l.Host("internet"), l.Host("south"), l.Host("s")
	l.Join(n, "n0", []string{"10.1.0.5/16", "fd00:1::5/64"}, north, "lan0", []string{"10.1.0.1/16", "fd00:1::1/64"})
	l.Join(north, "wan0", []string{"198.51.100.1/24"}, internet, "i0", []string{"198.51.100.254/24", "192.0.2.80/32"})
	l.Join(internet, "i1", []string{"203.0.113.254/24"}, south, "wan0", []string{"203.0.113.7/24"})
	l.Join(south, "lan0", []string{"10.2.0.1/16", "fd00:2::1/64"}, s, "s0", []string{"10.2.0.9/16", "fd00:2::9/64"})
	for _, h := range []*lab.Host{north, internet, south} {
		h.Sysctl("net.ipv4.ip_forward", "1")
		h.Sysctl("net.ipv6.conf.all.forwarding", "1")
	}
	n.Run("ip", "route", "add", "default", "via", "10.1.0.1")
	n.Run("ip", "-6", "route", "add", "default", "via", "fd00:1::1")
	s.Run("ip", "route", "add", "default", "via", "10.2.0.1")
	s.Run("ip", "-6", "route", "add", "default", "via", "fd00:2::1")
	north.Run("ip", "route", "add", "default", "via", "198.51.100.254")
	south.Run("ip", "route", "add", "default", "via", "203.0.113.254")
	// Forwarded packets need a route before policy can ask for the tunnel.
	north.Run("ip", "-6", "route", "add", "default", "dev", "wan0")
	south.Run("ip", "-6", "route", "add", "default", "dev", "wan0")
	internet.Run("ip", "route", "add", "10.1.0.0/16", "via", "198.51.100.1")

	l.Scenario("two-offices")
	l.KeyFiles("north/south.keys", "south/north.keys", 32, 32)
	startNginx(t, l, s, 80)
	big(l, "www/big", 8<<20)
	a := north.RunScenario()
	south.RunScenario()
	wire := internet.Capture("i0", "not ether multicast")
	for _, to := range []string{"10.2.0.9", "fd00:2::9"} {
		n.Run("ping", "-c", "2", "-i", "0.2", "-W", "3", to)
		n.Run("ping", "-c", "2", "-i", "0.2", "-W", "3", "-s", "3000", to)
		url := "http://" + to + ":80/big"
		if strings.Contains(to, ":") {
			url = "http://[" + to + "]:80/big"
		}
		if got := n.Run("sh", "-c", "curl -s -g -m 40 '"+url+"' | sha256sum"); got != sum(l, "www/big") {
			t.Errorf("%s: %s", url, got)
		}
	}
	s.Run("ping", "-c", "2", "-i", "0.2", "-W", "3", "10.1.0.5")
	// From the gateways themselves too.
	north.Run("ping", "-c", "2", "-i", "0.2", "-W", "3", "-I", "10.1.0.1", "10.2.0.9")
	// A datagram that must not be fragmented: its sender hears how long it
	// may be, so that the second try is shorter.
	out, _ := n.Try(waitLong, "ping", "-c", "3", "-i", "0.2", "-W", "2", "-M", "do", "-s", "1472", "10.2.0.9")
	if !strings.Contains(out, "mtu") {
		t.Errorf("a ping of 1,500 bytes with DF: nobody said how long it may be:\n%s", out)
	}
	if n := wire.Count(clearText); n > 0 {
		t.Errorf("%d packets crossed in the clear:\n%s", n, wire.Text(clearText))
	}
	if n := wire.Count("esp"); n < 10000 {
		t.Errorf("only %d sealed packets", n)
	}

	// The internet does not reach in, not by clear packets of the other
	// office's addresses either.
	inside := n.Capture("n0", "net 10.2.0.0/16 or net 203.0.113.0/24")
	internet.Run("ip", "addr", "add", "10.2.0.66/32", "dev", "lo")
	_, _ = internet.Try(waitLong, "ping", "-c", "2", "-W", "1", "-I", "10.2.0.66", "10.1.0.5")
	if k := inside.Count("icmp"); k > 0 {
		t.Errorf("%d forged packets came in:\n%s", k, inside.Text("icmp"))
	}
	if counted(t, a, "clear-text") == 0 {
		t.Errorf("no clear text was counted:\n%s", a.Ask("status"))
	}
}

// A remote user's tunnel to a gateway; behind it her packets are clear, and
// nothing else gets there.
//
//	alice 203.0.113.7 (10.99.0.7) -- 203.0.113.254 net 198.51.100.254 -- gateway 198.51.100.1, 10.1.0.1 -- web 10.1.0.9
func TestRemoteUserScenario(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	alice, net, gateway, web := l.Host("alice"), l.Host("net"), l.Host("gateway"), l.Host("web")
	l.Join(alice, "a0", []string{"203.0.113.7/24"}, net, "n0", []string{"203.0.113.254/24"})
	l.Join(net, "n1", []string{"198.51.100.254/24"}, gateway, "wan0", []string{"198.51.100.1/24"})
	l.Join(gateway, "lan0", []string{"10.1.0.1/16"}, web, "w0", []string{"10.1.0.9/16"})
	for _, h := range []*lab.Host{net, gateway} {
		h.Sysctl("net.ipv4.ip_forward", "1")
	}
	alice.Run("ip", "addr", "add", "10.99.0.7/32", "dev", "lo")
	alice.Run("ip", "route", "add", "default", "via", "203.0.113.254")
	alice.Run("ip", "route", "add", "10.1.0.0/16", "via", "203.0.113.254", "src", "10.99.0.7")
	gateway.Run("ip", "route", "add", "default", "via", "198.51.100.254")
	web.Run("ip", "route", "add", "default", "via", "10.1.0.1")
	net.Run("ip", "route", "add", "10.1.0.0/16", "via", "198.51.100.1") // a stranger who knows the way
	l.Scenario("remote-user")
	l.KeyFiles("gateway/alice.keys", "alice/gateway.keys", 32, 32)
	startNginx(t, l, web, 80)
	big(l, "www/big", 8<<20)
	g := gateway.RunScenario()
	alice.RunScenario()

	outside, inside := net.Capture("n0", "host 203.0.113.7 or host 10.99.0.7"), web.Capture("w0", "host 10.99.0.7")
	if got := alice.Run("sh", "-c", "curl -s -m 40 http://10.1.0.9/big | sha256sum"); got != sum(l, "www/big") {
		t.Errorf("alice: %s\n%s", got, g.Ask("status"))
	}
	if !get(alice, "http://10.1.0.9/") {
		t.Error("alice does not reach the server")
	}
	// In UDP many sealed packets cross a wire like this one in one piece, up to
	// 64 KiB long, so 8 MiB of them are few.
	sealedOnly(t, outside, 200)
	if outside.Count("udp port 4500") < 200 {
		t.Error("her packets are not carried in UDP")
	}
	if !inside.Contains("hello from nginx") || inside.Count("esp or udp port 4500") > 0 {
		t.Error("behind the gateway her packets are not clear")
	}
	if get(net, "http://10.1.0.9/", "-m", "1") || get(alice, "http://10.1.0.9/", "--interface", "203.0.113.7", "-m", "1") {
		t.Error("clear packets reach the server")
	}
	if out, err := web.Try(waitLong, "ping", "-c", "1", "-W", "1", "10.99.0.7"); err == nil {
		t.Errorf("the server reaches alice, and the policy lets only her open:\n%s", out)
	}
}

// All four kinds of IPsec on one host at the same time.
func TestAllAtOnceScenario(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	hub := l.Host("hub")
	on := map[*lab.Host][]string{hub: {"10.0.0.2/24", "fd00::2/64"}}
	peers := map[string]string{"a": "10.0.0.2", "b": "10.0.0.2", "c": "[fd00::2]", "d": "[fd00::2]"}
	hosts := map[string]*lab.Host{}
	for i, name := range []string{"a", "b", "c", "d"} {
		hosts[name] = l.Host(name)
		on[hosts[name]] = []string{fmt.Sprintf("10.0.0.1%d/24", i+1), fmt.Sprintf("fd00::1%d/64", i+1)}
	}
	sw := l.Lan(on)
	l.Scenario("all-at-once")
	for name, n := range map[string][2]int{"a": {32, 32}, "b": {16, 64}, "c": {0, 48}, "d": {0, 32}} {
		l.KeyFiles("hub/"+name+".keys", name+"/hub.keys", n[0], n[1])
	}
	startNginx(t, l, hub, 80)
	big(l, "www/big", 4<<20)
	d := hub.RunScenario()
	wire := sw.Capture("sw0", "not ether multicast") // that are neighbours and listeners
	var all sync.WaitGroup
	for name, h := range hosts {
		h.RunScenario()
		all.Go(func() {
			if got := h.Run("sh", "-c", "curl -s -g -m 50 'http://"+peers[name]+"/big' | sha256sum"); got != sum(l, "www/big") {
				t.Errorf("%s: %s", name, got)
			}
			h.Run("ping", "-c", "2", "-i", "0.2", "-W", "3", strings.Trim(peers[name], "[]"))
		})
	}
	all.Wait()
	sealedOnly(t, wire, 10000)
	for _, kind := range []string{"ip proto 50", "ip6 proto 50", "ip proto 51", "ip6 proto 51"} {
		if wire.Count(kind) < 100 {
			t.Errorf("hardly any %q on the wire", kind)
		}
	}
	t.Log(d.Ask("status"))
}
