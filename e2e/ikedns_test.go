package e2e

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
	"golang.org/x/net/dns/dnsmessage"
)

// zone is a DNS server with one name, whose addresses change.
type zone struct {
	mu   sync.Mutex
	list []netip.Addr // none: there is no such name
}

func (z *zone) set(addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.list = nil
	for _, a := range addrs {
		z.list = append(z.list, netip.MustParseAddr(a))
	}
}

// answer gives the reply to a query, with records that hold for a second.
func (z *zone) answer(b []byte) []byte {
	z.mu.Lock()
	defer z.mu.Unlock()
	var m dnsmessage.Message
	if m.Unpack(b) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.Additionals = true, nil
	if len(z.list) == 0 {
		m.RCode = dnsmessage.RCodeNameError
	}
	q := m.Questions[0]
	for _, a := range z.list {
		h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}
		switch {
		case q.Type == dnsmessage.TypeA && a.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case q.Type == dnsmessage.TypeAAAA && a.Is6():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

// serve answers in a host, which is the only resolver of another.
func (z *zone) serve(t *testing.T, h *lab.Host, addr string, of *lab.Host) {
	t.Helper()
	var c net.PacketConn
	err := h.Do(func() (err error) {
		c, err = net.ListenPacket("udp", net.JoinHostPort(addr, "53"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(z.answer(b[:n]), from)
		}
	}()
	// ip-netns(8) shows this file to what runs there in place of /etc/resolv.conf.
	dir := filepath.Join("/etc/netns", of.NS)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir); os.Remove("/etc/netns") })
	if err := os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("nameserver "+addr+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A peer that the policy knows by a name is called where its records say, and
// followed when they change, to the other family as well; without an answer it
// stays where it was, and that is said. Not a packet goes in the clear.
func TestIKEPeerByName(t *testing.T) {
	t.Parallel()
	l, client, server := lab.Pair(t)
	lab.Need(t, "ping", "tcpdump")
	l.RawKeys(false, "client", "server")
	server.Run("ip", "addr", "add", "10.77.0.11/24", "dev", "s0")
	client.Run("ip", "addr", "add", "10.88.0.2/32", "dev", "lo")
	server.Run("ip", "addr", "add", "10.88.0.1/32", "dev", "lo")
	client.Run("ip", "route", "add", "10.88.0.1", "dev", "c0", "src", "10.88.0.2")
	server.Run("ip", "route", "add", "10.88.0.2", "dev", "s0", "src", "10.88.0.1")
	var z zone
	z.set("10.77.0.1")
	z.serve(t, server, "10.77.0.1", client)
	policy := func(self, selfAddr, peer, peerAddr, endpoint, more string) string {
		s := ikePolicy("tunnel", "esp", self, selfAddr, peer, peerAddr, rawKeys+more)
		return strings.Replace(s, "  remote_endpoint = \""+peerAddr+"\"\n", endpoint, 1)
	}
	dns := "rule \"dns\" {\n  action = \"bypass\"\n  direction = \"%\"\n  protocol = \"udp\"\n  remote_port = 53\n}\n"
	open := strings.NewReplacer("%", "out").Replace(dns)
	answer := strings.NewReplacer("%", "in", "remote_port", "local_port").Replace(dns)
	wire := server.Capture("s0", "net 10.88.0.0/24")
	a := &ikeHost{Host: client, name: "client", policy: l.File("client/policy.hcl", open+policy("client", "10.88.0.2", "server", "10.88.0.1", "  remote_endpoint = \"peer.test\"\n", ""))}
	b := &ikeHost{Host: server, name: "server", policy: l.File("server/policy.hcl", answer+policy("server", "10.88.0.1", "client", "10.88.0.2", "", "  initiate = \"never\"\n"))}
	a.run(t)
	b.run(t)
	follows := func(addr string) {
		t.Helper()
		l.Eventually(2*waitLong, "the peer is called at "+addr, func() bool {
			out := a.daemon.Ask("ike", "list", "--json")
			return strings.Contains(out, `"remote":"`+addr+`:`) && strings.Count(out, "\n") == 1
		})
		client.Run("ping", "-c", "3", "-i", "0.2", "-W", "5", "10.88.0.1")
	}
	l.Eventually(waitLong, "the first packet passes", func() bool {
		_, err := client.Try(waitLong, "ping", "-c", "1", "-W", "2", "10.88.0.1")
		return err == nil
	})
	follows("10.77.0.1")
	load := client.Start("ping", "-q", "-i", "0.05", "-w", "100", "10.88.0.1")
	z.set("10.77.0.11")
	follows("10.77.0.11")
	z.set("fd77::1")
	follows("[fd77::1]")
	load.Signal(2) // SIGINT: ping says what it has counted
	_ = load.Wait(waitLong)
	if !strings.Contains(load.Output(), " 0% packet loss") {
		t.Errorf("packets were lost while the peer was followed:\n%s", load.Output())
	}
	z.set()
	l.Eventually(2*waitLong, "an event says that there is no such name", func() bool {
		return strings.Contains(a.daemon.Ask("events"), "the name peer.test cannot be looked up, and counts as fd77::1 still")
	})
	follows("[fd77::1]")
	if n := wire.Count("net 10.88.0.0/24"); n > 0 {
		t.Errorf("%d packets crossed the wire in the clear:\n%s", n, wire.Text("net 10.88.0.0/24"))
	}
}
