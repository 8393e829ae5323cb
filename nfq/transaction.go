package nfq

import (
	"encoding/binary"
	"errors"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// transaction gathers changes of nftables, of which the kernel makes all or
// none. The library has no table flags, and its tables with flags 0 are refused
// for a table that has an owner, so the messages are our own; it writes the
// expressions of rules.
type transaction struct {
	msgs []netlink.Message
	err  error
}

// Flags of a table, linux/netfilter/nf_tables.h, and the attribute that tells
// the netlink port of its owner.
const (
	tableOwner   = 1 << 1
	tablePersist = 1 << 2 // since Linux 6.9

	attrTableOwner = 7 // NFTA_TABLE_OWNER
)

// table makes a table that is not there. One that is there gets the flags, as
// far as that can be: to be owned a table must have been made so, and its owner
// be gone.
func (x *transaction) table(fam nftables.TableFamily, name string, flags uint32) {
	x.add(unix.NFT_MSG_NEWTABLE, fam, netlink.Create, textAttr(unix.NFTA_TABLE_NAME, name), wordAttr(unix.NFTA_TABLE_FLAGS, flags))
}

// anyTable makes a table that is not there, and leaves one that is as it is.
func (x *transaction) anyTable(fam nftables.TableFamily, name string) {
	x.add(unix.NFT_MSG_NEWTABLE, fam, netlink.Create, textAttr(unix.NFTA_TABLE_NAME, name))
}

func (x *transaction) deleteTable(fam nftables.TableFamily, name string) {
	x.add(unix.NFT_MSG_DELTABLE, fam, 0, textAttr(unix.NFTA_TABLE_NAME, name))
}

// flush takes the rules out of all chains of a table.
func (x *transaction) flush(fam nftables.TableFamily, name string) {
	x.add(unix.NFT_MSG_DELRULE, fam, 0, textAttr(unix.NFTA_RULE_TABLE, name))
}

// chain makes a chain with its rules. One without a hook is not in force.
func (x *transaction) chain(fam nftables.TableFamily, table string, c *chainSpec) {
	attrs := []netlink.Attribute{textAttr(unix.NFTA_CHAIN_TABLE, table), textAttr(unix.NFTA_CHAIN_NAME, c.name)}
	if c.hook != nil {
		attrs = append(attrs,
			x.nest(unix.NFTA_CHAIN_HOOK, wordAttr(unix.NFTA_HOOK_HOOKNUM, uint32(*c.hook)), wordAttr(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))),
			wordAttr(unix.NFTA_CHAIN_POLICY, uint32(c.policy)),
			textAttr(unix.NFTA_CHAIN_TYPE, string(c.typ())))
	}
	x.add(unix.NFT_MSG_NEWCHAIN, fam, netlink.Create, attrs...)
	for _, exprs := range c.rules {
		x.rule(fam, table, c.name, exprs)
	}
}

// rule appends a rule to a chain.
func (x *transaction) rule(fam nftables.TableFamily, table, chain string, exprs []expr.Any) {
	list := make([]netlink.Attribute, len(exprs))
	for i, e := range exprs {
		b, err := expr.Marshal(byte(fam), e)
		x.err = errors.Join(x.err, err)
		list[i] = netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: b}
	}
	x.add(unix.NFT_MSG_NEWRULE, fam, netlink.Create|netlink.Append,
		textAttr(unix.NFTA_RULE_TABLE, table), textAttr(unix.NFTA_RULE_CHAIN, chain), x.nest(unix.NFTA_RULE_EXPRESSIONS, list...))
}

func (x *transaction) add(kind int, fam nftables.TableFamily, flags netlink.HeaderFlags, attrs ...netlink.Attribute) {
	x.msgs = append(x.msgs, netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request | flags},
		Data:   append([]byte{byte(fam), unix.NFNETLINK_V0, 0, 0}, x.marshal(attrs)...),
	})
}

func (x *transaction) nest(typ uint16, attrs ...netlink.Attribute) netlink.Attribute {
	return netlink.Attribute{Type: unix.NLA_F_NESTED | typ, Data: x.marshal(attrs)}
}

func (x *transaction) marshal(attrs []netlink.Attribute) []byte {
	b, err := netlink.MarshalAttributes(attrs)
	x.err = errors.Join(x.err, err)
	return b
}

func textAttr(typ uint16, s string) netlink.Attribute {
	return netlink.Attribute{Type: typ, Data: append([]byte(s), 0)}
}

func wordAttr(typ uint16, v uint32) netlink.Attribute {
	return netlink.Attribute{Type: typ, Data: binary.BigEndian.AppendUint32(nil, v)}
}

// commit has the kernel make the changes. Only the last message asks for an
// answer: it gets one if all went well, and errors come without being asked for.
// There is no time limit: the kernel answers before the system call that sends
// returns. That call may take long, behind the transaction of somebody else, and
// what it has brought into force must not be told as failed.
func (r *ruleset) commit(x *transaction) error {
	if x.err != nil || len(x.msgs) == 0 {
		return x.err
	}
	err := r.exchange(x.msgs)
	if err != nil {
		r.drain()
	}
	return err
}

func (r *ruleset) exchange(msgs []netlink.Message) error {
	bound := func(kind int) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request},
			Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
		}
	}
	all := append([]netlink.Message{bound(unix.NFNL_MSG_BATCH_BEGIN)}, msgs...)
	last := len(all) - 1
	all[last].Header.Flags |= netlink.Acknowledge
	all = append(all, bound(unix.NFNL_MSG_BATCH_END))
	if _, err := r.raw.SendMessages(all); err != nil {
		return err
	}
	for {
		got, err := r.raw.Receive()
		if err != nil {
			return err
		}
		for _, m := range got {
			if m.Header.Type == netlink.Error && m.Header.Sequence == all[last].Header.Sequence {
				return nil
			}
		}
	}
}

// drain reads away the rest of the answers to a transaction that failed. All
// of them are there, see commit, and none may stay: the next question would take
// it for its answer.
func (r *ruleset) drain() {
	c, err := r.raw.SyscallConn()
	if err != nil {
		return
	}
	_ = c.Control(func(fd uintptr) {
		for b := make([]byte, 1); ; {
			switch _, _, err := unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT); err {
			case nil, unix.EINTR, unix.ENOBUFS:
			default:
				return
			}
		}
	})
}
