package nfq

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
	"golang.org/x/sys/unix"
)

// What comes to UDP port 4500 without a checksum is taken, over IPv4 as RFC 3948
// section 2.2 has it, and over IPv6 too, where the kernel would drop it uncounted:
// translators leave it so. A wrong checksum is none.
func TestEncapsulatedWithoutChecksum(t *testing.T) {
	t.Parallel()
	for _, v6 := range []bool{false, true} {
		a, b := pair(t)
		heard := make(chan []byte, 10)
		_, e := encapsulated(b, 2, v6, Config{KeyExchange: true, IKE: func(d *Datagram) { heard <- bytes.Clone(d.Message) }})
		addr := map[bool]func(n, host int) netip.Addr{false: addr4, true: addr6}[v6]
		message := bytes.Repeat([]byte("ike"), 100)
		send := func(b []byte) {
			t.Helper()
			a.try(func() error {
				family, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: portNAT, Addr: addr4(0, 2).As4()})
				option := [3]int{unix.SOL_SOCKET, unix.SO_NO_CHECK, 1}
				if v6 {
					family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: portNAT, Addr: addr(0, 2).As16()}
					option = [3]int{unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_TX, 1}
				}
				fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				if err := unix.SetsockoptInt(fd, option[0], option[1], option[2]); err != nil {
					return err
				}
				return unix.Sendto(fd, b, 0, to)
			})
		}
		send(append(make([]byte, 4), message...)) // the non-ESP marker, RFC 3948 section 2.2
		select {
		case m := <-heard:
			if !bytes.Equal(m, message) {
				t.Errorf("IPv6 %v: heard %d bytes, not %d", v6, len(m), len(message))
			}
		case <-time.After(patience):
			t.Errorf("IPv6 %v: IKE without a checksum is not heard", v6)
		}
		esp := append([]byte{0, 0, 0x99, 0x99, 0, 0, 0, 1}, make([]byte, 64)...) // of no SA
		refused := func() (n uint64) {                                           // in any way of the ESP kind
			for r, k := range e.Stats().Reasons {
				if r > int(engine.ReasonBadTransport) {
					n += k
				}
			}
			return n
		}
		before := refused()
		send(esp)
		seen := func() bool { return refused() > before }
		for end := time.Now().Add(patience); !seen() && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
		if !seen() {
			t.Errorf("IPv6 %v: ESP without a checksum is not seen: %v", v6, e.Stats().Reasons)
		}
	}
}
