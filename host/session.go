package host

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

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

// parentIn finds the parent in the text of /proc/PID/stat. The command's name
// stands in parentheses and may hold anything, so reading starts behind the
// last one.
func parentIn(stat []byte) int {
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(string(f[1]))
	return n
}
