package engine

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"sync"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// Fragments that come out of an SA are put together here, SA by SA, and the
// kernel gets whole datagrams: it would put them together with whatever fragments
// come in the clear under the same addresses and identification (RFC 4301 section
// 7 leaves the choice), and nobody has proved those.
//
//	SA -> fragment -> pieces of its datagram -> all there -> judged -> whole  -> kernel
//	                     |                                          `-> cut anew, IPv6 that is forwarded
//	                     `--> an overlap, too much, too late: gone
//
// Memory is bounded in all and for each far end, which loses its own oldest
// datagrams first: one that sends nothing but halves takes nothing from others.

// Bounds of what waits for its other pieces, in bytes and in datagrams, for each
// owner of SAs and in all.
const (
	ownerBytes     = 1 << 20
	ownerDatagrams = 256
	allBytes       = 16 << 20

	// maxPieces is how many pieces make a datagram: four times as many as the
	// smallest path MTU of IPv4 hosts makes of the longest one.
	maxPieces = 512

	datagramCost = 512 // of keeping one, in bytes, beside its data
	pieceCost    = 64
)

// pieceKey names a datagram whose fragments came out of the SAs of one owner.
type pieceKey struct {
	owner    esp.Owner
	src, dst netip.Addr
	id       uint32
	proto    uint8 // 0 for IPv6
}

// partial is a datagram of which pieces are there.
type partial struct {
	datagram
	key    pieceKey
	pieces []piece
	head   []byte // headers of the first fragment; nil: it is not there
	end    int    // of the data; 0: the last fragment is not there
	tos    uint8  // of the first fragment
	ecn    uint8  // a bit for each of the four values
	cost   int

	of           *account
	older, newer *partial // of the same account
}

type piece struct {
	at   int
	data []byte
}

// account is what one owner has waiting.
type account struct {
	cost, n int
	// oldest and newest are the ends of a list.
	oldest, newest *partial
}

// reassembler keeps partial datagrams.
type reassembler struct {
	sync.Mutex
	partials map[pieceKey]*partial
	accounts map[esp.Owner]*account
	cost     int
	max      int // datagrams in all
}

func (a *reassembler) init(most int) {
	if most <= 0 {
		most = defaultMaxFragments
	}
	a.partials, a.accounts, a.max = map[pieceKey]*partial{}, map[esp.Owner]*account{}, most
}

// add takes a fragment that came out of an SA of owner. When that was the last
// one missing it gives the whole datagram. Otherwise the reason says what has
// become of the fragment.
func (a *reassembler) add(owner esp.Owner, p *packet.Packet, now int64) (whole []byte, r Reason) {
	if len(p.Bytes) != p.Len {
		return nil, ReasonTruncated
	}
	key := pieceKey{owner: owner, src: p.Src, dst: p.Dst, id: p.FragID}
	if p.Version == 4 {
		key.proto = p.Protocol
	}
	a.Lock()
	defer a.Unlock()
	d := a.partials[key]
	if d != nil && d.expires <= now {
		a.remove(d)
		d = nil
	}
	if d == nil {
		d = a.begin(key, now)
	}
	if d.poison {
		return nil, ReasonFragmentOverlap
	}
	head, data := p.Piece()
	if d.again(p.FragOffset, data) {
		return nil, ReasonFragmentOverlap // this very piece once more does no harm (RFC 8200 section 4.5)
	}
	end := p.FragOffset + len(data)
	switch {
	case len(d.pieces) == maxPieces,
		!d.datagram.add(p.FragOffset, len(data)),
		d.end != 0 && (end > d.end || !p.MoreFragment),
		!p.MoreFragment && d.reach() > end:
		a.poison(d)
		return nil, ReasonFragmentOverlap
	}
	d.pieces = append(d.pieces, piece{p.FragOffset, bytes.Clone(data)})
	d.ecn |= 1 << (p.TOS & 3)
	a.charge(d, len(data)+pieceCost)
	if !p.MoreFragment {
		d.end = end
	}
	if p.FragOffset == 0 {
		d.head, d.tos = bytes.Clone(head), p.TOS
		a.charge(d, len(head))
	}
	if d.end == 0 || d.n != 1 || d.spans[0] != (byteSpan{0, int32(d.end)}) {
		a.bound(d)
		return nil, ReasonFragmentHeld
	}
	a.remove(d)
	if whole = d.whole(); whole == nil {
		return nil, ReasonBadFragment
	}
	return whole, ReasonNone
}

// begin makes room for another datagram and begins it.
func (a *reassembler) begin(key pieceKey, now int64) *partial {
	of := a.accounts[key.owner]
	if of == nil {
		of = &account{}
		a.accounts[key.owner] = of
	}
	d := &partial{key: key, of: of, older: of.newest}
	d.expires = now + fragmentTimeout
	if of.newest != nil {
		of.newest.newer = d
	} else {
		of.oldest = d
	}
	of.newest = d
	of.n++
	a.partials[key] = d
	a.charge(d, datagramCost)
	a.bound(d)
	return d
}

