package nfq

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// priorityRaw is before connection tracking (-200) and behind the reassembly
// of fragments (-400).
const priorityRaw nftables.ChainPriority = -300

// portNAT is the port of ESP in UDP (RFC 3948 section 2.1).
const portNAT = 4500

// arriving is the chain that sealed packets are taken by, before anybody has
// seen them:
//
//	chain arriving {
//		type filter hook prerouting priority raw; policy accept;
//		ip version . ihl 4 . 5  ip protocol esp  iiftype ether  fib daddr type local  match bpf  drop
//		...                                      # IPv6: the same; most packets of a bulk transfer end here
//		iiftype loopback  meta mark set meta mark & 0x00ffffff  accept
//		meta mark & 0xff000000 != 0  meta mark set meta mark & 0x00ffffff
//		iifname "ipfw0"  accept                                          # opened
//		fib daddr type != local  accept
//		ip version . ihl 4 . 5  ip protocol esp  match bpf  drop         # from other devices too: taken into the ring of the
//		ip6 nexthdr esp  ip6 daddr != fe80::/10  match bpf  drop         # intake, if there is one
//		ip version . ihl 4 . 5  udp dport 4500  accept                   # encapsulated: for our socket, see toSocket
//		ip6 nexthdr udp  ip6 daddr != fe80::/10  udp dport 4500  accept
//		...                                      udp dport 500   the same                         # IKE: for another
//		meta l4proto esp  queue num 4302
//		meta l4proto ah   queue num 4302
//		meta nfproto ipv6  exthdr ah exists  queue num 4302
//		udp dport 4500    queue num 4302                                 # and 500, where no socket of ours takes them
//	}
//
// Of IPv6, l4proto is what stands behind AH, which counts as an extension
// header there.
func (t *tableSpec) arriving() [][]expr.Any {
	up := t.queueExpr(queueWhole)
	destination := &expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true}
	var rules [][]expr.Any
	if t.prog > 0 {
		rules = t.takeESP(meta(expr.MetaKeyIIFTYPE), equal(native16(arphrdEther)), destination, equal(native32(unix.RTN_LOCAL)))
	}
	rules = append(rules, [][]expr.Any{
		t.loopback(expr.MetaKeyIIFTYPE),
		t.clean(),
		append(t.fromDevice(), accept()),
		{destination, unequal(native32(unix.RTN_LOCAL)), accept()},
	}...)
	if t.prog > 0 {
		rules = append(rules, t.takeESP()...)
	}
	for _, port := range t.sockets() {
		rules = append(rules, t.takeUDP(port)...)
	}
	if t.ikeUp {
		rules = append(rules, append(toPort(portIKE), up))
	}
	return append(rules, [][]expr.Any{
		{meta(expr.MetaKeyL4PROTO), equal([]byte{unix.IPPROTO_ESP}), up},
		{meta(expr.MetaKeyL4PROTO), equal([]byte{unix.IPPROTO_AH}), up},
		{
			meta(expr.MetaKeyNFPROTO), equal([]byte{unix.NFPROTO_IPV6}),
			&expr.Exthdr{DestRegister: 1, Type: unix.IPPROTO_AH, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT, Op: expr.ExthdrOpIpv6},
			equal([]byte{1}), up,
		},
		append(toPort(portNAT), up),
	}...)
}

// inPlace notes of a packet that goes on as what it held, by the daemon's verdict
// in the chain before, that it was opened. The packet's mark is no place for
// that: others write it, and the kernel routes by it. So a word that nobody
// knows stands in its priority until the input chain:
//
//	chain opened {
//		type filter hook prerouting priority raw + 1; policy accept;
//		meta mark & 0xff000000 == 0x06000000  meta priority set SECRET  meta mark set meta mark & 0x00ffffff
//	}
//
// It is for this host. What is to be forwarded would lose it (ip_forward), and
// comes by the device.
func (t *tableSpec) inPlace() [][]expr.Any {
	if t.shut {
		return nil // nothing is opened
	}
	verdict := append(metaIs(uint32(t.marks), t.marks.opened()), setPriority(t.secret)...)
	return [][]expr.Any{setMeta(verdict, uint32(t.marks), 0)}
}

