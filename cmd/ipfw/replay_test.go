package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// pcapWriter writes a capture of Ethernet frames, one each millisecond.
type pcapWriter struct {
	bytes.Buffer
	n int
}

func newPcap() *pcapWriter {
	w := new(pcapWriter)
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xa1b2c3d4)
	b = le.AppendUint16(le.AppendUint16(b, 2), 4)
	b = append(b, make([]byte, 8)...)
	w.Write(le.AppendUint32(le.AppendUint32(b, 65535), 1))
	return w
}

// frame adds a frame of which the capture holds at most keep bytes.
func (w *pcapWriter) frame(ethertype uint16, payload []byte, keep int) {
	le := binary.LittleEndian
	f := binary.BigEndian.AppendUint16(make([]byte, 12), ethertype)
	f = append(f, payload...)
	kept := min(keep, len(f))
	b := le.AppendUint32(nil, uint32(1700000000+w.n/1000))
	b = le.AppendUint32(b, uint32(w.n%1000*1000))
	b = le.AppendUint32(le.AppendUint32(b, uint32(kept)), uint32(len(f)))
	w.Write(b)
	w.Write(f[:kept])
	w.n++
}

const whole = 1 << 16

// add adds a packet.
func (w *pcapWriter) add(t testing.TB, s packet.Spec) []byte {
	t.Helper()
	b, err := packet.Build(s)
	if err != nil {
		t.Fatal(err)
	}
	typ := uint16(0x0800)
	if s.Src.Is6() {
		typ = 0x86dd
	}
	w.frame(typ, b, whole)
	return b
}

// tcp, udp are packets from end to end.
func tcp(src, dst string, flags uint8, payload int) packet.Spec {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	return packet.Spec{Src: s.Addr(), Dst: d.Addr(), Protocol: packet.TCP, SrcPort: s.Port(), DstPort: d.Port(),
		TCPFlags: flags, Seq: 1, Ack: 1, Payload: make([]byte, payload)}
}

func udp(src, dst string, payload int) packet.Spec {
	s := tcp(src, dst, 0, payload)
	s.Protocol, s.TCPFlags, s.Seq, s.Ack = packet.UDP, 0, 0, 0
	return s
}

func echo(src, dst string, typ uint8) packet.Spec {
	return packet.Spec{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Protocol: packet.ICMP, ICMPType: typ, EchoID: 7}
}

// testCapture has something for every line of a report.
func testCapture(t testing.TB) []byte {
	w := newPcap()
	const syn, ack, synAck = packet.SYN, packet.ACK, packet.SYN | packet.ACK
	for _, ends := range [][2]string{{"203.0.113.9:40000", "198.51.100.10:443"}, {"[2001:db8:9::9]:40000", "[2001:db8::10]:80"}} {
		w.add(t, tcp(ends[0], ends[1], syn, 0))
		w.add(t, tcp(ends[1], ends[0], synAck, 0))
		w.add(t, tcp(ends[0], ends[1], ack, 100))
		w.add(t, tcp(ends[1], ends[0], ack, 1000))
	}
	for range 3 {
		w.add(t, tcp("203.0.113.9:40001", "198.51.100.10:5432", syn, 0))
	}
	w.add(t, tcp("198.51.100.10:50000", "203.0.113.9:23", syn, 0))
	w.add(t, tcp("203.0.113.77:40002", "198.51.100.10:443", ack, 10)) // was open before
	w.add(t, udp("198.51.100.10:53001", "192.0.2.53:53", 30))
	w.add(t, udp("192.0.2.53:53", "198.51.100.10:53001", 60))
	w.add(t, echo("198.51.100.10", "192.0.2.1", 8))
	w.add(t, echo("192.0.2.1", "198.51.100.10", 0))
	w.add(t, echo("192.0.2.1", "198.51.100.10", 8))
	w.add(t, tcp("10.0.0.7:50000", "10.0.0.5:445", syn, 0))
	w.add(t, udp("203.0.113.5:5353", "224.0.0.251:5353", 20))
	w.frame(0x0806, make([]byte, 46), whole) // ARP
	w.add(t, udp("10.1.0.5:1000", "10.2.0.5:2000", 10))
	w.add(t, udp("198.51.100.10:7", "10.0.0.5:7", 10))
	bad := w.add(t, tcp("203.0.113.9:40003", "198.51.100.10:443", ack, 0))
	bad = bytes.Clone(bad)
	bad[20+12] = 0x10 // a TCP header of 4 bytes
	w.frame(0x0800, bad, whole)
	w.frame(0x0800, bad, 14+30) // cut by the snapshot length
	w.frame(0x0800, bad, 10)
	return w.Bytes()
}

