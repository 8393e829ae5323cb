package nfq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// This file keeps what is forwarded out of the flowtables of others, see
// flowtables.go. A flow in one would be sealed no more: what came out of its SA has
// made a connection, which is open to both sides as soon as one packet of the other
// has been tracked, be it one that ipfw drops because it has sealed it. From then on
// the rest would go on in the clear.
//
// The kernel takes no connection that has a helper into a flowtable, because the
// helper is to see its packets (nft_flow_offload_eval, and tc's conntrack likewise).
// So with protect every connection that is forwarded gets one:
//
//	ct helper apart_tcp { type "ipfw" protocol tcp  l3proto inet }   # apart_udp, apart_gre: the same
//	chain forward_last {
//		type filter hook forward priority 2147483647; policy accept;
//		ct helper set "apart_tcp"
//		ct helper set "apart_udp"
//		ct helper set "apart_gre"
//	}
//
// The helper "ipfw" is one of user space (nfnetlink_cthelper) that is never enabled:
// the kernel hands it nothing and lets every packet pass. The rules mean connections
// whose first packet is on its way, of their protocol, and without a helper; as they
// are behind everybody, whoever gives a connection another finds it without.
//
// Helpers are the machine's, not a network namespace's. So it is made by whoever
// comes first, and taken away by the last one who ends in order. Linux 7.2 takes away
// one that is in use, too; who uses it keeps it, and the next makes another.

const (
	apartHelper = "ipfw"
	apartChain  = "forward_last"
)

// apartProtocols are what flowtables take; GRE since Linux 5.18.
var apartProtocols = [...]struct {
	name   string
	number uint8
}{{"tcp", unix.IPPROTO_TCP}, {"udp", unix.IPPROTO_UDP}, {"gre", unix.IPPROTO_GRE}}

// linux/netfilter/nfnetlink_cthelper.h.
const (
	msgHelperNew = unix.NFNL_SUBSYS_CTHELPER << 8
	msgHelperDel = unix.NFNL_SUBSYS_CTHELPER<<8 | 2

	helperName        = 1 // NFCTH_NAME
	helperTuple       = 2 // NFCTH_TUPLE, which holds:
	helperTupleL3     = 1 // NFCTH_TUPLE_L3PROTONUM
	helperTupleL4     = 2 // NFCTH_TUPLE_L4PROTONUM
	helperQueue       = 3 // NFCTH_QUEUE_NUM
	helperPolicy      = 4 // NFCTH_POLICY, which holds:
	helperPolicies    = 1 // NFCTH_POLICY_SET_NUM
	helperPolicyFirst = 2 // NFCTH_POLICY_SET1, which holds:
	helperPolicyName  = 1 // NFCTH_POLICY_NAME
	helperPolicyMost  = 2 // NFCTH_POLICY_EXPECT_MAX
	helperPolicyTime  = 3 // NFCTH_POLICY_EXPECT_TIMEOUT
	helperPrivate     = 5 // NFCTH_PRIV_DATA_LEN
)

// askHelpers has the kernel make the helper, or take it away, for each protocol and
// family, and gives the errors together. It expects no connections, for it is never
// enabled; EXPECT_MAX is 1 because 0 would mean any number.
func askHelpers(typ uint16) error {
	c := noCtSocket(4096)
	if err := c.open(); err != nil {
		return err
	}
	var errs []error
	for _, p := range apartProtocols {
		for _, family := range []uint16{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
			x := new(transaction) // for its attributes
			attrs := []netlink.Attribute{textAttr(helperName, apartHelper),
				x.nest(helperTuple, shortAttr(helperTupleL3, family), netlink.Attribute{Type: helperTupleL4, Data: []byte{p.number}})}
			if typ == msgHelperNew {
				attrs = append(attrs, wordAttr(helperQueue, 0),
					x.nest(helperPolicy, wordAttr(helperPolicies, 1),
						x.nest(helperPolicyFirst, textAttr(helperPolicyName, apartHelper), wordAttr(helperPolicyMost, 1), wordAttr(helperPolicyTime, 1))),
					wordAttr(helperPrivate, 0))
			}
			req := append(appendCt(nil, typ, unix.NLM_F_REQUEST|unix.NLM_F_ACK, c.next()), x.marshal(attrs)...)
			errs = append(errs, x.err, c.request(req, func(uint16, []byte) {}))
		}
	}
	return errors.Join(append(errs, unix.Close(c.fd))...)
}

