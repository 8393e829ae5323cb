package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// replayed runs a capture through a policy and gives the report.
func replayed(t *testing.T, policy string, w *pcapWriter, args ...string) replayReport {
	t.Helper()
	file := t.TempDir() + "/a.pcap"
	writeFile(t, file, w.Bytes())
	r := (&run{args: append([]string{"replay", "-c", "-", "--json", file}, args...), stdin: []byte(policy)}).do()
	var x replayReport
	if err := json.Unmarshal(r.stdout.Bytes(), &x); r.exit != 0 || err != nil {
		t.Fatalf("exit %d, %v: %s", r.exit, err, r.stderr.String())
	}
	return x
}

// session is a flow as a capture has it, asker first.
type session struct {
	name string
	add  func(t *testing.T, w *pcapWriter, asker, asked string)
}

// fragments adds a datagram in two pieces.
func (w *pcapWriter) fragments(t *testing.T, s packet.Spec) {
	t.Helper()
	b, err := packet.Build(s)
	if err != nil {
		t.Fatal(err)
	}
	pieces, err := packet.Fragment(b, len(b)/2+48, 7)
	if err != nil || len(pieces) < 2 {
		t.Fatalf("%d pieces: %v", len(pieces), err)
	}
	for _, p := range pieces {
		w.frame(map[bool]uint16{false: 0x0800, true: 0x86dd}[s.Src.Is6()], p, whole)
	}
}

func ping(src, dst string, answer bool) packet.Spec {
	s := packet.Spec{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Protocol: packet.ICMP, ICMPType: 8, EchoID: 7}
	if s.Src.Is6() {
		s.Protocol, s.ICMPType = packet.ICMPv6, 128
	}
	if answer {
		s.ICMPType = map[bool]uint8{false: 0, true: 129}[s.Src.Is6()]
	}
	return s
}

var sessions = []session{
	{"tcp", func(t *testing.T, w *pcapWriter, asker, asked string) {
		a, b := netip.MustParseAddr(asker), netip.MustParseAddr(asked)
		c, s := netip.AddrPortFrom(a, 40000).String(), netip.AddrPortFrom(b, 22).String()
		w.add(t, tcp(c, s, packet.SYN, 0))
		w.add(t, tcp(s, c, packet.SYN|packet.ACK, 0))
		w.add(t, tcp(c, s, packet.ACK, 0))
		for range 3 {
			w.add(t, tcp(s, c, packet.ACK|packet.PSH, 30))
			w.add(t, tcp(c, s, packet.ACK, 20))
		}
		w.add(t, tcp(s, c, packet.FIN|packet.ACK, 0))
		w.add(t, tcp(c, s, packet.FIN|packet.ACK, 0))
		w.add(t, tcp(s, c, packet.RST, 0))
	}},
	{"tcp from its middle on", func(t *testing.T, w *pcapWriter, asker, asked string) {
		a, b := netip.MustParseAddr(asker), netip.MustParseAddr(asked)
		c, s := netip.AddrPortFrom(a, 40000).String(), netip.AddrPortFrom(b, 22).String()
		for range 3 {
			w.add(t, tcp(c, s, packet.ACK, 20))
			w.add(t, tcp(s, c, packet.ACK|packet.PSH, 30))
		}
	}},
	{"tcp from its second packet on", func(t *testing.T, w *pcapWriter, asker, asked string) {
		a, b := netip.MustParseAddr(asker), netip.MustParseAddr(asked)
		c, s := netip.AddrPortFrom(a, 40000).String(), netip.AddrPortFrom(b, 22).String()
		w.add(t, tcp(s, c, packet.SYN|packet.ACK, 0))
		w.add(t, tcp(s, c, packet.ACK|packet.PSH, 30))
		w.add(t, tcp(c, s, packet.ACK, 20))
		w.add(t, tcp(s, c, packet.ACK|packet.PSH, 30))
	}},
	{"udp", func(t *testing.T, w *pcapWriter, asker, asked string) {
		a, b := netip.MustParseAddr(asker), netip.MustParseAddr(asked)
		c, s := netip.AddrPortFrom(a, 40000).String(), netip.AddrPortFrom(b, 53).String()
		for range 2 {
			w.add(t, udp(c, s, 30))
			w.add(t, udp(s, c, 60))
			w.fragments(t, udp(s, c, 1200))
		}
	}},
	{"icmp", func(t *testing.T, w *pcapWriter, asker, asked string) {
		for range 2 {
			w.add(t, ping(asker, asked, false))
			w.add(t, ping(asked, asker, true))
			w.fragments(t, withPayload(ping(asked, asker, true), 1200))
		}
	}},
	{"an error about udp", func(t *testing.T, w *pcapWriter, asker, asked string) {
		a, b := netip.MustParseAddr(asker), netip.MustParseAddr(asked)
		q := w.add(t, udp(netip.AddrPortFrom(a, 40000).String(), netip.AddrPortFrom(b, 53).String(), 30))
		e := packet.Spec{Src: b, Dst: a, Protocol: packet.ICMP, ICMPType: 3, ICMPCode: 3, Payload: q}
		if a.Is6() {
			e.Protocol, e.ICMPType, e.ICMPCode = packet.ICMPv6, 1, 4
		}
		w.add(t, e)
	}},
	{"a protocol without ports", func(t *testing.T, w *pcapWriter, asker, asked string) {
		a, b := netip.MustParseAddr(asker), netip.MustParseAddr(asked)
		for range 2 {
			w.add(t, packet.Spec{Src: a, Dst: b, Protocol: packet.ESP, SPI: 0x1001, Payload: make([]byte, 40)})
			w.add(t, packet.Spec{Src: b, Dst: a, Protocol: packet.ESP, SPI: 0x1002, Payload: make([]byte, 40)})
		}
	}},
}

