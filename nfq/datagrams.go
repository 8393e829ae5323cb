package nfq

import (
	"encoding/binary"
	"net/netip"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// FindDatagrams gives those whom UDP sockets of the network namespace speak with;
// want chooses the sockets by their inodes, as /proc/PID/fd has them. A socket that
// is connected says with whom. Of others connection tracking does: who has been
// answered counts, for anybody can send something under any address. Where it tells
// nothing, as on a host without a firewall, Remote is not known, and not valid.
func FindDatagrams(want func(inode uint32) bool) ([]Connection, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var sockets []Connection
	if err := eachSocket(conn, unix.IPPROTO_UDP, ^uint32(0), func(b []byte) {
		c := Connection{UDP: true, Inode: binary.NativeEndian.Uint32(b[inetDiagInode:])}
		c.Local, c.Remote, _, _ = parseSocket(b)
		if c.Inode != 0 && want(c.Inode) {
			sockets = append(sockets, c)
		}
	}); err != nil || len(sockets) == 0 {
		return nil, err
	}
	heard, told := make([]bool, len(sockets)), []Connection(nil)
	err = eachAnsweredUDP(func(c *Connection) {
		for i, s := range sockets {
			if s.speaks(c) {
				heard[i] = true
				told = append(told, Connection{UDP: true, Local: c.Local, Remote: c.Remote, Opener: c.Opener, Inode: s.Inode})
			}
		}
	})
	for i, s := range sockets {
		if s.Remote.Port() == 0 {
			s.Remote = netip.AddrPort{}
		}
		if !heard[i] {
			told = append(told, s)
		}
	}
	return told, err
}

// speaks says whether a flow is of the socket s. One that is bound to no address
// speaks by all of this host, and an IPv6 one by those of IPv4 as well.
func (s *Connection) speaks(c *Connection) bool {
	if s.Local.Port() != c.Local.Port() || s.Remote.Port() != 0 && s.Remote != c.Remote {
		return false
	}
	a := s.Local.Addr()
	return a == c.Local.Addr() || a.IsUnspecified() && (a.Is6() || c.Local.Addr().Is4())
}

// eachAnsweredUDP gives the flows of UDP that connection tracking knows and that both
// sides speak in, each from both ends: which of the two is this host it does not say.
func eachAnsweredUDP(yield func(*Connection)) error {
	s := noCtSocket(ctReadBuffer)
	if err := s.open(); err != nil {
		return privileged(err)
	}
	defer unix.Close(s.fd)
	req := appendCt(nil, msgCtGet, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, s.next())
	var ct connection
	return s.request(req, func(typ uint16, body []byte) {
		if typ != msgCtNew || !ct.parse(body) || ct.orig.proto != packet.UDP || ct.status&ctSeenReply == 0 {
			return
		}
		f := ct.carried(false)
		yield(&Connection{Local: f.Source, Remote: f.Dest, Opener: engine.OpenedByLocal})
		yield(&Connection{Local: f.Dest, Remote: f.Source, Opener: engine.OpenedByRemote})
	})
}
