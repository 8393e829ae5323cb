package nfq

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
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
//		iiftype loopback accept
//		meta mark & 0xff000000 != 0  meta mark set meta mark & 0x00ffffff
//		iifname "ipfw0"  meta mark set meta mark | 0x06000000  accept    # opened
//		fib daddr type != local  accept
//		meta l4proto esp  queue num 4302
//		meta l4proto ah   queue num 4302
//		meta nfproto ipv6  exthdr ah exists  queue num 4302
//		udp dport 4500    queue num 4302
//	}
//
// Of IPv6, l4proto is what stands behind AH, which counts as an extension
// header there.
func (t *tableSpec) arriving() [][]expr.Any {
	up := t.queueExpr(queueWhole)
	mine := uint32(t.marks)
	marked := []expr.Any{meta(expr.MetaKeyMARK), and(mine), unequal(native32(0))}
	opened := []expr.Any{meta(expr.MetaKeyIIFNAME), equal(ifname(t.device))}
	return [][]expr.Any{
		{meta(expr.MetaKeyIIFTYPE), equal(native16(arphrdLoopback)), accept()},
		setMeta(marked, mine, 0),
		append(setMeta(opened, mine, t.marks.opened()), accept()),
		{&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true}, unequal(native32(unix.RTN_LOCAL)), accept()},
		{meta(expr.MetaKeyL4PROTO), equal([]byte{unix.IPPROTO_ESP}), up},
		{meta(expr.MetaKeyL4PROTO), equal([]byte{unix.IPPROTO_AH}), up},
		{
			meta(expr.MetaKeyNFPROTO), equal([]byte{unix.NFPROTO_IPV6}),
			&expr.Exthdr{DestRegister: 1, Type: unix.IPPROTO_AH, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT, Op: expr.ExthdrOpIpv6},
			equal([]byte{1}), up,
		},
		{
			meta(expr.MetaKeyL4PROTO), equal([]byte{unix.IPPROTO_UDP}),
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			equal(binary.BigEndian.AppendUint16(nil, portNAT)), up,
		},
	}
}

// ifname is an interface name as nftables compares it: padded with zeros.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