func withPayload(s packet.Spec, n int) packet.Spec {
	s.Payload = make([]byte, n)
	return s
}

// TestReplayRefusedOpener: no packet of a flow passes whose opening packet policy
// refuses, though the rules for the other direction would let its answers out.
func TestReplayRefusedOpener(t *testing.T) {
	for _, path := range []struct{ name, policy, refuser string }{
		{"in", "policy {\n  inbound = \"discard\"\n  outbound = \"bypass\"\n  essentials = false\n}\n", "(inbound default)"},
		{"out", "policy {\n  inbound = \"bypass\"\n  outbound = \"discard\"\n  essentials = false\n}\n", "(outbound default)"},
		{"in by a rule", "policy {\n  inbound = \"bypass\"\n  outbound = \"bypass\"\n  essentials = false\n}\nrule \"no\" {\n  action = \"discard\"\n  direction = \"in\"\n}\n", "no"},
		{"forward", "policy {\n  inbound = \"bypass\"\n  outbound = \"bypass\"\n  essentials = false\n}\nrule \"inside-opens\" {\n  action = \"bypass\"\n  direction = \"forward\"\n" +
			"  local_address = [\"198.51.100.1\", \"2001:db8::1\"]\n  opened_by = \"local\"\n}\n", "(forward default)"},
	} {
		for _, ends := range [][2]string{{"198.51.100.2", "198.51.100.1"}, {"192.0.2.1", "198.51.100.1"}, {"2001:db8::2", "2001:db8::1"}, {"2001:db8::", "2001:db8::1"}} {
			for _, s := range sessions {
				t.Run(fmt.Sprintf("%s/%s/%s", path.name, ends[0], s.name), func(t *testing.T) {
					args, asker, asked := []string{"--local", "198.51.100.1,2001:db8::1"}, ends[0], ends[1]
					switch path.name {
					case "out":
						asker, asked = asked, asker
					case "forward":
						args = []string{"--local", "10.9.9.9,2001:db8:9::9", "--forward", "0.0.0.0/0,::/0"}
					}
					w := newPcap()
					s.add(t, w, asker, asked)
					x := replayed(t, path.policy, w, args...)
					if x.Verdicts["bypass"] != 0 || x.Verdicts["discard"] != uint64(w.n) || x.Skipped["elsewhere"] != 0 {
						t.Errorf("%d packets: %v %v", w.n, x.Verdicts, x.Reasons)
					}
					var hits uint64
					for _, h := range x.Rules {
						if h.Flows != 0 || h.Packets != 0 && h.Name != path.refuser {
							t.Errorf("%s has %d packets and %d flows", h.Name, h.Packets, h.Flows)
						}
						hits += h.Packets
					}
					unasked := x.Reasons["tcp-state"] + x.Reasons["never-opened"]
					if hits == 0 || hits > uint64(w.n) || s.name == "tcp" && hits != uint64(w.n) || unasked == 0 {
						t.Errorf("%d packets: %s has %d; %v", w.n, path.refuser, hits, x.Reasons)
					}
				})
			}
		}
	}
}

