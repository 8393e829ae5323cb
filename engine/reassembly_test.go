package engine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// twinAssembly is one datagram in the making, the slow way: a bit for each byte.
type twinAssembly struct {
	have   [1 << 17]bool
	data   [1 << 17]byte
	end    int
	poison bool
	seen   []twinPiece
}

type twinPiece struct {
	at   int
	data string
}

// add gives the data once all of it is there.
func (a *twinAssembly) add(at int, data []byte, more bool) (whole []byte, r Reason) {
	if a.poison {
		return nil, ReasonFragmentOverlap
	}
	for _, p := range a.seen {
		if p.at == at && p.data == string(data) {
			return nil, ReasonFragmentOverlap
		}
	}
	gaps, bad := 0, len(a.seen) == maxPieces
	for i := range data {
		bad = bad || a.have[at+i]
	}
	if a.end != 0 && (at+len(data) > a.end || !more) {
		bad = true
	}
	if !more {
		for i := at + len(data); i < len(a.have); i++ {
			bad = bad || a.have[i]
		}
	}
	if !bad {
		for i := range data {
			a.have[at+i], a.data[at+i] = true, data[i]
		}
		last := 0
		for i := range a.have[:len(a.have)-1] {
			if a.have[i] && !a.have[i+1] {
				gaps, last = gaps+1, i+1
			}
		}
		bad = gaps > maxSpans || last > 1<<16
	}
	if bad {
		a.poison = true
		return nil, ReasonFragmentOverlap
	}
	a.seen = append(a.seen, twinPiece{at, string(data)})
	if !more {
		a.end = at + len(data)
	}
	if a.end != 0 && gaps == 1 && a.have[0] {
		return a.data[:a.end], ReasonNone
	}
	return nil, ReasonFragmentHeld
}

// pieceOf builds a fragment with those bytes of data behind its IP headers.
func pieceOf(t testing.TB, v6 bool, id uint32, at int, data []byte, more bool) *packet.Packet {
	s := packet.Spec{Src: netip.MustParseAddr("10.2.0.5"), Dst: netip.MustParseAddr("192.0.2.1"), Protocol: 253, ID: id,
		Fragment: true, FragOffset: at, LastFragment: !more, Payload: data}
	if v6 {
		s.Src, s.Dst = netip.MustParseAddr("fd00:2::5"), netip.MustParseAddr("2001:db8::1")
		s.Extensions = []packet.Extension{{Header: packet.HopByHop}}
	}
	b, err := packet.Build(s)
	if err != nil {
		t.Fatal(err)
	}
	p := new(packet.Packet)
	if f := packet.Parse(p, b, len(b)); f != packet.OK || !p.Fragment {
		return nil
	}
	return p
}

// play gives pieces to both, made of the bytes of a script, and compares.
func playPieces(t testing.TB, script []byte) (wholes int) {
	var a reassembler
	a.init(0)
	v6 := len(script) > 0 && script[0]&1 != 0
	twins := map[uint32]*twinAssembly{}
	for i := 1; i+3 < len(script); i += 4 {
		id := uint32(script[i] & 1)
		at, n, more := int(script[i+1]&15)*8, 8*(1+int(script[i+2]&3)), script[i]&2 == 0
		if !more && script[i]&4 != 0 {
			n -= int(script[i+2] >> 5)
		}
		data := bytes.Repeat([]byte{script[i+3] & 3}, n)
		p := pieceOf(t, v6, id, at, data, more)
		if p == nil {
			continue // both a whole datagram, and what Parse refuses, never come here
		}
		twin := twins[id]
		if twin == nil {
			twin = new(twinAssembly)
			twins[id] = twin
		}
		want, reason := twin.add(at, data, more)
		got, r := a.add(esp.Owner{Name: "a"}, p, second)
		if r != reason || (got == nil) != (want == nil) {
			t.Fatalf("piece %d of datagram %d, %d bytes at %d, more %v: %v, the twin says %v", i, id, n, at, more, r, reason)
		}
		if got == nil {
			continue
		}
		wholes++
		delete(twins, id)
		var q packet.Packet
		if f := packet.Parse(&q, got, len(got)); f != packet.OK || q.Fragment || q.Len != len(got) || !bytes.Equal(got[q.Transport:], want) ||
			q.Src != p.Src || q.Dst != p.Dst {
			t.Fatalf("whole: %v, %x, want %x behind the header", f, got, want)
		}
		if !v6 && packet.Checksum(got[:20], 0) != 0 {
			t.Fatalf("header checksum: %x", got[:20])
		}
	}
	return wholes
}

