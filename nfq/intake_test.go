package nfq

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// newIntake makes an intake that hangs on no rule.
func newIntake(t testing.TB) *intake {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: BPF programs need root")
	}
	i, err := openIntake(new(awake))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := i.open(false, 0, func(*ebpf.Program) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return i
}

// The ring does what a plain list does: packets come out whole, in their order,
// none twice, and what does not fit is counted.
func TestIntakeTwin(t *testing.T) {
	i := newIntake(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	var list [][]byte
	var lost uint64
	check := func(n int) {
		t.Helper()
		for k, want := range list[:n] {
			if b, _, ok := i.frame(k); !ok || !bytes.Equal(b, want) {
				t.Fatalf("frame %d: %v, %d bytes, want %d", k, ok, len(b), len(want))
			}
		}
		if n == len(list) {
			if b, _, ok := i.frame(n); ok {
				t.Fatalf("behind the last frame there are %d bytes", len(b))
			}
		}
	}
	for round := range 60 {
		put := rnd.IntN(400)
		if round == 20 {
			put = intakeFrames + 1000 // full, whatever was there before
		}
		for range put {
			b := make([]byte, 14+rnd.IntN(2100))
			for k := range b {
				b[k] = byte(rnd.Uint32())
			}
			b[12], b[13] = 0x88, 0xb5 // for local experiments (RFC 9542), as the kernel looks into IP here
			b = append(b, make([]byte, max(0, 15-len(b)))...)
			took, _, err := i.prog.Test(b)
			if err != nil {
				t.Fatal(err)
			}
			b = b[14:]
			switch {
			case len(b) > intakeMost:
				if took != 0 {
					t.Fatalf("took %d bytes: %d", len(b), took)
				}
				continue
			case len(list) == intakeFrames:
				lost++
			default:
				list = append(list, b)
			}
			if took != 1 {
				t.Fatalf("did not take %d bytes: %d", len(b), took)
			}
		}
		n := min(len(list), rnd.IntN(600))
		check(n)
		i.release(n)
		list = list[n:]
	}
	check(len(list))
	if lost < 100 || i.lost() != lost {
		t.Errorf("%d lost, counted %d", lost, i.lost())
	}
}

// Several processors fill the ring at once while it is read.
func TestIntakeConcurrent(t *testing.T) {
	i := newIntake(t)
	const writers, each = 4, 5000
	var passed atomic.Int64
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			b := make([]byte, 14+100)
			b[12], b[13] = 0x88, 0xb5
			for n := range each {
				binary.BigEndian.PutUint32(b[14:], uint32(w))
				binary.BigEndian.PutUint32(b[18:], uint32(n))
				took, _, err := i.prog.Test(b)
				if err != nil {
					t.Error(err)
					return
				}
				if took == 0 {
					passed.Add(1) // the others were faster, again and again
				}
			}
		})
	}
	done := make(chan bool)
	go func() { all.Wait(); i.stop(); close(done) }()
	var last [writers]uint32
	read := int64(0)
	for ended := false; ; {
		n := 0
		for ; n < intakeBatch; n++ {
			b, _, ok := i.frame(n)
			if !ok {
				break
			}
			w, at := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
			if at+1 <= last[w] {
				t.Fatalf("packet %d of writer %d came after %d", at, w, last[w]-1)
			}
			last[w] = at + 1
			read++
		}
		i.release(n)
		if n > 0 {
			i.got(n)
			continue
		}
		if ended {
			break
		}
		i.wait()
		ended = i.stopped()
	}
	<-done
	if lost := int64(i.lost()); read+lost+passed.Load() != writers*each || read == 0 {
		t.Errorf("%d read, %d lost, %d went another way, of %d", read, lost, passed.Load(), writers*each)
	}
}

// A kernel that cannot, or does not want the program in its rules, is asked
// once, and does without.
func TestIntakeRefused(t *testing.T) {
	i, err := openIntake(new(awake))
	if err != nil {
		t.Fatal(err)
	}
	defer i.close()
	no := errors.New("no such match")
	if _, err := i.open(false, 0, func(*ebpf.Program) error { return no }); i.prog != nil || err == nil {
		t.Errorf("%v, %v", i.prog, err)
	}
	if _, err := i.open(false, 0, func(*ebpf.Program) error { return nil }); i.prog != nil || err != nil {
		t.Errorf("asked again: %v, %v", i.prog, err)
	}
	if i.frames != nil || i.lost() != 0 {
		t.Error("something is left")
	}
}