func (a *reassembler) charge(d *partial, n int) {
	d.cost += n
	d.of.cost += n
	a.cost += n
}

// bound throws away what is too much: the oldest datagrams of d's owner, or in all
// those of whoever has most. d itself, which is being added to, goes last.
func (a *reassembler) bound(d *partial) {
	for d.of.cost > ownerBytes || d.of.n > ownerDatagrams {
		a.remove(d.of.victim(d))
	}
	for a.cost > allBytes || len(a.partials) > a.max {
		most := d.of
		for _, x := range a.accounts {
			if x.cost > most.cost {
				most = x
			}
		}
		a.remove(most.victim(d))
	}
}

// victim is the oldest datagram that is not d, if there is one.
func (o *account) victim(d *partial) *partial {
	if o.oldest == d && d.newer != nil {
		return d.newer
	}
	return o.oldest
}

func (a *reassembler) remove(d *partial) {
	of := d.of
	if d.older != nil {
		d.older.newer = d.newer
	} else {
		of.oldest = d.newer
	}
	if d.newer != nil {
		d.newer.older = d.older
	} else {
		of.newest = d.older
	}
	d.older, d.newer = nil, nil
	of.n--
	a.charge(d, -d.cost)
	delete(a.partials, d.key)
	if of.n == 0 {
		delete(a.accounts, d.key.owner)
	}
}

// poison throws away what is there of a datagram, and whatever of it may come yet
// (RFC 5722 section 3).
func (a *reassembler) poison(d *partial) {
	d.datagram.poison = true
	d.pieces, d.head = nil, nil
	a.charge(d, datagramCost-d.cost)
}

// expire forgets what has waited for too long. Of one owner the oldest come first.
func (a *reassembler) expire(now int64) {
	a.Lock()
	defer a.Unlock()
	for _, of := range a.accounts {
		for of.oldest != nil && of.oldest.expires <= now {
			a.remove(of.oldest)
		}
	}
}

// again says that a piece is there already, byte for byte.
func (d *partial) again(at int, data []byte) bool {
	for i := range d.pieces {
		if d.pieces[i].at == at && bytes.Equal(d.pieces[i].data, data) {
			return true
		}
	}
	return false
}

// reach is where the last of the pieces ends that are there.
func (d *partial) reach() (end int) {
	for i := range d.pieces {
		end = max(end, d.pieces[i].at+len(d.pieces[i].data))
	}
	return end
}

// whole puts the pieces together; nil where they make no datagram.
func (d *partial) whole() []byte {
	tos, ok := d.congestion()
	if !ok {
		return nil
	}
	b, err := packet.AppendWhole(make([]byte, 0, len(d.head)+d.end), d.head, d.end, tos)
	if err != nil {
		return nil
	}
	start := len(b)
	b = b[:start+d.end]
	for i := range d.pieces {
		copy(b[start+d.pieces[i].at:], d.pieces[i].data)
	}
	return b
}

// congestion gives the TOS of the whole: congestion that any fragment has met has
// been met by all, and a fragment that could not have told it does not belong to
// others that could (RFC 3168 section 5.3).
func (d *partial) congestion() (tos uint8, ok bool) {
	const notECT, ce = 0, 3
	if d.ecn&(1<<ce) == 0 {
		return d.tos, true
	}
	return d.tos | ce, d.ecn&(1<<notECT) == 0
}

// assemble takes a fragment that came out of an SA. If it was the last one
// missing, the whole datagram is judged, and goes on.
func (e *Engine) assemble(s *spd, in *Input, out *Output) (Result, *Input) {
	whole, reason := e.assembly.add(in.from.Owner(), &in.Packet, in.Now)
	if whole == nil {
		return Result{Reason: reason, Rule: NoRule}, in
	}
	inner := *in
	if f := packet.Parse(&inner.Packet, whole, len(whole)); f != packet.OK {
		return Result{Reason: ReasonOf(f), Rule: NoRule}, in
	}
	out.inner = inner
	if e.options.Carries != nil && !e.options.Carries(in.from, &out.inner) {
		return Result{Reason: ReasonWrongSA, Rule: NoRule}, &out.inner
	}
	r := e.judge(s, &out.inner)
	if r.Verdict != Protect {
		return r, &out.inner
	}
	// A router of IPv6 cuts nothing: what has come in pieces must go on in
	// pieces, and no longer than any link takes, because its sender has been
	// told of no other. Who could guess their identification could add to
	// them in the clear, so nobody can.
	if inner.Dir == Forward && inner.Packet.Version == 6 && len(whole) > minMTU6 {
		pieces, err := packet.Fragment(whole, minMTU6, rand.Uint32())
		if err != nil {
			return Result{Reason: ReasonBadFragment, Rule: r.Rule, opened: r.opened}, &out.inner
		}
		out.Pieces = pieces
		return r, &out.inner
	}
	out.Replace = whole
	return r, &out.inner
}
