package engine

import (
	"testing"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

func offers(mss uint16) func(*packet.Spec) {
	return func(s *packet.Spec) {
		if mss != 0 {
			s.TCPOptions = []byte{2, 4, byte(mss >> 8), byte(mss)}
		}
	}
}

// The pieces of a packet in which the kernel has put many segments together are
// no longer than the other side's SYN allows.
func TestSegmentsFitTheOtherSide(t *testing.T) {
	for _, row := range []struct {
		name    string
		offered uint16 // in the SYN of b; 0: nothing
		later   uint16 // in one that comes when the connection is up
		longest int
	}{
		{"as large as the tunnel", 1460, 0, 0},
		{"less", 1000, 0, 1040},
		{"nothing is said", 0, 0, 576},
		{"absurdly little", 1, 0, 40 + leastMSS},
		{"a SYN in the middle changes nothing", 1000, 200, 1040},
	} {
		h := newHosts(t, esp.Tunnel)
		back := &hosts{TB: t, a: h.b, b: h.a}
		send := func(from *hosts, line string, changes ...func(*packet.Spec)) {
			in := from.packet(line, changes...)
			for _, b := range from.wire(&in, Protect) {
				if r, _ := from.arrive(b); r.Verdict != Protect {
					t.Fatalf("%s: %s: %v (%v)", row.name, line, r.Verdict, r.Reason)
				}
			}
		}
		const there, hither = "out tcp 10.0.0.5:40000 -> 10.0.0.7:445", "out tcp 10.0.0.7:445 -> 10.0.0.5:40000"
		send(h, there, numbers(99, 0), flags(packet.SYN), offers(1460))
		send(back, hither, numbers(499, 100), flags(packet.SYN|packet.ACK), offers(row.offered))
		send(h, there, numbers(100, 500), flags(packet.ACK))
		if row.later != 0 {
			send(back, hither, numbers(499, 100), flags(packet.SYN|packet.ACK), offers(row.later))
		}
		in := h.packet(there, numbers(100, 500), flags(packet.ACK), data(20000))
		got := 0
		for _, b := range h.wire(&in, Protect) {
			r, opened := h.arrive(b)
			if r.Verdict != Protect {
				t.Fatalf("%s: %v (%v)", row.name, r.Verdict, r.Reason)
			}
			got = max(got, len(opened))
		}
		if row.longest != 0 && got != row.longest || row.longest == 0 && got < 1300 {
			t.Errorf("%s: the longest piece has %d bytes, want %d", row.name, got, row.longest)
		}
	}
}

// What routers say of the path counts within bounds, and never for more than
// what was known.
func TestFlowHearsPathMTU(t *testing.T) {
	for _, row := range []struct {
		v6        bool
		was, says uint16
		want      uint16
	}{
		{false, 0, 1300, 1300},
		{false, 1000, 1300, 1000},
		{false, 1500, 68, leastPathMTU},
		{false, 1500, 0, 1500}, // RFC 1191 section 4: a router that does not say
		{true, 1500, 1300, 1300},
		{true, 1500, 600, minMTU6},
	} {
		spec := packet.Spec{Protocol: packet.ICMP, ICMPType: 3, ICMPCode: 4, Payload: make([]byte, 40)}
		f := flow{key: flowKey{proto: packet.TCP}, longest: [2]uint16{1: row.was}}
		spec.Src, spec.Dst = addrs(t, "10.0.0.9")[0].First, addrs(t, "10.0.0.5")[0].First
		if row.v6 {
			f.key.path = pathIPv6
			spec.Protocol, spec.ICMPType, spec.ICMPCode = packet.ICMPv6, 2, 0
			spec.Src, spec.Dst = addrs(t, "fd00::9")[0].First, addrs(t, "fd00::5")[0].First
		}
		spec.EchoSeq = row.says
		b, err := packet.Build(spec)
		if err != nil {
			t.Fatal(err)
		}
		var p packet.Packet
		if fault := packet.Parse(&p, b, len(b)); fault != packet.OK {
			t.Fatal(fault)
		}
		f.hearPathMTU(&p, 1)
		if f.longest[1] != row.want || f.longest[0] != 0 {
			t.Errorf("%+v: %v", row, f.longest)
		}
	}
}
