package engine

import (
	"reflect"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// piece is a fragment of one UDP datagram to the host under test.
func (b *bench) piece(id uint32, offset, length int, more bool) Result {
	b.Helper()
	return b.see("out udp 198.51.100.10:40000 -> 192.0.2.53:53", func(s *packet.Spec) {
		s.SrcPort += uint16(id)
		s.Fragment, s.LastFragment, s.ID, s.FragOffset = true, !more, id, offset
		s.Payload = make([]byte, length)
		if offset == 0 {
			s.Payload = make([]byte, length-8) // the UDP header comes first
		}
	})
}

func TestFragments(t *testing.T) {
	b := newBench(t, webServer(t))
	b.want(b.piece(1, 800, 800, true), Discard, ReasonFragmentOrphan)
	b.want(b.piece(1, 0, 800, true), Bypass, ReasonDefault)
	b.want(b.piece(1, 1600, 80, false), Bypass, ReasonDefault) // out of order
	b.want(b.piece(1, 800, 800, true), Bypass, ReasonDefault)
	b.want(b.piece(2, 1600, 80, false), Discard, ReasonFragmentOrphan)

	b.want(b.piece(3, 0, 800, true), Bypass, ReasonDefault)
	b.want(b.piece(3, 792, 80, true), Discard, ReasonFragmentOverlap)
	b.want(b.piece(3, 800, 80, false), Discard, ReasonFragmentOverlap) // the whole datagram is lost, RFC 5722

	b.want(b.piece(4, 0, 800, true), Bypass, ReasonDefault)
	b.want(b.piece(4, 0, 800, true), Discard, ReasonFragmentOverlap)

	b.want(b.piece(5, 0, 800, true), Bypass, ReasonDefault)
	b.now += fragmentTimeout + 1
	b.want(b.piece(5, 800, 80, false), Discard, ReasonFragmentOrphan)
}

func TestFragmentsOfADiscardedPacket(t *testing.T) {
	p := webServer(t)
	p.Default[Out] = Discard
	b := newBench(t, p)
	b.want(b.piece(1, 0, 800, true), Discard, ReasonDefault)
	b.want(b.piece(1, 800, 80, false), Discard, ReasonDefault)
}

func TestFragmentTableIsBounded(t *testing.T) {
	b := &bench{TB: t, Engine: New(webServer(t), Options{MaxFragments: 4}), now: second}
	for i := range uint32(4) {
		b.want(b.piece(i, 0, 800, true), Bypass, ReasonDefault)
	}
	b.want(b.piece(9, 0, 800, true), Discard, ReasonFragmentFull)
	b.now += fragmentTimeout + 1
	b.Expire(b.now)
	if r := b.piece(9, 0, 800, true); r.Verdict != Bypass {
		t.Error(r.Reason)
	}
}

func TestFragmentWithManyHoles(t *testing.T) {
	b := newBench(t, webServer(t))
	b.piece(1, 0, 8, true)
	var last Result
	for i := range 2 * maxSpans {
		last = b.piece(1, 16+16*i, 8, true)
	}
	b.want(last, Discard, ReasonFragmentOverlap)
}

func TestParseTrialErrors(t *testing.T) {
	for _, row := range []struct{ want, line string }{
		{`is not a packet`, ""},
		{`direction "inn": want in, out or forward`, "inn tcp 192.0.2.1:1 -> 192.0.2.2:2"},
		{`protocol "tpc"`, "in tpc 192.0.2.1:1 -> 192.0.2.2:2"},
		{`source "any": want ADDRESS:PORT`, "in tcp any -> 192.0.2.2:2"},
		{`destination "192.0.2.2:htpt"`, "in tcp 192.0.2.1:1 -> 192.0.2.2:htpt"},
		{`protocol gre has no ports`, "in gre 192.0.2.1:1 -> 192.0.2.2:2"},
		{`different IP versions`, "in tcp 192.0.2.1:1 -> [2001:db8::1]:2"},
		{`does not run over the IP version`, "in icmp echo-request 2001:db8::1 -> 2001:db8::2"},
		{`icmp type "ecco"`, "in icmp ecco 192.0.2.1 -> 192.0.2.2"},
		{`icmp code "x"`, "in icmp 3/x 192.0.2.1 -> 192.0.2.2"},
		{`word "sin"`, "in tcp 192.0.2.1:1 -> 192.0.2.2:2 sin"},
		{`"on" must be followed by`, "in tcp 192.0.2.1:1 -> 192.0.2.2:2 on"},
		{`"syn" is for tcp`, "in udp 192.0.2.1:1 -> 192.0.2.2:2 syn"},
		{`"syn,ack" is for tcp`, "in sctp 192.0.2.1:1 -> 192.0.2.2:2 syn,ack"},
		{`word "syn,"`, "in tcp 192.0.2.1:1 -> 192.0.2.2:2 syn,"},
		{`word "syn,sin"`, "in tcp 192.0.2.1:1 -> 192.0.2.2:2 syn,sin"},
		{`"spi" is for esp`, "in udp 192.0.2.1:1 -> 192.0.2.2:2 spi 1"},
		{`dscp "64"`, "in udp 192.0.2.1:1 -> 192.0.2.2:2 dscp 64"},
		{`"protected" is for packets that come in`, "out udp 192.0.2.1:1 -> 192.0.2.2:2 protected"},
		{`as the IPv4 address`, "in tcp [::ffff:192.0.2.1]:1 -> 192.0.2.2:2"},
	} {
		_, err := ParseTrial(row.line)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q: %v, want %q", row.line, err, row.want)
		}
	}
}

