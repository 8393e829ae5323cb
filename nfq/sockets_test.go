package nfq

import (
	"net"
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/engine"
	"golang.org/x/sys/unix"
)

// Both ends of a connection are found, each with who opened it and the cookie
// that the socket itself tells.
func TestFindConnections(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		dialled, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer dialled.Close()
		accepted, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer accepted.Close()
		list, err := FindConnections()
		if err != nil {
			t.Fatal(err)
		}
		for c, opener := range map[net.Conn]engine.Opener{dialled: engine.OpenedByLocal, accepted: engine.OpenedByRemote} {
			want := Connection{
				Local: netip.MustParseAddrPort(c.LocalAddr().String()), Remote: netip.MustParseAddrPort(c.RemoteAddr().String()),
				Opener: opener, Cookie: cookie(t, c), Inode: inode(t, c)}
			found := 0
			for _, got := range list {
				if got == want {
					found++
				}
			}
			if found != 1 {
				t.Errorf("%+v is found %d times in %+v", want, found, list)
			}
		}
	}
}

func cookie(t *testing.T, c net.Conn) (n uint64) {
	inSocket(t, c, func(fd int) (err error) {
		n, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		return err
	})
	return n
}

func inode(t *testing.T, c net.Conn) uint32 {
	var st unix.Stat_t
	inSocket(t, c, func(fd int) error { return unix.Fstat(fd, &st) })
	return uint32(st.Ino)
}

func inSocket(t *testing.T, c net.Conn, f func(fd int) error) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if raw.Control(func(fd uintptr) { err = f(int(fd)) }) != nil || err != nil {
		t.Fatal(err)
	}
}
