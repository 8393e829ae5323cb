package nfq

import (
	"encoding/binary"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// The table, as nft would print it with the default mask (0xff000000), the
// daemon's user 0, and the queue expression:
//
//	chain input {                                # forward: the same
//		type filter hook input priority filter; policy drop;
//		ct mark & 0xfd000000 == 0x58000000  ct state & related == 0  accept  # offloaded, generation 2
//		iiftype loopback  meta mark set meta mark & 0x00ffffff  accept
//		ct mark & 0xf5000000 == 0x54000000  ct state & related == 0  drop    # refused, generation 2
//		ct state related  ct status expected  ct mark & 0xff000000 != 0  ct mark set ct mark & 0x00ffffff
//		meta mark set meta mark & 0x00ffffff | 0x44000000        # clear ours; queued, generation
//		ct mark & 0x08000000 != 0  meta mark set meta mark | 0x08000000   # admitted
//		ct direction reply  meta mark set meta mark | 0x01000000
//		ct state related  ct status expected  ct direction original  meta mark set meta mark | 0x11000000   # where the policy asks
//		meta mark & 0x08000000 != 0  queue num 4301                       # live
//		udp dport 500  queue num 4304                                     # control; 4500 and
//		icmpv6 type 133-137  queue num 4304                               # output's sport: the same
//		queue num 4303                                                    # new
//	}
//	chain output {                               # before the rest of the same:
//		oiftype loopback  meta mark set meta mark & 0x00ffffff  accept
//		meta skgid 1234567890  meta skuid 0  meta mark set meta mark & 0x00ffffff  accept    # injected
//	}
//	chain input_save {                           # forward_save, output_save: the same
//		type filter hook input priority filter + 1; policy accept;
//		meta mark & 0x04000000 == 0  meta mark set meta mark & 0x00ffffff  accept    # never went up; output: without the set
//		meta mark & 0xf1000000 == 0x50000000  ct mark set ct mark & 0x00ffffff | 0x58000000
//		ct mark & 0x08000000 == 0  ct mark set ct mark | 0x08000000
//		meta mark set meta mark & 0x00ffffff
//	}
//
// What the kernel answers for itself has the mark that the save chain has
// written under this very table. An ICMP error carries the mark of the
// connection it is about, and what a helper of connection tracking expects
// (FTP's data) that of the connection that asked for it: both are for the
// daemon to judge.
//
// What comes for a socket of ours to UDP port 4500 or 500 is not asked about,
// and passes only to a socket with a mark that is drawn at each start: who has
// bound the port while no daemon runs gets nothing. See portMark.
//
// With protect there is also a chain that takes sealed packets before
// connection tracking, and that nobody passes with marks of ours; UDP can be
// in super-packets whose segment length nobody tells, so all but TCP goes to
// queues for which the kernel cuts them up. See arriving, again and queueClass;
// via for a policy that names interfaces. And one that keeps what is forwarded out of
// flowtables, see apart.go.
//
// What we inject is told by who has made the socket: the skgid is drawn at each
// start and nobody else's, see credential. Where none can be drawn a mark tells it
// from what others of our user send, 0x02000000, alone among our bits, so that a
// program which marks with whole words does not open the wall by chance. The skuid
// keeps users who can set marks (since Linux 5.17 CAP_NET_RAW is enough, and ping
// has it) from naming their packets ours.
//
// Before and behind these are the chains that keep our bits from routing, see
// clean.go.
//
// Whoever can set marks can send on the loopback interface, by any address of
// the host. The save chain behind believes what it finds on a packet, and what
// it writes on the connection counts on every interface. So our bits are taken
// off in front of each accept that does not know where they come from.
type tableSpec struct {
	name     string
	marks    marks
	queue    uint16
	queues   int
	failOpen bool
	protect  bool       // packets are opened and sealed
	apart    bool       // what is forwarded is kept out of flowtables
	offload  bool       // the kernel answers for flows ...
	gen      uint32     // ... that have been decided in this generation
	related  bool       // packets say whether a helper expects them
	via      uint32     // ... by the interfaces that were asked about in this epoch; 0: by any
	encap    bool       // a socket of ours takes ESP in UDP
	ike      bool       // and one IKE
	secret   uint32     // a word that nobody else knows: the mark of these sockets; see opened too
	ikeUp    bool       // IKE comes by a queue
	prog     int        // descriptor of the BPF program that takes native ESP; 0 without
	device   string     // by which opened packets come in that changed their family
	compat   bool       // no queue expression: NFQUEUE through nft_compat
	shut     bool       // nobody judges: nothing passes but loopback ...
	first    bool       // ... nor has anybody before: what would be queued is dropped, and the next one takes over from nobody
	sends    credential // whoever injects
	sendMark uint32     // what injected packets are marked with besides; 0: nothing
}

type chainSpec struct {
	name     string
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	policy   nftables.ChainPolicy
	rules    [][]expr.Any
	route    bool // of the type that has the kernel route a packet again when its mark has changed
}

func (c *chainSpec) typ() nftables.ChainType {
	if c.route {
		return nftables.ChainTypeRoute
	}
	return nftables.ChainTypeFilter
}

// arphrdLoopback is ARPHRD_LOOPBACK, the type of the one loopback interface.
const arphrdLoopback = 772

// priorityFilter is where ordinary filters stand: behind connection tracking
// (-200), mangling (-150) and destination NAT (-100).
const priorityFilter nftables.ChainPriority = 0

func (t *tableSpec) chains() []chainSpec {
	cs := t.prerouting()
	for _, h := range []struct {
		name   string
		hook   *nftables.ChainHook
		device expr.MetaKey
	}{
		{"input", nftables.ChainHookInput, expr.MetaKeyIIFTYPE},
		{"forward", nftables.ChainHookForward, expr.MetaKeyIIFTYPE},
		{"output", nftables.ChainHookOutput, expr.MetaKeyOIFTYPE},
	} {
		var rules [][]expr.Any
		if t.offload { // first, because it is most of the traffic
			rules = append(rules, t.answer(h.name))
		}
		rules = append(rules, t.loopback(h.device))
		if t.shut {
			// nothing is sent, nothing opened
		} else if h.name == "output" {
			rules = append(rules, t.sent())
		} else if t.protect {
			rules = append(rules, t.again(h.name == "forward")...)
			if t.encap && h.name == "input" {
				rules = append(rules, t.toSocket()...)
			}
		}
		if t.offload && t.via == 0 {
			rules = append(rules, t.deny(h.name == "forward"))
		}
		rules = append(rules, t.ask(h.name)...)
		cs = append(cs,
			chainSpec{name: h.name, hook: h.hook, priority: priorityFilter, policy: nftables.ChainPolicyDrop, rules: rules},
			chainSpec{name: h.name + "_save", hook: h.hook, priority: priorityFilter + 1, policy: nftables.ChainPolicyAccept, rules: t.save(h.name)})
	}
	if t.apart {
		cs = append(cs, apartLast())
	}
	return append(cs, t.rerouting()...)
}

// loopback lets pass what comes or leaves by loopback, without our bits.
func (t *tableSpec) loopback(device expr.MetaKey) []expr.Any {
	return append(setMeta([]expr.Any{meta(device), equal(native16(arphrdLoopback))}, uint32(t.marks), 0), accept())
}

// Bits of ct state and ct status, linux/netfilter/nf_conntrack_common.h.
const (
	stateRelated   = 1 << 2
	statusExpected = 1 << 0
)

// answer lets pass what belongs to a connection that the kernel answers for.
func (t *tableSpec) answer(hook string) []expr.Any {
	return slices.Concat(ctMarkIs(t.marks.asked(), t.marks.answered(t.gen, hook == "forward")),
		ctHasNot(expr.CtKeySTATE, stateRelated), t.isVia(hook), []expr.Any{accept()})
}

// deny drops what belongs to a connection that the policy has cut.
func (t *tableSpec) deny(forward bool) []expr.Any {
	return slices.Concat(ctMarkIs(t.marks.decided(), t.marks.denied(t.gen, forward)),
		ctHasNot(expr.CtKeySTATE, stateRelated), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})
}

