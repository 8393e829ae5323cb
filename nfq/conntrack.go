package nfq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// connections speaks to the kernel's connection tracking: it reads what the
// kernel has carried of offloaded flows, and takes marks off them. All its
// methods may be called concurrently.
type connections struct {
	mu sync.Mutex
	ctSocket
	events int      // ends of connections; never waited for
	acct   *os.File // the setting that makes the kernel count, of the namespace
	begun  bool
}

// ctnetlink messages and attributes, linux/netfilter/nfnetlink_conntrack.h,
// which x/sys does not have.
const (
	msgCtNew    = unix.NFNL_SUBSYS_CTNETLINK << 8
	msgCtGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	msgCtDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	ctTupleOrig     = 1
	ctTupleReply    = 2
	ctTupleMaster   = 14
	ctStatus        = 3
	ctProtoInfo     = 4
	ctTimeout       = 7
	ctMark          = 8
	ctCountersOrig  = 9
	ctCountersReply = 10
	ctZone          = 18
	ctMarkMask      = 21

	ctTupleIP    = 1
	ctTupleProto = 2

	ctIPv4Src, ctIPv4Dst = 1, 2
	ctIPv6Src, ctIPv6Dst = 3, 4

	ctProtoNum                 = 1
	ctProtoSrcPort             = 2
	ctProtoDstPort             = 3
	ctProtoICMPID              = 4
	ctProtoICMPv6ID            = 7
	ctCountersPackets          = 1
	ctCountersBytes            = 2
	ctProtoInfoTCP             = 1
	ctProtoInfoTCPState        = 1
	ctSeenReply         uint32 = 1 << 1 // IPS_SEEN_REPLY

	nested = 1 << 15 // NLA_F_NESTED
)

// The buffers for the ends of connections hold those of about a second on a
// busy host, and what does not fit is lost to the counters alone.
const (
	ctEventBuffer = 32 << 20
	ctReadBuffer  = 1 << 18
	ctAnswerTime  = 5 * time.Second
)

func openConnections() (*connections, error) {
	c := &connections{ctSocket: noCtSocket(ctReadBuffer), events: -1}
	if err := c.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("connection tracking: %w", privileged(err)), c.close())
	}
	return c, nil
}

func (c *connections) open() (err error) {
	if err = c.ctSocket.open(); err != nil {
		return err
	}
	if c.events, err = netfilterSocket(); err != nil {
		return err
	}
	if c.acct, err = os.OpenFile("/proc/sys/net/netfilter/nf_conntrack_acct", os.O_RDWR, 0); err != nil {
		return err
	}
	return c.dump(1, 0, func(*connection) {}) // of none: can it be asked?
}

// begin makes the kernel count packets and bytes of connections that begin
// from now on, and tell when they end.
func (c *connections) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.begun {
		return nil
	}
	if _, err := c.acct.WriteAt([]byte("1"), 0); err != nil {
		return err
	}
	if err := errors.Join(unix.SetsockoptInt(c.events, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, ctEventBuffer),
		unix.SetsockoptInt(c.events, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1),
		unix.SetsockoptInt(c.events, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_CONNTRACK_DESTROY)); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	c.begun = true
	return nil
}

// connection is one connection as the kernel tells it.
type connection struct {
	orig, reply tuple
	master      tuple // of the connection that expected this one, as it was opened; zero: none did
	zone        []byte
	mark        uint32
	status      uint32
	timeout     uint32 // seconds
	tcpState    uint8
	counted     bool
	packets     [2]uint64 // by direction
	bytes       [2]uint64
	origRaw     []byte // attributes of orig
}

// tuple is one direction.
type tuple struct {
	src, dst         netip.Addr
	srcPort, dstPort uint16
	proto            uint8
}

// dump gives every connection whose mark has these bits under mask.
// c is valid during the call.
func (c *connections) dump(bits, mask uint32, yield func(*connection)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	req := appendCt(nil, msgCtGet, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, c.next())
	req = appendAttr32(req, ctMark, bits)
	req = appendAttr32(req, ctMarkMask, mask)
	var ct connection
	return c.request(req, func(typ uint16, body []byte) {
		if typ == msgCtNew && ct.parse(body) && ct.mark&mask == bits { // older kernels do not filter
			yield(&ct)
		}
	})
}

// ended gives the connections that have ended since it was called last.
func (c *connections) ended(yield func(*connection)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ct connection
	for {
		n, _, err := unix.Recvfrom(c.events, c.buf, unix.MSG_DONTWAIT)
		switch {
		case err == unix.EAGAIN:
			return nil
		case err == unix.EINTR:
			continue
		case err != nil:
			return os.NewSyscallError("recvfrom", err)
		}
		for b := c.buf[:n]; len(b) > 0; {
			typ, body, rest, ok := splitMessage(b)
			if !ok {
				break
			}
			b = rest
			if typ == msgCtDelete && ct.parse(body) {
				yield(&ct)
			}
		}
	}
}

// mark sets the bits under mask of a connection's mark. A connection that
// has ended meanwhile is no error.
func (c *connections) mark(name []byte, family uint8, bits, mask uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	req := appendCt(nil, msgCtNew, unix.NLM_F_REQUEST|unix.NLM_F_ACK, c.next())
	req[unix.SizeofNlMsghdr] = family
	req = append(req, name...)
	req = appendAttr32(req, ctMark, bits)
	req = appendAttr32(req, ctMarkMask, mask)
	err := c.request(req, func(uint16, []byte) {})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func (c *connections) close() error {
	var errs []error
	if c.acct != nil {
		errs = append(errs, c.acct.Close())
	}
	for _, fd := range []int{c.fd, c.events} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}

// attributes calls f for each attribute; false says that one is cut short.
func attributes(b []byte, f func(typ uint16, v []byte)) bool {
	for len(b) >= sizeofAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < sizeofAttr || n > len(b) {
			return false
		}
		f(binary.NativeEndian.Uint16(b[2:])&attrTypeMask, b[sizeofAttr:n])
		b = b[min((n+3)&^3, len(b)):]
	}
	return len(b) == 0
}