// notMoved sends up what was opened in its place and has another destination by
// now, in the chain that is behind all who translate addresses:
//
//	meta priority SECRET  ct direction original  ct status & 0x20 != 0  meta mark set meta mark | 0x06000000  queue num 4301
//	meta priority SECRET  ct direction reply     ct status & 0x10 != 0  the same
func (t *tableSpec) notMoved() (rules [][]expr.Any) {
	if t.shut {
		return nil
	}
	for _, translated := range t.translated() {
		rules = append(rules, append(setMeta(append(t.inItsPlace(), translated...), uint32(t.marks), t.marks.opened()), t.queueExpr(queueLive)))
	}
	return rules
}

// again deals with what came out of an SA in the input or forward chain, where
// it is known where it goes:
//
//	iifname "ipfw0"  ct status & 0x30 == 0  fib daddr type local  meta mark set meta mark & 0x00ffffff | 0x06000000  accept    # input: nearly all
//	meta priority SECRET  meta priority set 0  the same       # input: not translated, see notMoved
//	meta mark set meta mark & 0x00ffffff
//	iifname "ipfw0"  meta mark set meta mark | 0x07000000     # opened, crossing
//	iifname "ipfw0"  fib daddr type local  meta mark set meta mark & 0x00ffffff | 0x06000000    # multicast, broadcast: the same
//	meta mark & 0x06000000 == 0x06000000  ct direction original  ct status & 0x20 != 0  meta mark set ...    # crossing: the wrong one
//	meta mark & 0x06000000 == 0x06000000  ct direction reply     ct status & 0x10 != 0  the same
//	meta mark & 0xff000000 == 0x06000000  accept              # input
//	meta mark & 0x06000000 == 0x06000000  queue num 4301
//
// The address says for which chain the daemon has judged the packet when it
// arrived, unless it has been translated since.
func (t *tableSpec) again(forward bool) (rules [][]expr.Any) {
	mine, opened, wrong := uint32(t.marks), t.marks.opened(), t.marks.crossing()
	to := func(typ uint32) []expr.Any {
		return append(t.fromDevice(), &expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true}, equal(native32(typ)))
	}
	if forward {
		wrong = 0
	} else {
		plainly := append(t.fromDevice(), ctHasNot(expr.CtKeySTATUS, statusSrcNAT|statusDstNAT)...)
		plainly = append(plainly, to(unix.RTN_LOCAL)[2:]...)
		rules = append(rules,
			append(setMeta(plainly, mine, opened), accept()),
			append(setMeta(append(t.inItsPlace(), setPriority(0)...), mine, opened), accept()))
	}
	rules = append(rules, setMeta(nil, mine, 0), setMeta(t.fromDevice(), mine, opened|t.marks.crossing()))
	for _, typ := range []uint32{unix.RTN_LOCAL, unix.RTN_MULTICAST, unix.RTN_BROADCAST} {
		rules = append(rules, setMeta(to(typ), mine, opened))
	}
	for _, translated := range t.translated() {
		rules = append(rules, setMeta(append(metaIs(opened, opened), translated...), t.marks.crossing(), wrong))
	}
	if !forward {
		rules = append(rules, append(metaIs(mine, opened), accept()))
	}
	return append(rules, append(metaIs(opened, opened), t.queueExpr(queueLive)))
}

// Bits of ct status: IPS_SRC_NAT and IPS_DST_NAT.
const (
	statusSrcNAT = 1 << 4
	statusDstNAT = 1 << 5
)

// translated matches, in two rules, a packet whose destination others have
// translated: that of its connection's first packet was, or that one's source
// was, and this is an answer. A packet without a connection has not been
// translated.
func (t *tableSpec) translated() (either [2][]expr.Any) {
	for direction, status := range []uint32{statusDstNAT, statusSrcNAT} {
		either[direction] = append([]expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}, equal([]byte{byte(direction)})},
			ctHas(expr.CtKeySTATUS, status)...)
	}
	return either
}

// fromDevice matches what comes in by the device of opened packets.
func (t *tableSpec) fromDevice() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyIIFNAME), equal(ifname(t.device))}
}

