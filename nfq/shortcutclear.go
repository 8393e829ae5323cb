package nfq

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	bpf "github.com/cilium/ebpf/link"
	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// clear looks whether there is anything on the raw socket's way, whatever the
// destination, that a packet socket does not pass: an error says what. Some of
// it makes news: when there was none of it, it is looked for again after news,
// and after a second, so that nothing hangs on news alone. The rest is looked
// for each time.
func (s *shortcut) clear() error {
	s.mu.Lock()
	dirty := s.dirty
	s.mu.Unlock()
	age := s.now() - s.looked
	recently := s.looked != 0 && age < shortcutCalm
	if dirty && recently {
		return errJustNow
	}
	if dirty || s.obstacle != nil && !recently || age >= shortcutLife {
		s.mu.Lock()
		s.dirty = false // what changes from here on is news again
		s.mu.Unlock()
		s.obstacle = errors.Join(s.foreignChains(), s.policies(), s.oddRules())
		s.looked = s.now()
	}
	if s.obstacle != nil {
		return s.obstacle
	}
	return errors.Join(s.legacyTables(), netfilterPrograms(), s.cgroupPrograms())
}

// errJustNow says that there was news a moment ago.
var errJustNow = errors.New("something has changed just now")

// foreignChains looks for chains of other tables that the raw socket's packets
// meet. Those of the netdev family are met by both.
func (s *shortcut) foreignChains() error {
	chains, err := s.rules.ListChains()
	if err != nil {
		return fmt.Errorf("list nftables chains: %w", err)
	}
	for _, c := range chains {
		if c.Hooknum != nil && c.Table.Name != s.table && slices.Contains(everyFamily, c.Table.Family) &&
			(*c.Hooknum == *nftables.ChainHookOutput || *c.Hooknum == *nftables.ChainHookPostrouting) {
			return fmt.Errorf("nftables chain %s of table %s", c.Name, c.Table.Name)
		}
	}
	return nil
}

// Of linux/xfrm.h.
const (
	xfrmMsgNewSPDInfo = 0x24
	xfrmMsgGetSPDInfo = 0x25
	xfrmMsgGetDefault = 0x28
	xfrmaSPDInfo      = 1 // struct xfrmu_spdinfo: policies in, out, forward, ...
	xfrmPolicyBlock   = 1
	xfrmGroupPolicy   = 4
)

// policies looks for policies of the kernel's own IPsec.
func (s *shortcut) policies() error {
	if s.xfrm == nil {
		return nil
	}
	msgs, err := s.xfrm.Execute(request(xfrmMsgGetSPDInfo, native32(0)))
	if err != nil {
		return fmt.Errorf("IPsec policies of the kernel: %w", err)
	}
	for _, m := range msgs {
		if m.Header.Type != xfrmMsgNewSPDInfo || len(m.Data) < 4 {
			continue
		}
		attrs, err := netlink.UnmarshalAttributes(m.Data[4:])
		if err != nil {
			return fmt.Errorf("IPsec policies of the kernel: %w", err)
		}
		for _, a := range attrs {
			if a.Type != xfrmaSPDInfo || len(a.Data) < 8 {
				continue
			}
			if n := binary.NativeEndian.Uint32(a.Data[4:]); n > 0 {
				return fmt.Errorf("%d IPsec policies of the kernel", n)
			}
			return s.defaultPolicy()
		}
	}
	return errors.New("IPsec policies of the kernel: no answer")
}

// defaultPolicy asks what becomes of packets that no policy is about: in, fwd,
// out, each one byte. Kernels before 5.15 cannot be asked, and let them pass.
func (s *shortcut) defaultPolicy() error {
	msgs, err := s.xfrm.Execute(request(xfrmMsgGetDefault, make([]byte, 4)))
	switch {
	case errors.Is(err, unix.EINVAL):
		return nil
	case err != nil:
		return fmt.Errorf("default IPsec policy of the kernel: %w", err)
	case len(msgs) != 1 || len(msgs[0].Data) < 3 || msgs[0].Data[2] == xfrmPolicyBlock:
		return errors.New("default IPsec policy of the kernel")
	}
	return nil
}

