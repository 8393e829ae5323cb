package mix

import (
	"math/rand/v2"

	"github.com/ipfw/ipfw/engine/classify"
)

// weighted is one outcome of a draw and how often it comes.
type weighted struct{ value, weight int }

// draw takes one outcome.
func draw(r *rand.Rand, ws []weighted) int {
	sum := 0
	for _, w := range ws {
		sum += w.weight
	}
	x := r.IntN(sum)
	for _, w := range ws {
		if x -= w.weight; x < 0 {
			return w.value
		}
	}
	panic("mix: draw from nothing")
}

// Port classes, after Taylor and Turner.
const (
	portAny  = iota // 0-65535
	portHigh        // 1024-65535
	portLow         // 0-1023
	portOne         // a service
	portSpan        // any range
)

// shape is how the rules of a kind are distributed. Prefix lengths are IPv4's;
// IPv6 takes those of lengths6 for them.
type shape struct {
	local, remote           []weighted // prefix lengths
	localPort, remotePort   []weighted // port classes
	proto                   []weighted
	localSites, remoteSites int // one network for so many rules
}

var services = []uint16{80, 443, 22, 53, 25, 123, 161, 110, 143, 993, 389, 445, 514, 1521, 1526, 3306, 5432, 8080, 69, 88, 750}

var shapes = [kinds]shape{
	ACL: {
		local:      []weighted{{32, 50}, {31, 15}, {30, 8}, {29, 4}, {28, 4}, {27, 3}, {24, 8}, {23, 4}, {22, 2}, {16, 1}, {0, 1}},
		remote:     []weighted{{32, 48}, {31, 15}, {30, 6}, {28, 5}, {24, 10}, {23, 5}, {22, 5}, {21, 3}, {16, 2}, {0, 1}},
		localPort:  []weighted{{portAny, 1}},
		remotePort: []weighted{{portAny, 27}, {portHigh, 1}, {portOne, 62}, {portSpan, 10}},
		proto:      []weighted{{6, 85}, {17, 5}, {1, 3}, {-1, 7}},
		localSites: 30, remoteSites: 6,
	},
	Firewall: {
		local:      []weighted{{0, 30}, {1, 6}, {2, 3}, {8, 2}, {16, 4}, {24, 6}, {27, 3}, {28, 5}, {29, 5}, {30, 9}, {31, 12}, {32, 15}},
		remote:     []weighted{{0, 18}, {1, 6}, {2, 3}, {16, 4}, {24, 6}, {27, 3}, {28, 5}, {30, 12}, {31, 18}, {32, 25}},
		localPort:  []weighted{{portAny, 73}, {portHigh, 9}, {portOne, 16}, {portSpan, 2}},
		remotePort: []weighted{{portAny, 33}, {portHigh, 9}, {portOne, 50}, {portSpan, 7}, {portLow, 1}},
		proto:      []weighted{{6, 51}, {17, 38}, {47, 5}, {1, 4}, {-1, 2}},
		localSites: 6, remoteSites: 6,
	},
	IPChain: {
		local:      []weighted{{32, 28}, {31, 10}, {30, 3}, {25, 6}, {24, 16}, {23, 12}, {22, 6}, {20, 5}, {16, 8}, {8, 3}, {0, 5}},
		remote:     []weighted{{32, 32}, {31, 10}, {30, 3}, {25, 6}, {24, 16}, {23, 8}, {22, 6}, {20, 5}, {16, 8}, {8, 3}, {0, 4}},
		localPort:  []weighted{{portAny, 80}, {portOne, 16}, {portHigh, 2}, {portSpan, 2}},
		remotePort: []weighted{{portAny, 57}, {portHigh, 6}, {portOne, 34}, {portSpan, 3}},
		proto:      []weighted{{17, 38}, {-1, 33}, {6, 27}, {1, 1}, {47, 1}},
		localSites: 4, remoteSites: 4,
	},
}

// length6 gives the IPv6 prefix length that stands for an IPv4 one: a host is
// a host, a subnet is a /64 or a few of them, an organisation is a /48 to /32.
func length6(n int) int {
	switch {
	case n == 0:
		return 0
	case n == 32:
		return 128
	case n >= 30:
		return 112 + 4*(n-28)
	case n >= 24:
		return 56 + 2*(n-24) // 56 to 66
	}
	return 24 + n + n%4*2
}

