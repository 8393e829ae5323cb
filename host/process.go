package host

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// processes are those that a mounted proc file system tells of.
type processes string

// proc are the processes of this host.
const proc processes = "/proc"

func (p processes) read(pid int, name string) []byte {
	b, err := os.ReadFile(fmt.Sprintf("%s/%d/%s", p, pid, name))
	if err != nil {
		return nil
	}
	return b
}

// all gives every process but the first.
func (p processes) all() (pids []int) {
	names, err := os.ReadDir(string(p))
	if err != nil {
		return nil
	}
	for _, n := range names {
		if pid, err := strconv.Atoi(n.Name()); err == nil && pid > 1 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// sockets gives the inodes of the sockets that a process has open.
func (p processes) sockets(pid int) (inodes []uint32) {
	dir := fmt.Sprintf("%s/%d/fd", p, pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, n := range names {
		to, err := os.Readlink(filepath.Join(dir, n.Name()))
		if err != nil || !strings.HasPrefix(to, "socket:[") {
			continue
		}
		if inode, err := strconv.ParseUint(strings.TrimSuffix(to[len("socket:["):], "]"), 10, 32); err == nil {
			inodes = append(inodes, uint32(inode))
		}
	}
	return inodes
}

// holders gives the processes that have a socket open.
func (p processes) holders(inode uint32) (pids []int) {
	for _, pid := range p.all() {
		if slices.Contains(p.sockets(pid), inode) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// above gives a process, its parents, and the leaders of their sessions (setsid(2))
// with theirs: who leaves its parent, as a background job does, is still in the
// session of the shell. The first process is nobody's parent.
func (p processes) above(pid int) (pids []int) {
	pids = []int{pid}
	for i := 0; i < len(pids) && i < maxParents; i++ { // pids grows
		for _, up := range [...]int{p.stat(pids[i], statParent), p.stat(pids[i], statSession)} {
			if up > 1 && !slices.Contains(pids, up) {
				pids = append(pids, up)
			}
		}
	}
	return pids
}

// login gives the processes by which the login began that a process is part of: the
// oldest of it and its children, as sshd has one of root's and one of the user's.
// Nothing that a process does takes it out of its login, as the kernel's audit
// (audit(8): the session ID) and systemd's session scopes know it.
func (p processes) login(pid int) (pids []int) {
	of := p.auditSession
	if of(pid) == "" {
		of = p.scope
	}
	name := of(pid)
	if name == "" {
		return nil
	}
	oldest, began := 0, 0
	for _, x := range p.all() {
		if of(x) != name {
			continue
		}
		pids = append(pids, x)
		if at := p.stat(x, statBegan); oldest == 0 || at < began || at == began && x < oldest {
			oldest, began = x, at
		}
	}
	return slices.DeleteFunc(pids, func(x int) bool { return x != oldest && p.stat(x, statParent) != oldest })
}

// auditSession names the login session of a process; empty: it is in none.
func (p processes) auditSession(pid int) string {
	id := string(bytes.TrimSpace(p.read(pid, "sessionid")))
	if id == "4294967295" { // -1: unset
		return ""
	}
	return id
}

// scope names the control group that systemd-logind has made for the login of a
// process; empty: it is in none.
func (p processes) scope(pid int) string {
	for line := range strings.Lines(string(p.read(pid, "cgroup"))) {
		at := strings.Index(line, "/session-")
		if at < 0 {
			continue
		}
		if end := strings.Index(line[at:], ".scope"); end >= 0 {
			return line[at : at+end]
		}
	}
	return ""
}

// Fields of /proc/PID/stat that are numbers, counted from the state.
const (
	statParent  = 1
	statSession = 3
	statBegan   = 19 // in ticks since the boot
)

// stat gives a field of /proc/PID/stat, 0 if it cannot be read.
func (p processes) stat(pid, field int) int { return statNumber(p.read(pid, "stat"), field) }

// statFields gives what follows the command's name in the text of /proc/PID/stat:
// state, parent and so on. The name stands in parentheses and may hold anything,
// so reading starts behind the last one.
func statFields(stat []byte) [][]byte {
	return bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
}

// statNumber finds a field in the text of /proc/PID/stat.
func statNumber(stat []byte, field int) int {
	f := statFields(stat)
	if len(f) <= field {
		return 0
	}
	n, err := strconv.Atoi(string(f[field]))
	if err != nil {
		return 0
	}
	return n
}
