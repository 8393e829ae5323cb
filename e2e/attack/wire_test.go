package attack

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/packet"
)

// patience is how long a test waits for what must come. It is long because
// machines are busy: a test that passes never waits so long.
const patience = 30 * time.Second

// grace is how long what must not come may take after what was sent behind it
// has come.
const grace = 200 * time.Millisecond

// marker is a payload that occurs nowhere else.
func marker(what string) string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails: crypto/rand
	return what + "-" + hex.EncodeToString(b)
}

// frame is one IP datagram on a wire.
type frame struct {
	ip  []byte
	out bool // it left this host
}

// wire is a packet socket on a device: it hears everything that passes there,
// both ways, and sends what the test makes.
type wire struct {
	t       testing.TB
	fd      int
	index   int
	mac, to net.HardwareAddr

	mu     sync.Mutex
	frames []frame
	hear   []func(frame) // called with each, in order
	moved  chan struct{}
}

// tap opens a wire at a host's device. What is sent goes to the device at the
// other end, whatever its address is.
func tap(t testing.TB, h *lab.Host, dev string, far *lab.Host, farDev string) *wire {
	t.Helper()
	w := &wire{t: t, moved: make(chan struct{}, 1)}
	var err error
	if w.mac, err = net.ParseMAC(address(h, dev)); err != nil {
		t.Fatal(err)
	}
	if w.to, err = net.ParseMAC(address(far, farDev)); err != nil {
		t.Fatal(err)
	}
	err = h.Do(func() (err error) {
		d, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		w.index = d.Index
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20),
			unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
			unix.Bind(w.fd, &unix.SockaddrLinklayer{Ifindex: w.index, Protocol: htons(unix.ETH_P_ALL)}))
	})
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go w.read(stop, done)
	t.Cleanup(func() { close(stop); <-done; _ = unix.Close(w.fd) })
	return w
}

func address(h *lab.Host, dev string) string {
	return strings.TrimSpace(h.Run("cat", "/sys/class/net/"+dev+"/address"))
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)) }

func (w *wire) read(stop, done chan struct{}) {
	defer close(done)
	b := make([]byte, 1<<17)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, from, err := unix.Recvfrom(w.fd, b, 0)
		if err != nil || n < 14 {
			continue
		}
		kind := binary.BigEndian.Uint16(b[12:])
		at, ok := from.(*unix.SockaddrLinklayer)
		if !ok || kind != unix.ETH_P_IP && kind != unix.ETH_P_IPV6 {
			continue
		}
		f := frame{bytes.Clone(b[14:n]), at.Pkttype == unix.PACKET_OUTGOING}
		w.mu.Lock()
		w.frames = append(w.frames, f)
		hear := w.hear
		w.mu.Unlock()
		for _, h := range hear {
			h(f)
		}
		select {
		case w.moved <- struct{}{}:
		default:
		}
	}
}

// listen calls f with each frame from now on.
func (w *wire) listen(f func(frame)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hear = append(w.hear[:len(w.hear):len(w.hear)], f)
}

// send puts an IP datagram on the wire.
func (w *wire) send(ip []byte) {
	w.t.Helper()
	kind := uint16(unix.ETH_P_IP)
	if ip[0]>>4 == 6 {
		kind = unix.ETH_P_IPV6
	}
	b := binary.BigEndian.AppendUint16(append(append([]byte{}, w.to...), w.mac...), kind)
	if err := unix.Sendto(w.fd, append(b, ip...), 0, &unix.SockaddrLinklayer{Ifindex: w.index}); err != nil {
		w.t.Fatalf("packet socket: %v (%d bytes)", err, len(ip))
	}
}

// find gives what has come to this host so far and fits.
func (w *wire) find(fits func(ip []byte) bool) (list [][]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.frames {
		if !f.out && fits(f.ip) {
			list = append(list, f.ip)
		}
	}
	return list
}

// inClear gives what has come so far, is neither ESP nor AH, nor ESP in UDP, and
// has the text anywhere in it.
func (w *wire) inClear(text string) [][]byte {
	return w.find(func(ip []byte) bool { return !sealed(ip) && bytes.Contains(ip, []byte(text)) })
}

// await waits until something has come that fits.
func (w *wire) await(what string, fits func(ip []byte) bool) []byte {
	w.t.Helper()
	var found []byte
	eventually(w.t, what, func() bool {
		if l := w.find(fits); len(l) > 0 {
			found = l[len(l)-1]
		}
		return found != nil
	})
	return found
}

// sealed says that a datagram on the wire is ESP, AH or UDP of port 4500.
func sealed(ip []byte) bool {
	var p packet.Packet
	if packet.Parse(&p, ip, len(ip)) != packet.OK {
		return false
	}
	return p.Protocol == packet.ESP || p.Protocol == packet.AH || p.Protocol == packet.UDP && (p.SrcPort == 4500 || p.DstPort == 4500)
}

// say names datagrams for a message.
func say(list [][]byte) string {
	var b strings.Builder
	for i, ip := range list {
		if i == 4 {
			fmt.Fprintf(&b, "; and %d more", len(list)-i)
			break
		}
		var p packet.Packet
		_ = packet.Parse(&p, ip, len(ip)) // what it has found so far is named
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%v > %v %s", p.Src, p.Dst, packet.ProtocolName(p.Protocol))
		if p.HasPorts {
			fmt.Fprintf(&b, " %d > %d", p.SrcPort, p.DstPort)
		}
		if p.HasICMP {
			fmt.Fprintf(&b, " %d/%d", p.ICMPType, p.ICMPCode)
		}
		fmt.Fprintf(&b, ", %d bytes", len(ip))
	}
	return b.String()
}

// eventually waits for what must come.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// build makes a datagram.
func build(t testing.TB, s packet.Spec) []byte {
	t.Helper()
	b, err := packet.Build(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// udp makes a UDP datagram.
func udp(t testing.TB, src netip.Addr, sport uint16, dst netip.Addr, dport uint16, payload string) []byte {
	t.Helper()
	return build(t, packet.Spec{Src: src, Dst: dst, Protocol: packet.UDP, SrcPort: sport, DstPort: dport, Payload: []byte(payload)})
}

// echo makes an ICMP echo request; ttl 0 means 64.
func echo(t testing.TB, src, dst netip.Addr, id uint16, ttl uint8, payload string) []byte {
	t.Helper()
	s := packet.Spec{Src: src, Dst: dst, Protocol: packet.ICMP, ICMPType: 8, EchoID: id, EchoSeq: 1, TTL: ttl, Payload: []byte(payload), DontFragment: true}
	if src.Is6() {
		s.Protocol, s.ICMPType = packet.ICMPv6, 128
	}
	return build(t, s)
}
