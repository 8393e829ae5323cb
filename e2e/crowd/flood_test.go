package crowd

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/ike"
	"golang.org/x/sys/unix"
)

// floodVariable makes this process send a flood; set for that alone. It holds
// the name of a kind, how many packets a second (0: as fast as it can) and for
// how long.
const floodVariable = "IPFW_CROWD_FLOOD"

// kinds are the floods. Each fills in an IKE message, or what is none, for the
// n-th packet and gives the UDP port it goes to.
var kinds = map[string]struct {
	about string
	fill  func(b []byte, r uint64) (n int, port uint16)
	same  bool // all from one address
}{
	"init":      {"IKE_SA_INIT from random addresses", func(b []byte, r uint64) (int, uint16) { return plainInit(b, r), 500 }, false},
	"init-4500": {"IKE_SA_INIT from random addresses to port 4500", func(b []byte, r uint64) (int, uint16) { return 4 + plainInit(b[4:], r), 4500 }, false},
	"cookie":    {"IKE_SA_INIT with forged cookies", func(b []byte, r uint64) (int, uint16) { return forgedCookie(b, r), 500 }, false},
	"one":       {"IKE_SA_INIT from one address", func(b []byte, r uint64) (int, uint16) { return plainInit(b, r), 500 }, true},
	"fragments": {"fragments of IKE_AUTH (RFC 7383) for SPIs that nobody has", func(b []byte, r uint64) (int, uint16) { return fragment(b, r), 500 }, false},
	"garbage":   {"random bytes", func(b []byte, r uint64) (int, uint16) { return garbage(b, r), 500 + 4000*uint16(r&1) }, false},
}

// message is a whole IKE_SA_INIT of ours, with ML-KEM in its proposals.
var message []byte

func plainInit(b []byte, r uint64) int {
	copy(b, message)
	binary.BigEndian.PutUint64(b, r|1)
	return len(message)
}

// forgedCookie puts a COOKIE notification of 33 bytes in front (RFC 7296
// section 2.6), as this host's are.
func forgedCookie(b []byte, r uint64) int {
	const n = 8 + 33
	copy(b, message[:28])
	binary.BigEndian.PutUint64(b, r|1)
	copy(b[28:], []byte{b[16], 0, 0, n, 0, 0, 16390 >> 8, 16390 & 255, 1})
	b[16] = 41
	binary.BigEndian.PutUint64(b[40:], r)
	binary.BigEndian.PutUint32(b[24:], uint32(len(message)+n))
	return n + copy(b[28+n:], message[28:])
}

// fragment is one of an encrypted message, RFC 7383 section 2.5.
func fragment(b []byte, r uint64) int {
	const n = 500
	clear(b[:n])
	binary.BigEndian.PutUint64(b, r)
	binary.BigEndian.PutUint64(b[8:], r>>1|1)
	copy(b[16:], []byte{53, 0x20, 35, 0x08, 0, 0, 0, 1, 0, 0, n >> 8, n & 255})
	copy(b[28:], []byte{35, 0, (n - 28) >> 8, (n - 28) & 255, 0, 1, 0, 64})
	return n
}

func garbage(b []byte, r uint64) int {
	for i := 0; i < 120; i += 8 {
		binary.BigEndian.PutUint64(b[i:], r*0x9e3779b97f4a7c15+uint64(i))
	}
	return 30 + int(r%90)
}

// frames is how many packets a system call sends.
const frames = 64

// mmsghdr is struct mmsghdr of linux/socket.h.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   uint32
}

