package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// pings says whether an address answers pings.
func pings(h *lab.Host, address string, args ...string) bool {
	out, err := h.Try(waitLong, append(append([]string{"ping", "-c", "2", "-i", "0.2", "-W", "2"}, args...), address)...)
	return err == nil && strings.Contains(out, " 0% packet loss")
}

// The guests of a bridge are none of ipfw's business until the kernel is told to
// ask its firewall about bridged frames, as container programs tell it. Then they
// are forwarded packets, and the bridge is their interface; its ports have no name.
func TestBridgedGuests(t *testing.T) { t.Parallel(); lab.EachOffload(t, tryBridgedGuests) }

func tryBridgedGuests(t *testing.T, way string) {
	lab.Need(t, "ping")
	l := lab.New(t)
	h, one, two := l.Host("host"), l.Host("one"), l.Host("two")
	h.Run("ip", "link", "add", "br0", "type", "bridge")
	h.Run("ip", "link", "set", "br0", "up")
	if _, err := h.Try(waitLong, "test", "-e", "/proc/sys/net/bridge/bridge-nf-call-iptables"); err != nil {
		lab.Skip(t, "this kernel has no br_netfilter")
	}
	call := func(value string) {
		h.Sysctl("net.bridge.bridge-nf-call-iptables", value)
		h.Sysctl("net.bridge.bridge-nf-call-ip6tables", value)
	}
	call("0")
	for i, guest := range []*lab.Host{one, two} {
		tap := fmt.Sprintf("tap%d", i)
		l.Join(guest, "eth0", []string{fmt.Sprintf("10.5.0.%d/24", i+1), fmt.Sprintf("fd05::%d/64", i+1)}, h, tap, nil)
		h.Run("ip", "link", "set", tap, "master", "br0")
	}
	if err := two.Do(func() error { return lab.Serve(7001) }); err != nil {
		t.Fatal(err)
	}
	policy := func(dev string) string {
		text := "policy {\n  inbound = \"discard\"\n  outbound = \"bypass\"\n}\n"
		if dev != "" {
			text += fmt.Sprintf("rule \"guests\" {\n  action    = \"bypass\"\n  direction = \"forward\"\n  interface = %q\n}\n", dev)
		}
		return l.File("policy.hcl", text)
	}
	d := h.IPFW(policy(""))
	guests := []string{"10.5.0.2", "fd05::2"}
	pass := func(when string, want bool) {
		t.Helper()
		for _, address := range guests {
			if want {
				l.Eventually(waitLong, when+": "+address+" answers", func() bool { return pings(one, address) })
			} else if pings(one, address) {
				t.Errorf("%s: %s answers", when, address)
			}
		}
	}
	pass("the kernel does not ask about bridged frames", true)
	call("1")
	before := counted(t, d, "default")
	pass("forward discard", false)
	if counted(t, d, "default") == before {
		t.Errorf("what is discarded is not counted:\n%s", d.Ask("status"))
	}
	policy("tap*")
	d.Ask("reload")
	pass("a rule that names ports of the bridge", false)
	policy("br0")
	d.Ask("reload")
	pass("a rule that names the bridge", true)
	const size = 8 << 20
	for _, address := range guests {
		l.Eventually(waitLong, address+" answers long pings", func() bool { return pings(one, address, "-s", "4000") })
		err := one.Do(lab.Transfer{Network: "tcp", To: netip.AddrPortFrom(netip.MustParseAddr(address), 7001), Size: size, Limit: waitLong}.Do)
		if err != nil {
			t.Errorf("8 MiB to %s and back: %v", address, err)
		}
	}
	s := status(t, d)
	if _, bytes, _ := s.rule("guests"); bytes < 4*size {
		t.Errorf("the rule has let %d bytes pass", bytes)
	}
	if up := s.Queue.Packets; (up < 500) != (way == "flow") {
		t.Errorf("%d packets have come up", up)
	}
	// The kernel drops the first packet to a group that goes to several ports, if
	// it has to wait in a queue: its copies have one connection, of which nothing
	// is decided yet.
	l.Eventually(waitLong, "the other guest answers a ping of all neighbours", func() bool {
		out, _ := one.Try(waitLong, "ping", "-c", "4", "-i", "0.5", "ff02::1%eth0")
		return strings.Contains(out, linkLocal(two, "eth0"))
	})
}

