package nfq

import (
	"math"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// This file keeps our bits out of the way of everybody else. They are on the
// connection's mark, and other programs copy that to the packet's, as a whole
// word: so that the answers of a connection leave by the line that it began on
// (CONNMARK --restore-mark), or that the reverse path is looked for as the packet
// was sent (wg-quick, with src_valid_mark). A routing rule for a mark has no mask
// unless it is given one ("ip rule add fwmark 2"), so with our bits in the word it
// matches no more. They are taken off before routing looks:
//
//	chain prerouting_clean {                     # behind mangle, where marks are restored
//		type filter hook prerouting priority mangle + 1; policy accept;
//		meta mark & 0xff000000 != 0  meta mark set meta mark & 0x00ffffff
//	}
//	chain prerouting_last { type filter hook prerouting priority 2147483647; ... the same }
//
// The kernel routes what comes in when the whole hook is done. Behind mangle
// there are those who ask for a route by the mark (fib, of firewalld's reverse
// path filter), and behind everybody it is the kernel that does. Only for the former,
// what came by our device has bits of ours between the two: see reversepath.go.
//
//	chain output_clean {                         # before our own chain
//		type route hook output priority filter - 1; policy accept;
//		the same
//	}
//	chain output_last { type route hook output priority 2147483647; ... the same }
//
// What this host sends was routed before, and is routed again at the end of a
// chain of type route that has changed its mark. So a program that restores one
// in such a chain has the packet routed with our bits, and these chains, which
// take them off, have it routed once more without. Packets whose mark they do not
// change are not routed by them. What our own chain takes off is nobody's cause to
// route, so the first of them is before it.
//
// In the input and the forward hook nothing is routed, and the save chains take
// our bits off, for sockets and for those in postrouting.
const (
	priorityMangle nftables.ChainPriority = -150
	priorityLast   nftables.ChainPriority = math.MaxInt32
)

// prerouting are the chains of that hook.
func (t *tableSpec) prerouting() (cs []chainSpec) {
	chain := func(name string, p nftables.ChainPriority, rules [][]expr.Any) {
		cs = append(cs, chainSpec{name: name, hook: nftables.ChainHookPrerouting, priority: p, policy: nftables.ChainPolicyAccept, rules: rules})
	}
	first, last := [][]expr.Any{t.clean()}, [][]expr.Any{t.clean()}
	if t.protect {
		chain("arriving", priorityRaw, t.arriving())
		chain("opened", priorityRaw+1, t.inPlace())
		first = append(first, t.wayBack())
		last = append(last, t.notMoved()...)
	}
	chain("prerouting_clean", priorityMangle+1, first)
	chain("prerouting_last", priorityLast, last)
	return cs
}

// rerouting are the chains that have the kernel route again what others have had
// routed with our bits.
func (t *tableSpec) rerouting() []chainSpec {
	first := t.clean()
	if t.sendMark != 0 { // alone it says who has sent the packet
		first = append([]expr.Any{meta(expr.MetaKeyMARK), and(uint32(t.marks)), unequal(native32(t.sendMark))}, first...)
	}
	chain := func(name string, p nftables.ChainPriority, rules ...[]expr.Any) chainSpec {
		return chainSpec{name: name, hook: nftables.ChainHookOutput, priority: p, policy: nftables.ChainPolicyAccept, rules: rules, route: true}
	}
	before := [][]expr.Any{first}
	if t.protect {
		before = [][]expr.Any{t.notBack(), first}
	}
	return []chainSpec{chain("output_clean", priorityFilter-1, before...), chain("output_last", priorityLast, t.clean())}
}

// clean takes our bits off a packet that has some.
func (t *tableSpec) clean() []expr.Any {
	return setMeta([]expr.Any{meta(expr.MetaKeyMARK), and(uint32(t.marks)), unequal(native32(0))}, uint32(t.marks), 0)
}

// sent lets pass in the output chain what our sockets send. A mark of ours does
// not tell them from others, where it can be helped: other programs restore that
// of the connection.
func (t *tableSpec) sent() []expr.Any {
	var marked []expr.Any
	if t.sendMark != 0 {
		marked = metaIs(uint32(t.marks), t.sendMark)
	}
	return append(setMeta(append(marked,
		meta(expr.MetaKeySKGID), equal(native32(t.sends.gid)), meta(expr.MetaKeySKUID), equal(native32(t.sends.uid))),
		uint32(t.marks), 0), accept())
}