// sendFlood is the sender's process. What it sends goes to the one neighbour.
func sendFlood(what string) error {
	var kind, mac, span string
	var rate int
	if _, err := fmt.Sscan(what, &kind, &rate, &span, &mac); err != nil {
		return err
	}
	limit, err := time.ParseDuration(span)
	if err != nil {
		return err
	}
	if l, ok := liars[kind]; ok {
		began := time.Now()
		sent, err := l.send(l.addresses, limit)
		fmt.Printf("%d 0 %d\n", sent, time.Since(began).Microseconds())
		return err
	}
	k, ok := kinds[kind]
	to, err := net.ParseMAC(mac)
	if !ok || err != nil {
		return errors.Join(fmt.Errorf("flood %q", what), err)
	}
	dev, err := net.InterfaceByName("f0")
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: dev.Index}),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)); err != nil {
		return err
	}
	var seed [8]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return err
	}
	x := binary.NativeEndian.Uint64(seed[:]) | 1
	bufs, iov, list := make([][]byte, frames), make([]unix.Iovec, frames), make([]mmsghdr, frames)
	for i := range bufs {
		bufs[i] = make([]byte, 2048)
		iov[i].Base = &bufs[i][0]
		list[i].hdr.Iov, list[i].hdr.Iovlen = &iov[i], 1
	}
	sent, bytes := 0, 0
	began := time.Now()
	for time.Since(began) < limit {
		for i, b := range bufs {
			x ^= x << 13 // xorshift: random enough, and fast
			x ^= x >> 7
			x ^= x << 17
			n := frame(b, dev.HardwareAddr, to, x, k.same, k.fill)
			iov[i].SetLen(n)
			bytes += n - 42
		}
		done, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&list[0])), frames, 0, 0, 0)
		if errno != 0 && errno != unix.ENOBUFS && errno != unix.EAGAIN {
			return errno
		}
		if errno == 0 {
			sent += int(done)
		}
		if rate > 0 {
			time.Sleep(time.Duration(sent)*time.Second/time.Duration(rate) - time.Since(began))
		}
	}
	fmt.Printf("%d %d %d\n", sent, bytes, time.Since(began).Microseconds())
	return nil
}

// frame writes one datagram with Ethernet and IPv4 around it. Sources are in
// 128.0.0.0/2, where the lab has nobody.
func frame(b []byte, from, to net.HardwareAddr, r uint64, same bool, fill func([]byte, uint64) (int, uint16)) int {
	copy(b, to)
	copy(b[6:], from)
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IP)
	n, port := fill(b[42:], r)
	ip := b[14:34]
	copy(ip, []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, unix.IPPROTO_UDP, 0, 0})
	binary.BigEndian.PutUint16(ip[2:], uint16(28+n))
	src := uint32(r>>32)&^(1<<30) | 1<<31
	if same {
		src = 0x80000001
	}
	binary.BigEndian.PutUint32(ip[12:], src)
	copy(ip[16:], serverAddr.AsSlice())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	udp := b[34:42]
	binary.BigEndian.PutUint16(udp, uint16(r>>16)|1024)
	binary.BigEndian.PutUint16(udp[2:], port)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+n))
	binary.BigEndian.PutUint16(udp[6:], 0) // no checksum
	return 42 + n
}

// firstMessage makes the IKE_SA_INIT that floods are made of.
func firstMessage() ([]byte, error) {
	p := caller(0, []byte(secret))
	c, err := ike.New(ike.Config{Peers: []*ike.Peer{p}, Rand: rand.Reader})
	if err != nil {
		return nil, err
	}
	o, err := c.Initiate(time.Now(), ike.Call{Peer: p.Name, Child: "crowd", Local: netip.MustParseAddrPort("10.80.0.1:500")})
	if err != nil || len(o.Send) != 1 {
		return nil, fmt.Errorf("no IKE_SA_INIT: %w", err)
	}
	return o.Send[0].Data, nil
}

// flood is one that runs.
type flood struct {
	t testing.TB
	p *lab.Process
}

// start begins a flood from the attacker to the server.
func (s *site) flood(t testing.TB, kind string, rate int, limit time.Duration) *flood {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	mac := strings.TrimSpace(s.server.Run("cat", "/sys/class/net/s1/address"))
	return &flood{t, s.attacker.Start("env", fmt.Sprintf("%s=%s %d %s %s", floodVariable, kind, rate, limit, mac), self)}
}

// end waits for its end, and gives packets a second and bytes of UDP in all.
func (f *flood) end() (rate float64, packets, bytes int) {
	f.t.Helper()
	if err := f.p.Wait(5 * time.Minute); err != nil {
		f.t.Fatalf("flood: %v\n%s", err, f.p.Output())
	}
	var us int
	if _, err := fmt.Sscan(f.p.Output(), &packets, &bytes, &us); err != nil {
		f.t.Fatalf("flood: %v\n%s", err, f.p.Output())
	}
	return float64(packets) / float64(us) * 1e6, packets, bytes
}
