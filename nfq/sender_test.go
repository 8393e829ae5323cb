package nfq

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// TestSenderOrder has a sender gather datagrams and send full messages at
// chance moments: each arrives, in the order in which it was given, with the
// bytes that it had.
func TestSenderOrder(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	open := func() (fd int, port uint16) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: local.As4()}); err != nil {
			t.Fatal(err)
		}
		sa, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		return fd, uint16(sa.(*unix.SockaddrInet4).Port)
	}
	from, _ := open()
	to, port := open()
	limit := unix.NsecToTimeval(int64(10 * time.Second))
	if err := unix.SetsockoptTimeval(to, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		t.Fatal(err)
	}

	s := newSender(&worker{fw: &Firewall{inject: &injector{raw4: -1, raw6: -1,
		port4: &udpSocket{waiter: waiter{fd: from}}, port6: new(udpSocket)}}, stats: new(queueStats)})
	s.w.fw.inject.port4.bound.Store(true)
	rnd := rand.New(rand.NewPCG(1, 2))
	var want [][]byte
	number := uint32(0)
	build := func(size int) []byte {
		number++
		data := binary.BigEndian.AppendUint32(nil, number)
		data = append(data, make([]byte, size-len(data))...)
		b, err := packet.Build(packet.Spec{Src: local, Dst: local, Protocol: packet.UDP, SrcPort: portNAT, DstPort: port, Payload: data})
		if err != nil {
			t.Fatal(err)
		}
		b[6] |= 0x40 // DF
		want = append(want, data)
		return b
	}
	kept := 0
	for range 1000 {
		var pkts [][]byte
		for range 1 + rnd.IntN(50) {
			size := 200
			if rnd.IntN(40) == 0 {
				size = 4 + rnd.IntN(400)
			}
			pkts = append(pkts, build(size))
		}
		s.add(pkts, ipv4UDP, 0)
		before := s.k
		switch rnd.IntN(3) {
		case 0:
			s.flush()
		case 1:
			s.flushFull()
			if s.n > 1 || s.k != s.kept || s.k == before && s.k > runDatagrams {
				t.Fatalf("%d messages with %d datagrams stay, %d of them kept", s.n, s.k, s.kept)
			}
			kept += s.k
		}
		if len(want) > 100 { // before the receiver's buffer is full
			s.flush()
			b := make([]byte, 2000)
			for _, w := range want {
				n, _, err := unix.Recvfrom(to, b, 0)
				if err != nil {
					t.Fatalf("number %d: %v", binary.BigEndian.Uint32(w), err)
				}
				if !bytes.Equal(b[:n], w) {
					t.Fatalf("%d bytes, number %d, want %d bytes, number %d", n, binary.BigEndian.Uint32(b), len(w), binary.BigEndian.Uint32(w))
				}
			}
			want = want[:0]
		}
	}
	if kept == 0 {
		t.Error("never was a message kept for more")
	}
	if n := s.w.stats.unsent.Load(); n != 0 {
		t.Errorf("%d datagrams not sent", n)
	}
}