// parse reads the body of a connection's message; false if it is not whole.
func (c *connection) parse(b []byte) bool {
	*c = connection{}
	if len(b) < sizeofNfgenmsg {
		return false
	}
	whole := true
	ok := attributes(b[sizeofNfgenmsg:], func(typ uint16, v []byte) {
		switch typ {
		case ctTupleOrig:
			c.origRaw = v
			whole = c.orig.parse(v) && whole
		case ctTupleReply:
			whole = c.reply.parse(v) && whole
		case ctTupleMaster:
			whole = c.master.parse(v) && whole
		case ctStatus:
			c.status = be32(v)
		case ctTimeout:
			c.timeout = be32(v)
		case ctMark:
			c.mark = be32(v)
		case ctZone:
			c.zone = v
		case ctCountersOrig, ctCountersReply:
			i := int(typ - ctCountersOrig)
			c.counted = true
			whole = attributes(v, func(typ uint16, v []byte) {
				switch typ {
				case ctCountersPackets:
					c.packets[i] = be64(v)
				case ctCountersBytes:
					c.bytes[i] = be64(v)
				}
			}) && whole
		case ctProtoInfo:
			whole = attributes(v, func(typ uint16, v []byte) {
				if typ != ctProtoInfoTCP {
					return
				}
				whole = attributes(v, func(typ uint16, v []byte) {
					if typ == ctProtoInfoTCPState && len(v) == 1 {
						c.tcpState = v[0]
					}
				}) && whole
			}) && whole
		}
	})
	return ok && whole && c.orig.src.IsValid() && c.reply.src.IsValid()
}

func (t *tuple) parse(b []byte) bool {
	whole := true
	addr := func(a *netip.Addr, v []byte) {
		var ok bool
		if *a, ok = netip.AddrFromSlice(v); !ok {
			whole = false
		}
	}
	ok := attributes(b, func(typ uint16, v []byte) {
		switch typ {
		case ctTupleIP:
			whole = attributes(v, func(typ uint16, v []byte) {
				switch typ {
				case ctIPv4Src, ctIPv6Src:
					addr(&t.src, v)
				case ctIPv4Dst, ctIPv6Dst:
					addr(&t.dst, v)
				}
			}) && whole
		case ctTupleProto:
			whole = attributes(v, func(typ uint16, v []byte) {
				switch {
				case typ == ctProtoNum && len(v) == 1:
					t.proto = v[0]
				case len(v) != 2:
				case typ == ctProtoSrcPort:
					t.srcPort = binary.BigEndian.Uint16(v)
				case typ == ctProtoDstPort:
					t.dstPort = binary.BigEndian.Uint16(v)
				case typ == ctProtoICMPID, typ == ctProtoICMPv6ID:
					t.srcPort = binary.BigEndian.Uint16(v)
					t.dstPort = t.srcPort
				}
			}) && whole
		}
	})
	return ok && whole
}

// name is what the kernel finds the connection by.
func (c *connection) name() (name []byte, family uint8) {
	name, family = ctName(c.origRaw, c.orig.src)
	if len(c.zone) == 2 {
		name = binary.NativeEndian.AppendUint16(name, sizeofAttr+2)
		name = binary.NativeEndian.AppendUint16(name, ctZone)
		name = append(name, c.zone[0], c.zone[1], 0, 0)
	}
	return name, family
}

// ctName makes the name of a connection from the attributes of its tuple, for one
// in no zone.
func ctName(orig []byte, src netip.Addr) (name []byte, family uint8) {
	name = binary.NativeEndian.AppendUint16(nil, uint16(sizeofAttr+len(orig)))
	name = binary.NativeEndian.AppendUint16(name, ctTupleOrig|nested)
	name = append(name, orig...)
	if src.Is4() {
		return name, unix.AF_INET
	}
	return name, unix.AF_INET6
}

// carried tells the connection the way the engine sees it: what the far side
// of a reply sends from is the destination of the opener behind destination
// translation, and the opener itself is seen before source translation.
func (c *connection) carried(forward bool) engine.Carried {
	out := engine.Carried{
		Protocol: c.orig.proto, Forward: forward,
		Source:  netip.AddrPortFrom(c.orig.src, c.orig.srcPort),
		Dest:    netip.AddrPortFrom(c.reply.src, c.reply.srcPort),
		Packets: c.packets, Bytes: c.bytes, Counted: c.counted,
		Replied: c.status&ctSeenReply != 0,
		Expires: time.Duration(c.timeout) * time.Second,
	}
	if c.orig.proto == packet.TCP {
		out.State = engine.CarriedState(c.tcpState)
	}
	if !hasCtPorts(c.orig.proto) {
		out.Source, out.Dest = netip.AddrPortFrom(c.orig.src, 0), netip.AddrPortFrom(c.reply.src, 0)
	}
	return out
}

// hasCtPorts says whether a flow of offloaded kind is told by ports or by the
// identifier of an echo.
func hasCtPorts(proto uint8) bool {
	switch proto {
	case packet.TCP, packet.UDP, packet.ICMP, packet.ICMPv6:
		return true
	}
	return false
}

func be32(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func be64(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
