package engine

import (
	"encoding/binary"
	"net/netip"

	"github.com/ipfw/ipfw/engine/classify"
	"github.com/ipfw/ipfw/packet"
)

// query is one question to the SPD: the packet that opens a flow, or a packet
// that is judged by itself, seen from this host.
//
// key.Local is this host's side. On the forward path, where a rule's local
// side may be source or destination, Local is the source. ICMP has its type
// and code where others have ports: type<<8 | code, on both sides.
type query struct {
	key   classify.Key
	dir   Direction
	v6    bool
	dscp  uint8
	inIf  string
	outIf string
	// master is the question that the flow's master asked, if the kernel expects
	// the flow, and masterRule the rule that lets that one through: lookup finds it.
	master     *query
	masterRule string
	// brought is the ipsec block whose SA the packet came out of, while its way
	// out is not known: a rule that may turn out to name it is taken to do so.
	brought string
	answers sinceQuestion
	// stated stands for a master in a dry run: the name of the rule that is said to
	// have let it through.
	stated string
}

// queryOf asks about a packet as it is.
func queryOf(in *Input) query {
	p := &in.Packet
	q := query{dir: in.Dir, v6: p.Version == 6, dscp: p.DSCP(), inIf: in.InIf, outIf: in.OutIf, answers: in.answers}
	if in.master != nil && in.master.stated != "" {
		q.master, q.masterRule = in.master, in.master.stated
	}
	sp, dp := p.SrcPort, p.DstPort
	if p.HasICMP {
		sp = uint16(p.ICMPType)<<8 | uint16(p.ICMPCode)
		dp = sp
	}
	q.key.Proto = p.Protocol
	src, dst := classify.AddrFrom(p.Src), classify.AddrFrom(p.Dst)
	if in.Dir == In {
		q.key.Local, q.key.Remote, q.key.LocalPort, q.key.RemotePort = dst, src, dp, sp
	} else {
		q.key.Local, q.key.Remote, q.key.LocalPort, q.key.RemotePort = src, dst, sp, dp
	}
	return q
}

// remoteAddr and localAddr are the addresses that limits count by. On the
// forward path the remote address is the one that opens.
func (q *query) remoteAddr() netip.Addr {
	if q.dir == Forward {
		return netipAddr(q.key.Local, q.v6)
	}
	return netipAddr(q.key.Remote, q.v6)
}

func (q *query) localAddr() netip.Addr {
	if q.dir == Forward {
		return netipAddr(q.key.Remote, q.v6)
	}
	return netipAddr(q.key.Local, q.v6)
}

// netipAddr is classify.AddrFrom undone.
func netipAddr(a classify.Addr, v6 bool) netip.Addr {
	if !v6 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(a.Lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a.Hi)
	binary.BigEndian.PutUint64(b[8:], a.Lo)
	return netip.AddrFrom16(b)
}

// hasPorts says whether packets of a protocol carry ports.
func hasPorts(proto uint8) bool {
	switch proto {
	case packet.TCP, packet.UDP, packet.UDPLite, packet.SCTP:
		return true
	}
	return false
}
