package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/capture"
	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

func prefixes(t *testing.T, list string) []netip.Prefix {
	t.Helper()
	if list == "" {
		return nil
	}
	p, err := parsePrefixes("local", strings.Split(list, ","))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDirection(t *testing.T) {
	const me, net = "198.51.100.10,2001:db8::10", "10.1.0.0/16"
	for _, row := range []struct {
		local, forward, src, dst string
		way                      capture.Way
		dir                      engine.Direction
		why                      skip
	}{
		{me, "", "203.0.113.9", "198.51.100.10", capture.Unknown, engine.In, judged},
		{me, "", "198.51.100.10", "203.0.113.9", capture.Unknown, engine.Out, judged},
		{me, "", "2001:db8::10", "2001:db8::9", capture.Unknown, engine.Out, judged},
		{me, "", "203.0.113.9", "203.0.113.10", capture.Unknown, 0, elsewhere},
		{me, "", "198.51.100.10", "198.51.100.10", capture.Unknown, 0, loopback},
		{me, "", "127.0.0.1", "127.0.0.53", capture.Received, 0, loopback},
		{"198.51.100.0/24", "", "198.51.100.1", "198.51.100.2", capture.Unknown, 0, loopback},
		{me, "", "203.0.113.9", "224.0.0.251", capture.Unknown, engine.In, judged},
		{me, "", "0.0.0.0", "255.255.255.255", capture.Unknown, engine.In, judged},
		{me, "", "0.0.0.0", "255.255.255.255", capture.Sent, engine.Out, judged},
		{me, "", "fe80::1", "ff02::1", capture.Sent, engine.Out, judged},
		{me, net, "10.1.0.5", "203.0.113.9", capture.Unknown, engine.Forward, judged},
		{me, net, "203.0.113.9", "10.1.0.5", capture.Sent, engine.Forward, judged},
		{me, net, "10.1.0.5", "198.51.100.10", capture.Unknown, engine.In, judged},
		{"", "", "203.0.113.9", "198.51.100.10", capture.Received, engine.In, judged},
		{"", "", "203.0.113.9", "198.51.100.10", capture.Sent, engine.Out, judged},
		{"", "", "203.0.113.9", "198.51.100.10", capture.Passing, 0, elsewhere},
		{"", net, "203.0.113.9", "10.1.0.5", capture.Passing, engine.Forward, judged},
	} {
		s := side{prefixes(t, row.local), prefixes(t, row.forward)}
		dir, why := s.direction(netip.MustParseAddr(row.src), netip.MustParseAddr(row.dst), row.way)
		if dir != row.dir || why != row.why {
			t.Errorf("%s -> %s, way %d, local %q: got %s %q, want %s %q", row.src, row.dst, row.way, row.local,
				dir, skipNames[why], row.dir, skipNames[row.why])
		}
	}
}

func TestGuess(t *testing.T) {
	pkt := func(src, dst string) *packet.Packet {
		p := &packet.Packet{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Version: 4}
		if p.Src.Is6() {
			p.Version = 6
		}
		return p
	}
	for _, row := range []struct {
		name  string
		pairs []string
		want  string // "": none, and an error
	}{
		{"one server", []string{"192.0.2.1 192.0.2.9", "192.0.2.2 192.0.2.9", "192.0.2.9 192.0.2.3"}, "192.0.2.9/32"},
		{"two hosts alone: who was called first", []string{"192.0.2.1 192.0.2.9", "192.0.2.9 192.0.2.1"}, "192.0.2.9/32"},
		{"multicast counts for nobody", []string{"192.0.2.9 224.0.0.1", "192.0.2.9 224.0.0.1"}, "192.0.2.9/32"},
		{"a crowd", []string{"192.0.2.1 192.0.2.2", "192.0.2.3 192.0.2.4", "192.0.2.5 192.0.2.6"}, ""},
		{"both families", []string{"192.0.2.1 192.0.2.9", "2001:db8::1 2001:db8::9", "2001:db8::2 2001:db8::9"}, "192.0.2.9/32 2001:db8::9/128"},
	} {
		var g guesser
		for _, p := range row.pairs {
			src, dst, _ := strings.Cut(p, " ")
			g.add(pkt(src, dst), capture.Unknown)
		}
		local, note, err := g.guess()
		var got []string
		for _, l := range local {
			got = append(got, l.String())
		}
		if strings.Join(got, " ") != row.want || (err != nil) != (row.want == "") || (note == "") != (row.want == "") {
			t.Errorf("%s: got %v, %q, %v; want %q", row.name, got, note, err, row.want)
		}
	}
}
