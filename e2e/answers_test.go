package e2e

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// Unicast answers to questions to groups and to everybody, as a workstation asks
// them (firewalld/firewalld#1029): they come in under the profile, and not
// without its rule.
func TestAnswersToMulticast(t *testing.T) { lab.EachOffload(t, tryAnswersToMulticast) }

func tryAnswersToMulticast(t *testing.T, way string) {
	l, client, server := lab.Pair(t)
	client.Run("ip", "route", "add", "default", "via", "10.77.0.1")
	questions := []struct {
		name, group string
		port        uint16
		otherPort   bool // the answer comes from another port than the question went to
	}{
		{"llmnr", "224.0.0.252", 5355, false}, {"llmnr6", "ff02::1:3", 5355, false}, // RFC 4795
		{"ssdp", "239.255.255.250", 1900, true}, {"ssdp6", "ff02::c", 1900, true}, // UPnP Device Architecture
		{"mdns", "224.0.0.251", 5353, false}, {"mdns6", "ff02::fb", 5353, false}, // RFC 6762 section 6.7
		{"snmp", "255.255.255.255", 161, false}, {"netbios", "10.77.0.255", 137, false},
	}
	var all []*asked
	for _, q := range questions {
		a := &asked{name: q.name, to: netip.AddrPortFrom(netip.MustParseAddr(q.group), q.port)}
		if a.to.Addr().Is6() {
			a.to = netip.AddrPortFrom(a.to.Addr().WithZone("c0"), q.port)
		}
		a.open(t, client)
		answerQuestions(t, server, a, q.otherPort)
		all = append(all, a)
	}
	profile := copyProfile(t, "workstation")
	policy := l.File("workstation.hcl", profile)
	d := client.IPFW(policy)
	if s := status(t, d); s.Queue.Offload != way {
		t.Fatalf("offload is %q", s.Queue.Offload)
	}
	for _, a := range all {
		l.Eventually(waitLong, a.name+" is answered", func() bool { return a.ask(t, "one") })
	}
	// Who has answered may be spoken to. The kernel takes that for a reply.
	for _, a := range all {
		if a.from().Port() == a.to.Port() {
			continue // that port hears the group only
		}
		l.Eventually(waitLong, a.name+"'s answerer is spoken to, and speaks", func() bool { return a.say(t, a.from(), "two") })
	}
	l.File("workstation.hcl", strings.Replace(profile, "rule \"answers\" {\n", "rule \"answers\" {\n  enabled = false\n", 1))
	if out := client.Run(lab.Binary(t), "explain", "-c", policy, "in udp 10.77.0.1:1900 -> 10.77.0.2:50000 answer"); !strings.HasPrefix(out, "discard") {
		t.Fatalf("the rule is still there:\n%s", out)
	}
	d.Ask("reload")
	for _, a := range all {
		a.open(t, client) // one that has spoken to nobody: who was spoken to may answer
		before := a.answers()
		l.Eventually(waitLong, a.name+" is answered into nothing", func() bool {
			_ = a.ask(t, "three")
			return a.answers() > before+2
		})
	}
	time.Sleep(time.Second / 5)
	for _, a := range all {
		if a.has("three") {
			t.Errorf("%s: an answer came in without the rule", a.name)
		}
	}
}

// A stock program that asks a group, nmap, finds a device under the profile.
func TestNmapFindsUPnPDevice(t *testing.T) {
	l, client, server := lab.Pair(t)
	lab.Need(t, "nmap")
	client.Run("ip", "route", "add", "default", "via", "10.77.0.1")
	a := &asked{name: "ssdp", to: netip.MustParseAddrPort("239.255.255.250:1900"),
		text: "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=1800\r\nEXT:\r\nSERVER: Test/1.0 UPnP/1.1 Printer/1.0\r\nST: upnp:rootdevice\r\nUSN: uuid:1::upnp:rootdevice\r\n\r\n"}
	answerQuestions(t, server, a, true)
	client.IPFW("profile:workstation")
	l.Eventually(waitLong, "nmap finds the device", func() bool {
		out, err := client.Try(waitLong, "nmap", "-n", "-e", "c0", "--script", "broadcast-upnp-info")
		return err == nil && strings.Contains(out, "Printer/1.0")
	})
}

// asked is a program that asks a group and hears what is answered, and what whoever
// answers has done.
type asked struct {
	name string
	to   netip.AddrPort
	text string // what is answered; else what was asked
	conn *net.UDPConn

	mu    sync.Mutex
	heard []string
	last  netip.AddrPort // who has answered
	sent  int            // answers
}

// open opens a port that asks from now on.
func (a *asked) open(t *testing.T, h *lab.Host) {
	t.Helper()
	if err := within(t, h, func() (err error) {
		network := "udp4"
		if a.to.Addr().Is6() {
			network = "udp6"
		}
		a.conn, err = net.ListenUDP(network, nil)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	conn := a.conn
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				a.mu.Lock()
				a.heard, a.last = append(a.heard, string(b[:n])), from
				a.mu.Unlock()
			}
		}
	}()
}

// ask asks the group, and says whether it has been answered to these words.
func (a *asked) ask(t *testing.T, words string) bool {
	t.Helper()
	return a.say(t, a.to, words)
}

func (a *asked) say(t *testing.T, to netip.AddrPort, words string) bool {
	t.Helper()
	if _, err := a.conn.WriteToUDPAddrPort([]byte(words), to); err != nil {
		t.Fatalf("%s: %v", a.name, err)
	}
	for range 10 {
		if time.Sleep(10 * time.Millisecond); a.has(words) {
			return true
		}
	}
	return false
}

func (a *asked) has(words string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range a.heard {
		if h == words {
			return true
		}
	}
	return false
}

func (a *asked) from() netip.AddrPort {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

func (a *asked) answers() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sent
}

// answerQuestions answers what a group is asked from this host's own address, by
// the group's port or by one that is free, which then answers by itself.
func answerQuestions(t *testing.T, h *lab.Host, a *asked, otherPort bool) {
	t.Helper()
	var in, out *net.UDPConn
	if err := within(t, h, func() error {
		dev, err := net.InterfaceByName("s0")
		if err != nil {
			return err
		}
		network, group := "udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.to.Addr().WithZone(""), a.to.Port()))
		if a.to.Addr().Is6() {
			network = "udp6"
		}
		if a.to.Addr().IsMulticast() {
			in, err = net.ListenMulticastUDP(network, dev, group)
		} else {
			in, err = net.ListenUDP(network, &net.UDPAddr{Port: group.Port}) // broadcast
		}
		if out = in; err == nil && otherPort {
			out, err = net.ListenUDP(network, nil)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	serve := func(from *net.UDPConn) {
		b := make([]byte, 1500)
		for {
			n, asker, err := from.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			text := a.text
			if text == "" {
				text = string(b[:n])
			}
			if _, err := out.WriteToUDPAddrPort([]byte(text), asker); err == nil {
				a.mu.Lock()
				a.sent++
				a.mu.Unlock()
			}
		}
	}
	t.Cleanup(func() { in.Close(); out.Close() })
	go serve(in)
	if otherPort {
		go serve(out)
	}
}
