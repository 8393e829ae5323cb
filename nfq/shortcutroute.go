package nfq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// lead asks the kernel by which device, which neighbour and how wide the way to
// a destination is, and fills it in. An error says why it is not for the
// shortcut.
func (s *shortcut) lead(w *shortWay) error {
	if s.local(w.to) || w.to.IsLinkLocalUnicast() || w.to.IsMulticast() {
		return errors.New("destination: local, link-local or multicast")
	}
	r, err := s.leadsTo(w.to)
	if err != nil {
		return fmt.Errorf("route: %w", err)
	}
	w.link, w.hop = r.link, w.to
	if r.gateway.IsValid() {
		w.hop = r.gateway
	}
	if err := s.device(w); err != nil {
		return err
	}
	if r.mtu > 0 {
		w.mtu = min(w.mtu, r.mtu)
	}
	if err := s.neighbour(w); err != nil {
		return err
	}
	w.linklayer()
	return nil
}

// leadsTo asks for the route to a destination. The answer is what the raw socket
// gets: it has no address of its own, and the same mark and user. Rules that
// would tell ESP from others are in the way (clear). Several next hops, and that
// a route is for some sources only (IPv6), show only in the route as it is
// written down; in IPv6 the kernel looks for it with the source that it chooses.
func (s *shortcut) leadsTo(to netip.Addr) (fibRoute, error) {
	ask := func(q netlink.Message) (r fibRoute, err error) {
		m, err := s.one(q, unix.RTM_NEWROUTE)
		if err != nil {
			return r, err
		}
		if r, err = parseRoute(m); err == nil && !r.plain() {
			err = errors.New("not a plain unicast route")
		}
		return r, err
	}
	r, err := ask(routeRequest(to, netip.Addr{}, 0, s.mark))
	if err != nil {
		return r, err
	}
	var from netip.Addr
	if to.Is6() {
		from = r.from
	}
	written, err := ask(routeRequest(to, from, unix.RTM_F_FIB_MATCH, s.mark))
	if err == nil && (written.sources || written.link != r.link || written.gateway != r.gateway) {
		err = errors.New("not the one that is written down")
	}
	return r, err
}

// one asks a question that has one answer.
func (s *shortcut) one(q netlink.Message, typ netlink.HeaderType) (netlink.Message, error) {
	msgs, err := s.route.Execute(q)
	if err != nil {
		return netlink.Message{}, err
	}
	if len(msgs) != 1 || msgs[0].Header.Type != typ {
		return netlink.Message{}, errors.New("the kernel's answer makes no sense")
	}
	return msgs[0], nil
}

func routeRequest(to, from netip.Addr, flags, mark uint32) netlink.Message {
	head := make([]byte, unix.SizeofRtMsg)
	head[0], head[1] = family(to), byte(to.BitLen())
	binary.NativeEndian.PutUint32(head[8:], flags)
	attrs := []netlink.Attribute{{Type: unix.RTA_DST, Data: to.AsSlice()}, {Type: unix.RTA_MARK, Data: native32(mark)}}
	if from.IsValid() {
		head[2] = byte(from.BitLen())
		attrs = append(attrs, netlink.Attribute{Type: unix.RTA_SRC, Data: from.AsSlice()})
	}
	return request(unix.RTM_GETROUTE, head, attrs...)
}

// request makes a question. Attributes of ours are never too long.
func request(typ netlink.HeaderType, head []byte, attrs ...netlink.Attribute) netlink.Message {
	b, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		panic(err)
	}
	return netlink.Message{Header: netlink.Header{Type: typ, Flags: netlink.Request}, Data: append(head, b...)}
}

// fibRoute is a route, or where one leads.
type fibRoute struct {
	dst     netip.Prefix
	typ     byte
	flags   uint32
	link    uint32
	gateway netip.Addr // the zero Addr: none
	from    netip.Addr // the source address that the kernel chooses
	sources bool       // it says for which sources it is
	mtu     int        // bytes; 0: that of the device
	special bool       // several next hops, encapsulation, and what else is not known here
}

func (r *fibRoute) plain() bool {
	return r.typ == unix.RTN_UNICAST && !r.special && r.link != 0 && r.flags&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) == 0
}

// parseRoute reads a message about a route.
func parseRoute(m netlink.Message) (r fibRoute, err error) {
	if len(m.Data) < unix.SizeofRtMsg {
		return r, errors.New("route: short message")
	}
	bits := int(m.Data[1])
	r.typ, r.flags = m.Data[7], binary.NativeEndian.Uint32(m.Data[8:])
	var to netip.Addr
	switch m.Data[0] {
	case unix.AF_INET:
		to = netip.IPv4Unspecified()
	case unix.AF_INET6:
		to = netip.IPv6Unspecified()
	default:
		return r, errors.New("route: unknown family")
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofRtMsg:])
	if err != nil {
		return r, err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.RTA_DST:
			to, _ = netip.AddrFromSlice(ad.Bytes())
		case unix.RTA_SRC:
			r.sources = true
		case unix.RTA_PREFSRC:
			r.from, _ = netip.AddrFromSlice(ad.Bytes())
		case unix.RTA_OIF:
			r.link = ad.Uint32()
		case unix.RTA_GATEWAY:
			r.gateway, _ = netip.AddrFromSlice(ad.Bytes())
		case unix.RTA_VIA: // a gateway of the other family: struct rtvia
			if b := ad.Bytes(); len(b) > 2 {
				r.gateway, _ = netip.AddrFromSlice(b[2:])
			}
		case unix.RTA_METRICS:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					if ad.Type() == unix.RTAX_MTU {
						r.mtu = int(ad.Uint32())
					}
				}
				return nil
			})
		case unix.RTA_TABLE, unix.RTA_PRIORITY, unix.RTA_CACHEINFO, unix.RTA_MARK, unix.RTA_UID,
			unix.RTA_PREF, unix.RTA_EXPIRES, unix.RTA_IIF:
		default:
			r.special = true
		}
	}
	if err := ad.Err(); err != nil {
		return r, fmt.Errorf("route: %w", err)
	}
	if r.dst, err = to.Prefix(bits); err != nil {
		return r, fmt.Errorf("route: %w", err)
	}
	return r, nil
}

