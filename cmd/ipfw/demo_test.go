package main

import (
	"bytes"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/host"
	"github.com/ipfw/ipfw/packet"
)

const demoRequest = "GET " + filesPath + " HTTP/1.1\r\nHost: 10.0.0.2:445\r\nUser-Agent: Go-http-client/1.1\r\n\r\n"

// demoSPI is the SA of the tests.
const demoSPI = 0x1001

// demoFrames is the request as the client's SA seals it, in an Ethernet frame,
// and the same in the clear.
func demoFrames(t *testing.T, f *sealedFlow) (sealed, inClear frame) {
	t.Helper()
	suite, err := esp.NewSuite(esp.ESP, "aes-256-gcm-16", "")
	if err != nil {
		t.Fatal(err)
	}
	conf := esp.Config{SPI: demoSPI, Mode: esp.Transport, Suite: suite, ESN: true, Src: keyedAddr, Dst: filesAddr}
	conf.EncryptionKey = esp.NewKey(bytes.Repeat([]byte{7}, suite.KeyMaterial()))
	f.keys = conf
	f.keys.Direction, f.keys.EncryptionKey = esp.In, esp.NewKey(bytes.Repeat([]byte{7}, suite.KeyMaterial()))
	conf.Direction = esp.Out
	sa, err := esp.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	pkt, err := packet.Build(packet.Spec{Src: keyedAddr, Dst: filesAddr, Protocol: packet.TCP, SrcPort: 40000, DstPort: filesPort,
		TCPFlags: packet.ACK, Payload: []byte(demoRequest)})
	if err != nil {
		t.Fatal(err)
	}
	header := append(make([]byte, 12), 8, 0)
	out, _, fault := sa.Seal(slices.Clip(header), pkt, 0)
	if fault != esp.OK {
		t.Fatal(fault)
	}
	return out, append(slices.Clip(header), pkt...)
}

