package nfq

import (
	"fmt"
	"net/netip"
	"regexp"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/ipfw/ipfw/engine"
	"golang.org/x/sys/unix"
)

// ofNoGroup gives a listing without what each start draws anew.
func ofNoGroup(listing string) string {
	return regexp.MustCompile(`\[meta 11 get\] \[0 [0-9a-f]{8}\]`).ReplaceAllString(listing, "[meta 11 get] [0 ...]")
}

// sockets are made by a thread of another user or group, and sent by from
// anywhere: what counts is who made them.
type socketOf struct {
	uid, gid int
	mark     uint32
	device   string
	local    netip.AddrPort
}

// open opens a UDP socket on the host.
func (h *testHost) open(s socketOf) (fd int) {
	h.t.Helper()
	h.try(func() error {
		if err := unix.Setfsuid(s.uid); err != nil {
			return err
		}
		if err := unix.Setfsgid(s.gid); err != nil {
			return err
		}
		family := unix.AF_INET
		if s.local.Addr().Is6() {
			family = unix.AF_INET6
		}
		var err error
		if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		tv := unix.NsecToTimeval(int64(silence))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		if s.mark != 0 {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(s.mark)); err != nil {
				return err
			}
		}
		if s.device != "" {
			if err := unix.BindToDevice(fd, s.device); err != nil {
				return err
			}
		}
		// A program that another test starts just then has the socket that was closed
		// before this one, until it is executed.
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			if err := unix.Bind(fd, sockaddr(s.local)); err != unix.EADDRINUSE || time.Now().After(end) {
				return err
			}
		}
	})
	return fd
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// answered sends a word and says whether something came back in time.
func answered(fd int, to netip.AddrPort, wait time.Duration) bool {
	tv := unix.NsecToTimeval(int64(wait))
	if unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv) != nil || unix.Sendto(fd, []byte("word"), 0, sockaddr(to)) != nil {
		return false
	}
	n, _, err := unix.Recvfrom(fd, make([]byte, 10), 0)
	return err == nil && n == 4
}

// The injected mark is worth nothing to another user, on a socket that our user
// has made for somebody, and on input.
func TestInjectedMarkOfOthers(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	client.echo(7)
	server.echo(7)
	fw := server.start(Config{}, port(7, engine.Result{}))
	injected, group := marks(DefaultMask).injected(), int(fw.inject.sends.gid)
	if group < leastGroup {
		t.Errorf("the group of injected packets is %d", group)
	}
	for i, addr := range []func(n, host int) netip.Addr{addr4, addr6} {
		for _, tc := range []struct {
			name     string
			from     *testHost
			host     int
			uid, gid int
			wait     time.Duration
			passes   bool
		}{
			{"another user's", server, 2, 65534, 65534, silence, false},
			{"another user's with our group", server, 2, 65534, group, silence, false},
			{"our user's for another program", server, 2, 0, 0, silence, false},
			{"incoming", client, 1, 0, group, silence, false},
			{"our own", server, 2, 0, group, patience, true},
		} {
			fd := tc.from.open(socketOf{uid: tc.uid, gid: tc.gid, mark: injected, local: netip.AddrPortFrom(addr(0, tc.host), 0)})
			if got := answered(fd, netip.AddrPortFrom(addr(0, 3-tc.host), 7), tc.wait); got != tc.passes {
				t.Errorf("IPv%d, %s packet: passed %v, want %v", 4+2*i, tc.name, got, tc.passes)
			}
			unix.Close(fd)
		}
	}
}

// Two starts draw two groups.
func TestCredentialIsDrawnAnew(t *testing.T) {
	t.Parallel()
	seen := make(map[uint32]bool)
	for range 3 {
		newHost(t).try(func() error {
			before, _ := unix.SetfsgidRetGid(-1)
			c, own, err := drawCredential()
			if after, _ := unix.SetfsgidRetGid(-1); after != before {
				t.Errorf("the thread was left with group %d", after)
			}
			if !own || seen[c.gid] {
				t.Errorf("drew %+v, of its own %v, after %v", c, own, seen)
			}
			seen[c.gid] = true
			return err
		})
	}
}