// Of linux/if_arp.h and linux/if_link.h.
const (
	arphrdEther = 1
	devconfMTU6 = 2 // of the array in IFLA_INET6_CONF
)

// device asks whether a way's device is a plain one that has an Ethernet
// header, and how long its packets may be.
func (s *shortcut) device(w *shortWay) error {
	head := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(head[4:], w.link)
	m, err := s.one(request(unix.RTM_GETLINK, head), unix.RTM_NEWLINK)
	if err != nil {
		return fmt.Errorf("device: %w", err)
	}
	if len(m.Data) < unix.SizeofIfInfomsg {
		return errors.New("device: short message")
	}
	typ, flags := binary.NativeEndian.Uint16(m.Data[2:]), binary.NativeEndian.Uint32(m.Data[8:])
	if typ != arphrdEther || flags&unix.IFF_LOOPBACK != 0 || flags&unix.IFF_UP == 0 || flags&unix.IFF_LOWER_UP == 0 {
		return errors.New("device: not an Ethernet device that is up")
	}
	mtu, mtu6, special := 0, 0, false
	ad, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfInfomsg:])
	if err != nil {
		return fmt.Errorf("device: %w", err)
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.IFLA_MTU:
			mtu = int(ad.Uint32())
		case unix.IFLA_MASTER: // a VRF has a way of its own for what leaves by its devices
			special = true
		case unix.IFLA_LINKINFO:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					special = special || ad.Type() == unix.IFLA_INFO_KIND && ad.String() == "vrf"
				}
				return nil
			})
		case unix.IFLA_AF_SPEC:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					if ad.Type() == unix.AF_INET6 {
						ad.Nested(func(ad *netlink.AttributeDecoder) error {
							for ad.Next() {
								if b := ad.Bytes(); ad.Type() == unix.IFLA_INET6_CONF && len(b) >= 4*(devconfMTU6+1) {
									mtu6 = int(binary.NativeEndian.Uint32(b[4*devconfMTU6:]))
								}
							}
							return nil
						})
					}
				}
				return nil
			})
		}
	}
	switch w.mtu = mtu; {
	case ad.Err() != nil:
		return fmt.Errorf("device: %w", ad.Err())
	case special:
		return errors.New("device: has a master, or is a VRF")
	case w.to.Is6():
		w.mtu = min(mtu, mtu6)
	}
	return nil
}

// neighbour is an entry of the neighbour table.
type neighbour struct {
	link  uint32
	addr  netip.Addr
	state uint16
	mac   [6]byte
}

// good says that the kernel sends to the address that it has, and knows that it
// is right or is finding out. What is stale has to be used the long way, so
// that it does find out.
func (n *neighbour) good() bool {
	return n.state&(unix.NUD_PERMANENT|unix.NUD_NOARP|unix.NUD_REACHABLE|unix.NUD_DELAY|unix.NUD_PROBE) != 0
}

// errNeighbour is what is wrong when a neighbour's address is not known for sure.
var errNeighbour = errors.New("neighbour")

// sizeofNdMsg is that of struct ndmsg.
const sizeofNdMsg = 12

// neighbour asks for the address of a way's neighbour.
func (s *shortcut) neighbour(w *shortWay) error {
	head := make([]byte, sizeofNdMsg)
	head[0] = family(w.hop)
	binary.NativeEndian.PutUint32(head[4:], w.link)
	m, err := s.one(request(unix.RTM_GETNEIGH, head, netlink.Attribute{Type: unix.NDA_DST, Data: w.hop.AsSlice()}), unix.RTM_NEWNEIGH)
	if err != nil {
		return fmt.Errorf("%w %v: %w", errNeighbour, w.hop, err)
	}
	n, err := parseNeighbour(m)
	switch {
	case err != nil:
		return err
	case !n.good():
		return fmt.Errorf("%w %v: state %#x", errNeighbour, w.hop, n.state)
	case n.mac == [6]byte{}:
		return fmt.Errorf("%w %v: no Ethernet address", errNeighbour, w.hop)
	}
	w.mac = n.mac
	return nil
}

// parseNeighbour reads a message about a neighbour.
func parseNeighbour(m netlink.Message) (n neighbour, err error) {
	if len(m.Data) < sizeofNdMsg {
		return n, errors.New("neighbour: short message")
	}
	n.link, n.state = binary.NativeEndian.Uint32(m.Data[4:]), binary.NativeEndian.Uint16(m.Data[8:])
	attrs, err := netlink.UnmarshalAttributes(m.Data[sizeofNdMsg:])
	if err != nil {
		return n, fmt.Errorf("neighbour: %w", err)
	}
	for _, a := range attrs {
		switch {
		case a.Type == unix.NDA_DST:
			n.addr, _ = netip.AddrFromSlice(a.Data)
		case a.Type == unix.NDA_LLADDR && len(a.Data) == len(n.mac):
			copy(n.mac[:], a.Data)
		}
	}
	if m.Header.Type == unix.RTM_DELNEIGH {
		n.state = 0
	}
	return n, nil
}
