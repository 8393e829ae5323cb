package nfq

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// Attributes of a flowtable, of linux/netfilter/nf_tables.h.
const (
	attrFlowtableTable = 1 // NFTA_FLOWTABLE_TABLE
	attrFlowtableName  = 2 // NFTA_FLOWTABLE_NAME
	attrFlowtableHook  = 3 // NFTA_FLOWTABLE_HOOK, which holds:
	attrFlowtableDevs  = 3 // NFTA_FLOWTABLE_HOOK_DEVS, a list of names
)

// flowtables describes those of all tables, in words; none of them is ours. A flow
// that somebody puts into one is forwarded from the ingress hook of its device on, by
// the kernel alone: no chain of the forward hook sees its packets any more.
func (r *ruleset) flowtables() ([]string, error) {
	msgs, err := r.dump(unix.NFT_MSG_GETFLOWTABLE, "flowtables")
	if err != nil {
		return nil, err
	}
	var list []string
	for _, m := range msgs {
		if len(m.Data) >= sizeofNfgenmsg {
			list = append(list, flowtableWords(m.Data[sizeofNfgenmsg:]))
		}
	}
	slices.Sort(list)
	return list, nil
}

// flowtableWords names one by its message: "ft of table fast (eth0, eth1)".
func flowtableWords(b []byte) string {
	var table, name string
	var devices []string
	attributes(b, func(typ uint16, v []byte) {
		switch typ {
		case attrFlowtableTable:
			table = packet.Printable(cString(v))
		case attrFlowtableName:
			name = packet.Printable(cString(v))
		case attrFlowtableHook:
			attributes(v, func(typ uint16, v []byte) {
				if typ == attrFlowtableDevs {
					attributes(v, func(_ uint16, v []byte) { devices = append(devices, packet.Printable(cString(v))) })
				}
			})
		}
	})
	return fmt.Sprintf("%s of table %s (%s)", name, table, strings.Join(devices, ", "))
}

// lookForFlowtables notes which there are, after news of nftables.
func (f *Firewall) lookForFlowtables() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	list, err := f.rules.flowtables()
	if err != nil {
		f.cfg.Logger.Debug("flowtables of others cannot be looked for", "error", err)
		return
	}
	f.flowtables.Store(&list)
}
