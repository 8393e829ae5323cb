package esp

import (
	"bytes"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

func TestSAD(t *testing.T) {
	d := NewSAD()
	gcm := suite(t, ESP, "aes-128-gcm-16", "")
	owner := Owner{Name: "lan", Peer: v4b}
	old := newPair(t, Config{Suite: gcm, SPI: 0x1001, Owner: owner})
	young := newPair(t, Config{Suite: gcm, SPI: 0x1002, Owner: owner})
	ah := newPair(t, Config{Suite: suite(t, AH, "", "hmac-sha1-96"), SPI: 0x1001, Owner: Owner{Name: "ah"}})
	for _, sa := range []*SA{old.in, old.out, ah.in, young.in} {
		if err := d.Insert(sa); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Insert(newPair(t, Config{Suite: gcm, SPI: 0x1001}).in); err == nil {
		t.Error("two inbound SAs with one SPI")
	}
	if d.Inbound(ESP, 0x1001) != old.in || d.Inbound(AH, 0x1001) != ah.in || d.Inbound(ESP, 0x1002) != young.in || d.Inbound(AH, 0x1002) != nil {
		t.Error("inbound")
	}
	if d.Outbound(owner) != old.out || d.Outbound(Owner{Name: "lan"}) != nil || d.Outbound(Owner{Name: "lan", Peer: v4b, ID: 1}) != nil {
		t.Error("outbound")
	}
	if d.Insert(young.out); d.Outbound(owner) != young.out {
		t.Error("the newest outbound SA is not used")
	}
	if d.Remove(young.out); d.Outbound(owner) != old.out || !young.out.Closed() {
		t.Error("the older outbound SA is not used again")
	}
	if d.Remove(young.out) {
		t.Error("removed twice")
	}
	if d.Len() != 4 {
		t.Errorf("%d SAs", d.Len())
	}
	seen := map[*SA]bool{}
	for sa := range d.All() {
		seen[sa] = true
	}
	if len(seen) != 4 || !seen[old.in] || !seen[old.out] || !seen[ah.in] || !seen[young.in] {
		t.Errorf("All gives %d", len(seen))
	}
	for range d.All() {
		break
	}
	if spi, err := d.NewSPI(ESP); err != nil || spi < 256 || d.Inbound(ESP, spi) != nil {
		t.Error(spi, err)
	}

	// Packets that no SA is to blame for.
	sealed := old.mustSeal(t, build(packet.Spec{Src: v4a, Dst: v4b, Protocol: packet.UDP, Payload: []byte("x")}))
	other := bytes.Clone(sealed)
	other[23] ^= 0x10
	away := bytes.Clone(sealed)
	away[19] ^= 1
	for _, c := range []struct {
		name string
		pkt  []byte
		want Fault
	}{
		{"nothing", nil, Short},
		{"UDP on its own", udp4(100), UnknownSPI},
		{"TCP", build(packet.Spec{Src: v4a, Dst: v4b, Protocol: packet.TCP}), Malformed},
		{"another SPI", other, UnknownSPI},
		{"another destination", away, UnknownSPI},
		{"ESP of 8 bytes", build(packet.Spec{Src: v4a, Dst: v4b, Protocol: packet.ESP, SPI: 0x1001}), Short},
		{"fragment", build(packet.Spec{Src: v4a, Dst: v4b, Protocol: packet.ESP, Fragment: true, Payload: sealed[20:]}), Fragment},
	} {
		before := d.Faults()[c.want]
		if _, sa, _, f := d.Open(bytes.Clone(c.pkt), 0); sa != nil || f != c.want || d.Faults()[f] != before+1 {
			t.Errorf("%s: %v %v, want %v", c.name, sa, f, c.want)
		}
	}
	if _, sa, _, f := d.Open(sealed, 0); sa != old.in || f != OK {
		t.Errorf("%v %v", sa, f)
	}
	if _, sa, _, f := d.Seal(nil, udp4(100), Owner{}, 0); sa != nil || f != NoSA || d.Faults()[NoSA] != 1 {
		t.Errorf("%v %v", sa, f)
	}
}

// TestMakeBeforeBreak replaces an SA 1,000 times under traffic; no packet is
// lost, and none comes out twice.
func TestMakeBeforeBreak(t *testing.T) {
	d := NewSAD()
	owner := Owner{Name: "lan", Peer: v4b}
	s := suite(t, ESP, "aes-128-gcm-16", "")
	pkt := build(packet.Spec{Src: v4a, Dst: v4b, Protocol: packet.UDP, SrcPort: 1, DstPort: 2, Payload: make([]byte, 64)})
	insert := func(i int) *pair {
		p := newPair(t, Config{Suite: s, SPI: uint32(0x1000 + i), Owner: owner})
		if err := d.Insert(p.in); err != nil {
			t.Error(err)
		}
		d.Insert(p.out)
		return p
	}
	last := insert(0)
	var stop atomic.Bool
	var traffic sync.WaitGroup
	var flying sync.RWMutex // held for reading from sealing to opening
	var sent, lost atomic.Uint64
	// One sender: several would overtake each other by more than a replay
	// window whenever one of them has to wait for a core.
	traffic.Go(func() {
		var buf []byte
		for !stop.Load() {
			flying.RLock()
			var f Fault
			if buf, _, _, f = d.Seal(buf[:0], pkt, owner, 0); f == OK {
				_, _, _, f = d.Open(buf, 0)
			}
			flying.RUnlock()
			sent.Add(1)
			if f != OK {
				lost.Add(1)
				t.Error(f)
			}
		}
	})
	for i := 1; i <= 1000; i++ {
		p := insert(i)
		d.Remove(last.out)
		// "The peer has moved": what was sealed by the old SA has come.
		flying.Lock()
		d.Remove(last.in)
		flying.Unlock()
		last = p
	}
	stop.Store(true)
	traffic.Wait()
	if lost.Load() != 0 || sent.Load() == 0 || d.Len() != 2 {
		t.Errorf("%d of %d lost, %d SAs left", lost.Load(), sent.Load(), d.Len())
	}
}