// TestDemoLooks: the demo finds the sealed request on the cable, and says so
// when anything else is there.
func TestDemoLooks(t *testing.T) {
	for _, row := range []struct {
		want   string // what it says, "" for nothing
		frames func(sealed, inClear frame) []frame
	}{
		{"", func(s, _ frame) []frame { return []frame{s} }},
		{"", func(s, _ frame) []frame { return []frame{nil, s[:20], s} }}, // no datagrams: not the connection's
		{`"/payroll.txt" was to be read on the cable`, func(s, c frame) []frame { return []frame{s, c} }},
		{"a packet of protocol 6 crossed in the clear", func(s, c frame) []frame {
			return []frame{s, append(slices.Clone(c[:etherHeader+40]), bytes.Repeat([]byte("x"), len(c)-etherHeader-40)...)}
		}},
		{"no packet on the cable holds the request", func(frame, frame) []frame { return nil }},
		{"the key does not open what was on the cable: unauthentic", func(s, _ frame) []frame {
			bad := bytes.Clone(s)
			bad[len(bad)-1] ^= 1
			return []frame{bad}
		}},
		{"the key does not open what was on the cable: replay", func(s, _ frame) []frame { return []frame{s, s} }},
	} {
		f, err := newSealedFlow(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		f.Clear = hexBytes(demoRequest)
		f.look(row.frames(demoFrames(t, f)))
		if got := strings.Join(f.Disagree, "; "); (row.want == "") != (got == "") || !strings.Contains(got, row.want) {
			t.Errorf("want %q, the demo says %q", row.want, got)
		}
		if row.want == "" && (f.SPI != demoSPI || f.Sequence != 1 || f.ESPPackets != 1 || bytes.Contains(f.Wire, []byte("GET"))) {
			t.Errorf("SPI %#x, number %d, %d packets", f.SPI, f.Sequence, f.ESPPackets)
		}
	}
}

// TestDemoCounts: the demo finds counters that do not fit one another, or what
// was on the cable.
func TestDemoCounts(t *testing.T) {
	status := func(sealed, opened uint64) host.Status {
		return host.Status{SAs: 2, Rules: []host.RuleStatus{{Name: "smb", Flows: 1}}, Queue: host.QueueStatus{Sealed: sealed, Opened: opened}}
	}
	for _, row := range []struct {
		good   bool
		change func(f *sealedFlow, client, server *host.Status)
	}{
		{true, func(*sealedFlow, *host.Status, *host.Status) {}},
		{false, func(f *sealedFlow, _, _ *host.Status) { f.ESPPackets++ }},
		{false, func(_ *sealedFlow, c, _ *host.Status) { c.Queue.Opened-- }},
		{false, func(_ *sealedFlow, _, s *host.Status) { s.Queue.Opened-- }},
		{false, func(_ *sealedFlow, _, s *host.Status) { s.Queue.Unsent++ }},
		{false, func(_ *sealedFlow, c, _ *host.Status) { c.SAs = 0 }},
		{false, func(_ *sealedFlow, _, s *host.Status) { s.Rules[0].Flows = 2 }},
	} {
		f, client, server := &sealedFlow{Rule: "smb", ESPPackets: 9}, status(5, 4), status(4, 5)
		row.change(f, &client, &server)
		f.count(&client, &server)
		if (len(f.Disagree) == 0) != row.good {
			t.Errorf("good %t, the demo says %q", row.good, f.Disagree)
		}
	}
}

// TestDemoRefusals: what imitates the flow has to be discarded, for the right
// reason, and without an answer.
func TestDemoRefusals(t *testing.T) {
	build := func(src, dst netip.Addr, srcPort, dstPort uint16) frame {
		b, err := packet.Build(packet.Spec{Src: src, Dst: dst, Protocol: packet.TCP, SrcPort: srcPort, DstPort: dstPort, TCPFlags: packet.SYN})
		if err != nil {
			t.Fatal(err)
		}
		return append(append(make([]byte, 12), 8, 0), b...)
	}
	syn, answer := build(barredAddr, filesAddr, 40000, filesPort), build(filesAddr, barredAddr, filesPort, 40000)
	for _, row := range []struct {
		good    bool
		through bool
		counted uint64
		opened  uint64
		flows   uint64
		frames  []frame
	}{
		{true, false, 1, 0, 0, []frame{syn}},
		{true, false, 2, 0, 0, []frame{syn, syn}},
		{false, false, 1, 0, 0, []frame{syn, syn}},
		{false, false, 0, 0, 0, nil},
		{false, true, 1, 0, 0, []frame{syn}},
		{false, false, 1, 1, 0, []frame{syn}},
		{false, false, 1, 0, 1, []frame{syn}},
		{false, false, 1, 0, 0, []frame{syn, answer}},
	} {
		f, r := &sealedFlow{Rule: "smb"}, &refusal{What: "clear text", Reason: "clear-text", Through: row.through}
		before := host.Status{Rules: []host.RuleStatus{{Name: "smb", Flows: 1}}, Reasons: map[string]uint64{"clear-text": 7}}
		after := host.Status{Rules: []host.RuleStatus{{Name: "smb", Flows: 1 + row.flows}}, Reasons: map[string]uint64{"clear-text": 7 + row.counted},
			Queue: host.QueueStatus{Opened: row.opened}}
		f.check(r, &before, &after, row.frames)
		if (len(f.Disagree) == 0) != row.good {
			t.Errorf("%+v: the demo says %q", row, f.Disagree)
		}
	}
}

// sampleFlow is what the second half of a demo comes to.
func sampleFlow() *sealedFlow {
	f := &sealedFlow{From: keyedAddr.String(), To: "10.0.0.2:445", Expected: "protect", Rule: "smb", Place: "client.hcl:6",
		Mode: "esp transport", Suite: "aes-256-gcm-16", Through: true, Answer: "HTTP 200 OK", Took: 0.0011,
		Clear: hexBytes(demoRequest), SPI: demoSPI, Sequence: 3, ESPPackets: 11, IKEPackets: 6, ClientSealed: 6, ServerOpened: 6, ServerSealed: 5, ClientOpened: 5,
		Refused: []*refusal{{What: "clear text from 10.0.0.8", Reason: "clear-text", Answer: "no answer", Took: 0.701, Packets: 1, Counted: 1},
			{What: "its sealed packet, sent again", Reason: "ipsec-replay", Answer: "no answer", Packets: 1, Counted: 1}}}
	for i := range 60 { // less than is shown
		f.Wire = append(f.Wire, byte(i*5))
	}
	return f
}

// demoOf prints what a demo prints that comes to f.
func (r *run) demoOf(f *sealedFlow, asJSON, tty bool) {
	a := &app{stdout: &r.stdout, stderr: &r.stderr, stdoutTTY: tty, getenv: func(string) string { return "" }}
	s := newScreen(a, asJSON)
	s.row(&probe{Who: "a stranger", From: "203.0.113.9", To: "198.51.100.10:22", Packet: "in tcp 203.0.113.9:any -> 198.51.100.10:22",
		Expected: "discard", Answer: "no answer", Took: 0.7, Packets: 1})
	s.row(&probe{Who: "a stranger", From: "203.0.113.9", To: "198.51.100.10:443", Packet: "in tcp 203.0.113.9:any -> 198.51.100.10:443",
		Expected: "bypass", Rule: "web", Place: "profile:web-server:15", Through: true, Answer: "HTTP 200 OK", Took: 0.0042, Flows: 1, Packets: 6,
		Disagree: []string{"the dry run says bypass, the network says no answer"}})
	s.beginSealed(f, host.Status{PID: 4711}, host.Status{PID: 4712, Queue: host.QueueStatus{Kernel: "6.12.117", UpBy: "queue", ESPBy: "hook", TableOwned: true}})
	s.sealedRow(f)
	for _, x := range f.Refused {
		s.refusedRow(x)
	}
	s.endSealed(f)
	s.end()
}

// TestDemoScreen compares rows of the first half of the screen, and the second, with
// golden files.
func TestDemoScreen(t *testing.T) {
	golden, err := filepath.Abs("testdata/golden")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		json, tty bool
		wrong     string
	}{{"demo-sealed", false, false, ""}, {"demo-sealed-color", false, true, ""}, {"demo-sealed-json", true, false, ""}, {"demo-sealed-wrong", false, false, "no packet on the cable holds the request"}} {
		r, f := &run{args: []string{"demo"}}, sampleFlow()
		if c.wrong != "" {
			f.differ("%s", c.wrong)
		}
		r.demoOf(f, c.json, c.tty)
		r.compare(t, filepath.Join(golden, c.name+".txt"))
	}
}

