package host

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ipfw/ipfw/nfq"
)

// maxParents bounds the way from a process up to the first.
const maxParents = 64

// sessionsOf gives those of the connections that a process or one above it has
// open: the sshd, the web console or the agent by which somebody sits at this host.
// Where one of them leads to another process of this host, as with a reverse tunnel
// or a proxy, that one's are given too. What may not be looked at, and what is in
// another PID namespace, has none. The first process is no session.
func sessionsOf(pid int, list []nfq.Connection) (own []nfq.Connection) {
	byInode := make(map[string]nfq.Connection, len(list))
	byEnds := make(map[[2]netip.AddrPort]nfq.Connection, len(list))
	for _, c := range list {
		byInode[fmt.Sprintf("socket:[%d]", c.Inode)] = c
		byEnds[[2]netip.AddrPort{c.Local, c.Remote}] = c
	}
	if len(byInode) == 0 {
		return nil
	}
	add := func(pid int) {
		for _, to := range socketsOf(pid) {
			if c, ok := byInode[to]; ok && !has(own, c) {
				own = append(own, c)
			}
		}
	}
	for depth := 0; pid > 1 && depth < maxParents; pid, depth = parentOf(pid), depth+1 {
		add(pid)
	}
	for i := 0; i < len(own) && i < maxParents; i++ { // own grows
		if far, ok := byEnds[[2]netip.AddrPort{own[i].Remote, own[i].Local}]; ok {
			for _, pid := range holdersOf(far) {
				add(pid)
			}
		}
	}
	return own
}

// socketsOf gives the sockets that a process has open, as /proc names them.
func socketsOf(pid int) (list []string) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, n := range names {
		if to, err := os.Readlink(filepath.Join(dir, n.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			list = append(list, to)
		}
	}
	return list
}

// holdersOf gives the processes that have a connection open, without the first.
func holdersOf(c nfq.Connection) (pids []int) {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, n := range names {
		pid, err := strconv.Atoi(n.Name())
		if err == nil && pid > 1 && slices.Contains(socketsOf(pid), fmt.Sprintf("socket:[%d]", c.Inode)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// FindSSH gives the ssh connection this process was started over, as sshd
// puts it in SSH_CONNECTION ("client port server port"), or "". sudo clears
// that variable, so the processes above this one are asked as well, as far as
// this user may read their environment.
func FindSSH(getenv func(string) string) string {
	if v := getenv("SSH_CONNECTION"); v != "" {
		return v
	}
	for pid, depth := os.Getppid(), 0; pid > 1 && depth < 32; pid, depth = parentOf(pid), depth+1 {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			return ""
		}
		for _, kv := range bytes.Split(env, []byte{0}) {
			if v, ok := strings.CutPrefix(string(kv), "SSH_CONNECTION="); ok {
				return v
			}
		}
	}
	return ""
}

// parentOf reads a process's parent from /proc, 0 if it cannot.
func parentOf(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	return parentIn(b)
}

// statFields gives what follows the command's name in the text of /proc/PID/stat:
// state, parent and so on. The name stands in parentheses and may hold anything,
// so reading starts behind the last one.
func statFields(stat []byte) [][]byte {
	return bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
}

// parentIn finds the parent in the text of /proc/PID/stat.
func parentIn(stat []byte) int {
	f := statFields(stat)
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(string(f[1]))
	return n
}
