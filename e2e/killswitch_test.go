package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// switched is the lab of the tests below: two links between h, which runs ipfw,
// and far, and a host behind h.
//
//	n 10.1.0.5, fd00:1::5 -- lan0 -- h 198.51.100.1, 2001:db8:1::1 == wg0, eth0 == far 203.0.113.5, 2001:db8:5::5
type switched struct {
	*lab.Lab
	n, h, far *lab.Host
	d         *lab.Daemon
	flows     []*wordFlow
}

var (
	farAddrs = []string{"203.0.113.5", "2001:db8:5::5"}
	hAddrs   = []string{"198.51.100.1", "2001:db8:1::1"}
	nAddrs   = []string{"10.1.0.5", "fd00:1::5"}
)

// wordFlow is a live flow: a word goes there and comes back.
type wordFlow struct {
	net.Conn
	name  string
	words int
}

// says says whether a new word comes back in time; words of before may as well.
func (f *wordFlow) says(wait time.Duration) bool {
	f.words++
	word := fmt.Appendf(nil, "<word %d>", f.words)
	if _, err := f.Write(word); err != nil {
		return false
	}
	end := time.Now().Add(wait)
	var heard []byte
	b := make([]byte, 1<<10)
	for {
		_ = f.SetReadDeadline(end)
		n, err := f.Read(b)
		if heard = append(heard, b[:n]...); bytes.Contains(heard, word) {
			return true
		}
		if err != nil && time.Now().After(end) {
			return false
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // an ICMP error
		}
	}
}

func newSwitched(t *testing.T, rest string) *switched {
	l := lab.New(t)
	s := &switched{Lab: l, n: l.Host("n"), h: l.Host("h"), far: l.Host("far")}
	l.Join(s.n, "n0", []string{"10.1.0.5/24", "fd00:1::5/64"}, s.h, "lan0", []string{"10.1.0.1/24", "fd00:1::1/64"})
	l.Join(s.h, "wg0", []string{"10.8.0.1/24", "fd00:8::1/64"}, s.far, "wg0", []string{"10.8.0.2/24", "fd00:8::2/64"})
	l.Join(s.h, "eth0", []string{"10.9.0.1/24", "fd00:9::1/64"}, s.far, "eth0", []string{"10.9.0.2/24", "fd00:9::2/64"})
	for _, h := range []*lab.Host{s.h, s.far} {
		for _, dev := range []string{"all", "wg0", "eth0"} {
			h.Sysctl("net.ipv4.conf."+dev+".rp_filter", "0")
		}
	}
	for i, h := range []*lab.Host{s.h, s.far} {
		for _, a := range [][]string{hAddrs, farAddrs}[i] {
			h.Run("ip", "addr", "add", a, "dev", "lo")
		}
	}
	s.h.Sysctl("net.ipv4.ip_forward", "1")
	s.h.Sysctl("net.ipv6.conf.all.forwarding", "1")
	s.n.Run("ip", "route", "add", "default", "via", "10.1.0.1")
	s.n.Run("ip", "-6", "route", "add", "default", "via", "fd00:1::1")
	s.lead(s.h, "wg0")
	s.lead(s.far, "wg0")
	for _, h := range []*lab.Host{s.n, s.h, s.far} {
		if err := h.Do(func() error { return lab.Serve(7) }); err != nil {
			t.Fatal(err)
		}
	}
	s.d = s.h.IPFW(l.File("policy.hcl", `
policy {
  inbound  = "discard"
  outbound = "discard"
  forward  = "discard"
}
rule "vpn" {
  action    = "bypass"
  direction = "both"
  interface = "wg0"
}
rule "vpn-forward" {
  action    = "bypass"
  direction = "forward"
  interface = "wg*"
}
`+rest))
	for i := range farAddrs {
		s.open(s.h, hAddrs[i], farAddrs[i])
		s.open(s.far, farAddrs[i], hAddrs[i])
		s.open(s.n, nAddrs[i], farAddrs[i])
		s.open(s.far, farAddrs[i], nAddrs[i])
	}
	return s
}

// lead leads all that h or far sends to the other over one of the links.
func (s *switched) lead(h *lab.Host, dev string) {
	s.Helper()
	net := map[string]int{"wg0": 8, "eth0": 9}[dev]
	to, next := []string{farAddrs[0] + "/32", farAddrs[1] + "/128"}, 2
	if h == s.far {
		to, next = []string{hAddrs[0] + "/32", "10.1.0.0/24", hAddrs[1] + "/128", "fd00:1::/64"}, 1
	}
	for _, dst := range to {
		gw := fmt.Sprintf("10.%d.0.%d", net, next)
		if netip.MustParsePrefix(dst).Addr().Is6() {
			gw = fmt.Sprintf("fd00:%d::%d", net, next)
		}
		h.Run("ip", "route", "replace", dst, "via", gw, "dev", dev)
	}
}