func TestReassemblyTwin(t *testing.T) {
	wholes := 0
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 5))
		// Pieces of one length, in any order, and now and then another.
		script := []byte{byte(seed)}
		pieces := make([][4]byte, 1+r.IntN(8))
		for i := range pieces {
			pieces[i] = [4]byte{0, byte(i), 0, byte(r.Uint32())}
		}
		pieces[len(pieces)-1][0] |= 2
		r.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
		for _, p := range pieces {
			script = append(script, p[:]...)
			if r.IntN(20) == 0 {
				script = append(script, byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()))
			}
		}
		wholes += playPieces(t, script)
	}
	if wholes < 1000 {
		t.Errorf("only %d datagrams became whole", wholes)
	}
}

func FuzzReassembly(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 2, 1, 0, 2})
	f.Add([]byte{1, 2, 1, 0, 2, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, script []byte) { playPieces(t, script) })
}

// What has been cut comes together again, in any order, and of all that one
// owner may leave half done nothing is at the cost of another.
func TestReassemblyBounds(t *testing.T) {
	var a reassembler
	a.init(0)
	data := make([]byte, 48<<10)
	half := func(owner string, id uint32) Reason {
		_, r := a.add(esp.Owner{Name: owner}, pieceOf(t, id&1 != 0, id, 0, data, true), second)
		return r
	}
	honest := pieceOf(t, false, 1, 0, data[:1024], true)
	if _, r := a.add(esp.Owner{Name: "honest"}, honest, second); r != ReasonFragmentHeld {
		t.Fatal(r)
	}
	for peer := range 64 {
		for id := range uint32(300) {
			if r := half(fmt.Sprint("peer", peer), id); r != ReasonFragmentHeld {
				t.Fatalf("peer %d, datagram %d: %v", peer, id, r)
			}
			if a.cost > allBytes || len(a.partials) > a.max {
				t.Fatalf("%d bytes, %d datagrams", a.cost, len(a.partials))
			}
		}
	}
	for owner, x := range a.accounts {
		if x.cost > ownerBytes || x.n > ownerDatagrams {
			t.Errorf("%v: %d bytes, %d datagrams", owner, x.cost, x.n)
		}
	}
	if whole, r := a.add(esp.Owner{Name: "honest"}, pieceOf(t, false, 1, 1024, data[:8], false), second); whole == nil {
		t.Errorf("an honest peer has lost its datagram to others: %v", r)
	}
	// Those of one owner do not join those of another.
	a.add(esp.Owner{Name: "x"}, pieceOf(t, false, 7, 0, data[:64], true), second)
	if whole, r := a.add(esp.Owner{Name: "y"}, pieceOf(t, false, 7, 64, data[:64], false), second); whole != nil || r != ReasonFragmentHeld {
		t.Errorf("fragments of two SAs have been joined: %v", r)
	}
	a.expire(second + fragmentTimeout)
	if len(a.partials) != 0 || len(a.accounts) != 0 || a.cost != 0 {
		t.Errorf("left: %d datagrams, %d owners, %d bytes", len(a.partials), len(a.accounts), a.cost)
	}
	for id := range uint32(400) { // tiny ones
		a.add(esp.Owner{Name: "x"}, pieceOf(t, false, id, 0, data[:64], true), second)
	}
	if n := len(a.partials); n != ownerDatagrams {
		t.Errorf("%d datagrams of one owner", n)
	}
}

// Congestion that one fragment has met has been met by the datagram.
func TestReassemblyCongestion(t *testing.T) {
	for _, row := range []struct {
		ecn  [2]uint8
		want int // -1: no datagram
	}{{[2]uint8{2, 2}, 2}, {[2]uint8{2, 3}, 3}, {[2]uint8{3, 1}, 3}, {[2]uint8{0, 0}, 0}, {[2]uint8{0, 3}, -1}, {[2]uint8{3, 0}, -1}} {
		for _, v6 := range []bool{false, true} {
			var a reassembler
			a.init(0)
			var whole []byte
			for i, ecn := range row.ecn {
				p := pieceOf(t, v6, 1, 64*i, make([]byte, 64), i == 0)
				p.TOS |= ecn
				whole, _ = a.add(esp.Owner{}, p, second)
			}
			var q packet.Packet
			if packet.Parse(&q, whole, len(whole)); (whole == nil) != (row.want < 0) || whole != nil && int(q.TOS&3) != row.want {
				t.Errorf("%v: %x", row.ecn, whole)
			}
		}
	}
}

