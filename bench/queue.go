package main

import (
	"encoding/binary"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// benchQueue is the queue of the contestants that are no firewall.
const benchQueue = 7

// queueEverything sends every packet of a namespace, but for loopback's, to a
// queue: what arrives and what leaves, as ipfw has it, with no connection
// tracking and no other rule. It uses the xtables target, which is the one
// that ipfw uses on a kernel without the queue expression; the price of either
// is nothing beside that of the queue.
func queueEverything(h *harness, ns string, queue uint16) {
	h.Helper()
	f, err := os.Open("/run/netns/" + ns)
	h.check(err, "namespace")
	defer f.Close()
	conn, err := nftables.New(nftables.WithNetNSFd(int(f.Fd())))
	h.check(err, "nftables")
	table := conn.AddTable(&nftables.Table{Name: "bench", Family: nftables.TableFamilyIPv4})
	info := make(xt.Unknown, 8)
	binary.NativeEndian.PutUint16(info, queue)
	binary.NativeEndian.PutUint16(info[2:], 1)
	const loopback = 772 // ARPHRD_LOOPBACK
	for _, c := range []struct {
		name string
		hook *nftables.ChainHook
		dev  expr.MetaKey
	}{
		{"in", nftables.ChainHookInput, expr.MetaKeyIIFTYPE},
		{"out", nftables.ChainHookOutput, expr.MetaKeyOIFTYPE},
	} {
		chain := conn.AddChain(&nftables.Chain{Name: c.name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: c.hook, Priority: nftables.ChainPriorityFilter})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: c.dev, Register: 1},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binary.NativeEndian.AppendUint16(nil, loopback)},
			&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info},
		}})
	}
	h.check(conn.Flush(), "nftables table of the queue")
}
