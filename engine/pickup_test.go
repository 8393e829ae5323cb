package engine

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// A transport mode SA is with one peer: a packet that says to be from another
// address of the rule's range does not pass, however authentic it is (RFC 4301
// section 5.2 step 4).
func TestTransportHoldsToItsPeer(t *testing.T) {
	h := newHosts(t, esp.Transport)
	in := h.packet("out udp 10.0.0.5:40000 -> 10.0.0.7:445")
	sent := h.wire(&in, Protect)[0]
	forged := bytes.Clone(sent)
	forged[15] = 66 // source 10.0.0.66, which ESP does not cover
	if r, opened := h.arrive(forged); r.Verdict != Discard || r.Reason != ReasonWrongSA || opened != nil {
		t.Errorf("from 10.0.0.66: %v (%v)", r.Verdict, r.Reason)
	}
	in = h.packet("out udp 10.0.0.5:40000 -> 10.0.0.7:445")
	if r, _ := h.arrive(h.wire(&in, Protect)[0]); r.Verdict != Protect {
		t.Errorf("from the peer: %v (%v)", r.Verdict, r.Reason)
	}
}

// An engine that takes over knows no flows. The kernel says that it let this
// one through, and may take the answer of a flow for its first packet, because
// it never saw the clear one that was replaced.
func TestPickUpProtectedFlow(t *testing.T) {
	outOnly := &Policy{Rules: []Rule{{Name: "lan", Action: Protect, With: "lan", Out: true,
		Selector: Selector{Remote: addrs(t, "10.0.0.0/24")}}}}
	for _, row := range []struct {
		name           string
		tracked, reply bool
		dir            Direction
		sa             string
		verdict        Verdict
		reason         Reason
		line           string
	}{
		{"ours, as the kernel saw it", true, false, Out, "", Protect, ReasonRule, "out tcp 10.0.0.5:40000 -> 10.0.0.7:445"},
		{"ours, seen from its answer on", true, true, Out, "", Protect, ReasonRule, "out tcp 10.0.0.5:40000 -> 10.0.0.7:445"},
		{"its answer, out of the SA", true, false, In, "lan", Protect, ReasonRule, "in tcp 10.0.0.7:445 -> 10.0.0.5:40000"},
		{"its answer, of a flow nobody let through", false, false, In, "lan", Discard, ReasonTCPState, "in tcp 10.0.0.7:445 -> 10.0.0.5:40000"},
		{"its answer in the clear", true, true, In, "", Discard, ReasonClear, "in tcp 10.0.0.7:445 -> 10.0.0.5:40000"},
		{"out of another SA", true, false, In, "other", Discard, ReasonDefault, "in tcp 10.0.0.7:445 -> 10.0.0.5:40000"},
	} {
		e := New(outOnly, Options{Outbound: someSA})
		in := (&bench{TB: t, now: second}).input(row.line, flags(packet.ACK), func(s *packet.Spec) { s.TCPFlags = packet.ACK })
		in.Tracked, in.Reply, in.SA = row.tracked, row.reply, row.sa
		if r := e.Judge(&in); r.Verdict != row.verdict || r.Reason != row.reason && row.verdict != Discard {
			t.Errorf("%s: %v (%v), want %v (%v)", row.name, r.Verdict, r.Reason, row.verdict, row.reason)
		}
	}
}

// An ICMP error about a sealed packet reaches whoever keeps SAs, with what it
// quotes; one about anything else, or to another host, does not.
func TestPathReport(t *testing.T) {
	var heard []string
	e := New(&Policy{Default: [directionCount]Verdict{Bypass, Bypass, Bypass}}, Options{
		PathReport: func(q *packet.Packet, mtu int, _ int64) bool {
			heard = append(heard, q.Dst.String())
			if mtu != 1400 || q.SPI != 0x1002 {
				t.Errorf("MTU %d, SPI %#x", mtu, q.SPI)
			}
			return true
		},
	})
	quote := func(proto uint8, src string) []byte {
		b, err := packet.Build(packet.Spec{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(hostB),
			Protocol: proto, SPI: 0x1002, SrcPort: 1, DstPort: 2, Payload: make([]byte, 1400)})
		if err != nil {
			t.Fatal(err)
		}
		return b[:28]
	}
	for _, row := range []struct {
		quoted []byte
		heard  int
	}{
		{quote(packet.ESP, hostA), 1},
		{quote(packet.AH, hostA), 1},
		{quote(packet.TCP, hostA), 0},
		{quote(packet.ESP, "10.0.0.99"), 0}, // not a packet of the host that hears of it
		{quote(packet.ESP, hostA)[:20], 0},
	} {
		heard = nil
		b, err := packet.Build(packet.Spec{Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr(hostA),
			Protocol: packet.ICMP, ICMPType: 3, ICMPCode: 4, EchoSeq: 1400, Payload: row.quoted})
		if err != nil {
			t.Fatal(err)
		}
		in := Input{Dir: In, Now: second}
		if f := packet.Parse(&in.Packet, b, len(b)); f != packet.OK {
			t.Fatal(f)
		}
		in.Packet.Bytes[in.Packet.Transport+6], in.Packet.Bytes[in.Packet.Transport+7] = 1400>>8, 1400&0xff
		e.Process(&in, new(Output))
		if len(heard) != row.heard {
			t.Errorf("quoting % x: heard %v, want %d", row.quoted, heard, row.heard)
		}
	}
}