// inItsPlace matches what inPlace has noted.
func (t *tableSpec) inItsPlace() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyPRIORITY), equal(native32(t.secret))}
}

func setPriority(v uint32) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: native32(v)},
		&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: 1, SourceRegister: true},
	}
}

// takeUDP leaves to the UDP socket what it is to receive.
func (t *tableSpec) takeUDP(port uint16) [][]expr.Any {
	v4, v6 := plain(unix.IPPROTO_UDP)
	return [][]expr.Any{append(append(v4, toPort(port)...), accept()), append(append(v6, toPort(port)...), accept())}
}

// takeESP drops what the intake has got, if cond holds.
func (t *tableSpec) takeESP(cond ...expr.Any) [][]expr.Any {
	v4, v6 := plain(unix.IPPROTO_ESP)
	v4 = append(v4, networkHeader(9, 1), equal([]byte{unix.IPPROTO_ESP}))
	taken := append(cond, matchBPF(t.prog), &expr.Verdict{Kind: expr.VerdictDrop})
	return [][]expr.Any{append(v4, taken...), append(v6, taken...)}
}

// plain matches IPv4 without options, and IPv6 with a protocol right behind its
// header. What the short ways do not tell goes the long one: IPv4 options, IPv6
// extension headers, and link-local addresses, which mean something on their own
// link only.
func plain(protocol byte) (v4, v6 []expr.Any) {
	v4 = []expr.Any{meta(expr.MetaKeyNFPROTO), equal([]byte{unix.NFPROTO_IPV4}), networkHeader(0, 1), equal([]byte{4<<4 | 5})}
	v6 = []expr.Any{meta(expr.MetaKeyNFPROTO), equal([]byte{unix.NFPROTO_IPV6}), networkHeader(6, 1), equal([]byte{protocol}),
		networkHeader(24, 2), &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0xff, 0xc0}, Xor: []byte{0, 0}},
		unequal([]byte{0xfe, 0x80})}
	return v4, v6
}

func networkHeader(offset, n uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: n}
}

// matchBPF is revision 1 of the xtables match "bpf", which asks a program: its
// info is a mode, an unused count, the descriptor, and room for what the other
// modes and the kernel need (linux/netfilter/xt_bpf.h).
func matchBPF(prog int) expr.Any {
	const modeFD, room = 2, 512 + 8
	info := make(xt.Unknown, 0, 8+room)
	info = append(info, native16(modeFD)...)
	info = append(info, 0, 0)
	info = append(info, native32(uint32(prog))...)
	info = append(info, make([]byte, room)...)
	return &expr.Match{Name: "bpf", Rev: 1, Info: &info}
}

// toSocket lets pass in the input chain what takeUDP has left to a socket of
// ours. What else comes to its port has been judged as it arrived.
func (t *tableSpec) toSocket() (rules [][]expr.Any) {
	for _, port := range t.sockets() {
		v4, v6 := plain(unix.IPPROTO_UDP)
		for _, to := range [][]expr.Any{v4, v6} {
			to = append(append(toPort(port), to...), socketMark(), equal(native32(t.secret)),
				&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true}, equal(native32(unix.RTN_LOCAL)))
			rules = append(rules, append(setMeta(to, uint32(t.marks), 0), accept()))
		}
	}
	return rules
}

// socketMark is the mark of the socket that a packet is for; a rule with it does
// not match where there is none.
func socketMark() expr.Any { return &expr.Socket{Key: expr.SocketKeyMark, Register: 1} }

// sockets are the UDP ports that are ours.
func (t *tableSpec) sockets() (ports []uint16) {
	if t.encap {
		ports = append(ports, portNAT)
	}
	if t.ike {
		ports = append(ports, portIKE)
	}
	return ports
}

// toPort matches UDP to a port.
func toPort(port uint16) []expr.Any {
	return []expr.Any{
		meta(expr.MetaKeyL4PROTO), equal([]byte{unix.IPPROTO_UDP}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		equal(binary.BigEndian.AppendUint16(nil, port)),
	}
}

// ifname is an interface name as nftables compares it: padded with zeros.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
