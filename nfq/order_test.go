package nfq

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// Sealed packets leave in the order in which they were sealed, those that go
// on by a verdict among those that are injected: all of them wait in the queue
// when Run begins, so that they are judged in one go.
func TestSealedPacketsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	b.echo(7)
	if got := a.reach("udp", addr4(0, 2), 7, patience); got != "open" { // and the neighbours know each other
		t.Fatal(got)
	}
	tap := b.tap("eth0")
	e := sealer(t, sealing{proto: esp.ESP, mode: esp.Transport}, addr4(0, 1), addr4(0, 2), []netip.Addr{addr4(0, 1)}, []netip.Addr{addr4(0, 2)}, 0x1001, 0x1002, false)
	var fw *Firewall
	a.try(func() (err error) { fw, err = Open(Config{Protect: true}); return err })
	var c net.Conn
	a.try(func() (err error) { c, err = net.Dial("udp", netip.AddrPortFrom(addr4(0, 2), 9).String()); return err })
	t.Cleanup(func() { c.Close() })
	const rounds = 10
	for range rounds {
		for _, n := range []int{100, 4000, 100} { // 4,000 bytes are injected, in fragments
			if _, err := c.Write(make([]byte, n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- fw.Run(ctx, processor{e}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := fw.Close(false); err != nil {
			t.Error(err)
		}
	})
	var seen []uint32
	for end := time.Now().Add(patience); len(seen) < 3*rounds && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		seen = seen[:0]
		tap.mu.Lock()
		for _, p := range tap.packets {
			if len(p) > 28 && p[0]>>4 == 4 && p[9] == packet.ESP && binary.BigEndian.Uint16(p[6:])&0x1fff == 0 {
				seen = append(seen, binary.BigEndian.Uint32(p[24:]))
			}
		}
		tap.mu.Unlock()
	}
	if len(seen) != 3*rounds {
		t.Fatalf("%d packets left, want %d: %v, %+v", len(seen), 3*rounds, seen, fw.Stats())
	}
	for i, n := range seen {
		if n != uint32(i+1) {
			t.Fatalf("sequence numbers as they left: %v", seen)
		}
	}
}
