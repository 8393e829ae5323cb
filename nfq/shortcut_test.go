package nfq

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// bulk sends sealed datagrams as a worker does, many at a time, from one host
// to another, on whose wires it looks what has come:
//
//	firewall -- eth0 -- peer
//	         -- eth1 --
type bulk struct {
	t    *testing.T
	v6   bool
	a, b *testHost
	fw   *Firewall
	w    *worker
	eth  [2]*wiretap // of the peer
	n    uint32      // the last sequence number
}

// passing is a handler that is an Opener.
type passing struct{ *handler }

func (passing) Now() int64 { return 1 }

func newBulk(t *testing.T, v6 bool, cfg Config) *bulk {
	s := &bulk{t: t, v6: v6, a: newHost(t), b: newHost(t)}
	wire(s.a, s.b, 0)
	wire(s.a, s.b, 1)
	cfg.Protect = true
	h := passing{new(handler)}
	h.set(pass)
	fw, err := s.a.tryHandler(cfg, h)
	if err != nil {
		t.Fatal(err)
	}
	s.fw, s.w = fw, newWorker(fw, h, new(queueStats))
	for i := range s.eth {
		s.eth[i] = s.b.listen(fmt.Sprintf("eth%d", i), unix.SOCK_RAW)
	}
	return s
}

func (s *bulk) addr(wire, host int) netip.Addr {
	if s.v6 {
		return addr6(wire, host)
	}
	return addr4(wire, host)
}

// spec is that of the next datagram.
func (s *bulk) spec() packet.Spec {
	s.n++
	return packet.Spec{Src: s.addr(0, 1), Dst: s.addr(0, 2), Protocol: packet.ESP, ID: s.n, DontFragment: true, SPI: 0x77, SPISeq: s.n,
		Payload: bytes.Repeat([]byte{byte(s.n)}, 1400)}
}

func (s *bulk) build(spec packet.Spec) []byte {
	b, err := packet.Build(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// send sends datagrams at once and says how many took the shortcut, and how
// many the kernel did not take.
func (s *bulk) send(datagrams ...[]byte) (direct, unsent int) {
	st := s.w.stats
	sealed, wasDirect, wasUnsent := st.sealed.Load(), st.direct.Load(), st.unsent.Load()
	s.w.in = engine.Input{Now: s.fw.Now()}
	s.w.send.add(datagrams, 0, 0)
	s.w.send.flush()
	direct, unsent = int(st.direct.Load()-wasDirect), int(st.unsent.Load()-wasUnsent)
	if n := int(st.sealed.Load()-sealed) + unsent; n != len(datagrams) {
		s.t.Fatalf("of %d datagrams %d were sent or not", len(datagrams), n)
	}
	return direct, unsent
}

// batch sends as many as it takes, and says besides what send says which
// sequence number was the first.
func (s *bulk) batch() (first uint32, direct, unsent int) {
	first = s.n + 1
	var all [][]byte
	for range shortcutBulk {
		all = append(all, s.build(s.spec()))
	}
	direct, unsent = s.send(all...)
	if direct != 0 && direct != len(all) {
		s.t.Fatalf("%d of %d datagrams took the shortcut", direct, len(all))
	}
	return first, direct, unsent
}

// until sends until datagrams take the shortcut, or do not any more, and gives
// the sequence number of the first of these.
func (s *bulk) until(direct bool) (first uint32) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		first, n, _ := s.batch()
		if (n > 0) == direct {
			return first
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("datagrams take the shortcut: %v; why not: %s", n > 0, s.fw.Stats().NotDirect)
		}
	}
}

// hold makes the way to the peer one that does not expire, changed.
func (s *bulk) hold(change func(*shortWay)) {
	sc := s.fw.shortcut
	sc.mu.Lock()
	defer sc.mu.Unlock()
	w := *(*sc.ways.Load())[s.addr(0, 2)]
	w.until = s.fw.Now() + int64(time.Hour)
	change(&w)
	sc.keep(&w)
}

