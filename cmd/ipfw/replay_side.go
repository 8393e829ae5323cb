package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ipfw/ipfw/capture"
	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// side tells which way a packet crosses the host whose policy is replayed. A
// capture seldom says it, so it follows from the host's addresses.
type side struct {
	local   []netip.Prefix
	forward []netip.Prefix // networks whose traffic the host forwards
}

// Why a packet of the capture is not judged.
type skip uint8

const (
	judged    skip = iota
	notIP          // ARP and the like
	cutHeader      // the capture holds too little of the packet
	loopback       // between two addresses of the host: ipfw leaves it alone
	elsewhere      // neither from nor to the host, nor forwarded by it
	otherLink      // of a kind of link that capture does not read
	skipReasons
)

var skipNames = [skipReasons]string{"", "not-ip", "cut-by-capture", "local-to-local", "elsewhere", "unknown-link-type"}

// direction tells the way of a packet, or why it is none of the host's.
func (s *side) direction(src, dst netip.Addr, way capture.Way) (engine.Direction, skip) {
	if src == dst || src.IsLoopback() && dst.IsLoopback() {
		return 0, loopback
	}
	if len(s.local) == 0 { // the capture itself says it
		switch way {
		case capture.Sent:
			return engine.Out, judged
		case capture.Received:
			return engine.In, judged
		}
		return s.passing(src, dst)
	}
	from, to := contains(s.local, src), contains(s.local, dst)
	switch {
	case from && to:
		return 0, loopback
	case from:
		return engine.Out, judged
	case to:
		return engine.In, judged
	}
	d, why := s.passing(src, dst)
	switch {
	case why == judged:
	case way == capture.Sent: // by an address that --local does not name
		return engine.Out, judged
	case dst.IsMulticast(), dst == broadcast:
		return engine.In, judged
	}
	return d, why
}

func (s *side) passing(src, dst netip.Addr) (engine.Direction, skip) {
	if contains(s.forward, src) || contains(s.forward, dst) {
		return engine.Forward, judged
	}
	return 0, elsewhere
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func contains(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// parsePrefixes reads addresses and CIDRs, in commas or one by one.
func parsePrefixes(flag string, words []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, w := range words {
		w = strings.TrimSpace(w)
		if a, err := netip.ParseAddr(w); err == nil && a.Zone() == "" {
			out = append(out, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(w)
		if err != nil {
			return nil, usagef("--%s %q: want an address or a network such as 198.51.100.10 or 2001:db8::/64", flag, w)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// guesser finds the address that most packets come from or go to.
type guesser struct {
	packets [2]int // by family: IPv4, IPv6
	seen    [2]map[netip.Addr]int
	first   [2]netip.Addr // receiver of the first packet: it wins a tie
	ways    int           // packets whose direction the capture tells
}

const maxGuessed = 1 << 16 // addresses remembered

func (g *guesser) add(p *packet.Packet, way capture.Way) {
	if way != capture.Unknown {
		g.ways++
	}
	f := 0
	if p.Version == 6 {
		f = 1
	}
	if g.seen[f] == nil {
		g.seen[f] = map[netip.Addr]int{}
		g.first[f] = p.Dst
	}
	g.packets[f]++
	ends := []netip.Addr{p.Src, p.Dst}
	if p.Src == p.Dst {
		ends = ends[:1]
	}
	for _, a := range ends {
		if a.IsMulticast() || a == broadcast || a.IsUnspecified() {
			continue
		}
		if n, ok := g.seen[f][a]; ok || len(g.seen[f]) < maxGuessed {
			g.seen[f][a] = n + 1
		}
	}
}

// guess gives at most one address of each family, and says how it came to it.
func (g *guesser) guess() (local []netip.Prefix, note string, err error) {
	total := g.packets[0] + g.packets[1]
	if total == 0 {
		return nil, "", nil
	}
	if g.ways == total {
		return nil, "no --local given: in or out as the capture itself says", nil
	}
	var words, unsure []string
	for f := range g.seen {
		if g.packets[f] == 0 {
			continue
		}
		best, count := g.first[f], g.seen[f][g.first[f]]
		for a, n := range g.seen[f] {
			if n > count || n == count && best != g.first[f] && a.Less(best) {
				best, count = a, n
			}
		}
		// An address that is at one end of nine packets in ten is the host
		// that captured; anything less could be its neighbour.
		if count == 0 || count*10 < g.packets[f]*9 {
			unsure = append(unsure, fmt.Sprintf("no IPv%d address stands out in %d packets, so add --local ADDR", 4+2*f, g.packets[f]))
			continue
		}
		local = append(local, netip.PrefixFrom(best, best.BitLen()))
		words = append(words, fmt.Sprintf("%s, which is in %d of the first %d IPv%d packets", best, count, g.packets[f], 4+2*f))
	}
	if local == nil {
		return nil, "", fmt.Errorf("no address is in most packets of the capture, so none is surely this host: add --local ADDR")
	}
	return local, "no --local given: taking this host to be " + strings.Join(append(words, unsure...), "; "), nil
}