// TestReplayRefusedThenOpened: what opens by itself after a refused packet is no
// answer to it.
func TestReplayRefusedThenOpened(t *testing.T) {
	const lock = "policy {\n  inbound = \"discard\"\n  outbound = \"bypass\"\n}\n"
	const limited = lock + "rule \"ssh\" {\n  action = \"bypass\"\n  direction = \"in\"\n  protocol = \"tcp\"\n  local_port = 22\n  limit {\n    rate = \"1/second\"\n    burst = 1\n    per = \"remote_address\"\n  }\n}\n"
	const them, us = "192.0.2.7:123", "198.51.100.1:123"
	for _, row := range []struct {
		name, policy string
		add          func(w *pcapWriter)
		bypass       uint64
	}{
		{"a SYN of the other side", lock, func(w *pcapWriter) {
			w.add(t, tcp(them, us, packet.SYN, 0))
			w.add(t, tcp(us, them, packet.SYN, 0))
			w.add(t, tcp(them, us, packet.SYN|packet.ACK, 0))
			w.add(t, tcp(us, them, packet.ACK, 9))
		}, 3},
		{"a question of the other side, after a time", lock, func(w *pcapWriter) {
			w.add(t, udp(them, us, 9))
			w.add(t, udp(us, them, 9))
			w.n += 29_000
			w.add(t, udp(us, them, 9))
			w.n += 2_000 // 30 seconds in all
			w.add(t, udp(us, them, 9))
			w.add(t, udp(them, us, 9))
		}, 2},
		{"a SYN once more, when its limit lets it in", limited, func(w *pcapWriter) {
			const ssh = "198.51.100.1:22"
			w.add(t, tcp("192.0.2.7:40000", ssh, packet.SYN, 0))
			w.add(t, tcp("192.0.2.7:40001", ssh, packet.SYN, 0)) // over the limit
			w.add(t, tcp(ssh, "192.0.2.7:40001", packet.SYN|packet.ACK, 0))
			w.n += 2_000
			w.add(t, tcp("192.0.2.7:40001", ssh, packet.ACK, 0)) // of the handshake that never was
			w.add(t, tcp("192.0.2.7:40001", ssh, packet.SYN, 0))
			w.add(t, tcp(ssh, "192.0.2.7:40001", packet.SYN|packet.ACK, 0))
			w.add(t, tcp("192.0.2.7:40001", ssh, packet.ACK, 0))
		}, 4},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newPcap()
			row.add(w)
			x := replayed(t, row.policy, w, "--local", "198.51.100.1")
			if x.Verdicts["bypass"] != row.bypass {
				t.Errorf("%v, want %d bypassed; %v", x.Verdicts, row.bypass, x.Reasons)
			}
		})
	}
}

// TestReplayRefusedGroup: whoever never got a question to a group answers nobody.
func TestReplayRefusedGroup(t *testing.T) {
	const lock = "policy {\n  inbound = \"discard\"\n  outbound = \"bypass\"\n}\n"
	w := newPcap()
	w.add(t, udp("192.0.2.7:5353", "224.0.0.251:5353", 30))
	w.add(t, udp("198.51.100.1:5353", "192.0.2.7:5353", 90))
	w.add(t, udp("192.0.2.7:5353", "198.51.100.1:5353", 90))
	w.add(t, udp("[2001:db8::7]:40000", "[ff02::c]:1900", 30))
	w.add(t, udp("[2001:db8::1]:1900", "[2001:db8::7]:40000", 90))
	if x := replayed(t, lock, w, "--local", "198.51.100.1,2001:db8::1"); x.Verdicts["discard"] != 5 {
		t.Errorf("%v %v", x.Verdicts, x.Reasons)
	}
}

// TestReplayGroupLetInLater: a question that is asked again and let in is answered.
func TestReplayGroupLetInLater(t *testing.T) {
	const limited = "policy {\n  inbound = \"discard\"\n  outbound = \"bypass\"\n}\nrule \"mdns\" {\n  action = \"bypass\"\n  direction = \"in\"\n  protocol = \"udp\"\n  local_port = 5353\n" +
		"  limit {\n    rate = \"1/second\"\n    burst = 1\n    per = \"remote_address\"\n  }\n}\n"
	w := newPcap()
	w.add(t, udp("192.0.2.7:5000", "224.0.0.251:5353", 30))
	w.add(t, udp("192.0.2.7:5001", "224.0.0.251:5353", 30)) // over the limit
	w.n += 2_000
	w.add(t, udp("192.0.2.7:5001", "224.0.0.251:5353", 30))
	w.add(t, udp("198.51.100.1:5353", "192.0.2.7:5001", 90))
	if x := replayed(t, limited, w, "--local", "198.51.100.1"); x.Verdicts["bypass"] != 3 || x.Verdicts["discard"] != 1 {
		t.Errorf("%v %v", x.Verdicts, x.Reasons)
	}
}

