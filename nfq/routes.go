package nfq

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Routes asks the kernel of the network namespace in which it was opened where it
// sends packets. It is for one goroutine.
type Routes struct {
	conn  *netlink.Conn
	names map[uint32]string
}

// OpenRoutes opens the socket.
func OpenRoutes() (*Routes, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("route netlink socket: %w", err)
	}
	return &Routes{c, map[uint32]string{}}, nil
}

// Device names the interface by which packets of an own address leave for another
// host; "": there is no way.
func (r *Routes) Device(to, from netip.Addr) string {
	msgs, err := r.conn.Execute(routeRequest(to, from, 0, 0))
	if err != nil || len(msgs) == 0 {
		return ""
	}
	way, err := parseRoute(msgs[0])
	if err != nil || way.link == 0 {
		return ""
	}
	name, ok := r.names[way.link]
	if !ok {
		if i, err := net.InterfaceByIndex(int(way.link)); err == nil {
			name = i.Name
		}
		r.names[way.link] = name
	}
	return name
}

// Close closes the socket.
func (r *Routes) Close() error { return r.conn.Close() }
