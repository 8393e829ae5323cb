package nfq

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The files of the network namespace of the calling thread. The process's own
// /proc/net would be that of its first thread.
const (
	procQueues  = "/proc/thread-self/net/netfilter/nfnetlink_queue"
	procNetlink = "/proc/thread-self/net/netlink"
)

// queueLine is one line of /proc/net/netfilter/nfnetlink_queue.
type queueLine struct {
	Queue       uint16
	Port        uint32 // netlink port of the socket that reads it
	Waiting     uint64 // packets without a verdict
	Dropped     uint64 // because the queue was full
	UserDropped uint64 // because the socket buffer was full
}

// parseQueues reads the columns queue, port, waiting, copy mode, copy range,
// dropped, dropped at the socket, last packet id, 1. Lines it cannot read it
// passes over.
func parseQueues(b []byte) []queueLine {
	var qs []queueLine
	for line := range bytes.Lines(b) {
		var v [7]uint64
		f := bytes.Fields(line)
		if len(f) < len(v) {
			continue
		}
		ok := true
		for i := range v {
			n, err := strconv.ParseUint(string(f[i]), 10, 32)
			v[i], ok = n, ok && err == nil
		}
		if ok && v[0] <= 0xffff {
			qs = append(qs, queueLine{uint16(v[0]), uint32(v[1]), v[2], v[5], v[6]})
		}
	}
	return qs
}

// firstPIDNamespace is the link of a process of the first PID namespace
// (PROC_PID_INIT_INO, linux/proc_ns.h).
const firstPIDNamespace = "pid:[4026531836]"

// inFirstPIDNamespace says whether this process is in the PID namespace by which
// the kernel numbers processes in messages to a group.
func inFirstPIDNamespace() bool {
	link, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && link == firstPIDNamespace
}

// queueOwner names the process that reads a queue, "" if nobody does. The
// caller's thread must be in the network namespace in question.
func queueOwner(queue uint16) string {
	b, err := os.ReadFile(procQueues)
	if err != nil {
		return ""
	}
	for _, q := range parseQueues(b) {
		if q.Queue == queue {
			return cmp.Or(portOwner(q.Port), unseen(q.Port))
		}
	}
	return ""
}

// portOwner names the process with a netfilter netlink socket of that port, "" if
// it cannot be seen.
func portOwner(port uint32) string {
	if inode := socketInode(port); inode != "" {
		return inodeOwner(inode)
	}
	return ""
}

// unseen is for the owner of a netlink socket that is in no process of this /proc.
func unseen(port uint32) string {
	return fmt.Sprintf("a process that cannot be seen from here (netlink port %d)", port)
}

// inodeOwner names the process that has a socket, "" if it cannot be seen.
func inodeOwner(inode string) string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && to == "socket:["+inode+"]" {
			pid := strings.Split(l, "/")[2]
			return fmt.Sprintf("process %s (%s)", pid, command(pid))
		}
	}
	return ""
}

// socketInode finds a socket in /proc/net/netlink: address, protocol, port,
// groups, memory read and written, dump, locks, drops, inode.
func socketInode(port uint32) string {
	const netfilter = "12" // NETLINK_NETFILTER
	f, err := os.Open(procNetlink)
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		c := strings.Fields(s.Text())
		if len(c) >= 10 && c[1] == netfilter && c[2] == strconv.FormatUint(uint64(port), 10) {
			return c[9]
		}
	}
	return ""
}

// command gives a process's command line, or its name.
func command(pid string) string {
	b, err := os.ReadFile("/proc/" + pid + "/cmdline")
	if err != nil || len(b) == 0 {
		b, _ = os.ReadFile("/proc/" + pid + "/comm")
	}
	s := strings.ToValidUTF8(strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " ")), "?")
	if r := []rune(s); len(r) > 80 {
		s = string(r[:80]) + " ..."
	}
	return s
}