// linkLocal gives the link-local address of an interface.
func linkLocal(h *lab.Host, dev string) string {
	for _, word := range strings.Fields(h.Run("ip", "-6", "-o", "addr", "show", "dev", dev, "scope", "link")) {
		if address, ok := strings.CutSuffix(word, "/64"); ok {
			return address
		}
	}
	return "no link-local address"
}

// A published port of a container is not the host's: a rule for it lets nothing
// in, and one that names the container's address and port does. One that is
// redirected to the host itself is the port that it is redirected to.
func TestPublishedPort(t *testing.T) { t.Parallel(); lab.EachOffload(t, tryPublishedPort) }

func tryPublishedPort(t *testing.T, _ string) {
	lab.Need(t, "nft", "ping")
	l, client, server := lab.Pair(t)
	box := l.Host("box")
	l.Join(box, "eth0", []string{"172.17.0.2/24", "fd72::2/64"}, server, "docker0", []string{"172.17.0.1/24", "fd72::1/64"})
	box.Run("ip", "route", "add", "default", "via", "172.17.0.1")
	box.Run("ip", "route", "add", "default", "via", "fd72::1")
	server.Sysctl("net.ipv4.ip_forward", "1")
	server.Sysctl("net.ipv6.conf.all.forwarding", "1")
	server.Run("nft", "-f", l.File("nat.nft", `
table inet published {
  chain pre {
    type nat hook prerouting priority dstnat;
    tcp dport 8080 dnat ip to 172.17.0.2:80
    tcp dport 8080 dnat ip6 to [fd72::2]:80
    tcp dport 8081 redirect to :7001
  }
  chain post { type nat hook postrouting priority srcnat; oifname "s0" masquerade; }
}
`))
	echoServer(t, box, 80)
	echoServer(t, server, 7001)
	policy := func(rule string) string {
		return l.File("policy.hcl", `policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "out" {
  action        = "bypass"
  direction     = "forward"
  opened_by     = "local"
  local_address = ["172.17.0.0/24", "fd72::/64"]
  interface     = "s0"
}
rule "redirected" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = 7001
}
rule "published" {
  action     = "bypass"
  protocol   = "tcp"
`+rule+"\n}\n")
	}
	d := server.IPFW(policy("  direction  = \"in\"\n  local_port = 8080"))
	before := counted(t, d, "default")
	for _, address := range addresses(8080) {
		if _, err := openSession(t, client, address); err == nil {
			t.Errorf("%s is open with a rule for the published port", address)
		}
	}
	if counted(t, d, "default") == before {
		t.Errorf("what is discarded is not counted:\n%s", d.Ask("status"))
	}
	for _, address := range addresses(8081) { // to the host itself
		mustOpen(t, client, address)
	}
	policy("  direction     = \"forward\"\n  opened_by     = \"remote\"\n  local_address = [\"172.17.0.2\", \"fd72::2\"]\n  local_port    = 80")
	d.Ask("reload")
	for i, address := range addresses(8080) {
		mustOpen(t, client, address)
		if to := []string{"10.77.0.2", "fd77::2"}[i]; !pings(box, to) {
			t.Errorf("the container cannot ping %s", to)
		}
	}
	// Nor is the container open by itself: by its own address as by the published one.
	client.Run("ip", "route", "add", "172.17.0.0/24", "via", "10.77.0.1")
	echoServer(t, box, 81)
	if _, err := openSession(t, client, "172.17.0.2:81"); err == nil {
		t.Error("another port of the container is open")
	}
}

