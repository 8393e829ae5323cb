// Package vm boots the kernels that people run, those of Debian's releases, in an
// emulator: qemu without KVM, which any machine permits.
//
//	test binary                       guest
//	+-------------+   virtio-serial   +-----------------------------+
//	| Machine ----|-------------------| agent (the same binary)     |
//	|             |   serial console  |                             |
//	| console <---|-------------------| kernel                      |
//	+-------------+                   |                             |
//	  the machine's files ---9p-----> | /, below a writable layer   |
//	                                  +-----------------------------+
//
// The guest's root is the machine's file system as the test sees it, so every
// program and every test binary is there under its own path; what the guest writes
// stays in its memory. It has no network but what is made in it.
//
// Nothing outlives the test: qemu ends with it, and with the namespaces of
// lab.Main if the test cannot end it.
//
// Limits: x86, root. Emulated, so ten to thirty times slower than the machine,
// and no measure of anything but ratios.
package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// Machine is a guest that runs until its test ends. Commands are given to the
// Remote.
type Machine struct {
	*lab.Remote
	Kernel  Kernel
	Release string        // as uname(1) says it
	Booted  time.Duration // from the start to the agent's first word
	config  Config
	console console
	ended   chan struct{}
	exit    error // qemu's, when ended
}

// Config is what a guest is.
type Config struct {
	Processors int // 0: 2
	Memory     int // in MB; 0: 2048
	// Without are modules that cannot be loaded, as where an administrator
	// forbids them in /etc/modprobe.d.
	Without []string
	// Parameters are more words of the kernel's command line.
	Parameters string
	// Agent is the program that serves requests; "": the test binary, whose
	// TestMain calls lab.Agent.
	Agent string
}

// bootLimit is how long a boot may take, on a machine that has much to do. Alone
// it takes a quarter of a minute.
const bootLimit = 3 * lab.Patience

// hostFolder is where the guest has Share: not below /run, of which a lab.Guest in it
// has one of its own.
const hostFolder = "/mnt/ipfw-host"

// guestInit is the second program of the guest, when its root is mounted: it makes
// the rest and starts the agent. When the agent ends, the guest does.
const guestInit = `export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mkdir -p /dev/pts /dev/shm /run/netns /run/lock /lib/modules /etc/modprobe.d %[1]s
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup /sys/fs/cgroup
mount --bind %[2]s %[1]s
ln -sfn /proc/self/fd /dev/fd # as udev does: bash's <(...) wants it
mkdir -p /dev/net # as kmod static-nodes does: opening it loads the module
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
ln -sfn %[3]s /lib/modules/$(uname -r)
for m in %[4]s; do echo "install $m /bin/false"; done >/etc/modprobe.d/zz-ipfw-guest.conf
sysctl -q -w vm.panic_on_oom=1 kernel.panic_on_oops=1
sysctl -q -w net.core.fb_tunnels_only_for_init_net=1 # what one test loads gives the others no devices
ip link set lo up
until [ -c /dev/vport*p1 ]; do sleep 0.05; done
cd /
%[5]s=$(echo /dev/vport*p1) %[6]s
echo o >/proc/sysrq-trigger
sleep 60
`

// Boot is Start for a guest that must boot.
func Boot(t testing.TB, k Kernel, share string, c Config) *Machine {
	t.Helper()
	m, err := Start(t, k, share, c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Start boots a kernel, and returns when its agent answers. Files of share are in
// the guest as Machine.Shared says; they must be there by now.
func Start(t testing.TB, k Kernel, share string, c Config) (*Machine, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		lab.Skip(t, "needs root to show a guest the machine's files")
	}
	if _, err := os.Stat(filepath.Join(k.folder(), "vmlinuz")); err != nil {
		lab.Skip(t, "the kernel of "+k.Name+" is not in "+k.folder()+"; `make kernels` as root unpacks it")
	}
	lab.Need(t, "qemu-system-x86_64")
	for tries := 1; ; tries++ {
		m, err := start(t, k, share, c)
		if err == nil {
			return m, nil
		}
		if tries == bootTries || !m.stale() {
			return nil, err
		}
		t.Logf("once more, for that is the emulator's fault: %v", err)
	}
}

// bootTries is how often a guest is booted whose kernel dies of its own
// breakpoint: while it patches its code, a second processor of the emulator may go
// on with what was there before (stale: seen in one boot of thirty with qemu 7.2).
const bootTries = 3

var stale = regexp.MustCompile(`Oops: int3|int3: 0000`)

// stale says that the kernel has died so.
func (m *Machine) stale() bool {
	return slices.ContainsFunc(m.console.lines(), stale.MatchString)
}

// start is one try of Start; the machine is never nil.
func start(t testing.TB, k Kernel, share string, c Config) (*Machine, error) {
	t.Helper()
	m := &Machine{Kernel: k, config: c.withDefaults(), ended: make(chan struct{})}
	start := time.Now()
	if err := m.boot(t, share); err != nil {
		return m, fmt.Errorf("booting %s: %w", k.Name, err)
	}
	if err := m.Await(bootLimit); err != nil {
		return m, err
	}
	m.Booted = time.Since(start)
	release, err := m.Try(lab.Patience, "uname", "-r")
	m.Release = strings.TrimSpace(release)
	return m, err
}

func (c Config) withDefaults() Config {
	if c.Processors == 0 {
		c.Processors = 2
	}
	if c.Memory == 0 {
		c.Memory = 2048
	}
	return c
}

// Shared is the guest's path of a file of the folder that Boot was given.
func (m *Machine) Shared(name string) string { return filepath.Join(hostFolder, name) }

// boot starts qemu, with a socket for the agent's line and a pipe for the console.
func (m *Machine) boot(t testing.TB, share string) error {
	dir := t.TempDir()
	modules, err := filepath.EvalSymlinks(filepath.Join(m.Kernel.folder(), "modules"))
	if err != nil {
		return err
	}
	if m.config.Agent == "" {
		if m.config.Agent, err = os.Executable(); err != nil {
			return err
		}
	}
	script := filepath.Join(dir, "init.sh")
	text := fmt.Sprintf(guestInit, hostFolder, share, modules, strings.Join(m.config.Without, " "), lab.AgentVariable, m.config.Agent)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		return err
	}
	initrd := filepath.Join(dir, "initrd")
	if err := writeInitrd(initrd, m.Kernel, script); err != nil {
		return err
	}
	line, far, err := lab.Line()
	if err != nil {
		return err
	}
	defer far.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", m.arguments(initrd)...)
	cmd.ExtraFiles = []*os.File{far}
	cmd.Stdout, cmd.Stderr = &m.console, &m.console
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		return errors.Join(err, line.Close())
	}
	go func() {
		m.exit = cmd.Wait()
		close(m.ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-m.ended
		_ = line.Close()
	})
	m.Remote = lab.NewRemote(t, m.Kernel.Name, line, line, m.story)
	return nil
}

// arguments are qemu's. Five levels of page tables and the kernel's ways around
// faults of processors cost an emulator much and change nothing that is tested.
func (m *Machine) arguments(initrd string) []string {
	return []string{
		"-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-smp", fmt.Sprint(m.config.Processors), "-m", fmt.Sprint(m.config.Memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-kernel", filepath.Join(m.Kernel.folder(), "vmlinuz"), "-initrd", initrd,
		"-append", strings.TrimSpace("console=ttyS0 panic=-1 loglevel=5 mitigations=off " + m.config.Parameters),
		"-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap", "-device", "virtio-9p-pci,fsdev=root,mount_tag=host",
		"-chardev", "socket,id=agent,fd=3", "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=agent",
	}
}
