package host

import (
	"net"
	"net/netip"
	"slices"

	"github.com/ipfw/ipfw/nfq"
)

// devices knows by which interface of this host a connection may have come. Its
// local address does not tell: it can be on any other (RFC 1122 section 3.3.4.2, weak
// host model), on a loopback interface too.
type devices struct {
	byAddr map[netip.Addr]string
	route  func(to, from netip.Addr) string // "": there is no way
	close  func()
}

// findDevices asks the kernel. What it does not tell is not known.
func findDevices() *devices {
	d := &devices{byAddr: map[netip.Addr]string{}, route: func(_, _ netip.Addr) string { return "" }, close: func() {}}
	if r, err := nfq.OpenRoutes(); err == nil {
		d.route, d.close = r.Device, func() { _ = r.Close() }
	}
	list, err := net.Interfaces()
	if err != nil {
		return d
	}
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, n := range addrs {
			if p, err := netip.ParsePrefix(n.String()); err == nil {
				d.byAddr[p.Addr()] = i.Name
			}
		}
	}
	return d
}

// loopback says that both ends of a connection are this host: loopback passes.
func (d *devices) loopback(c nfq.Connection) bool {
	_, own := d.byAddr[c.Remote.Addr()]
	return own || c.Local.Addr().IsLoopback()
}

// of gives the interfaces, the likeliest first: the one by which this host answers,
// and the one that has the address. There is always one; "": it is not known.
func (d *devices) of(c nfq.Connection) []string {
	list := []string{d.route(c.Remote.Addr(), c.Local.Addr()), d.byAddr[c.Local.Addr()]}
	if i, err := net.InterfaceByName(list[1]); err == nil && i.Flags&net.FlagLoopback != 0 {
		list[1] = "" // nothing comes by it from elsewhere
	}
	list = slices.Compact(slices.DeleteFunc(list, func(name string) bool { return name == "" }))
	if len(list) == 0 {
		return []string{""}
	}
	return list
}
