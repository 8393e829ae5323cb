package attack

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipfw/ipfw/packet"
)

// The gateway's own ICMP errors quote the packets they are about. Nothing of a
// protected one may be seen in the clear.
func TestErrorsQuoteNothingProtected(t *testing.T) {
	a := attack(t, "G1", onPath, "ICMP errors about protected packets")
	for _, w := range []way{native, {mode: "tunnel", protocol: "esp", udp: true, offload: "none"}, {mode: "tunnel", protocol: "ah"}} {
		for _, v := range []*family{&v4, &v6} {
			a.play(t, v.name+" "+w.String(), v, func(t *testing.T, v *family) {
				s := newSite(t, v)
				block, f := s.link("peer", 0x1001, w)
				s.gateway.Run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ipfrag_time; echo 1 >/proc/sys/net/ipv6/ip6frag_time; echo 50 >/proc/sys/net/ipv4/neigh/lan0/retrans_time_ms; echo 50 >/proc/sys/net/ipv6/neigh/lan0/retrans_time_ms")
				s.run(closed(w) + v.gatewayRules() + block)
				secret := marker("SECRET")
				known := func(id uint16, dst string, ttl uint8, pad int) []byte {
					to := v.lanHost
					if dst == "nobody" {
						to = v.lanNobody
					}
					return echo(t, v.inner, to, id, ttl, secret+strings.Repeat("p", pad))
				}
				f.send(known(99, "lan", 0, 0)) // the flow becomes known; the host of the LAN answers
				f.await(secret)
				f.send(known(99, "lan", 1, 0))                              // time exceeded, of a known flow
				f.send(known(98, "lan", 1, 0))                              // and of one that nobody has seen
				f.send(udp(t, v.inner, 5000, v.lanNobody, 9, secret))       // unreachable
				f.send(known(97, "nobody", 0, 0))                           // the same
				f.send(udp(t, v.inner, 5001, v.self, 9999, secret+"-self")) // a port that nobody listens on
				first, _ := f.fragments(t, udp(t, v.inner, 5002, v.self, 9998, secret+strings.Repeat("f", 900)), 4711)
				f.send(first) // never completed: the host's reassembly time is exceeded
				s.gateway.Run("ip", "link", "set", "lan0", "mtu", "1280")
				f.send(known(99, "lan", 0, 1290)) // too big, of a known flow
				f.send(known(96, "lan", 0, 1290))
				s.lan.Run("ip", "link", "set", "l0", "mtu", "1280")
				time.Sleep(1500 * time.Millisecond) // the reassembly's second, and the neighbour's tries, pass
				f.fence()
				if bad := s.wan.inClear(secret); len(bad) > 0 {
					t.Errorf("%d datagrams in the clear quote protected payload: %s", len(bad), say(bad))
					a.saw(v.name+" "+w.String(), "%d errors with protected payload in the clear", len(bad))
				} else {
					a.saw(v.name+" "+w.String(), "none in the clear; %d come back sealed", f.has(secret)-1)
				}
				if inner := s.wan.inClear(string(v.inner.AsSlice())); len(inner) > 0 {
					t.Errorf("an inner address is seen in the clear: %s", say(inner))
				}
			})
		}
	}
}

