package attack

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/packet"
)

// onlyOut is a policy under which the peer may be called and may not call.
func (v *family) onlyOut() string {
	return fmt.Sprintf(`
rule "ping" {
  action         = "protect"
  with           = "peer"
  direction      = "in"
  protocol       = ["icmp", "icmpv6"]
  remote_address = %[1]q
}
rule "calls" {
  action         = "protect"
  with           = "peer"
  direction      = "out"
  remote_address = %[1]q
}
`, v.innerNet)
}

// A peer that may only be called opens nothing, also right after a start that
// finds a table: of `ipfw shut` at boot, of a daemon that was killed.
func TestCalledPeerDoesNotCall(t *testing.T) {
	a := attack(t, "G7", peer, "opens connections after a start that finds a table")
	for _, before := range []string{"nothing", "shut", "kill"} {
		for _, v := range []*family{&v4, &v6} {
			a.play(t, v.name+" after "+before, v, func(t *testing.T, v *family) { tryCall(t, a, v, before) })
		}
	}
}

func tryCall(t *testing.T, a *attempt, v *family, before string) {
	s := newSite(t, v)
	block, f := s.link("peer", 0x1001, native)
	policy := closed(native) + v.onlyOut() + block
	box, answers := receive(t, s.gateway, v.any(9999)), receive(t, s.gateway, at(v.self, 6000))
	accepted := accept(t, s.gateway, v.any(22))
	var old string
	switch before {
	case "shut":
		s.gateway.Run(lab.Binary(t), "shut", "--force", "--socket", filepath.Join(s.Dir, "gateway.sock"), "-c", s.File("gateway/policy.hcl", policy))
	case "kill":
		d := s.run(policy)
		old = marker("old")
		if err := answers.send(at(v.inner, 5000), old); err != nil {
			t.Fatal(err)
		}
		f.await(old)
		d.Kill()
	}
	s.run(policy)
	f.fence()
	evil := marker("evil")
	for i := range uint16(3) {
		f.send(build(t, packet.Spec{Src: v.inner, Dst: v.self, Protocol: packet.TCP, SrcPort: 40000 + i, DstPort: 22, TCPFlags: 2, Seq: 1, Window: 65535}))
		f.send(f.udp(40000+i, "self", 9999, evil))
	}
	f.fence()
	f.mu.Lock()
	synAcks := 0
	for _, ip := range f.opened {
		var p packet.Packet
		if packet.Parse(&p, ip, len(ip)) == packet.OK && p.Protocol == packet.TCP && p.TCPFlags&0x12 == 0x12 {
			synAcks++
		}
	}
	f.mu.Unlock()
	if synAcks > 0 || box.has(evil) || accepted.Load() > 0 {
		t.Errorf("a peer that may only be called has opened: %d SYN+ACK, %d datagrams delivered", synAcks, box.count(evil))
	}
	a.saw(v.name+" after "+before, "%d SYN+ACK, %d datagrams delivered", synAcks, box.count(evil))
	// The honest use: what this host opens is answered, and so is what it had
	// opened before it was killed.
	text := marker("answer")
	if before != "kill" {
		if err := answers.send(at(v.inner, 5000), text); err != nil {
			t.Fatal(err)
		}
		f.await(text)
	}
	f.send(udp(t, v.inner, 5000, v.self, 6000, text))
	answers.await(text)
}

// accept counts connections on a TCP port.
func accept(t testing.TB, h *lab.Host, at netip.AddrPort) *atomic.Int32 {
	t.Helper()
	n := new(atomic.Int32)
	serve(t, h, at, func(c net.Conn) { n.Add(1) })
	return n
}

// serve runs f for each connection to a TCP port of a host.
func serve(t testing.TB, h *lab.Host, at netip.AddrPort, f func(net.Conn)) {
	t.Helper()
	var l net.Listener
	if err := h.Do(func() (err error) { l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at)); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
			go f(c)
		}
	}()
}