type generator struct {
	*rand.Rand
	shape
	family        classify.Family
	local, remote []classify.Addr // the networks
}

func newGenerator(kind Kind, n int, f classify.Family, seed uint64) *generator {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, uint64(kind)<<8|uint64(f))), shape: shapes[kind], family: f}
	g.local = g.sites(8 + n/g.localSites)
	g.remote = g.sites(8 + n/g.remoteSites)
	return g
}

// sites gives n addresses, of which most share the first bits with one before.
func (g *generator) sites(n int) []classify.Addr {
	s := make([]classify.Addr, n)
	for i := range s {
		s[i] = g.host()
		if i > 0 && g.IntN(5) > 0 {
			keep := 8 + g.IntN(23)
			if g.family == classify.IPv6 {
				keep = length6(keep)
			}
			s[i] = splice(s[g.IntN(i)], s[i], keep, g.family)
		}
	}
	return s
}

// host gives any address; all IPv6 ones are global unicast (RFC 4291 2.4).
func (g *generator) host() classify.Addr {
	if g.family == classify.IPv4 {
		return classify.Addr{Lo: uint64(g.Uint32())}
	}
	return classify.Addr{Hi: g.Uint64()>>3 | 1<<61, Lo: g.Uint64()}
}

// splice gives the first n bits of a and the rest of b.
func splice(a, b classify.Addr, n int, f classify.Family) classify.Addr {
	m := hostBits(n, f)
	return classify.Addr{Hi: a.Hi&^m.Hi | b.Hi&m.Hi, Lo: a.Lo&^m.Lo | b.Lo&m.Lo}
}

// hostBits gives ones in all bits after the first n.
func hostBits(n int, f classify.Family) classify.Addr {
	if f == classify.IPv4 {
		return classify.Addr{Lo: 1<<(32-n) - 1}
	}
	if n >= 64 {
		return classify.Addr{Lo: 1<<(128-n) - 1}
	}
	return classify.Addr{Hi: 1<<(64-n) - 1, Lo: 1<<64 - 1}
}

// prefix gives a range of the given length around one of the sites.
func (g *generator) prefix(lengths []weighted, sites []classify.Addr) (first, last classify.Addr) {
	n := draw(g.Rand, lengths)
	a := sites[g.IntN(len(sites))]
	if n == 32 && g.IntN(2) == 0 { // another host of the same subnet
		a.Lo ^= g.Uint64N(256)
	}
	if g.family == classify.IPv6 {
		n = length6(n)
	}
	m := hostBits(n, g.family)
	return classify.Addr{Hi: a.Hi &^ m.Hi, Lo: a.Lo &^ m.Lo}, classify.Addr{Hi: a.Hi | m.Hi, Lo: a.Lo | m.Lo}
}

func (g *generator) ports(classes []weighted) (first, last uint16) {
	switch draw(g.Rand, classes) {
	case portHigh:
		return 1024, 65535
	case portLow:
		return 0, 1023
	case portOne:
		p := services[g.IntN(len(services))]
		if g.IntN(6) == 0 {
			p = uint16(1024 + g.IntN(30000))
		}
		return p, p
	case portSpan:
		p := uint16(g.IntN(60000))
		return p, p + uint16(1+g.IntN(200))
	}
	return 0, 65535
}

func (g *generator) box() classify.Box {
	var b classify.Box
	b.LocalFirst, b.LocalLast = g.prefix(g.shape.local, g.local)
	b.RemoteFirst, b.RemoteLast = g.prefix(g.shape.remote, g.remote)
	p := draw(g.Rand, g.proto)
	if p < 0 {
		b.ProtoLast = 255
	} else {
		b.ProtoFirst, b.ProtoLast = uint8(p), uint8(p)
	}
	b.LocalPortLast, b.RemotePortLast = 65535, 65535
	if p == 6 || p == 17 { // only these have ports
		b.LocalPortFirst, b.LocalPortLast = g.ports(g.localPort)
		b.RemotePortFirst, b.RemotePortLast = g.ports(g.remotePort)
	}
	return b
}