// ask writes on the packet what connection tracking knows and queues it. Our
// bits are cleared first, whoever set them.
func (t *tableSpec) ask(hook string) [][]expr.Any {
	admitted, reply := t.marks.admitted(), t.marks.reply()
	up := t.marks.queued()
	if t.offload {
		up |= t.marks.generation(t.gen)
	}
	expects := func() []expr.Any {
		return append(ctHas(expr.CtKeySTATE, stateRelated), ctHas(expr.CtKeySTATUS, statusExpected)...)
	}
	inherited := append(expects(), ct(expr.CtKeyMARK), and(uint32(t.marks)), unequal(native32(0)))
	rules := [][]expr.Any{
		setCtMark(inherited, uint32(t.marks), 0),
		setMeta(nil, uint32(t.marks), up),
		setMeta(ctHas(expr.CtKeyMARK, admitted), admitted, admitted),
		setMeta(ctRuns(1), reply, reply),
	}
	if t.related {
		rules = append(rules, setMeta(append(expects(), ctRuns(0)...), t.marks.expected(), t.marks.expected()))
	}
	return append(rules, t.classify(hook)...)
}

// save stands behind the queue: only what was let through comes here.
func (t *tableSpec) save(hook string) [][]expr.Any {
	admitted, queued, offloaded := t.marks.admitted(), t.marks.queued(), t.marks.offloaded()
	never := metaIs(queued, 0)
	if hook != "output" { // see rerouting
		never = setMeta(never, uint32(t.marks), 0)
	}
	rules := [][]expr.Any{append(never, accept())}
	if t.offload {
		letThrough := func() []expr.Any {
			return metaIs(t.marks.expected()|t.marks.generation(generations-1), offloaded|t.marks.generation(t.gen))
		}
		rules = append(rules, setCtMark(letThrough(), uint32(t.marks), t.marks.answered(t.gen, hook == "forward")))
		if t.via != 0 {
			rules = append(rules, append(letThrough(), t.setVia(hook)...))
		}
	}
	return append(rules,
		setCtMark(ctMarkIs(admitted, 0), admitted, admitted),
		setMeta(nil, uint32(t.marks), 0))
}

