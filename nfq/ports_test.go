package nfq

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hears says whether a socket of somebody gets what another host sends to a
// port; it tries until there must have been time for it.
func hears(t *testing.T, from *testHost, source, to netip.AddrPort, fd int) bool {
	t.Helper()
	s := from.open(socketOf{local: source})
	defer unix.Close(s)
	tv := unix.NsecToTimeval(int64(silence / 10))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		unix.Sendto(s, []byte("from anybody"), 0, sockaddr(to))
		if n, _, err := unix.Recvfrom(fd, make([]byte, 100), 0); err == nil && n > 0 {
			return true
		}
	}
	return false
}

// While nobody judges, nothing gets to whoever has UDP port 4500 or 500: not to
// one who marks its socket, and neither when the daemon was killed, nor when it
// has left the host shut, nor when it was shut without one.
func TestPortsWithoutDaemon(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"killed", "left shut", "shut", "held"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			client, server := pair(t)
			cfg := Config{Protect: true, Encapsulated: true, KeyExchange: true}
			var fw *running
			switch way {
			case "killed":
				fw = server.start(cfg, pass)
				fw.stop()
				fw.mu.Lock()
				fw.closed = true
				fw.mu.Unlock()
				if err := fw.release(); err != nil {
					t.Fatal(err)
				}
			case "left shut":
				fw = server.start(cfg, pass)
				fw.stop()
				if err := fw.Close(true); err != nil {
					t.Fatal(err)
				}
			case "shut":
				server.try(func() error { return Shut(cfg) })
			case "held":
				server.try(func() error {
					if first, err := Hold(cfg); err != nil || !first {
						return fmt.Errorf("held %v, %w", first, err)
					}
					if first, err := Hold(cfg); err != nil || first {
						return fmt.Errorf("held again %v, %w", first, err)
					}
					return nil
				})
			}
			marked := []uint32{0, marks(DefaultMask).injected(), marks(DefaultMask).opened(), DefaultMask}
			for i, addr := range []func(n, host int) netip.Addr{addr4, addr6} {
				for _, port := range []uint16{portNAT, portIKE} {
					for _, mark := range marked {
						at := netip.AddrPortFrom(addr(0, 2), port)
						fd := server.open(socketOf{uid: 65534, gid: 65534, mark: mark, local: at})
						if hears(t, client, netip.AddrPortFrom(addr(0, 1), 0), at, fd) {
							t.Errorf("IPv%d: a program with mark %#x on port %d hears what others send", 4+2*i, mark, port)
						}
						if !hears(t, server, netip.AddrPortFrom(addr(0, 2), 0), at, fd) {
							t.Errorf("IPv%d: a program on port %d does not hear this host itself", 4+2*i, port)
						}
						unix.Close(fd)
					}
				}
			}
			server.try(func() error { return Remove(Config{}) })
			at := netip.AddrPortFrom(addr4(0, 2), portNAT)
			fd := server.open(socketOf{uid: 65534, gid: 65534, local: at})
			defer unix.Close(fd)
			if !hears(t, client, netip.AddrPortFrom(addr4(0, 1), 0), at, fd) {
				t.Error("after Remove the port is still shut")
			}
		})
	}
}

// A host that was shut before any daemon ran is no predecessor, and a daemon
// that was is one also when the host was shut after it.
func TestShutIsNoPredecessor(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	cfg := Config{Protect: true}
	h.try(func() error { return Shut(cfg) })
	for i, want := range []bool{false, true} {
		fw := h.start(cfg, pass)
		if fw.tookOver != want {
			t.Errorf("start %d: took over %v", i, fw.tookOver)
		}
		fw.stop()
		if err := fw.Close(true); err != nil {
			t.Fatal(err)
		}
		h.try(func() error { return Shut(cfg) })
	}
}

