package attack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/packet"
)

// Packets in the clear for what is protected, in every dress: none is delivered.
func TestClearTextInEveryDress(t *testing.T) {
	a := attack(t, "G18", offPath, "clear packets with options, extension headers, labels, source routes")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		block, f := s.link("peer", 0x1001, native)
		s.gateway.Run("sh", "-c", "for d in all default wan0; do echo 1 >/proc/sys/net/ipv4/conf/$d/accept_source_route; echo 0 >/proc/sys/net/ipv6/conf/$d/accept_source_route; done")
		s.run(closed(native) + v.gatewayRules() + block)
		self, lan := receive(t, s.gateway, v.any(9999)), receive(t, s.lan, v.any(9999))
		evil := marker("evil")
		n := 0
		for _, dst := range []netip.Addr{v.self, v.lanHost} {
			base := packet.Spec{Src: v.inner, Dst: dst, Protocol: packet.UDP, SrcPort: 5000, DstPort: 9999, Payload: []byte(evil)}
			var list []packet.Spec
			add := func(change func(*packet.Spec)) { p := base; change(&p); list = append(list, p) }
			add(func(*packet.Spec) {})
			add(func(p *packet.Spec) { p.TOS = 0xb8 })
			add(func(p *packet.Spec) { p.TTL = 255 })
			if v.name == "v4" {
				for _, options := range [][]byte{{148, 4, 0, 0}, {7, 7, 4, 0, 0, 0, 0}, {131, 7, 4, 192, 0, 2, 1}, {137, 7, 8, 192, 0, 2, 1}, {68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {1, 1, 1, 0}} {
					add(func(p *packet.Spec) { p.IPv4Options = options })
				}
			} else {
				for _, header := range []uint8{packet.HopByHop, packet.DestOptions, packet.Routing} {
					for _, data := range [][]byte{{1, 4, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0}, append([]byte{0, 1, 0, 0, 0, 0}, v.self.AsSlice()...), append([]byte{2, 0, 0, 0, 0, 0}, v.self.AsSlice()...)} {
						add(func(p *packet.Spec) { p.Extensions = []packet.Extension{{Header: header, Data: data}} })
						add(func(p *packet.Spec) {
							p.Extensions = []packet.Extension{{Header: packet.DestOptions, Data: []byte{1, 4, 0, 0, 0, 0}}, {Header: header, Data: data}}
						})
					}
				}
				add(func(p *packet.Spec) { p.Fragment, p.LastFragment, p.ID = true, true, 7 }) // atomic
			}
			for _, p := range list {
				b, err := packet.Build(p)
				if err != nil {
					continue // not to be had in this family
				}
				s.wan.send(b)
				n++
				if v.name == "v6" { // with a flow label
					b = append([]byte{}, b...)
					binary.BigEndian.PutUint32(b, binary.BigEndian.Uint32(b)|0xabcde)
					s.wan.send(b)
					n++
				}
			}
		}
		// An address of the other family in disguise.
		if v.name == "v6" {
			mapped := netip.AddrFrom16(netip.MustParseAddr("10.2.0.5").As16())
			p := udp(t, v.inner, 5000, v.self, 9999, evil)
			copy(p[8:24], mapped.AsSlice())
			s.wan.send(p)
			n++
		}
		f.fence()
		if self.has(evil) || lan.has(evil) {
			t.Errorf("clear text for what is protected is delivered: %d to the gateway, %d behind it", self.count(evil), lan.count(evil))
		}
		good := marker("good")
		f.send(f.udp(5000, "self", 9999, good))
		self.await(good)
		a.saw(v.name, "%d sent, delivered: %d", n, self.count(evil)+lan.count(evil))
	})
}