// dropHelper takes the helper away, unless somebody else has a use for it. The kernel
// lets go of a table a moment after it has deleted it.
func dropHelper() {
	for end := time.Now().Add(helperGoes); ; time.Sleep(helperGoes / 50) {
		if err := askHelpers(msgHelperDel); !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return
		}
	}
}

const helperGoes = 500 * time.Millisecond

// errApart tells what it takes.
var errApart = errors.New("this kernel lends no helper of connection tracking (CONFIG_NF_CT_NETLINK_HELPER, the module nfnetlink_cthelper; in a container the host has to have loaded it, by an ipfw of its own)")

// keepApart makes the helper and tries whether the kernel gives it to connections;
// nil: it does.
//
// A kernel that does not is asked once: it looks for a module each time, and a reload
// is not to wait for that.
func (r *ruleset) keepApart(fams []nftables.TableFamily) error {
	if r.notApart != nil {
		return r.notApart
	}
	made := askHelpers(msgHelperNew) // an earlier one's does as well
	if r.apart && made == nil {
		return nil
	}
	r.apart = false // one in a container had the host's, which may be gone
	for _, fam := range fams {
		x := r.scratch(fam, 0)
		table, last := r.scratchName(), x.msgs[len(x.msgs)-1]
		x.msgs = x.msgs[:len(x.msgs)-1]
		x.helpers(fam, table)
		c := apartLast()
		c.hook = nil
		x.chain(fam, table, &c)
		x.msgs = append(x.msgs, last)
		if err := r.commit(x); err != nil {
			r.notApart = fmt.Errorf("%w: %w", errApart, errors.Join(made, err))
			return r.notApart
		}
	}
	r.apart = true
	return nil
}

// helpers makes the objects by which rules give connections the helper.
func (x *transaction) helpers(fam nftables.TableFamily, table string) {
	for _, p := range apartProtocols {
		x.add(unix.NFT_MSG_NEWOBJ, fam, netlink.Create,
			textAttr(unix.NFTA_OBJ_TABLE, table), textAttr(unix.NFTA_OBJ_NAME, "apart_"+p.name), wordAttr(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_CT_HELPER),
			x.nest(unix.NFTA_OBJ_DATA, textAttr(unix.NFTA_CT_HELPER_NAME, apartHelper), shortAttr(unix.NFTA_CT_HELPER_L3PROTO, uint16(fam)),
				netlink.Attribute{Type: unix.NFTA_CT_HELPER_L4PROTO, Data: []byte{p.number}}))
	}
}

// apartLast is the chain that gives it.
func apartLast() chainSpec {
	c := chainSpec{name: apartChain, hook: nftables.ChainHookForward, priority: priorityLast, policy: nftables.ChainPolicyAccept}
	for _, p := range apartProtocols {
		c.rules = append(c.rules, []expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_CT_HELPER, Name: "apart_" + p.name}})
	}
	return c
}

// holdApart has what is forwarded kept out of flowtables where packets are sealed,
// and says whether it is.
func (f *Firewall) holdApart(cfg *Config) bool {
	f.apart.Store(nil)
	if !cfg.Protect {
		return false
	}
	why := ""
	err := f.rules.keepApart(families(f.can.inet))
	if err != nil {
		why = err.Error()
		f.cfg.Logger.Debug("what is forwarded cannot be kept out of flowtables", "error", err)
	}
	f.apart.Store(&why)
	return err == nil
}

func shortAttr(typ uint16, v uint16) netlink.Attribute {
	return netlink.Attribute{Type: typ, Data: binary.BigEndian.AppendUint16(nil, v)}
}
