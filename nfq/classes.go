package nfq

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// queueClass is a kind of packets with queues of its own, each with its own
// reader, so that a flood of one kind starves none of the others: what fills up
// is the queue of the flood.
type queueClass int

// The classes, in the order of their queue numbers. The first three have
// Config.Queues queues each, the last has one.
const (
	queueLive    queueClass = iota // packets of connections that ipfw has let through
	queueWhole                     // with Protect: such packets that must not come as super-packets, and sealed ones
	queueNew                       // packets of all other connections
	queueControl                   // of those, the ones that keys and neighbours hang on
)

var queueClassNames = [...]string{"live", "whole", "new", "control"}

// String gives the class's name.
func (k queueClass) String() string { return queueClassNames[k] }

// Numbers is how many queue numbers the configuration takes, from Queue on.
func (c *Config) Numbers() int { return int(queueControl)*c.Queues + 1 }

// class gives the class of the queue with the i-th number.
func (c *Config) class(i int) queueClass { return queueClass(i / c.Queues) }

// classify sends the packet to a queue of its class. It has been marked. Most
// packets are of connections that ipfw has let through, so those go first.
func (t *tableSpec) classify(hook string) [][]expr.Any {
	known := func(then ...expr.Any) []expr.Any {
		return append(metaIs(t.marks.admitted(), t.marks.admitted()), then...)
	}
	proto := func(is expr.Any) []expr.Any { return []expr.Any{meta(expr.MetaKeyL4PROTO), is} }
	header := func(offset, n uint32) expr.Any {
		return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: n}
	}
	var rules [][]expr.Any
	if t.protect {
		rules = append(rules, known(append(proto(unequal([]byte{unix.IPPROTO_TCP})), t.queueExpr(queueWhole))...))
	}
	rules = append(rules, known(t.queueExpr(queueLive)))
	if hook != "forward" {
		own := uint32(2) // this host's port: of the destination
		if hook == "output" {
			own = 0
		}
		for _, port := range []uint16{portIKE, portNAT} {
			rules = append(rules, append(proto(equal([]byte{unix.IPPROTO_UDP})), header(own, 2),
				equal(binary.BigEndian.AppendUint16(nil, port)), t.queueExpr(queueControl)))
		}
		// Neighbour discovery, RFC 4861, is no connection.
		rules = append(rules, append(proto(equal([]byte{unix.IPPROTO_ICMPV6})), header(0, 1),
			&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: []byte{133}},
			&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: []byte{137}}, t.queueExpr(queueControl)))
	}
	return append(rules, []expr.Any{t.queueExpr(queueNew)})
}

// portIKE is the port of IKE (RFC 7296 section 2).
const portIKE = 500

// queueExpr sends the packet to the queues of a class: by nftables' own
// expression, or by revision 3 of the xtables target, whose info is queue
// number, number of queues and flags in native 16-bit words, padded to 8 bytes.
func (t *tableSpec) queueExpr(class queueClass) expr.Any {
	first, total := t.queue+uint16(class)*uint16(t.queues), uint16(t.queues)
	if class == queueControl {
		total = 1
	}
	return t.queueFrom(first, total)
}
