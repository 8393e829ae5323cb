package host

import (
	"bytes"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/nfq"
)

// maxParents bounds the way from a process up to the first.
const maxParents = 64

// finder finds the connections over which somebody sits at this host.
type finder struct {
	proc processes
	list []nfq.Connection // of TCP
	// datagrams is nfq.FindDatagrams.
	datagrams func(want func(inode uint32) bool) ([]nfq.Connection, error)
}

// of gives those of the connections that a process or one above it has open: the
// sshd, the mosh-server, the web console or the agent by which somebody sits at this
// host. Where none of these has any, as of what was started apart, it is those by
// which the login began.
// Where one of them leads to another process of this host, as with a reverse tunnel
// or a proxy, that one's are given too. What may not be looked at, and what is in
// another PID namespace, has none. The first process is no session.
func (f *finder) of(pid int) (own []nfq.Connection) {
	if pid <= 1 {
		return nil
	}
	own = f.open(f.proc.above(pid))
	if !slices.ContainsFunc(own, func(c nfq.Connection) bool { return !c.Local.Addr().IsLoopback() }) {
		own = merge(own, f.open(f.proc.login(pid)))
	}
	byEnds := make(map[[2]netip.AddrPort]nfq.Connection, len(f.list))
	for _, c := range f.list {
		byEnds[[2]netip.AddrPort{c.Local, c.Remote}] = c
	}
	for i := 0; i < len(own) && i < maxParents; i++ { // own grows
		if far, ok := byEnds[[2]netip.AddrPort{own[i].Remote, own[i].Local}]; ok && !own[i].UDP {
			own = merge(own, f.open(f.proc.holders(far.Inode)))
		}
	}
	return own
}

// open gives the connections that processes have open.
func (f *finder) open(pids []int) (own []nfq.Connection) {
	sockets := map[uint32]bool{}
	for _, pid := range pids {
		for _, inode := range f.proc.sockets(pid) {
			sockets[inode] = true
		}
	}
	if len(sockets) == 0 {
		return nil
	}
	for _, c := range f.list {
		if c.Inode != 0 && sockets[c.Inode] {
			own = append(own, c)
		}
	}
	if f.datagrams != nil {
		list, _ := f.datagrams(func(inode uint32) bool { return sockets[inode] }) // what it has told counts
		own = append(own, list...)
	}
	return own
}

// merge adds those that are not there yet.
func merge(own, more []nfq.Connection) []nfq.Connection {
	for _, c := range more {
		if !has(own, c) {
			own = append(own, c)
		}
	}
	return own
}

// FindSSH gives the ssh connection this process was started over, as sshd
// puts it in SSH_CONNECTION ("client port server port"), or "". sudo clears
// that variable, so the processes above this one are asked as well, as far as
// this user may read their environment.
func FindSSH(getenv func(string) string) string {
	if v := getenv("SSH_CONNECTION"); v != "" {
		return v
	}
	for _, pid := range proc.above(os.Getppid()) {
		for _, kv := range bytes.Split(proc.read(pid, "environ"), []byte{0}) {
			if v, ok := strings.CutPrefix(string(kv), "SSH_CONNECTION="); ok {
				return v
			}
		}
	}
	return ""
}