// A rule that names an interface goes by the name that it has now: an interface
// that is renamed, or made anew with the index of another, is at once another.
func TestInterfaceChangesItsName(t *testing.T) {
	t.Parallel()
	lab.EachOffload(t, tryInterfaceChangesItsName)
}

func tryInterfaceChangesItsName(t *testing.T, _ string) {
	l := lab.New(t)
	server, client := l.Host("server"), l.Host("client")
	echoServer(t, server, 7001)
	server.IPFW(l.File("policy.hcl", `policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "lan" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = 7001
  interface  = "lan0"
}
`))
	// plug makes a pair of interfaces, the server's with this name and index.
	plug := func(dev, index string) {
		t.Helper()
		server.Run("ip", "link", "add", dev, "index", index, "type", "veth", "peer", "name", "c0", "netns", client.NS)
		for h, end := range map[*lab.Host][]string{server: {dev, "10.77.0.1/24", "fd77::1/64"}, client: {"c0", "10.77.0.2/24", "fd77::2/64"}} {
			h.Run("ip", "addr", "add", end[1], "dev", end[0])
			h.Run("ip", "addr", "add", end[2], "dev", end[0], "nodad")
			h.Run("ip", "link", "set", end[0], "up")
		}
		l.Eventually(waitLong, "the neighbours find each other", func() bool {
			return pings(server, "10.77.0.2") && pings(server, "fd77::2")
		})
	}
	open := func(when string, want bool) {
		t.Helper()
		for _, address := range addresses(7001) {
			if want {
				l.Eventually(waitLong, when+": "+address+" is open", func() bool { _, err := openSession(t, client, address); return err == nil })
			} else if _, err := openSession(t, client, address); err == nil {
				t.Errorf("%s: %s is open", when, address)
			}
		}
	}
	plug("eth0", "70")
	open("the interface has another name", false)
	server.Run("ip", "link", "set", "eth0", "down")
	server.Run("ip", "link", "set", "eth0", "name", "lan0")
	server.Run("ip", "link", "set", "lan0", "up")
	server.Run("ip", "addr", "replace", "fd77::1/64", "dev", "lan0", "nodad")
	open("it has got the name", true)
	server.Run("ip", "link", "del", "lan0")
	plug("wan0", "70")
	open("another has its index", false)
	server.Run("ip", "link", "del", "wan0")
	plug("lan0", "77")
	open("the name is back with another index", true)
}

// A ban, put in front of the rule that had let a connection in, cuts it at once and
// in both directions.
func TestBanCutsLiveConnection(t *testing.T) { t.Parallel(); lab.EachOffload(t, tryBan) }

func tryBan(t *testing.T, _ string) {
	l, client, server := lab.Pair(t)
	heard := talkServer(t, server, 7001)
	d := server.IPFW(l.File("policy.hcl", twoPorts(false, "")))
	theirs := &talker{heard: map[net.Conn]int{}} // what comes to the client
	for _, address := range addresses(7001) {
		if err := within(t, client, func() error {
			c, err := net.DialTimeout("tcp", address, waitLong)
			if err == nil {
				chat(t, c, func(n int) { theirs.mu.Lock(); theirs.heard[c] += n; theirs.mu.Unlock() })
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	l.Eventually(waitLong, "both sides speak", func() bool { return heard.hear() == 2 && theirs.hear() == 2 })
	l.File("policy.hcl", strings.Replace(twoPorts(false, ""), "rule", `rule "ban" {
  action         = "discard"
  direction      = "in"
  remote_address = ["10.77.0.2", "fd77::2"]
}
rule`, 1))
	d.Ask("reload")
	time.Sleep(100 * time.Millisecond) // what was on its way
	if n, m := heard.hear(), theirs.hear(); n+m > 0 {
		t.Errorf("%d go on to the server, %d to the client:\n%s", n, m, d.Ask("flows"))
	}
}