// Of what comes out of an SA in pieces, the kernel gets the whole, judged as a
// whole: by the ports that only the first piece has. It comes by the queue or by
// a socket.
func TestFragmentsOutOfAnSA(t *testing.T) {
	for _, udp := range []bool{false, true} {
		for _, port := range []uint16{445, 7} {
			h := newHosts(t, esp.Tunnel)
			if udp {
				h.encapsulate()
			}
			h.b.Reload(&Policy{Rules: []Rule{{Name: "lan", Action: Protect, With: "lan", In: true, Selector: Selector{
				Protocols: []uint8{packet.UDP}, LocalPorts: ports(445), Remote: addrs(t, "10.0.0.0/24")}}}})
			in := h.packet("out udp 10.0.0.5:40000 -> 10.0.0.7:"+fmt.Sprint(port), data(3000))
			pieces, err := packet.Fragment(in.Packet.Bytes, 700, 4242)
			if err != nil {
				t.Fatal(err)
			}
			rand.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
			sealer := h.a.options.Outbound(&Rule{With: "lan"}, nil)
			for i, piece := range pieces {
				sealed, _, f := sealer.Seal(nil, piece, second)
				if f != esp.OK {
					t.Fatal(f)
				}
				var r Result
				var got []byte
				if udp {
					r, got = h.bySocketWhole(sealed)
				} else {
					r, got = h.arrive(sealed)
				}
				switch {
				case i < len(pieces)-1:
					if r.Verdict != Discard || r.Reason != ReasonFragmentHeld || got != nil {
						t.Fatalf("piece %d: %v (%v)", i, r.Verdict, r.Reason)
					}
				case port == 7:
					if r.Verdict != Discard || r.Reason != ReasonDefault || got != nil {
						t.Errorf("to a shut port: %v (%v)", r.Verdict, r.Reason)
					}
				case r.Verdict != Protect || !bytes.Equal(got[20:], in.Packet.Bytes[20:]):
					t.Errorf("the whole: %v (%v), %d bytes", r.Verdict, r.Reason, len(got))
				}
			}
		}
	}
}

// bySocketWhole is bySocket for a datagram that may come in pieces: what is
// delivered in place of the last one.
func (h *hosts) bySocketWhole(b []byte) (Result, []byte) {
	h.Helper()
	var whole packet.Packet
	if f := packet.Parse(&whole, b, len(b)); f != packet.OK {
		h.Fatal(f)
	}
	in := Input{Arriving: true, Now: second, Packet: whole}
	r := h.b.Unseal(&in, b[whole.Payload:whole.Len], &h.u)
	if r.Verdict != Protect {
		return r, nil
	}
	var out Output
	r = h.b.Process(&h.u.Input, &out)
	return r, out.Replace
}

// An IPv6 datagram that this host sends on goes in pieces that every link takes,
// under an identification of its own.
func TestForwardedFragmentsOutOfAnSA(t *testing.T) {
	h := newHosts(t, esp.Tunnel)
	h.b.Reload(&Policy{Rules: []Rule{{Name: "lan", Action: Protect, With: "lan", Forward: true, Selector: Selector{Remote: addrs(t, "fd00:2::/64")}}}})
	sealer := h.a.options.Outbound(&Rule{With: "lan"}, nil)
	in := h.packet("out udp [fd00:2::5]:40000 -> [fd00:1::7]:9", data(3000))
	ids := map[uint32]bool{}
	for range 3 {
		pieces, err := packet.Fragment(in.Packet.Bytes, 1400, 4242)
		if err != nil {
			t.Fatal(err)
		}
		var out Output
		for i, piece := range pieces {
			sealed, _, f := sealer.Seal(nil, piece, second)
			if f != esp.OK {
				t.Fatal(f)
			}
			arriving := Input{Arriving: true, Now: second}
			packet.Parse(&arriving.Packet, sealed, len(sealed))
			if r := h.b.Process(&arriving, &out); (r.Verdict == Protect) != (i == len(pieces)-1) {
				t.Fatalf("piece %d: %v (%v)", i, r.Verdict, r.Reason)
			}
		}
		if out.Replace != nil || len(out.Pieces) != 3 {
			t.Fatalf("%d pieces came, %d go on", len(pieces), len(out.Pieces))
		}
		var got []byte
		for i, b := range out.Pieces {
			var p packet.Packet
			if f := packet.Parse(&p, b, len(b)); f != packet.OK || p.Len > 1280 {
				t.Fatalf("piece %d: %v, %d bytes", i, f, p.Len)
			}
			_, data := p.Piece()
			got = append(got, data...)
			ids[p.FragID] = true
		}
		if !bytes.Equal(got, in.Packet.Bytes[40:]) {
			t.Error("the pieces make another datagram")
		}
	}
	if len(ids) != 3 || ids[4242] {
		t.Errorf("identifications %v", ids)
	}
}
