package nfq

import (
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// RouterFor is the router by which this host reaches an address; the zero Addr:
// none, or it is not known.
func (f *Firewall) RouterFor(to netip.Addr) netip.Addr {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	head := make([]byte, unix.SizeofRtMsg)
	head[0], head[1] = family(to), byte(to.BitLen())
	msgs, err := c.Execute(request(unix.RTM_GETROUTE, head, netlink.Attribute{Type: unix.RTA_DST, Data: to.AsSlice()}))
	if err != nil || len(msgs) != 1 {
		return netip.Addr{}
	}
	r, err := parseRoute(msgs[0])
	if err != nil {
		return netip.Addr{}
	}
	return r.gateway
}