// answersCapture has questions to groups, answers of neighbours and of others, and
// what comes too late.
func answersCapture(t testing.TB) []byte {
	w := newPcap()
	w.add(t, udp("192.168.1.9:1900", "192.168.1.7:50000", 30)) // nobody has asked
	w.add(t, udp("192.168.1.7:50000", "239.255.255.250:1900", 90))
	w.add(t, udp("192.168.1.9:40000", "192.168.1.7:50000", 300))
	w.add(t, udp("203.0.113.9:1900", "192.168.1.7:50000", 300))
	w.add(t, udp("192.168.1.9:1900", "192.168.1.7:50001", 300))
	w.add(t, udp("192.168.1.7:137", "192.168.1.255:137", 50))
	w.add(t, udp("192.168.1.9:137", "192.168.1.7:137", 62))
	w.add(t, udp("[fe80::7]:50000", "[ff02::1:3]:5355", 30))
	w.add(t, udp("[fe80::9]:5355", "[fe80::7]:50000", 60))
	w.n += 6001 // milliseconds
	w.add(t, udp("192.168.1.9:40000", "192.168.1.7:50000", 300))
	w.add(t, udp("[fe80::9]:5355", "[fe80::7]:50000", 60))
	return w.Bytes()
}

// guessable is a capture in which one address of each family stands out.
func guessable(t testing.TB) []byte {
	w := newPcap()
	for i := range 10 {
		w.add(t, tcp(fmt.Sprintf("203.0.113.%d:40000", i), "198.51.100.10:443", packet.SYN, 0))
		w.add(t, tcp("198.51.100.10:443", fmt.Sprintf("203.0.113.%d:40000", i), packet.SYN|packet.ACK, 0))
		w.add(t, udp(fmt.Sprintf("[2001:db8:9::%d]:1000", i), "[2001:db8::10]:2000", 8))
	}
	return w.Bytes()
}

// onePacket is a capture of a single packet.
func onePacket(t testing.TB) []byte {
	w := newPcap()
	w.add(t, tcp("203.0.113.9:40001", "198.51.100.10:5432", packet.SYN, 0))
	return w.Bytes()
}

