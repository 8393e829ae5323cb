package nfq

import (
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/packet"
	"github.com/vishvananda/netlink"
)

// The hook takes ESP for the addresses that this host has just then, while the
// policy protects, and nothing of a program on this host itself. What it does not
// take meets the table.
func TestIntakeHookFollowsTheHost(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	seen := &arrivals{ways: map[uint32][]string{}, last: map[uint32][]byte{}}
	fw, stop, err := b.run(Config{Protect: true}, seen)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if fw.intake.hook == nil {
		t.Skip("SKIPPED: this kernel has no BPF programs on netfilter hooks (CONFIG_NETFILTER_BPF_LINK, Linux 6.4)")
	}
	spi := uint32(0x100)
	send := func(from *testHost, v6 bool, to int) uint32 {
		spi++
		s := packet.Spec{Src: addr4(0, 1), Dst: addr4(0, to), Protocol: packet.ESP, SPI: spi, SPISeq: 1, Payload: make([]byte, 60)}
		if v6 {
			s.Src, s.Dst = addr6(0, 1), addr6(0, to)
		}
		p, err := packet.Build(s)
		if err != nil {
			t.Fatal(err)
		}
		from.emit(p)
		return spi
	}
	comes := func(when string, want string, spis ...uint32) {
		t.Helper()
		for _, spi := range spis {
			for deadline := time.Now().Add(patience); want != ""; time.Sleep(time.Millisecond) {
				seen.mu.Lock()
				n := len(seen.ways[spi])
				seen.mu.Unlock()
				if n > 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s: %#x does not come: %+v", when, spi, fw.Stats())
				}
			}
			seen.mu.Lock()
			if got := strings.Join(seen.ways[spi], " "); got != want {
				t.Errorf("%s: %#x came by %q, want %q", when, spi, got, want)
			}
			seen.mu.Unlock()
		}
	}
	address := func(change func(netlink.Link, *netlink.Addr) error, n int) {
		t.Helper()
		for _, text := range []string{addr4(0, 9).String() + "/24", addr6(0, 9).String() + "/64"} {
			b.try(func() error {
				l, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				at, err := netlink.ParseAddr(text)
				if err != nil {
					return err
				}
				at.Flags = 2 // IFA_F_NODAD
				return change(l, at)
			})
		}
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			fw.addresses.mu.Lock()
			got := len(fw.intake.hook.known)
			fw.addresses.mu.Unlock()
			if got == n {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the program knows %d addresses, want %d", got, n)
			}
		}
	}
	has := len(fw.intake.hook.known)
	comes("own", "ring", send(a, false, 2), send(a, true, 2))
	local := []uint32{send(b, false, 2), send(b, true, 2)}
	address(netlink.AddrAdd, has+2)
	comes("a new address", "ring", send(a, false, 9), send(a, true, 9))
	address(netlink.AddrDel, has)
	gone := []uint32{send(a, false, 9), send(a, true, 9)}
	comes("own again", "ring", send(a, false, 2), send(a, true, 2))
	comes("from this host", "", local...)
	comes("an address that is gone", "", gone...)

	cfg := fw.cfg
	cfg.Protect = false
	if err := fw.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	clear := []uint32{send(a, false, 2), send(a, true, 2)}
	cfg.Protect = true
	if err := fw.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	comes("protected again", "ring", send(a, false, 2), send(a, true, 2))
	comes("a policy that protects nothing", "", clear...)
}