// oddRules looks for routing rules that tell ESP from what the kernel can be
// asked about, and for those that are not known here.
func (s *shortcut) oddRules() error {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		q := request(unix.RTM_GETRULE, append([]byte{family}, make([]byte, sizeofFibRule-1)...))
		q.Header.Flags |= netlink.Dump
		msgs, err := s.route.Execute(q)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("routing rules: %w", err)
		}
		for _, m := range msgs {
			if m.Header.Type != unix.RTM_NEWRULE || len(m.Data) < sizeofFibRule || m.Data[0] != family {
				continue
			}
			attrs, err := netlink.UnmarshalAttributes(m.Data[sizeofFibRule:])
			if err != nil {
				return fmt.Errorf("routing rules: %w", err)
			}
			for _, a := range attrs {
				if a.Type > unix.FRA_PROTOCOL || a.Type == unix.FRA_TUN_ID {
					return errors.New("a routing rule that looks at more than addresses, mark, user and device")
				}
			}
		}
	}
	return nil
}

// sizeofFibRule is that of struct fib_rule_hdr.
const sizeofFibRule = 12

// legacyTables looks for tables of iptables that is not nftables: as soon as
// one has been asked for, it is on the way of every packet. There is no news of
// them.
func (s *shortcut) legacyTables() error {
	if !s.here {
		return errors.New("iptables: the network namespace cannot be entered")
	}
	for _, name := range []string{"ip_tables_names", "ip6_tables_names"} {
		b, err := os.ReadFile("/proc/thread-self/net/" + name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("iptables: %w", err)
		case len(b) > 0:
			return fmt.Errorf("iptables table %s", bytes.Fields(b)[0])
		}
	}
	return nil
}

// netfilterPrograms looks for BPF programs at the hooks of netfilter, in
// whichever network namespace. There is no news of them.
func netfilterPrograms() error {
	it := new(bpf.Iterator)
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil {
			return fmt.Errorf("BPF links: %w", err)
		}
		if n := info.Netfilter(); n != nil && (n.Hook == bpf.NetfilterInetLocalOut || n.Hook == bpf.NetfilterInetPostRouting) {
			return errors.New("a BPF program of netfilter")
		}
	}
	if err := it.Err(); err != nil && !errors.Is(err, unix.EINVAL) { // the kernel has links since 5.8
		return fmt.Errorf("BPF links: %w", err)
	}
	return nil
}

// cgroupPrograms looks for BPF programs that the control group of our sockets
// has for packets that leave. There is no news of them.
func (s *shortcut) cgroupPrograms() error {
	if s.cgroup < 0 {
		fd, err := ownCgroup()
		if err != nil {
			return fmt.Errorf("control group: %w", err)
		}
		s.cgroup = fd
	}
	r, err := bpf.QueryPrograms(bpf.QueryOptions{
		Target: s.cgroup, Attach: ebpf.AttachCGroupInetEgress, QueryFlags: unix.BPF_F_QUERY_EFFECTIVE,
	})
	if err != nil {
		return fmt.Errorf("BPF programs of the control group: %w", err)
	}
	if len(r.Programs) > 0 {
		return errors.New("a BPF program of the control group")
	}
	return nil
}

// ownCgroup opens the directory of this process's control group (cgroups(7),
// version 2), in a mount of its own: whether and where there is another does
// not matter.
func ownCgroup() (int, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return -1, err
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return openCgroup(path)
		}
	}
	return -1, errors.New("none of version 2")
}

// openCgroup opens a control group, whose path is from the root of the cgroup
// namespace on.
func openCgroup(path string) (int, error) {
	fs, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(root)
	fd, err := unix.Openat(root, "."+path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return fd, os.NewSyscallError("open", err)
}