// TestReplayFile reads the same capture from a file, plain and compressed.
func TestReplayFile(t *testing.T) {
	capture := testCapture(t)
	workdir(t)
	args := func(path string) []string {
		return []string{"replay", "-c", "office.hcl", "--local", "198.51.100.10,2001:db8::10", path}
	}
	want := (&run{args: args("-"), stdin: capture}).do()
	if want.exit != 0 {
		t.Fatal(want.stderr.String())
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(capture)
	z.Close()
	for name, text := range map[string][]byte{"a.pcap": capture, "a.pcap.gz": packed.Bytes(), "misnamed": packed.Bytes()} {
		if err := os.WriteFile(name, text, 0o644); err != nil {
			t.Fatal(err)
		}
		got := (&run{args: args(name), tty: true, env: map[string]string{"NO_COLOR": "1"}}).do()
		if got.exit != 0 || got.stdout.String() != want.stdout.String() {
			t.Errorf("%s: exit %d\n%s\nwant\n%s", name, got.exit, got.stdout.String(), want.stdout.String())
		}
		if !strings.Contains(got.stderr.String(), "packets in ") {
			t.Errorf("%s: no summary on the terminal: %q", name, got.stderr.String())
		}
	}
}

// TestReplayAddsUp: every frame of a capture is in exactly one count.
func TestReplayAddsUp(t *testing.T) {
	capture := testCapture(t)
	workdir(t)
	for _, extra := range [][]string{{"--local", "198.51.100.10"}, {"--local", "0.0.0.0/0"}, {"--forward", "0.0.0.0/0", "--local", "10.9.9.9"}} {
		r := (&run{args: append([]string{"replay", "-c", "office.hcl", "--json", "-"}, extra...), stdin: capture}).do()
		var x replayReport
		if err := json.Unmarshal(r.stdout.Bytes(), &x); err != nil {
			t.Fatalf("%v: %v: %s", extra, err, r.stderr.String())
		}
		sum := func(m map[string]uint64) (n uint64) {
			for _, v := range m {
				n += v
			}
			return n
		}
		var flows, hits uint64
		for _, f := range x.Flows {
			flows += f.Packets
		}
		for _, h := range x.Rules {
			hits += h.Packets
		}
		malformed := sum(x.Malformed)
		if n := sum(x.Verdicts) + sum(x.Skipped); n != x.Capture.Packets {
			t.Errorf("%v: %d packets, verdicts and skipped add up to %d", extra, x.Capture.Packets, n)
		}
		if n := sum(x.Verdicts) - malformed; flows != n {
			t.Errorf("%v: flows have %d packets, want %d", extra, flows, n)
		}
		if n := sum(x.Reasons); n != sum(x.Verdicts) {
			t.Errorf("%v: reasons have %d packets, want %d", extra, n, sum(x.Verdicts))
		}
	}
}

// TestFlowLinesAreTrials: what the report prints can be pasted into explain.
func TestFlowLinesAreTrials(t *testing.T) {
	capture := testCapture(t)
	workdir(t)
	r := (&run{args: []string{"replay", "-c", "office.hcl", "--json", "--local", "198.51.100.10,2001:db8::10,10.0.0.5", "--forward", "10.1.0.0/16", "-"}, stdin: capture}).do()
	var x replayReport
	if err := json.Unmarshal(r.stdout.Bytes(), &x); err != nil {
		t.Fatal(err)
	}
	if len(x.Flows) < 10 {
		t.Fatalf("only %d flows", len(x.Flows))
	}
	for _, f := range x.Flows {
		if _, err := engine.ParseTrial(f.Flow); err != nil {
			t.Errorf("%q: %v", f.Flow, err)
		}
		if f.Reason != "rule" {
			continue
		}
		e := ipfw("explain", "-c", "office.hcl", "--json", f.Flow)
		var got explanation
		if err := json.Unmarshal(e.stdout.Bytes(), &got); err != nil || got.Verdict != f.Verdict {
			t.Errorf("%q: replay says %s, explain %s (%v)", f.Flow, f.Verdict, got.Verdict, err)
		}
	}
}

func TestProgress(t *testing.T) {
	p := progress{total: 1000, read: 250}
	if got, want := p.text(5, 10*time.Second), "[=======                       ]  25 %  5 packets, 30s left"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	p.total = 0
	if got := p.text(5, time.Second); got != "5 packets" {
		t.Errorf("got %q", got)
	}
}

// BenchmarkReplay runs a capture of a million packets of 20,000 flows, as
// `ipfw replay` does, and reports packets per second.
func BenchmarkReplay(b *testing.B) {
	const packets, flows = 1_000_000, 20_000
	w := newPcap()
	w.Grow(packets * 100)
	for i := range packets {
		client := fmt.Sprintf("10.%d.%d.%d:40000", i%flows>>16, i%flows>>8&255, i%flows&255)
		switch n := i / flows; {
		case n == 0:
			w.add(b, tcp(client, "198.51.100.10:443", packet.SYN, 0))
		case n%2 == 0:
			w.add(b, tcp(client, "198.51.100.10:443", packet.ACK, 20))
		default:
			w.add(b, tcp("198.51.100.10:443", client, packet.ACK, 20))
		}
	}
	file := b.TempDir() + "/million.pcap"
	if err := os.WriteFile(file, w.Bytes(), 0o644); err != nil {
		b.Fatal(err)
	}
	policy, err := os.ReadFile("testdata/policies/office.hcl")
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for b.Loop() {
		r := (&run{args: []string{"replay", "-c", "-", "--local", "198.51.100.10", "--json", file}, stdin: policy}).do()
		if r.exit != 0 {
			b.Fatal(r.stderr.String())
		}
	}
	b.ReportMetric(float64(packets)*float64(b.N)/b.Elapsed().Seconds(), "packets/s")
}

// TestReplayProtectedFlow: a flow that would leave sealed opens in a dry run
// too, so that its answers, which the capture has in the clear, are known for
// what they are.
func TestReplayProtectedFlow(t *testing.T) {
	workdir(t)
	w := newPcap()
	spec := packet.Spec{Src: netip.MustParseAddr("198.51.100.1"), Dst: netip.MustParseAddr("192.0.2.7"), Protocol: packet.TCP,
		SrcPort: 40000, DstPort: 445, TCPFlags: packet.SYN}
	w.add(t, spec)
	spec.Src, spec.Dst, spec.SrcPort, spec.DstPort, spec.TCPFlags = spec.Dst, spec.Src, 445, 40000, packet.SYN|packet.ACK
	w.add(t, spec)
	r := (&run{args: []string{"replay", "-c", "branch.hcl", "--local", "198.51.100.1", "--packets", "--json", "-"}, stdin: w.Bytes()}).do()
	lines := strings.Split(strings.TrimSpace(r.stdout.String()), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], `"verdict":"protect","reason":"rule"`) || !strings.Contains(lines[1], `"verdict":"protect","reason":"clear-text"`) {
		t.Errorf("%s%s", r.stdout.String(), r.stderr.String())
	}
}