// An ICMP error that anybody can forge does not change the path MTU of what is
// protected.
func TestForgedPathMTU(t *testing.T) {
	a := attack(t, "G5", offPath, "forged \"too big\" about a protected flow")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		block, f := s.link("peer", 0x1001, native)
		s.run(closed(native) + v.gatewayRules() + block + fmt.Sprintf(`
rule "plain" {
  action         = "bypass"
  direction      = "out"
  protocol       = "udp"
  remote_address = %q
  remote_port    = 7000
}
`, v.far))
		inner := connected(t, s, v, at(v.self, 6000), at(v.inner, 5000))
		plain := connected(t, s, v, at(v.self, 6001), at(v.far, 7000))
		hello := marker("hello")
		inner.send(hello)
		f.await(hello)
		plain.send(hello)
		s.wan.await("the plain datagram", func(ip []byte) bool { return bytes.Contains(ip, []byte(hello)) && !sealed(ip) })
		before, beforePlain := inner.mtu(), plain.mtu()
		tooBig := func(quoted []byte) {
			p := packet.Spec{Src: v.stranger, Dst: v.self, Protocol: packet.ICMP, ICMPType: 3, ICMPCode: 4, EchoSeq: 1300, Payload: quoted[:min(len(quoted), 548)]}
			if v.name == "v6" {
				p.Protocol, p.ICMPType, p.ICMPCode = packet.ICMPv6, 2, 0
			}
			s.wan.send(build(t, p))
		}
		big := strings.Repeat("x", 1400)
		tooBig(build(t, packet.Spec{Src: v.self, Dst: v.inner, Protocol: packet.UDP, SrcPort: 6000, DstPort: 5000, DontFragment: true, Payload: []byte(big)}))
		tooBig(build(t, packet.Spec{Src: v.self, Dst: v.far, Protocol: packet.UDP, SrcPort: 6001, DstPort: 7000, DontFragment: true, Payload: []byte(big)}))
		eventually(t, "a \"too big\" about a flow in the clear is believed", func() bool { return plain.mtu() == 1300 })
		f.fence()
		if now := inner.mtu(); now != before {
			t.Errorf("the path MTU of a protected destination went from %d to %d", before, now)
		}
		a.saw(v.name, "protected %d -> %d, in the clear %d -> %d", before, inner.mtu(), beforePlain, plain.mtu())
	})
}

// Nor does one about the sealed packets themselves push them below what RFC 791
// and RFC 8200 ask of every link: ports and addresses of ESP in UDP are no secret.
func TestForgedPathMTUOfTheTunnel(t *testing.T) {
	a := attack(t, "G5", offPath, "forged \"too big\" of 68 bytes about the tunnel's own packets")
	for _, w := range []way{native, {mode: "tunnel", protocol: "esp", udp: true}} {
		for _, v := range []*family{&v4, &v6} {
			a.play(t, v.name+" "+w.String(), v, func(t *testing.T, v *family) {
				s := newSite(t, v)
				block, f := s.link("peer", 0x1001, w)
				s.run(closed(w) + v.gatewayRules() + block)
				conn := connected(t, s, v, at(v.self, 6000), at(v.inner, 5000))
				hello := marker("hello")
				conn.send(hello)
				f.await(hello)
				outer := packet.Spec{Src: v.self, Dst: v.far, Protocol: packet.ESP, SPI: 0x1002, SPISeq: 1, DontFragment: true, Payload: make([]byte, 1300)}
				if w.udp {
					outer.Protocol, outer.SrcPort, outer.DstPort = packet.UDP, 4500, 4500
				}
				quoted := build(t, outer)
				for _, mtu := range []uint16{0, 68, 296, 500} {
					p := packet.Spec{Src: v.stranger, Dst: v.self, Protocol: packet.ICMP, ICMPType: 3, ICMPCode: 4, EchoSeq: mtu, Payload: quoted[:548]}
					if v.name == "v6" {
						p.Protocol, p.ICMPType, p.ICMPCode = packet.ICMPv6, 2, 0
					}
					s.wan.send(build(t, p))
				}
				f.fence()
				least := map[string]int{"v4": 552, "v6": 1280}[v.name]
				text := marker("long")
				conn.send(text + strings.Repeat("x", least-200))
				f.await(text)
				n := len(s.wan.find(func(ip []byte) bool { return sealed(ip) && len(ip) >= least-150 }))
				if n == 0 {
					t.Errorf("no sealed packet of about %d bytes leaves any more", least)
				}
				a.saw(v.name+" "+w.String(), "sealed packets of %d bytes leave in one piece", least-150)
			})
		}
	}
}

// socket is a program's connected UDP socket.
type socket struct {
	t    testing.TB
	conn *net.UDPConn
	v    *family
}

func connected(t testing.TB, s *site, v *family, from, to netip.AddrPort) *socket {
	t.Helper()
	c := &socket{t: t, v: v}
	if err := s.gateway.Do(func() (err error) {
		c.conn, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.conn.Close() })
	return c
}

func (c *socket) send(text string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// mtu is what the kernel tells the program of its path.
func (c *socket) mtu() (n int) {
	c.t.Helper()
	raw, err := c.conn.SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	var got error
	err = raw.Control(func(fd uintptr) {
		if c.v.name == "v4" {
			n, got = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU)
		} else {
			n, got = unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU)
		}
	})
	if err != nil || got != nil {
		c.t.Fatal(err, got)
	}
	return n
}