// What a protect rule covers leaves sealed or not at all, wherever it goes.
func TestBroadcastAndMulticastOut(t *testing.T) {
	a := attack(t, "G1", slip, "a program sends to broadcast and multicast addresses under a rule that protects all")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		block, f := s.link("peer", 0x1001, native)
		s.run(closed(native) + fmt.Sprintf("rule \"all\" {\n  action         = \"protect\"\n  with           = \"peer\"\n  direction      = \"both\"\n  remote_address = %q\n}\n", v.all) + block)
		secret := marker("SECRET")
		box := receive(t, s.gateway, v.any(6000))
		raw, err := box.conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1) }); err != nil {
			t.Fatal(err)
		}
		targets := map[string][]string{"v4": {"255.255.255.255", "192.0.2.255", "224.0.0.1", "224.0.0.251", "239.1.1.1", "10.2.255.255"},
			"v6": {"ff02::1%wan0", "ff02::fb%wan0", "ff15::101%wan0", "ff05::2%wan0"}}[v.name]
		for _, to := range targets {
			_ = box.send(at(netip.MustParseAddr(to), 9999), secret) // refused is fine
		}
		honest := marker("honest")
		if err := box.send(at(v.inner, 9999), honest); err != nil {
			t.Fatal(err)
		}
		f.await(honest)
		time.Sleep(grace)
		if bad := s.wan.inClear(secret); len(bad) > 0 {
			t.Errorf("%d packets leave in the clear: %s", len(bad), say(bad))
		}
		a.saw(v.name, "in the clear: %d of %d", len(s.wan.inClear(secret)), len(targets))
	})
}

// A daemon that is killed or stopped in the middle of protected traffic leaves
// nothing to pass in the clear, either way, and the next one goes on.
func TestProtectedWhileTheDaemonIsGone(t *testing.T) {
	a := attack(t, "G9", nobody, "the daemon is killed or stopped under protected traffic")
	for _, how := range []string{"kill", "stop"} {
		for _, v := range []*family{&v4, &v6} {
			a.play(t, v.name+" "+how, v, func(t *testing.T, v *family) {
				s := newSite(t, v)
				block, f := s.link("peer", 0x1001, native)
				policy := closed(native) + v.gatewayRules() + block
				d := s.run(policy)
				box, lan := receive(t, s.gateway, v.any(9999)), receive(t, s.lan, v.any(9999))
				first := marker("first")
				if err := box.send(at(v.inner, 5000), first); err != nil {
					t.Fatal(err)
				}
				f.await(first)
				if how == "stop" {
					d.Signal(syscall.SIGSTOP)
				} else {
					d.Kill()
				}
				secret, evil := marker("SECRET"), marker("evil")
				for i := range uint16(20) {
					_ = box.send(at(v.inner, 5000+i), secret)
					_ = lan.send(at(v.inner, 5000+i), secret)
					s.wan.send(udp(t, v.inner, 5000+i, v.self, 9999, evil))
					s.wan.send(udp(t, v.inner, 5000+i, v.lanHost, 9999, evil))
				}
				time.Sleep(2 * grace)
				if bad := s.wan.inClear(secret); len(bad) > 0 {
					t.Errorf("%d protected packets leave in the clear: %s", len(bad), say(bad))
				}
				if box.has(evil) || lan.has(evil) {
					t.Error("clear text for what is protected is delivered")
				}
				if how == "stop" {
					d.Signal(syscall.SIGCONT)
				} else {
					s.run(policy)
				}
				f.fence()
				if bad := s.wan.inClear(secret); len(bad) > 0 {
					t.Errorf("%d protected packets leave in the clear when the daemon is back: %s", len(bad), say(bad))
				}
				if box.has(evil) || lan.has(evil) {
					t.Error("clear text for what is protected is delivered when the daemon is back")
				}
				a.saw(v.name+" "+how, "in the clear: out %d, in %d", len(s.wan.inClear(secret)), box.count(evil)+lan.count(evil))
			})
		}
	}
}