// frames gives what a wire has brought: frames of ESP with sequence numbers from
// one on and below another.
func (s *bulk) frames(wire int, from, below uint32) (got [][]byte) {
	w := s.eth[wire]
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.packets {
		var p packet.Packet
		if len(f) < 14 || packet.Parse(&p, f[14:], len(f)-14) != packet.OK || p.Protocol != packet.ESP {
			continue
		}
		if p.SPISeq >= from && p.SPISeq < below {
			got = append(got, f)
		}
	}
	return got
}

// arrive waits until n such frames have come.
func (s *bulk) arrive(wire int, from, below uint32, n int) [][]byte {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		got := s.frames(wire, from, below)
		if len(got) >= n {
			return got
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%d of %d frames came by eth%d", len(got), n, wire)
		}
	}
}

// bothFamilies runs a test with IPv4 and IPv6 at the same time.
func bothFamilies(t *testing.T, f func(t *testing.T, v6 bool)) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("IPv%d", map[bool]int{false: 4, true: 6}[v6]), func(t *testing.T) {
			t.Parallel()
			f(t, v6)
		})
	}
}

// What takes the shortcut is on the wire the very bytes that the raw socket
// sends, Ethernet header included; what the raw socket would change, or cut up,
// or refuse, is left to it.
func TestShortcutTwin(t *testing.T) {
	t.Parallel()
	bothFamilies(t, func(t *testing.T, v6 bool) {
		s := newBulk(t, v6, Config{})
		s.until(true)
		raw := *s
		raw.w = newWorker(&Firewall{cfg: s.fw.cfg, inject: s.fw.inject, start: s.fw.start}, s.w.handler, s.w.stats)
		for _, r := range []struct {
			name   string
			change func(*packet.Spec)
			direct bool
			sent   bool
		}{
			{"plain", func(*packet.Spec) {}, true, true},
			{"class and hops", func(p *packet.Spec) { p.TOS, p.TTL = 0xb9, 3 }, true, true},
			{"no DF", func(p *packet.Spec) { p.DontFragment = false }, true, true},
			{"DF, no identification", func(p *packet.Spec) { p.ID = 0 }, true, true},
			{"AH's protocol", func(p *packet.Spec) { p.Protocol, p.ICV = packet.AH, make([]byte, 12) }, true, true},
			{"as long as the device carries", func(p *packet.Spec) { p.Payload = make([]byte, 1500-20-8-map[bool]int{true: 20}[v6]) }, true, true},
			{"one byte longer", func(p *packet.Spec) { p.Payload = make([]byte, 1500-20-8-map[bool]int{true: 20}[v6]+1) }, false, false},
			{"no identification", func(p *packet.Spec) { p.ID, p.DontFragment = 0, false }, v6, true},
			{"options", func(p *packet.Spec) { p.IPv4Options = []byte{1, 1, 1, 0} }, v6, true},
		} {
			var all [][]byte
			for range shortcutBulk {
				p := s.spec()
				r.change(&p)
				if v6 {
					p.IPv4Options = nil
				}
				all = append(all, s.build(p))
			}
			first := s.n - shortcutBulk + 1
			s.until(true)
			s.hold(func(*shortWay) {})
			direct, unsent := s.send(slices.Clone(all)...)
			if want := map[bool]int{true: len(all)}[r.direct]; direct != want || (unsent == 0) != r.sent {
				t.Errorf("%s: %d took the shortcut, want %d; %d were not sent", r.name, direct, want, unsent)
			}
			if d, u := raw.send(slices.Clone(all)...); d != 0 || u != unsent {
				t.Errorf("%s: by the raw socket: %d took the shortcut, %d were not sent", r.name, d, u)
			}
			if unsent > 0 || r.name == "AH's protocol" {
				continue
			}
			got := s.arrive(0, first, first+shortcutBulk, 2*len(all))
			for i, b := range all {
				if r.direct && !bytes.Equal(got[i], got[len(all)+i]) {
					t.Errorf("%s: the raw socket sends another frame:\n%x\n%x", r.name, got[i][:64], got[len(all)+i][:64])
				}
				if !bytes.Equal(got[i][14:], b) && r.direct {
					t.Errorf("%s: changed on the wire:\n%x\n%x", r.name, got[i][14:][:64], b[:64])
				}
			}
		}
	})
}