// TestReasonsAddUp: a packet without a reason, with two, or lost on the way is
// found; what the kernel carries of flows that were let through is none of them.
func TestReasonsAddUp(t *testing.T) {
	for _, row := range []struct {
		good                     bool
		packets, dropped         uint64
		rule, flow               uint64
		carried, again, accepted uint64
		lost                     uint64
	}{
		{true, 10, 4, 6, 4, 0, 0, 6, 0},
		{false, 10, 4, 6, 3, 0, 0, 6, 0},
		{false, 10, 4, 6, 5, 0, 0, 6, 0},
		{true, 10, 4, 10, 60, 60, 0, 6, 0},
		{false, 10, 4, 10, 60, 59, 0, 6, 0},
		{true, 10, 4, 10, 63, 60, 3, 6, 0},
		{false, 10, 4, 10, 63, 60, 2, 6, 0},
		{false, 10, 4, 6, 4, 0, 0, 5, 0},
		{false, 10, 4, 6, 4, 0, 0, 6, 1},
	} {
		st := host.Status{Reasons: map[string]uint64{"rule": row.rule, "flow": row.flow}, Carried: row.carried, JudgedAgain: row.again,
			Queue: host.QueueStatus{Packets: row.packets, Accepted: row.accepted, Dropped: row.dropped, QueueDropped: row.lost}}
		if err := reasonsAddUp(&st); (err == nil) != row.good {
			t.Errorf("%+v: %v", row, err)
		}
	}
}