// Reloads under attack open nothing and stop nothing.
func TestReloadUnderAttack(t *testing.T) {
	a := attack(t, "G22", offPath, "a flood at a shut port and at a protected one while policies are reloaded")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		block, f := s.link("peer", 0x1001, native)
		rule := "rule \"open\" {\n  action     = \"bypass\"\n  direction  = \"in\"\n  protocol   = \"udp\"\n  local_port = 9000\n}\n"
		policy := closed(native) + v.gatewayRules() + rule + block
		d := s.run(policy)
		shut, open := receive(t, s.gateway, v.any(9999)), receive(t, s.gateway, v.any(9000))
		evil, good := marker("evil"), marker("good")
		stop, done := make(chan int), make(chan int)
		go func() {
			n := 0
			for {
				select {
				case <-stop:
					done <- n
					return
				default:
				}
				for k := range 4 {
					s.wan.send(udp(t, v.far, uint16(1024+(n*4+k)%60000), v.self, 9999, evil))
					s.wan.send(udp(t, v.inner, uint16(1024+(n*4+k)%60000), v.self, 9000, evil))
				}
				s.wan.send(udp(t, v.far, 999, v.self, 9000, good))
				n++
				time.Sleep(2 * time.Millisecond)
			}
		}()
		for i := range 15 {
			s.File("gateway/policy.hcl", policy+fmt.Sprintf("# %d\n", i))
			s.gateway.Run(lab.Binary(t), "reload", "--force", "--socket", d.Socket)
		}
		stop <- 0
		n := <-done
		f.fence()
		eventually(t, "what policy lets in has come in", func() bool { return open.count(good) > 0 })
		if shut.has(evil) || open.has(evil) {
			t.Errorf("during 15 reloads %d datagrams get into a shut port, and %d that must be protected into an open one", shut.count(evil), open.count(evil))
		}
		a.saw(v.name, "into the shut port: %d, in the clear in place of sealed: %d, of %d; honest: %d of %d", shut.count(evil), open.count(evil), 4*n, open.count(good), n)
	})
}

// Whatever comes to the ports of IKE and ESP in UDP, tunnels go on.
func TestJunkAtTheTunnelsPort(t *testing.T) {
	a := attack(t, "G14", offPath, "empty, one-byte, keepalive and random datagrams to UDP 4500 and 500")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		block, f := s.link("peer", 0x1001, way{mode: "tunnel", protocol: "esp", udp: true})
		s.run(closed(native) + v.gatewayRules() + block)
		before := highWater(t, s.daemon.Cmd.Process.Pid)
		junk := []string{"", "\xff", "\x00", "\x00\x00\x00\x00", "\x00\x00\x10\x01", "\x00\x00\x10\x01\x00\x00\x00\x05", strings.Repeat("\xff", 28), strings.Repeat("\x00", 1200), "\x00\x00\x00\x01" + strings.Repeat("j", 100)}
		n := 0
		for range 300 {
			for i, j := range junk {
				for _, from := range []netip.Addr{v.far, v.stranger} {
					s.wan.send(udp(t, from, []uint16{4500, 40000}[i%2], v.self, 4500, j))
					n++
				}
			}
		}
		f.fence()
		more := highWater(t, s.daemon.Cmd.Process.Pid) - before
		if more > 64<<10 {
			t.Errorf("junk takes %d KiB", more)
		}
		a.saw(v.name, "%d datagrams; the tunnel carries; memory's highest %d KiB more", n, more)
	})
}

// An authentic packet that is sent again from elsewhere does not draw the
// answers there.
func TestReplayDoesNotMoveThePeer(t *testing.T) {
	a := attack(t, "G18", onPath, "an authentic packet again, from the attacker's address and port")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		block, f := s.link("peer", 0x1001, way{mode: "tunnel", protocol: "esp", udp: true, window: 64})
		s.run(closed(native) + v.gatewayRules() + block)
		box := receive(t, s.gateway, v.any(9999))
		good := marker("good")
		recorded := f.seal(f.udp(5000, "self", 9999, good))
		s.wan.send(recorded)
		box.await(good)
		head := map[string]int{"v4": 20, "v6": 40}[v.name]
		for i := range uint16(5) {
			s.wan.send(udp(t, v.stranger, 4500, v.self, 4500, string(recorded[head+8:])))
			s.wan.send(udp(t, v.far, 50000+i, v.self, 4500, string(recorded[head+8:])))
		}
		f.fence()
		answer := marker("answer")
		if err := box.send(at(v.inner, 5000), answer); err != nil {
			t.Fatal(err)
		}
		f.await(answer)
		moved := s.wan.find(func(ip []byte) bool {
			var p packet.Packet
			return packet.Parse(&p, ip, len(ip)) == packet.OK && p.Protocol == packet.UDP && p.SrcPort == 4500 && (p.Dst != v.far || p.DstPort != 4500)
		})
		if len(moved) > 0 {
			t.Errorf("sealed packets go to the attacker: %s", say(moved))
		}
		a.saw(v.name, "sealed packets to the attacker: %d", len(moved))
	})
}

