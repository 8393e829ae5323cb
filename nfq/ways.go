package nfq

import (
	"golang.org/x/sys/unix"
)

// Ways says which of the kernel's ways the Firewall uses: they differ from kernel to
// kernel.
type Ways struct {
	Kernel string // its release, as uname -r prints it
	// Queue is how packets come up: "queue", the nftables expression, or "NFQUEUE",
	// the xtables target.
	Queue string
	// ESP is how native ESP comes in: "hook", a BPF program on a netfilter hook,
	// "rule", one that a rule calls by the xtables match bpf, or "queue", packet by
	// packet; empty while the policy protects nothing.
	ESP string
	// Table is "owned" where the kernel lets nobody else change our table (Linux
	// 6.9), else "watched": it is put back when somebody has.
	Table string
}

// Ways says what the Firewall uses.
func (f *Firewall) Ways() Ways {
	w := Ways{Kernel: kernelRelease(), Queue: "queue", Table: "watched"}
	if f.can.compat {
		w.Queue = "NFQUEUE"
	}
	if f.rules.own {
		w.Table = "owned"
	}
	if v := f.espBy.Load(); v != nil {
		w.ESP = *v
	}
	return w
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
