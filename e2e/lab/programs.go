package lab

import (
	"os"
	"path/filepath"
	"time"
)

// Programs is a root of its own in which programs of a release of Debian run that
// would take over a machine where they are installed: firewalld, ufw, fail2ban, and
// all that they need. e2e/install.sh unpacks it; what they write goes with the test.
//
// They are in the network namespace of their host; /proc, /sys and /dev are the
// machine's.
type Programs struct {
	host *Host
	root string
}

// Programs mounts those of a release.
func (h *Host) Programs(suite string) *Programs {
	h.lab.Helper()
	lower := filepath.Join(peerPrograms, suite+"-programs")
	if _, err := os.Stat(lower); err != nil {
		Skip(h.lab, "firewalld, ufw and fail2ban of "+suite+" are not unpacked in "+lower+"; `make kernels` as root does it")
	}
	layer, err := os.MkdirTemp(h.lab.Dir, "programs-")
	if err != nil {
		h.lab.Fatal(err)
	}
	p := &Programs{host: h, root: filepath.Join(layer, "root")}
	for _, dir := range []string{"up", "work", "root"} {
		if err := os.Mkdir(filepath.Join(layer, dir), 0o755); err != nil {
			h.lab.Fatal(err)
		}
	}
	h.lab.run("mount", "-t", "overlay", "-o", "lowerdir="+lower+",upperdir="+layer+"/up,workdir="+layer+"/work", "programs", p.root)
	h.lab.Cleanup(func() {
		h.killAll()
		h.lab.run("umount", "-R", "-l", p.root)
	})
	for _, dir := range []string{"proc", "sys", "dev"} {
		h.lab.run("mount", "--rbind", "/"+dir, filepath.Join(p.root, dir))
	}
	for _, dir := range []string{"run/dbus", "run/lock", "run/fail2ban"} {
		if err := os.MkdirAll(filepath.Join(p.root, dir), 0o755); err != nil {
			h.lab.Fatal(err)
		}
	}
	return p
}

// File writes a file that they see under this path.
func (p *Programs) File(path, content string) {
	p.host.lab.Helper()
	path = filepath.Join(p.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.host.lab.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		p.host.lab.Fatal(err)
	}
}

// in is a command line that runs another there.
func (p *Programs) in(args []string) []string {
	return append([]string{"chroot", p.root, "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}, args...)
}

// Run runs one of them, which must succeed, and gives what it printed. Those that
// are written in Python, and start others, take long in a guest.
func (p *Programs) Run(args ...string) string {
	p.host.lab.Helper()
	out, err := p.host.Try(3*Patience, p.in(args)...)
	if err != nil {
		p.host.lab.Fatalf("%s: %v\n%s", args[0], err, out)
	}
	return out
}

// Try runs one and gives what it printed, and how it ended.
func (p *Programs) Try(limit time.Duration, args ...string) (string, error) {
	return p.host.Try(limit, p.in(args)...)
}

// Start starts one in the background.
func (p *Programs) Start(args ...string) *Process {
	p.host.lab.Helper()
	return p.host.Start(p.in(args)...)
}