// open makes a flow of each protocol and lets it live for a while.
func (s *switched) open(h *lab.Host, from, to string) {
	s.Helper()
	for _, network := range []string{"udp", "tcp"} {
		f := &wordFlow{name: fmt.Sprintf("%s %s -> %s", network, from, to)}
		err := h.Do(func() (err error) {
			local := netip.AddrPortFrom(netip.MustParseAddr(from), 0)
			d := net.Dialer{Timeout: waitLong, LocalAddr: net.UDPAddrFromAddrPort(local)}
			if network == "tcp" {
				d.LocalAddr = net.TCPAddrFromAddrPort(local)
			}
			f.Conn, err = d.Dial(network, net.JoinHostPort(to, "7"))
			return err
		})
		if err != nil {
			s.Fatalf("%s: %v\n%s", f.name, err, s.d.Ask("status"))
		}
		s.Cleanup(func() { _ = f.Close() })
		for range 20 {
			if !f.says(waitLong) {
				s.Fatalf("%s: no answer\n%s", f.name, s.d.Ask("status"))
			}
		}
		s.flows = append(s.flows, f)
	}
}

// speak has all flows say a word at once, and gives those that were answered.
func (s *switched) speak(wait time.Duration) (answered []string) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, f := range s.flows {
		all.Go(func() {
			if f.says(wait) {
				mu.Lock()
				answered = append(answered, f.name)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return answered
}

// quiet is how long nothing must come back.
const quiet = 700 * time.Millisecond

// What may pass by one interface only stops as soon as its route leads by another
// one or it comes by another one, out, in and forwarded, and goes on when it is
// back; connections that were opened before, offloaded or not.
func TestKillSwitch(t *testing.T) { lab.EachOffload(t, tryKillSwitch) }

func tryKillSwitch(t *testing.T, _ string) {
	s := newSwitched(t, "")
	wire := s.far.Capture("eth0", "port 7 or icmp or (icmp6 and ip6[40] < 128)")

	s.lead(s.h, "eth0")
	if got := s.speak(quiet); len(got) > 0 {
		t.Errorf("answered, though h sends by eth0: %v", got)
	}
	s.lead(s.h, "wg0")
	if got := s.speak(waitLong); len(got) != len(s.flows) {
		t.Errorf("back, and only %d of %d are answered: %v\n%s", len(got), len(s.flows), got, s.d.Ask("status"))
	}
	if n := wire.Count("src host not 203.0.113.5 and src host not 2001:db8:5::5"); n > 0 {
		t.Errorf("%d packets left by eth0:\n%s", n, wire.Text(""))
	}

	s.lead(s.far, "eth0")
	if got := s.speak(quiet); len(got) > 0 {
		t.Errorf("answered, though far sends by eth0: %v", got)
	}
	s.lead(s.far, "wg0")
	if got := s.speak(waitLong); len(got) != len(s.flows) {
		t.Errorf("back again, and only %d of %d are answered: %v\n%s", len(got), len(s.flows), got, s.d.Ask("status"))
	}
	// A policy that does not mind is asked anew.
	s.File("policy.hcl", `
policy {
  inbound  = "bypass"
  outbound = "bypass"
  forward  = "bypass"
}
`)
	s.d.Ask("reload")
	s.lead(s.h, "eth0")
	if got := s.speak(waitLong); len(got) != len(s.flows) {
		t.Errorf("all may pass, and only %d of %d are answered: %v\n%s", len(got), len(s.flows), got, s.d.Ask("status"))
	}
}

// The same where the rest is protected: what leaves by the other interface is
// sealed.
func TestKillSwitchProtects(t *testing.T) { lab.EachOffload(t, tryKillSwitchProtects) }

func tryKillSwitchProtects(t *testing.T, _ string) {
	l := lab.New(t)
	block, _ := l.Blocks("rest", lab.Manual{Name: "rest", Mode: "tunnel", Local: "10.9.0.1", Remote: "10.9.0.2"})
	s := newSwitched(t, `
rule "rest" {
  action         = "protect"
  with           = "rest"
  direction      = "both"
  remote_address = ["203.0.113.5", "2001:db8:5::5"]
}
rule "rest-forward" {
  action         = "protect"
  with           = "rest"
  direction      = "forward"
  remote_address = ["203.0.113.5", "2001:db8:5::5"]
}
`+block)
	wire := s.h.Capture("eth0", "not src host 10.9.0.2 and (ip or ip6) and not ether multicast and not icmp6")
	s.lead(s.h, "eth0")
	if got := s.speak(quiet); len(got) > 0 {
		t.Errorf("answered, though nobody opens it: %v", got)
	}
	s.lead(s.h, "wg0")
	if got := s.speak(waitLong); len(got) != len(s.flows) {
		t.Errorf("back, and only %d of %d are answered: %v\n%s", len(got), len(s.flows), got, s.d.Ask("status"))
	}
	sealedOnly(t, wire, len(s.flows))
	if wire.Contains("<word") {
		t.Error("a word crossed in the clear")
	}
}
