package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// sweep removes what a benchmark left that was killed before it could: the
// namespaces that carry the number of a process which is gone, and what runs
// in them.
func sweep() {
	names, _ := filepath.Glob("/run/netns/ipfwlab*")
	for _, path := range names {
		var pid int
		name := filepath.Base(path)
		if n, _ := fmt.Sscanf(name, "ipfwlab%d-", &pid); n != 1 || syscall.Kill(pid, 0) != syscall.ESRCH {
			continue
		}
		out, _ := exec.Command("ip", "netns", "pids", name).Output()
		for _, f := range bytes.Fields(out) {
			if p, err := strconv.Atoi(string(f)); err == nil && p > 1 {
				_ = syscall.Kill(p, syscall.SIGKILL)
			}
		}
		_ = exec.Command("ip", "netns", "del", name).Run()
	}
}