// arrivals notes by which way each packet came, by its SPI.
type arrivals struct {
	mu   sync.Mutex
	ways map[uint32][]string
	last map[uint32][]byte
}

func (a *arrivals) note(way string, p *packet.Packet) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ways[p.SPI] = append(a.ways[p.SPI], way)
	a.last[p.SPI] = bytes.Clone(p.Bytes)
}

func (a *arrivals) Handle(in *engine.Input, _ *engine.Output, f packet.Fault) engine.Result {
	if f == packet.OK && in.Packet.HasSPI && in.Arriving {
		a.note("queue", &in.Packet)
	}
	if in.Packet.HasICMP && in.Packet.Version == 6 {
		return engine.Result{Verdict: engine.Bypass} // neighbours
	}
	return engine.Result{}
}

func (a *arrivals) Unseal(in *engine.Input, b []byte, _ *engine.Unsealed) engine.Result {
	if in.Now != a.Now() || in.InIf != "eth0" || in.InMTU != 1500 || !bytes.Equal(b, in.Packet.Bytes[in.Packet.Transport:]) {
		a.note("wrong", &in.Packet)
	}
	a.note("ring", &in.Packet)
	return engine.Result{}
}

// Now makes it an Opener.
func (a *arrivals) Now() int64 { return 1 }

// seen waits until n packets have come.
func (a *arrivals) seen(t *testing.T, fw *Firewall, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		a.mu.Lock()
		got := len(a.ways)
		a.mu.Unlock()
		if got >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d packets came: %v, %+v", got, n, a.ways, fw.Stats())
		}
	}
}

// emit sends a packet as it is, in fragments if it is long.
func (h *testHost) emit(b []byte) {
	h.t.Helper()
	h.try(func() error {
		family := unix.AF_INET
		if b[0]>>4 == 6 {
			family = unix.AF_INET6
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		pieces := [][]byte{b}
		if len(b) > 1500 {
			if pieces, err = packet.Fragment(b, 1500, 7); err != nil {
				return err
			}
		}
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, p := range pieces {
			var sa unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(b[16:20])}
			if family == unix.AF_INET6 {
				if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL, 1); err != nil {
					return err
				}
				sa = &unix.SockaddrInet6{Addr: [16]byte(b[24:40]), ZoneId: uint32(link.Attrs().Index)}
			}
			if err := unix.Sendto(fd, p, 0, sa); err != nil {
				return err
			}
		}
		return nil
	})
}

// Each packet comes once, by the way it should, as it was sent.
func TestIntakeWays(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	build := func(spi uint32, n int, v6 bool) []byte {
		s := packet.Spec{Src: addr4(0, 1), Dst: addr4(0, 2), Protocol: packet.ESP, ID: spi, SPI: spi, SPISeq: 1, Payload: bytes.Repeat([]byte{byte(spi)}, n)}
		if v6 {
			s.Src, s.Dst = addr6(0, 1), addr6(0, 2)
		}
		p, err := packet.Build(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	mend := func(p []byte) []byte {
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], packet.Checksum(p[:int(p[0]&15)*4], 0))
		return p
	}
	options := mend(slices.Insert(build(0x105, 100, false), 20, 1, 1, 1, 0))
	options[0]++
	mend(options)
	header := slices.Insert(build(0x205, 100, true), 40, packet.ESP, 0, 1, 4, 0, 0, 0, 0) // destination options: PadN
	header[6] = 60
	binary.BigEndian.PutUint16(header[4:], uint16(len(header)-40))
	elsewhere := mend(func() []byte { p := build(0x106, 100, false); p[19] = 77; return p }())
	for _, c := range []Config{{}, {noHook: true}, {noIntake: true}} {
		seen := &arrivals{ways: map[uint32][]string{}, last: map[uint32][]byte{}}
		c.Protect = true
		fw, stop, err := b.run(c, seen)
		if err != nil {
			t.Fatal(err)
		}
		if !c.noHook && !c.noIntake && fw.intake.hook == nil {
			t.Log("this kernel takes no BPF program on a netfilter hook: a rule calls it")
		}
		rows := []struct {
			spi uint32
			b   []byte
			way string
		}{
			{0x101, build(0x101, 100, false), "ring"},
			{0x102, build(0x102, 1472, false), "ring"},
			{0x103, build(0x103, 1700, false), "ring"}, // in fragments, which the kernel puts together
			{0x104, build(0x104, 4000, false), "queue"},
			{0x105, options, "queue"},
			{0x201, build(0x201, 100, true), "ring"},
			{0x202, build(0x202, 1452, true), "ring"},
			{0x204, build(0x204, 4000, true), "queue"},
			{0x205, header, "queue"},
		}
		a.emit(elsewhere)
		for _, r := range rows {
			a.emit(r.b)
		}
		seen.seen(t, fw, len(rows))
		stop()
		for _, r := range rows {
			want := r.way
			if c.noIntake {
				want = "queue"
			}
			if got := seen.ways[r.spi]; !slices.Equal(got, []string{want}) {
				t.Errorf("%+v: %#x came by %v, want %v", c, r.spi, got, want)
			}
			if got := seen.last[r.spi]; !bytes.Equal(got, r.b) && r.spi != 0x103 && r.spi != 0x104 {
				t.Errorf("%#x is another:\n%x, sent\n%x", r.spi, got, r.b)
			}
		}
		if got := seen.ways[0x106]; got != nil {
			t.Errorf("a packet for somebody else came by %v", got)
		}
		if st := fw.Stats(); st.Packets != st.Accepted+st.Dropped || st.Unreadable != 0 {
			t.Errorf("stats: %+v", st)
		}
		if err := fw.Close(false); err != nil {
			t.Fatal(err)
		}
	}
}