// An unprivileged program that was first at the port keeps nobody from starting
// and hears nothing: ESP in UDP and IKE come by the queue and leave by the raw
// sockets. A reload takes the port as soon as it is free.
func TestPortTakenByUnprivileged(t *testing.T) {
	t.Parallel()
	for i := range 4 {
		v6, where := i%2 > 0, []string{"loopback", "any"}[i/2]
		t.Run(fmt.Sprintf("v6=%v %s", v6, where), func(t *testing.T) {
			t.Parallel()
			a, b := pair(t)
			addr := map[bool]func(n, host int) netip.Addr{false: addr4, true: addr6}[v6]
			local := map[string]netip.Addr{"any": netip.IPv4Unspecified(), "loopback": addrOf("127.0.0.1")}
			if v6 {
				local = map[string]netip.Addr{"any": netip.IPv6Unspecified(), "loopback": addrOf("::1")}
			}
			taken := b.open(socketOf{uid: 65534, gid: 65534, local: netip.AddrPortFrom(local[where], portNAT)})
			heard := make(chan Datagram, 10)
			cfg := Config{KeyExchange: true, IKE: func(d *Datagram) {
				c := *d
				c.Message = slices.Clone(d.Message)
				heard <- c
			}}
			fw, eb := encapsulated(b, 2, v6, cfg)
			if why := fw.Stats().PortTaken; !strings.Contains(why, "of user 65534") || !strings.Contains(why, "process ") {
				t.Errorf("the port is taken: %q", why)
			}
			other, _ := encapsulated(a, 1, v6, Config{KeyExchange: true})
			both := func(when string) {
				t.Helper()
				for _, port := range []uint16{portNAT, portIKE} {
					for _, n := range []int{10, 4000} { // the longer one in pieces
						word := []byte(strings.Repeat("m", n))
						d := &Datagram{Local: netip.AddrPortFrom(addr(0, 1), port), Remote: netip.AddrPortFrom(addr(0, 2), port), Message: word}
						got := receive(t, when, heard, d, func() {
							if err := other.SendIKE(d); err != nil {
								t.Fatalf("%s, port %d: %v", when, port, err)
							}
						})
						if got.Local != d.Remote || got.Link == 0 {
							t.Errorf("%s, port %d: heard %+v", when, port, got)
						}
					}
				}
				a.echo(7)
				if got := b.reach("udp", addr(0, 1), 7, patience); got != "open" {
					t.Errorf("%s: ESP in UDP: %s", when, got)
				}
			}
			both("taken")
			if eb.refused.Load() > 0 {
				t.Errorf("%d messages refused", eb.refused.Load())
			}
			tv := unix.NsecToTimeval(int64(silence))
			unix.SetsockoptTimeval(taken, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
			if n, _, err := unix.Recvfrom(taken, make([]byte, 5000), 0); err == nil {
				t.Errorf("who has the port got %d bytes", n)
			}
			unix.Close(taken)
			if err := fw.Reload(fw.cfg); err != nil {
				t.Fatal(err)
			}
			if why := fw.Stats().PortTaken; why != "" {
				t.Errorf("after a reload: %s", why)
			}
		})
	}
}

// receive sends a message and waits for it, and sends it again as those who speak
// IKE do: on a slow machine a neighbour may not be found at the first try.
func receive(t *testing.T, when string, heard <-chan Datagram, sent *Datagram, send func()) Datagram {
	t.Helper()
	send()
	late, again := time.After(patience), time.NewTicker(patience/20)
	defer again.Stop()
	for {
		select {
		case d := <-heard:
			if d.Remote == sent.Local && string(d.Message) == string(sent.Message) {
				return d
			}
		case <-again.C:
			send()
		case <-late:
			t.Fatalf("%s: nothing was heard", when)
		}
	}
}

// A port that a program of root's has is a mistake of somebody's, who is told
// which program it is.
func TestPortOfRoot(t *testing.T) {
	t.Parallel()
	for _, port := range []uint16{portNAT, portIKE} {
		h := newHost(t)
		fd := h.open(socketOf{local: netip.AddrPortFrom(addrOf("127.0.0.1"), port)})
		_, err := h.tryStart(Config{Protect: true, Encapsulated: true, KeyExchange: true}, pass)
		if want := fmt.Sprintf("UDP port %d", port); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "of user 0") {
			t.Errorf("port %d: %v", port, err)
		}
		unix.Close(fd)
	}
}

func TestUDPHolders(t *testing.T) {
	const text = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  612: 0100007F:1194 00000000:0000 07 00000000:00000000 00:00000000 00000000 65534        0 4711 2 0000000000000000 0
  613: 00000000:01F4 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0
  614: 00000000000000000000000000000000:1194 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000 1000 0 4713 2 0000000000000000 0
  615: short
`
	want := []udpHolder{{65534, "4711"}, {1000, "4713"}}
	if got := udpHolders(text, portNAT); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