// After a takeover a peer that may only be called opens nothing: not by a SYN, of
// whatever the kernel says of the flow, and not by anything of a flow that no ipfw
// had let through. What one had goes on.
func TestTakeoverOpensNothing(t *testing.T) {
	outOnly := &Policy{Rules: []Rule{{Name: "lan", Action: Protect, With: "lan", Out: true,
		Selector: Selector{Remote: addrs(t, "10.0.0.0/24")}}}}
	for _, row := range []struct {
		line      string
		flags     uint8
		inherited bool
		want      Verdict
	}{
		{"in tcp 10.0.0.7:40000 -> 10.0.0.5:22", packet.SYN, true, Discard},
		{"in tcp 10.0.0.7:40000 -> 10.0.0.5:22", packet.SYN, false, Discard},
		{"in tcp 10.0.0.7:40000 -> 10.0.0.5:22", packet.ACK, false, Discard},
		{"in tcp 10.0.0.7:445 -> 10.0.0.5:40000", packet.ACK, true, Protect},
		{"in tcp 10.0.0.7:445 -> 10.0.0.5:40000", packet.SYN | packet.ACK, false, Discard},
		{"in udp 10.0.0.7:40000 -> 10.0.0.5:53", 0, false, Discard},
		{"in udp 10.0.0.7:53 -> 10.0.0.5:40000", 0, true, Protect},
		{"in gre 10.0.0.7 -> 10.0.0.5", 0, false, Discard},
		{"in icmp echo-request 10.0.0.7 -> 10.0.0.5", 0, false, Discard},
	} {
		e := New(outOnly, Options{Outbound: someSA, Inherited: func(*packet.Packet) bool { return row.inherited }})
		in := (&bench{TB: t, now: second}).input(row.line, flags(row.flags))
		in.SA, in.from, in.Arriving = "lan", new(esp.SA), true
		if r := e.Judge(&in); r.Verdict != row.want {
			t.Errorf("%s, flags %#x, let through before %v: %v (%v)", row.line, row.flags, row.inherited, r.Verdict, r.Reason)
		}
		if in.Tracked || in.Reply {
			t.Errorf("%s: the input has changed", row.line)
		}
	}
	// Nor does a mark of the kernel's make an old flow of a SYN.
	e := New(&Policy{Default: [directionCount]Verdict{Out: Bypass}}, Options{})
	for _, flag := range []uint8{packet.SYN, packet.ACK} {
		in := (&bench{TB: t, now: second}).input("in tcp 203.0.113.9:40000 -> 198.51.100.10:22", flags(flag))
		in.Tracked, in.Reply = true, true
		if r := e.Judge(&in); (r.Verdict == Bypass) != (flag == packet.ACK) {
			t.Errorf("flags %#x: %v (%v)", flag, r.Verdict, r.Reason)
		}
	}
}

// A connection that is older than ipfw is judged by who has opened it, whichever
// side is heard first, and whatever connection tracking makes of its middle.
func TestAcceptedConnections(t *testing.T) {
	p := webServer(t)
	p.Default[Out] = Bypass
	for _, row := range []struct {
		line     string
		accepted bool
		found    bool
		reply    bool // by the kernel
		want     Verdict
		rule     string
	}{
		{"out tcp 198.51.100.10:80 -> 203.0.113.9:40000", true, false, false, Bypass, "web"},
		{"in tcp 203.0.113.9:40000 -> 198.51.100.10:80", true, false, false, Bypass, "web"},
		{"in tcp 203.0.113.9:40000 -> 198.51.100.10:80", true, false, true, Bypass, "web"},
		{"out tcp 198.51.100.10:5432 -> 203.0.113.9:40000", true, false, false, Discard, ""},
		{"in tcp 203.0.113.9:40000 -> 198.51.100.10:5432", true, false, false, Discard, ""},
		{"in tcp 203.0.113.9:40000 -> 198.51.100.10:5432", true, false, true, Discard, ""},
		{"out tcp [2001:db8::10]:5432 -> [2001:db8::9]:40000", true, false, false, Discard, ""},
		{"out tcp 198.51.100.10:40000 -> 203.0.113.9:443", false, false, false, Bypass, ""},
		{"in tcp 203.0.113.9:443 -> 198.51.100.10:40000", false, false, true, Bypass, ""},
		{"in tcp 203.0.113.9:443 -> 198.51.100.10:40000", false, false, false, Discard, ""},
		// What this host had opened goes on, whoever was seen first.
		{"in tcp 203.0.113.9:443 -> 198.51.100.10:40000", false, true, false, Bypass, ""},
		{"in tcp 203.0.113.9:443 -> 198.51.100.10:40000", false, true, true, Bypass, ""},
		{"out tcp 198.51.100.10:40000 -> 203.0.113.9:443", false, true, true, Bypass, ""},
		{"in tcp [2001:db8::9]:443 -> [2001:db8::10]:40000", false, true, false, Bypass, ""},
	} {
		e := New(p, Options{Opener: func(local, remote netip.AddrPort) Opener {
			if local.Addr() != netip.MustParseAddr("198.51.100.10") && local.Addr() != netip.MustParseAddr("2001:db8::10") {
				t.Errorf("%s: asked about %v", row.line, local)
			}
			switch {
			case row.accepted:
				return OpenedByRemote
			case row.found:
				return OpenedByLocal
			}
			return OpenedByEither
		}})
		for range 2 {
			in := (&bench{TB: t, now: second}).input(row.line, flags(packet.ACK))
			in.Reply = row.reply
			r := e.Judge(&in)
			if r.Verdict != row.want || row.rule != "" && (r.Rule < 0 || p.Rules[r.Rule].Name != row.rule) {
				t.Errorf("%s: %v (%v), rule %d, want %v", row.line, r.Verdict, r.Reason, r.Rule, row.want)
			}
		}
	}
}