// TestReplayProtectedOpener: a flow that policy wants sealed and the capture has
// in the clear counts as protected, whichever side opens it, and whatever the
// rules for the answers' direction say.
func TestReplayProtectedOpener(t *testing.T) {
	workdir(t)
	for _, ends := range [][2]string{{"10.0.0.7:50000", "10.0.0.5:445"}} {
		w := newPcap()
		w.add(t, tcp(ends[0], ends[1], packet.SYN, 0))
		for range 2 {
			w.add(t, tcp(ends[1], ends[0], packet.SYN|packet.ACK, 0))
			w.add(t, tcp(ends[0], ends[1], packet.ACK, 0))
			w.add(t, tcp(ends[1], ends[0], packet.ACK, 40))
		}
		file := t.TempDir() + "/a.pcap"
		writeFile(t, file, w.Bytes())
		r := ipfw("replay", "-c", "office.hcl", "--local", "10.0.0.5", "--json", file)
		var x replayReport
		if err := json.Unmarshal(r.stdout.Bytes(), &x); err != nil || x.Verdicts["protect"] != uint64(w.n) || x.Reasons["never-opened"] != 0 {
			t.Errorf("%v of %d packets; %v: %v", x.Verdicts, w.n, x.Reasons, err)
		}
	}
}

// TestReplayRefusedText: the text for the least capture that was told wrongly: one session.
func TestReplayRefusedText(t *testing.T) {
	w := newPcap()
	sessions[0].add(t, w, "198.51.100.2", "198.51.100.1")
	file := t.TempDir() + "/one.pcap"
	writeFile(t, file, w.Bytes())
	r := (&run{args: []string{"replay", "-c", "-", "--local", "198.51.100.1", file}, stdin: []byte("policy {\n  inbound = \"discard\"\n  outbound = \"bypass\"\n}\n")}).do()
	out := r.stdout.String()
	if strings.Contains(out, "bypass  ") || !strings.Contains(out, "never-opened") || !strings.Contains(out, "bypass 0, discard 12, protect 0\n11 packets would never have been sent") {
		t.Error(out)
	}
	if bytes.Contains(r.stdout.Bytes(), []byte("tcp-state")) {
		t.Error("an answer to a refused packet was asked about")
	}
}

func writeFile(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestReplayOffloaded: packets that were captured before they were cut into
// segments have no length in their header, and count with what was captured.
func TestReplayOffloaded(t *testing.T) {
	const open = "policy {\n  inbound = \"bypass\"\n  outbound = \"bypass\"\n}\n"
	w := newPcap()
	var want uint64
	for _, ends := range [][2]string{{"192.0.2.7:40000", "198.51.100.1:80"}, {"[2001:db8::7]:40000", "[2001:db8::1]:80"}} {
		w.add(t, tcp(ends[0], ends[1], packet.SYN, 0))
		w.add(t, tcp(ends[1], ends[0], packet.SYN|packet.ACK, 0))
		s := tcp(ends[1], ends[0], packet.ACK, 100)
		b, err := packet.Build(s)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, make([]byte, 180_000)...)
		typ := uint16(0x0800)
		if s.Src.Is6() {
			typ = 0x86dd
			b[4], b[5] = 0, 0
			want += 2 * 60
		} else {
			b[2], b[3] = 0, 0
			want += 2 * 40
		}
		w.frame(typ, b, 200_000)
		w.frame(typ, b, 96) // as tcpdump -s 96 has it
		want += 2 * uint64(len(b))
	}
	x := replayed(t, open, w, "--local", "198.51.100.1,2001:db8::1")
	var got uint64
	for _, f := range x.Flows {
		got += f.Bytes
	}
	if x.Verdicts["bypass"] != 8 || len(x.Malformed) != 0 || got != want || len(x.Flows) != 2 {
		t.Errorf("%v, malformed %v, %d bytes in %d flows, want %d", x.Verdicts, x.Malformed, got, len(x.Flows), want)
	}
	// The guess of who this host is reads them too.
	if c, _, _, err := guessLocal(bytes.NewReader(w.Bytes())); err != nil || len(c) != 2 {
		t.Errorf("%v, %v", c, err)
	}
}
