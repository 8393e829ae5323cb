package host

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ipfw/ipfw/nfq"
)

// maxParents bounds the way from a process up to the first.
const maxParents = 64

// sessionsOf gives those of the connections that a process or one above it has
// open: the sshd, the web console or the agent by which somebody sits at this host.
// What may not be looked at, and what is in another PID namespace, has none. The
// first process is no session.
func sessionsOf(pid int, list []nfq.Connection) (own []nfq.Connection) {
	byInode := make(map[string]nfq.Connection, len(list))
	for _, c := range list {
		byInode[fmt.Sprintf("socket:[%d]", c.Inode)] = c
	}
	if len(byInode) == 0 {
		return nil
	}
	for depth := 0; pid > 1 && depth < maxParents; pid, depth = parentOf(pid), depth+1 {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		names, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, n := range names {
			to, err := os.Readlink(filepath.Join(dir, n.Name()))
			if c, ok := byInode[to]; err == nil && ok && !has(own, c) {
				own = append(own, c)
			}
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