// What comes while nobody reads waits, as far as there is room; the rest is
// lost and counted. With the daemon gone the rule goes on to discard.
func TestIntakeUnread(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	var log bytes.Buffer
	var fw *Firewall
	b.try(func() (err error) {
		fw, err = Open(Config{Protect: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		return err
	})
	if strings.Contains(log.String(), "packet by packet") {
		t.Fatalf("no intake: %s", log.String())
	}
	p, err := packet.Build(packet.Spec{Src: addr4(0, 1), Dst: addr4(0, 2), Protocol: packet.ESP, SPI: 0x101, SPISeq: 1, Payload: make([]byte, 40)})
	if err != nil {
		t.Fatal(err)
	}
	lost := func() uint64 { return fw.Stats().QueueDropped }
	// The kernel may lose some on the way, so a fixed number will not do.
	a.try(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for n := 0; lost() < 50; n++ {
			if n == 100*intakeFrames {
				return errors.New("the ring does not get full")
			}
			if err := unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: addr4(0, 2).As4()}); err != nil {
				return err
			}
		}
		return nil
	})
	if _, _, ok := fw.intake.frame(intakeFrames - 1); !ok {
		t.Error("the ring is not full")
	}
	if err := fw.Close(true); err != nil {
		t.Fatal(err)
	}
	// The kernel's answer would be an ICMP error: protocol unreachable.
	tap := a.tap("eth0")
	a.emit(p)
	time.Sleep(silence)
	tap.mu.Lock()
	defer tap.mu.Unlock()
	for _, b := range tap.packets {
		if len(b) > 20 && b[0]>>4 == 4 && b[9] == packet.ICMP {
			t.Errorf("answered: %x", b)
		}
	}
}

// The pace is that of the last time in which packets were counted; when they
// stop, nobody waits for more.
func TestIntakePace(t *testing.T) {
	var p pace
	for _, r := range []struct {
		n    int
		now  int64 // in tenths of a millisecond
		high bool
	}{
		{1, 10, false}, {1, 12, false}, {40, 15, false}, {20, 20, true}, {1, 25, true}, {1, 31, false},
		{49, 41, false}, {50, 51, true}, {99, 71, false}, {100, 91, true}, {1, 10_000, false},
	} {
		if p.count(r.n, r.now*paceTime/10); p.high != r.high {
			t.Errorf("%d more at %d: high %v", r.n, r.now, p.high)
		}
	}

	i := newIntake(t)
	put := func(n int) {
		for range n {
			if took, _, err := i.prog.Test(append(make([]byte, 12), 0x88, 0xb5, 1)); err != nil || took != 1 {
				t.Fatal(took, err)
			}
		}
	}
	for _, r := range []struct {
		there int
		high  bool
	}{{0, false}, {1, true}, {gatherFrames, true}} {
		put(r.there)
		i.high = true
		if i.gather(); i.high != r.high {
			t.Errorf("%d packets are there: high %v", r.there, i.high)
		}
	}
}