func TestDrawGroup(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		gidMap      string
		least, most uint32
		ok          bool
	}{
		{"         0          0 4294967295\n", leastGroup, greatestGroup, true},
		{"0 100000 65536\n", 1, 65535, true},
		{"0 0 1\n", 0, 0, false},
		{"", 0, 0, false},
		{"0 1000 1\n1 100000 65536\n", 1, 65536, true}, // of rare ones only one
		{"0 0 1\n4294967294 5 1\n", 0, 0, false},
		{"100000 7 10\n200000 100 10\n", 100000, 200009, true},
	} {
		for range 100 {
			g, ok, err := drawGroup(tc.gidMap)
			if err != nil || ok != tc.ok || ok && (g < tc.least || g > tc.most) {
				t.Fatalf("%q: group %d, %v, %v", tc.gidMap, g, ok, err)
			}
		}
	}
	if _, _, err := drawGroup("zero"); err == nil {
		t.Error("a map that makes no sense is no error")
	}
}

// What a program writes on packets that it sends on loopback is worth nothing
// on the wire: neither our bits of any generation, nor those of opened packets
// mark a connection.
func TestMarksFromLoopback(t *testing.T) {
	t.Parallel()
	for _, offload := range []uint32{0, 1} {
		for _, protect := range []bool{false, true} {
			t.Run(fmt.Sprintf("offload=%d protect=%v", offload, protect), func(t *testing.T) {
				t.Parallel()
				client, server := pair(t)
				client.echo(7)
				fw := server.start(Config{Offload: offload, Protect: protect}, drop)
				m := fw.marks
				var all []uint32
				for g := range uint32(generations) {
					all = append(all, m.queued()|m.offloaded()|m.generation(g), m.queued()|m.admitted()|m.offloaded()|m.generation(g))
				}
				all = append(all, m.opened(), m.queued(), uint32(m))
				for i, addr := range []func(n, host int) netip.Addr{addr4, addr6} {
					for k, mark := range all {
						local, to := netip.AddrPortFrom(addr(0, 2), uint16(6000+k)), netip.AddrPortFrom(addr(0, 1), 7)
						prime := server.open(socketOf{uid: 65534, gid: 65534, mark: mark, device: "lo", local: local})
						unix.Sendto(prime, []byte("x"), 0, sockaddr(to))
						unix.Close(prime)
						plain := server.open(socketOf{uid: 65534, gid: 65534, local: local})
						if answered(plain, to, silence/10) {
							t.Errorf("IPv%d, mark %#x: a packet passed and was answered", 4+2*i, mark)
						}
						unix.Close(plain)
					}
				}
				if lines := server.connectionMarks(t, uint32(m)); len(lines) > 0 {
					t.Errorf("marked connections: %v", lines)
				}
			})
		}
	}
}

// connectionMarks gives the marks of the host's connections that have one of
// the bits.
func (h *testHost) connectionMarks(t *testing.T, bits uint32) (all []string) {
	t.Helper()
	h.try(func() error {
		c, err := openConnections()
		if err != nil {
			return err
		}
		defer c.close()
		return c.dump(0, 0, func(c *connection) {
			if c.mark&bits != 0 {
				all = append(all, fmt.Sprintf("%v:%d -> %v:%d %#x", c.orig.src, c.orig.srcPort, c.orig.dst, c.orig.dstPort, c.mark))
			}
		})
	})
	return all
}

// A kernel where skgid compares another thing than the group of the thread that
// made the socket would shut in the daemon itself: the table holds the group
// that was drawn.
func TestCredentialInTable(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	fw := h.start(Config{}, pass)
	want := "[meta 11 get] [0 " + fmt.Sprintf("%x", native32(fw.inject.sends.gid)) + "]"
	if got := regexp.MustCompile(`\[meta 11 get\] \[0 [0-9a-f]{8}\]`).FindString(h.listing("ipfw", nftables.TableFamilyINet)); got != want {
		t.Errorf("the table has %q, want %q", got, want)
	}
}
