package lab

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Transfer is bytes to send to an echo server, and to get back.
type Transfer struct {
	Network string // tcp or udp
	From    netip.Addr
	To      netip.AddrPort
	Size    int // bytes; of one datagram, in UDP
	Limit   time.Duration
}

// String says it in a line.
func (t Transfer) String() string {
	return fmt.Sprintf("%s of %d bytes to %v", t.Network, t.Size, t.To)
}

// Do sends and compares. A datagram that does not come back is sent again
// until the limit; it must come back whole.
func (t Transfer) Do() error {
	data := make([]byte, t.Size)
	_, _ = rand.Read(data) // never fails: crypto/rand
	end := time.Now().Add(t.Limit)
	d := net.Dialer{Deadline: end}
	if t.From.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(t.From, 0))
		if t.Network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(t.From, 0))
		}
	}
	c, err := d.Dial(t.Network, t.To.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(end); err != nil {
		return err
	}
	back := make([]byte, t.Size)
	if t.Network == "tcp" {
		go func() { _, _ = c.Write(data) }() // a failure shows in what comes back
		if _, err := io.ReadFull(c, back); err != nil {
			return err
		}
	} else if err := exchange(c, data, back, end); err != nil {
		return err
	}
	if !bytes.Equal(data, back) {
		return errors.New("other bytes came back")
	}
	return nil
}

// exchange sends a datagram until it comes back.
func exchange(c net.Conn, data, back []byte, end time.Time) error {
	for {
		if _, err := c.Write(data); err != nil && !errors.Is(err, syscall.EMSGSIZE) && !errors.Is(err, syscall.EPERM) {
			return err
		}
		wait := time.Now().Add(time.Second)
		if err := c.SetReadDeadline(wait); err != nil {
			return err
		}
		n, err := c.Read(back)
		if err == nil && n == len(back) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d bytes came back: %w", n, err)
		}
	}
}

// Serve runs a TCP and a UDP echo server on all addresses of the calling
// thread's network namespace, as long as the process lives.
func Serve(port uint16) error {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{Port: int(port)})
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	// One socket for each family: an answer leaves by the address that was
	// asked only if the socket asks for it, and connected clients mind.
	for _, network := range []string{"udp4", "udp6"} {
		u, err := net.ListenUDP(network, &net.UDPAddr{Port: int(port)})
		if err != nil {
			return err
		}
		if err := answerFromAddressAsked(u, network); err != nil {
			return err
		}
		go echoUDP(u)
	}
	return nil
}

func answerFromAddressAsked(u *net.UDPConn, network string) error {
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		if network == "udp4" {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		} else {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	})
	return errors.Join(err, set)
}

func echoUDP(u *net.UDPConn) {
	b, oob := make([]byte, 1<<16), make([]byte, 256)
	for {
		n, k, _, from, err := u.ReadMsgUDPAddrPort(b, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			clearInterface(oob[:k])
			_, _, _ = u.WriteMsgUDPAddrPort(b[:n], oob[:k], from) // an answer lost is one the client asks for again
		}
	}
}

// clearInterface leaves it to the kernel by which way an answer goes: only the
// address that was asked stays in the control message.
func clearInterface(oob []byte) {
	const head = unix.SizeofCmsghdr
	switch {
	case len(oob) >= head+unix.SizeofInet6Pktinfo:
		clear(oob[head+16 : head+20])
	case len(oob) >= head+unix.SizeofInet4Pktinfo:
		clear(oob[head : head+4])
	}
}

// Do runs f on a thread that is in the host's network namespace and in no
// other ever; sockets that f opens stay there.
func (h *Host) Do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		ns, err := os.Open("/var/run/netns/" + h.NS)
		if err == nil {
			if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
				err = f()
			}
			_ = ns.Close()
		}
		done <- err
	}()
	return <-done
}
