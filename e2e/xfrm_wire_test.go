package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// xfrmWire stands in the middle: it sees every frame between the two sides,
// keeps the last sealed one of each way, and puts frames on the wire.
type xfrmWire struct {
	fd           int // packet socket of the wire's namespace
	host, kernel int // interfaces that lead there

	mu     sync.Mutex
	row    xfrmRow
	spi    [2]uint32
	last   [2][]byte // whole frames; [0] from ipfw to the kernel
	sealed [2]int
	clear  []string
}

func newXFRMWire(t *testing.T, wire *lab.Host) *xfrmWire {
	t.Helper()
	w := new(xfrmWire)
	err := wire.Do(func() (err error) {
		const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
			return err
		}
		for name, index := range map[string]*int{"port0": &w.host, "tap0": &w.kernel} {
			i, err := net.InterfaceByName(name)
			if err != nil {
				return err
			}
			*index = i.Index
		}
		return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: w.host})
	})
	if err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	if err := unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(ended)
		b := make([]byte, 1<<17)
		for {
			n, _, err := unix.Recvfrom(w.fd, b, 0)
			switch {
			case err == nil:
				w.see(b[:n])
			case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-ended; unix.Close(w.fd) })
	return w
}

// begin sets what is awaited on the wire.
func (w *xfrmWire) begin(r xfrmRow, k *xfrmKeys) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.row, w.spi, w.last, w.sealed, w.clear = r, k.spi, [2][]byte{}, [2]int{}, nil
}

const ethernet = 14

// see judges one frame.
func (w *xfrmWire) see(b []byte) {
	if len(b) < ethernet {
		return
	}
	kind := binary.BigEndian.Uint16(b[12:])
	if kind != unix.ETH_P_IP && kind != unix.ETH_P_IPV6 {
		return // ARP
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var p packet.Packet
	if f := packet.Parse(&p, b[ethernet:], len(b)-ethernet); f != packet.OK {
		w.clear = append(w.clear, fmt.Sprintf("%v: %x", f, b[:min(len(b), 80)]))
		return
	}
	switch {
	case p.Fragment && p.FragOffset > 0: // its first one tells
		return
	case p.Protocol == packet.ESP, p.Protocol == packet.AH, p.Protocol == packet.UDP && p.SrcPort == 4500 && p.DstPort == 4500:
	case p.Protocol == packet.ICMPv6 && p.ICMPType >= 130 && p.ICMPType <= 143: // routers, neighbours, listeners
		return
	default:
		w.clear = append(w.clear, fmt.Sprintf("protocol %d, %v > %v", p.Protocol, p.Src, p.Dst))
		return
	}
	if p.Fragment || len(b) > ethernet+1500 {
		return // not whole, or several in one: ESP in UDP crosses in super-packets
	}
	if spi, ok := w.spiOf(b[ethernet:]); ok {
		for way := range 2 {
			if w.spi[way] == spi {
				w.sealed[way]++
				w.last[way] = bytes.Clone(b)
				w.row.mend(w.last[way]) // what a UDP socket sends has no whole checksum yet
			}
		}
	}
}

// spiOf reads the SPI of a whole sealed packet of the row.
func (w *xfrmWire) spiOf(b []byte) (uint32, bool) {
	at := w.row.ipsec()
	if w.row.suite.Protocol == esp.AH {
		at += 4
	}
	if len(b) < at+4 || b[0]>>4 == 6 != w.row.outer6 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[at:]), true
}

// ipsec is where the IPsec header stands in the row's sealed packets.
func (r xfrmRow) ipsec() int {
	at := 20
	if r.outer6 {
		at = 40
	}
	if r.udp {
		at += 8
	}
	return at
}

// lastSealed waits for the last sealed frame of one way.
func (w *xfrmWire) lastSealed(way int) ([]byte, error) {
	for end := time.Now().Add(waitLong / 2); time.Now().Before(end); time.Sleep(time.Millisecond) {
		w.mu.Lock()
		b := w.last[way]
		w.mu.Unlock()
		if b != nil {
			return bytes.Clone(b), nil
		}
	}
	return nil, errors.New("no whole sealed packet was seen")
}

// count gives how many sealed packets have gone one way.
func (w *xfrmWire) count(way int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sealed[way]
}

// passed says what has crossed in the clear.
func (w *xfrmWire) passed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.clear) > 0 {
		return fmt.Errorf("%d packets in the clear, the first: %s", len(w.clear), w.clear[0])
	}
	return nil
}

// put sends a frame towards one side.
func (w *xfrmWire) put(frame []byte, link int) error {
	return unix.Sendto(w.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link})
}

// alter gives a frame whose byte at from the start of the IPsec header is
// another, from the end if at is negative; a UDP checksum is made right again,
// lest UDP refuse it before IPsec does.
func (r xfrmRow) alter(frame []byte, at int) []byte {
	b := bytes.Clone(frame)
	if at < 0 {
		at += len(b)
	} else {
		at += ethernet + r.ipsec()
	}
	b[at] ^= 0x40
	r.mend(b)
	return b
}

// mend makes the UDP checksum of a frame right, if there is one.
func (r xfrmRow) mend(frame []byte) {
	if !r.udp {
		return
	}
	b := frame[ethernet+r.ipsec()-8:]
	if b[6] != 0 || b[7] != 0 {
		ours, theirs := r.outer()
		packet.SetChecksum(b, ours, theirs, packet.UDP)
	}
}