// ICMP redirects and router advertisements of strangers move no protected flow
// off its way.
func TestRedirects(t *testing.T) {
	a := attack(t, "G5", offPath, "ICMP redirects about a protected flow")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		block, f := s.link("peer", 0x1001, native)
		s.gateway.Run("sh", "-c", "for d in all default wan0; do echo 1 >/proc/sys/net/ipv4/conf/$d/accept_redirects; echo 0 >/proc/sys/net/ipv4/conf/$d/secure_redirects; echo 0 >/proc/sys/net/ipv4/conf/$d/forwarding; echo 1 >/proc/sys/net/ipv6/conf/$d/accept_redirects; echo 0 >/proc/sys/net/ipv6/conf/$d/forwarding; done")
		s.run(closed(native) + v.gatewayRules() + block)
		conn := connected(t, s, v, at(v.self, 6000), at(v.inner, 5000))
		hello := marker("hello")
		conn.send(hello)
		f.await(hello)
		quoted := udp(t, v.self, 6000, v.inner, 5000, hello)
		evil := netip.MustParseAddr(map[string]string{"v4": "192.0.2.66", "v6": "2001:db8::66"}[v.name])
		way := func() string {
			out, _, _ := strings.Cut(s.gateway.Run("ip", "-o", "route", "get", v.inner.String()), "expires")
			return out
		}
		was := way()
		var b []byte
		for range 3 {
			if v.name == "v4" {
				g := evil.As4()
				b = build(t, packet.Spec{Src: v.far, Dst: v.self, Protocol: packet.ICMP, ICMPType: 5, ICMPCode: 1, EchoID: binary.BigEndian.Uint16(g[:]), EchoSeq: binary.BigEndian.Uint16(g[2:]), Payload: quoted})
			} else {
				p := append(append(append([]byte{}, evil.AsSlice()...), v.inner.AsSlice()...), 4, byte((len(quoted)+8)/8), 0, 0, 0, 0, 0, 0)
				b = build(t, packet.Spec{Src: v.far, Dst: v.self, Protocol: packet.ICMPv6, ICMPType: 137, TTL: 255, Payload: append(p, quoted...)})
			}
			s.wan.send(b)
		}
		f.fence()
		now := way()
		if now != was {
			t.Errorf("the way to a protected destination went from %q to %q", was, now)
		}
		again := marker("again")
		conn.send(again)
		f.await(again)
		a.saw(v.name, "the way changes: %v", now != was)
	})
}