// Brackets may stand around an IPv4 address, with a port behind them or without.
func TestTrialBrackets(t *testing.T) {
	for line, plain := range map[string]string{
		"in tcp [203.0.113.9]:40000 -> [198.51.100.10]:443":    "in tcp 203.0.113.9:40000 -> 198.51.100.10:443",
		"in tcp [203.0.113.9] -> [198.51.100.10]:any":          "in tcp 203.0.113.9 -> 198.51.100.10:any",
		"in udp [203.0.113.9]:any -> [198.51.100.10]:domain":   "in udp 203.0.113.9:any -> 198.51.100.10:domain",
		"in icmp echo-request [203.0.113.9] -> [198.51.100.1]": "in icmp echo-request 203.0.113.9 -> 198.51.100.1",
	} {
		got, err := ParseTrial(line)
		want, err2 := ParseTrial(plain)
		if err != nil || err2 != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v, %v", line, got, err, want, err2)
		}
	}
	for _, line := range []string{"in tcp [203.0.113.9:40000 -> 198.51.100.10:443", "in tcp [203.0.113.9]40000 -> 198.51.100.10:443", "in tcp []:1 -> 198.51.100.10:443"} {
		if _, err := ParseTrial(line); err == nil {
			t.Errorf("%s is taken", line)
		}
	}
}

func FuzzTrial(f *testing.F) {
	for _, line := range []string{
		"in tcp 203.0.113.9:40000 -> 198.51.100.10:443", "out udp [2001:db8::1]:5353 -> [ff02::fb]:mdns",
		"in icmp echo-request 192.0.2.1 -> 192.0.2.2 established", "in esp 192.0.2.1 -> 192.0.2.2 spi 0x1001",
		"out tcp 192.0.2.1:80 -> 192.0.2.2:1 protected syn,ack psh established", "in udp 0.0.0.0:68 -> 255.255.255.255:67",
		"forward tcp 10.1.0.5:80 -> 10.2.0.9:1 fragment protected x on wg0 dscp 46", "in 255 192.0.2.1 -> 192.0.2.2 fragment",
		"in tcp [192.0.2.1]:1 -> [192.0.2.2]:2",
	} {
		f.Add(line)
	}
	e := New(webServer(f), Options{})
	f.Fuzz(func(t *testing.T, line string) {
		tr, err := ParseTrial(line)
		if err != nil {
			return
		}
		x, err := tr.Explain(e)
		if err == nil && (x.Fate == "" || x.Reply == "") {
			t.Errorf("%q is not explained", line)
		}
	})
}

// Loopback passes before policy is asked, and dry runs say so.
func TestTrialOnLoopback(t *testing.T) {
	p := webServer(t)
	p.Default = [directionCount]Verdict{}
	for line, reason := range map[string]Reason{
		"in tcp 127.0.0.1:40000 -> 127.0.0.1:5432 on lo":           ReasonLoopback,
		"out icmp echo-request 192.0.2.1 -> 192.0.2.1 on lo":       ReasonLoopback,
		"in tcp 10.0.0.7:40000 -> 10.0.0.5:445 on lo":              ReasonLoopback,
		"in tcp 127.0.0.1:40000 -> 127.0.0.1:5432 on eth0":         ReasonDefault,
		"forward tcp 127.0.0.1:40000 -> 127.0.0.1:5432 on lo":      ReasonDefault,
		"in tcp [2001:db8::1]:40000 -> [2001:db8::1]:80 on lo syn": ReasonRule,
	} {
		tr, err := ParseTrial(line)
		if err != nil {
			t.Fatal(err)
		}
		x, err := tr.Explain(New(p, Options{}))
		if err != nil {
			t.Fatal(err)
		}
		if x.Outcome.Result.Reason != reason || (x.Outcome.Verdict == Bypass) != (reason != ReasonDefault) {
			t.Errorf("%s: %v (%v), want %v: %s", line, x.Outcome.Verdict, x.Outcome.Result.Reason, reason, x.Fate)
		}
	}
}