func (t *tableSpec) queueFrom(first, total uint16) expr.Any {
	if t.first {
		return &expr.Verdict{Kind: expr.VerdictDrop}
	}
	if !t.compat {
		q := &expr.Queue{Num: first, Total: total}
		if t.failOpen {
			q.Flag = expr.QueueFlagBypass
		}
		return q
	}
	info := make(xt.Unknown, 0, 8)
	info = binary.NativeEndian.AppendUint16(info, first)
	info = binary.NativeEndian.AppendUint16(info, total)
	var flags uint16
	if t.failOpen {
		flags = 1 // NFQ_FLAG_BYPASS
	}
	info = binary.NativeEndian.AppendUint16(info, flags)
	info = append(info, 0, 0)
	return &expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info}
}

// queueNumber reads a queue number back out of an expression of queueExpr.
func queueNumber(e expr.Any) (uint16, bool) {
	switch e := e.(type) {
	case *expr.Queue:
		return e.Num, true
	case *expr.Target:
		if info, ok := e.Info.(*xt.Unknown); ok && e.Name == "NFQUEUE" && len(*info) >= 2 {
			return binary.NativeEndian.Uint16(*info), true
		}
	}
	return 0, false
}

// queueBypasses says of an expression of queueFrom that it lets pass what nobody
// reads.
func queueBypasses(e expr.Any) bool {
	switch e := e.(type) {
	case *expr.Queue:
		return e.Flag&expr.QueueFlagBypass != 0
	case *expr.Target:
		if info, ok := e.Info.(*xt.Unknown); ok && e.Name == "NFQUEUE" && len(*info) >= 6 {
			return binary.NativeEndian.Uint16((*info)[4:])&1 != 0
		}
	}
	return false
}

// setMeta replaces the bits of the packet mark under mask, if cond holds.
func setMeta(cond []expr.Any, mask, bits uint32) []expr.Any {
	return append(cond,
		meta(expr.MetaKeyMARK), replace(mask, bits),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true})
}

// setCtMark replaces the bits of the connection mark under mask, if cond holds.
func setCtMark(cond []expr.Any, mask, bits uint32) []expr.Any {
	return append(cond, ct(expr.CtKeyMARK), replace(mask, bits),
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true})
}

func ctHas(k expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{ct(k), and(bits), equal(native32(bits))}
}

func ctHasNot(k expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{ct(k), and(bits), equal(native32(0))}
}

// ctMarkIs compares the bits of the connection mark under mask.
func ctMarkIs(mask, bits uint32) []expr.Any {
	return []expr.Any{ct(expr.CtKeyMARK), and(mask), equal(native32(bits))}
}

// ctRuns matches packets of one direction of their connection: 0 is that of the
// opener, 1 the other (IP_CT_DIR_ORIGINAL, IP_CT_DIR_REPLY). ICMP errors are related
// in either.
func ctRuns(dir byte) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}, equal([]byte{dir})}
}

func ct(k expr.CtKey) expr.Any { return &expr.Ct{Key: k, Register: 1} }

// metaIs compares the bits of the packet mark under mask.
func metaIs(mask, bits uint32) []expr.Any {
	return []expr.Any{meta(expr.MetaKeyMARK), and(mask), equal(native32(bits))}
}

func meta(k expr.MetaKey) expr.Any { return &expr.Meta{Key: k, Register: 1} }

func equal(v []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: v} }

func unequal(v []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: v} }

// and keeps the bits under mask.
func and(mask uint32) expr.Any { return bitwise(mask, 0) }

// replace puts bits in place of those under mask.
func replace(mask, bits uint32) expr.Any { return bitwise(^mask, bits) }

func bitwise(mask, xor uint32) expr.Any {
	return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native32(mask), Xor: native32(xor)}
}

func accept() expr.Any { return &expr.Verdict{Kind: expr.VerdictAccept} }

func native16(v uint16) []byte { return binary.NativeEndian.AppendUint16(nil, v) }
func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func nativeUint32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