// Zones of connection tracking, helpers and marks of other programs, and routing
// by them, open no shut port and clear no protected flow.
func TestZonesHelpersAndRoutingOfOthers(t *testing.T) {
	a := attack(t, "G3", otherRule, "connection tracking zones, notrack, marks, routing by marks")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		block, f := s.link("peer", 0x1001, native)
		s.run(closed(native) + v.gatewayRules() + "rule \"open\" {\n  action     = \"bypass\"\n  direction  = \"in\"\n  protocol   = \"udp\"\n  local_port = 9000\n}\n" + block)
		s.gateway.Run("nft", `table inet other {
			chain pre { type filter hook prerouting priority -350;
				udp dport 9001 ct zone set 7
				udp dport 9002 notrack
				udp dport 9003 meta mark set 0xffffffff
			}
			chain late { type filter hook prerouting priority -150;
				udp dport 9004 ct mark set 0xffffffff
				udp dport 9005 meta mark set 0xff000000
				udp dport 9006 meta mark set 0x06000000
			}
			chain in { type filter hook input priority -150;
				udp dport 9007 meta mark set 0x06000000
				udp dport 9008 meta mark set 0x02000000
			}
			chain through { type filter hook forward priority -150;
				udp dport 9009 meta mark set 0x07000000
			}
			chain out { type route hook output priority -150;
				udp dport 5001 meta mark set 0x00000007
				udp dport 5002 meta mark set 0xffffffff
				udp dport 5003 ct mark set 0xffffffff
				udp dport 5004 notrack
			}
		}`)
		s.Join(s.gateway, "alt0", nil, s.beyond, "a0", nil)
		alt := tap(t, s.beyond, "a0", s.gateway, "alt0")
		fam := map[string]string{"v4": "-4", "v6": "-6"}[v.name]
		s.gateway.Run("ip", fam, "rule", "add", "fwmark", "7/7", "lookup", "77")
		s.gateway.Run("ip", fam, "route", "add", "default", "dev", "alt0", "table", "77")
		s.gateway.Run("ip", "neigh", "replace", v.inner.String(), "lladdr", "02:00:00:00:00:99", "dev", "alt0", "nud", "permanent")
		boxes := map[uint16]*inbox{}
		evil := marker("evil")
		for port := uint16(9001); port <= 9008; port++ {
			boxes[port] = receive(t, s.gateway, v.any(port))
		}
		behind := receive(t, s.lan, v.any(9009))
		open := receive(t, s.gateway, v.any(9000))
		for range 3 {
			for port := range boxes {
				s.wan.send(udp(t, v.far, 5000, v.self, port, evil))
				s.wan.send(udp(t, v.inner, 5000, v.self, port, evil))
			}
			s.wan.send(udp(t, v.inner, 5000, v.lanHost, 9009, evil))
		}
		secret := marker("SECRET")
		for port := uint16(5001); port <= 5004; port++ {
			for range 2 {
				_ = open.send(at(v.inner, port), secret)
			}
		}
		good := marker("good")
		s.wan.send(udp(t, v.far, 5000, v.self, 9000, good))
		open.await(good)
		f.fence()
		in := 0
		for port, b := range boxes {
			if n := b.count(evil); n > 0 {
				in += n
				t.Errorf("%d datagrams get into the shut port %d", n, port)
			}
		}
		if n := behind.count(evil); n > 0 {
			in += n
			t.Errorf("%d datagrams get into the network behind", n)
		}
		bad := append(s.wan.inClear(secret), alt.inClear(secret)...)
		if len(bad) > 0 {
			t.Errorf("%d protected packets leave in the clear: %s", len(bad), say(bad))
		}
		a.saw(v.name, "into shut ports: %d, in the clear: %d, sealed: %d", in, len(bad), f.has(secret))
	})
}

// A peer uses what its own rules give it, and speaks for nobody else's addresses.
func TestPeerKeepsToItsRules(t *testing.T) {
	a := attack(t, "G6", peer, "inner addresses and ports of another peer's rules, or of nobody's")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		block, f := s.link("peer", 0x1001, native)
		other, g := s.link("other", 0x2001, native)
		theirs := netip.MustParseAddr(map[string]string{"v4": "10.3.0.5", "v6": "fd00:3::5"}[v.name])
		s.run(closed(native) + v.gatewayRules() + fmt.Sprintf(`
rule "other" {
  action         = "protect"
  with           = "other"
  direction      = "both"
  protocol       = "udp"
  local_port     = 9999
  remote_address = %q
}
`, theirs) + block + other)
		box, shut := receive(t, s.gateway, v.any(9999)), receive(t, s.gateway, v.any(9998))
		good, evil := marker("good"), marker("evil")
		g.send(udp(t, theirs, 5000, v.self, 9999, good))
		box.await(good)
		g.send(udp(t, v.inner, 5000, v.self, 9999, evil))        // the first peer's address
		g.send(udp(t, theirs, 5000, v.self, 9998, evil))         // a port that it has no rule for
		g.send(udp(t, v.stranger, 5000, v.self, 9999, evil))     // anybody
		g.send(udp(t, v.self, 5000, v.self, 9999, evil))         // the gateway itself
		g.send(udp(t, v.loopback, 5000, v.loopback, 9999, evil)) // its loopback
		g.send(udp(t, theirs, 5000, v.lanHost, 9999, evil))
		f.send(udp(t, theirs, 5000, v.self, 9999, evil))
		f.fence()
		if box.has(evil) || shut.has(evil) {
			t.Errorf("a peer's packets outside of its rules are delivered: %d", box.count(evil)+shut.count(evil))
		}
		a.saw(v.name, "delivered outside of its rules: %d of 7", box.count(evil)+shut.count(evil))
	})
}
