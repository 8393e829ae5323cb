package ike

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// The roster finds the peers that a walk over all of them finds, in their order.
func TestRoster(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	addr := func() netip.Addr {
		if rng.IntN(4) == 0 {
			return netip.AddrFrom16([16]byte{0x20, 1, 15: byte(rng.IntN(6))})
		}
		return netip.AddrFrom4([4]byte{192, 0, 2, byte(rng.IntN(6))})
	}
	found := 0
	for round := range 300 {
		var peers []*Peer
		for i := range rng.IntN(30) {
			p := &Peer{Name: fmt.Sprint(i)}
			if rng.IntN(3) > 0 {
				p.Endpoint = netip.AddrPortFrom(addr(), 0)
			}
			for range rng.IntN(3) {
				a := addr()
				bits := a.BitLen()
				if rng.IntN(3) == 0 {
					bits -= 2
				}
				p.From = append(p.From, netip.PrefixFrom(a, bits).Masked())
			}
			if rng.IntN(3) == 0 {
				p.Local = addr()
			}
			peers = append(peers, p)
		}
		r := newRoster(peers)
		for range 30 {
			local, remote := addr(), addr()
			want := slices.DeleteFunc(slices.Clone(peers), func(p *Peer) bool { return !p.takes(local, remote) })
			if got := r.callers(local, remote); !slices.Equal(got, want) {
				t.Fatalf("round %d: %d peers for a call from %s to %s, want %d", round, len(got), remote, local, len(want))
			}
			found += len(want)
		}
		for _, p := range peers {
			if !r.has(p) || r.has(&Peer{Name: p.Name}) || r.names[p.Name] != p {
				t.Fatalf("round %d: peer %s is not known by its name", round, p.Name)
			}
		}
	}
	if found < 1000 {
		t.Errorf("only %d were found", found)
	}
}

// Identities that are the same fold to the same, others do not.
func TestFolded(t *testing.T) {
	var ids []Identity
	for _, s := range []string{"a.example", "A.Example", "b.example", "user@a.example", "User@a.example", "192.0.2.1", "2001:db8::1", "key-id:a.example",
		"CN=a.example", "CN=A.example", "CN=a.example, O=Example", "O=Example, CN=a.example"} {
		id, err := ParseIdentity(s)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	same := 0
	for _, a := range ids {
		for _, b := range ids {
			if a.same(b) != (a.folded() == b.folded()) {
				t.Errorf("%s and %s: the same %v, folded the same %v", a, b, a.same(b), a.folded() == b.folded())
			}
			if a.same(b) {
				same++
			}
		}
	}
	if same <= len(ids) {
		t.Error("no two are the same")
	}
}
