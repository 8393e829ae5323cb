package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// busySeconds is how long the processors of the machine have worked since it
// started, in user space and in the kernel (/proc/stat; in hundredths).
func busySeconds() (float64, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	sum := 0.0
	for _, i := range []int{1, 2, 3, 6, 7} { // user, nice, system, irq, softirq
		n, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		sum += n
	}
	return sum / 100, nil
}

// congestion chooses the congestion control of the TCP streams: the one that is
// wanted, if it is among the available ones; otherwise the machine's own.
//
// It decides more than any firewall does, so all contestants have the same, and
// the table says which. BBR, which some machines have for their own, paces by a
// timer of its own for each super-packet, as fast as it believes the path to be:
// where processors are what is short that measures BBR, and less evenly.
func congestion(want, available, own string) string {
	if slices.Contains(strings.Fields(available), want) {
		return want
	}
	return own
}

// sysctl reads a setting of IPv4, "" if there is none.
func sysctl(name string) string {
	b, _ := os.ReadFile("/proc/sys/net/ipv4/" + name)
	return strings.TrimSpace(string(b))
}

// sweep removes what a benchmark left that was killed before it could: what
// carries the number of a process that is gone.
func sweep() {
	for _, path := range leftBehind("/run/netns/ipfwlab*", "ipfwlab%d-") {
		name := filepath.Base(path)
		out, _ := exec.Command("ip", "netns", "pids", name).Output()
		for _, f := range bytes.Fields(out) {
			if p, err := strconv.Atoi(string(f)); err == nil && p > 1 {
				_ = syscall.Kill(p, syscall.SIGKILL)
			}
		}
		_ = exec.Command("ip", "netns", "del", name).Run()
	}
	for _, path := range leftBehind(filepath.Join(os.TempDir(), "ipfw-bench-*"), tempName) {
		_ = os.RemoveAll(path)
	}
	for _, path := range leftBehind(wgSockets+"/wg*.sock", "wg%d") {
		_ = os.Remove(path)
	}
}

// tempName begins the name of every folder of this program.
const tempName = "ipfw-bench-%d-"

// leftBehind gives the files whose names say that they belonged to a process
// that is gone. The form says where in the name its number is.
func leftBehind(glob, form string) (paths []string) {
	all, _ := filepath.Glob(glob)
	for _, path := range all {
		var pid int
		if n, _ := fmt.Sscanf(filepath.Base(path), form, &pid); n == 1 && syscall.Kill(pid, 0) == syscall.ESRCH {
			paths = append(paths, path)
		}
	}
	return paths
}
