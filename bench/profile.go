package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// profiled does f while perf looks at the whole machine, and writes what the
// processors were doing to a file that is named after contestant and workload:
// first by program, then by function. What is measured meanwhile is slower for
// it, so -profile is for finding out why, not how fast.
func (b *bench) profiled(p *place, w workload, f func()) {
	if !b.profile {
		f()
		return
	}
	data := filepath.Join(p.lab.Dir, "perf.data")
	perf := exec.Command("perf", "record", "-q", "-a", "-g", "-F", "997", "-o", data)
	perf.Stderr = os.Stderr
	p.check(perf.Start(), "perf (Debian package linux-perf)")
	time.Sleep(200 * time.Millisecond) // until it looks
	err := caught(f)
	_ = perf.Process.Signal(os.Interrupt)
	_ = perf.Wait() // ended by a signal, as it should
	if err != nil {
		p.Fatalf("%v", err)
	}
	p.check(os.MkdirAll(b.out, 0o755), "profile")
	path := filepath.Join(b.out, fmt.Sprintf("profile-%s-%s.txt", p.c.name, w.name))
	file, err := os.Create(path)
	p.check(err, "profile")
	defer file.Close()
	for _, sort := range []string{"comm", "comm,dso,sym"} {
		report := exec.Command("perf", "report", "-q", "-i", data, "--no-children", "-g", "none", "--percent-limit", "0.4", "--sort", sort, "--stdio")
		report.Stdout = file
		p.check(report.Run(), "perf report")
	}
	fmt.Fprintf(b.log, "written: %s\n", path)
}
