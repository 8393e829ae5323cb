package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Guest is a host with a kernel of its own: user-mode-linux, which boots
// Debian's Linux as an ordinary program. It has what the machine's kernel may
// lack, ESP and AH above all.
//
//	guest                 wire (a namespace)                  host
//	+------------+      +---------------------+           +---------+
//	| vec0 ------|------| tap0 = sw0 = port0 -|-----------|--- dev  |
//	+------------+      +---------------------+           +---------+
//
// Its root is the machine's file system, read-only, so that every program is
// there. Commands reach it by an agent, which is this very test binary, over a
// serial line: see Agent. When the line is cut, for whatever reason, the guest
// powers off.
//
// In a guest of e2e/vm, where the kernel on trial has all of that, it is a network
// namespace in place of user-mode-linux, with a /run of its own: so the tests that
// have a Guest try ipfw against that very kernel's IPsec.
//
// Limits: x86; one vec0. In user-mode-linux no nftables family but bridge, and
// writable are /run and /tmp/guest only.
type Guest struct {
	*Remote
	lab     *Lab
	Wire    *Host // where captures are taken: "tap0", or "sw0" for all ports
	console *lockedBuffer
	cmd     *exec.Cmd
}

// guestModules are loaded before anything else; what is missing is said by
// whoever needs it.
const guestModules = "ipv6 esp4 esp6 ah4 ah6 xfrm_user xfrm4_tunnel xfrm6_tunnel authenc authencesn gcm ghash-generic ccm " +
	"chacha20poly1305 chacha_generic poly1305_generic echainiv seqiv cbc ctr hmac sha512_generic ecb " +
	"veth bridge vxlan gre ip_gre ip6_gre ipip ip6_tunnel sit tun nf_tables nft_queue nfnetlink_queue"

// guestInit is the first program. modprobe looks for modules below a folder
// of the test, so that the machine needs no link in /lib.
const guestInit = `#!/bin/sh
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
modprobe -a -q -d %[1]s %[2]s
printf '#!/bin/sh\nexec /sbin/modprobe -d %[1]s "$@"\n' >/run/modprobe
chmod 755 /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
sysctl -q -w net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
ip link set lo up
ip link set vec0 up
stty raw -echo -F /dev/ttyS0
%[3]s=/dev/ttyS0 %[4]s
echo o >/proc/sysrq-trigger
sleep 60
`

// Guest boots a guest and waits for its agent.
func (l *Lab) Guest(name string) *Guest {
	l.Helper()
	aPeer(l)
	g := &Guest{lab: l, Wire: l.Host(name + "-wire"), console: new(lockedBuffer)}
	g.Wire.Run("ip", "link", "add", "sw0", "type", "bridge", "mcast_snooping", "0")
	for _, v := range []string{"all", "default"} { // those of its ports too
		g.Wire.Sysctl("net.ipv6.conf."+v+".disable_ipv6", "1")
	}
	g.Wire.Run("ip", "link", "set", "sw0", "up")
	if os.Getenv(KernelVariable) != "" {
		g.divide(name)
	} else {
		g.emulate(name)
	}
	if err := g.Await(Patience); err != nil {
		l.Fatal(err)
	}
	return g
}

// KernelVariable is an environment variable: in a guest of e2e/vm, the name of its
// kernel.
const KernelVariable = "IPFW_VM_KERNEL"

// divide makes it a namespace of the kernel at hand. tap0 is the wire's end of a
// veth pair here.
func (g *Guest) divide(name string) {
	l := g.lab
	l.Helper()
	h := l.Host(name)
	l.run("ip", "link", "add", "vec0", "netns", h.NS, "type", "veth", "peer", "name", "tap0", "netns", g.Wire.NS)
	g.Wire.Run("ip", "link", "set", "tap0", "master", "sw0", "up")
	h.Run("ip", "link", "set", "vec0", "up")
	h.Run("sh", "-c", "modprobe -a -q "+guestModules+" || true") // as in the other
	self, err := os.Executable()
	if err != nil {
		l.Fatal(err)
	}
	line, far, err := Line()
	if err != nil {
		l.Fatal(err)
	}
	defer far.Close()
	g.Remote = NewRemote(l, name, line, line, func() string { return "the agent has ended or does not answer:\n" + g.console.String() })
	g.cmd = h.Command(context.Background(), "sh", "-c", "mount -t tmpfs tmpfs /run && mkdir /run/netns && exec "+self)
	g.cmd.Stdout, g.cmd.Stderr = g.console, g.console
	g.cmd.Env = append(os.Environ(), AgentVariable+"=3")
	g.cmd.ExtraFiles = []*os.File{far}
	g.cmd.WaitDelay = time.Second
	if err := g.cmd.Start(); err != nil {
		l.Fatal(errors.Join(err, line.Close()))
	}
	l.Cleanup(func() {
		_ = line.Close() // the agent ends, and the host's end kills what it has started
		_ = g.cmd.Wait()
	})
}

// emulate makes it user-mode-linux.
func (g *Guest) emulate(name string) {
	l := g.lab
	l.Helper()
	Need(l, "linux.uml", "modprobe", "ip", "stty")
	modules, _ := filepath.Glob("/usr/lib/uml/modules/*")
	if len(modules) != 1 {
		l.Fatalf("modules of user-mode-linux: found %q, want one folder", modules)
	}
	self, err := os.Executable()
	if err != nil {
		l.Fatal(err)
	}
	g.Wire.Run("ip", "tuntap", "add", "mode", "tap", "name", "tap0")
	g.Wire.Run("ip", "link", "set", "tap0", "master", "sw0", "up")

	root := filepath.Join(l.Dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "lib/modules"), 0o755),
		os.Symlink(modules[0], filepath.Join(root, "lib/modules", filepath.Base(modules[0])))); err != nil {
		l.Fatal(err)
	}
	init := l.File(name+"/init.sh", fmt.Sprintf(guestInit, root, guestModules, AgentVariable, self))
	if err := os.Chmod(init, 0o755); err != nil {
		l.Fatal(err)
	}
	g.boot(name, root, init)
}

// boot starts the kernel with pipes for its console and its serial line.
func (g *Guest) boot(name, root, init string) {
	g.lab.Helper()
	fail := func(err error) {
		if err != nil {
			g.lab.Fatalf("starting the guest: %v", err)
		}
	}
	in, toGuest, err := os.Pipe()
	fail(err)
	fromGuest, out, err := os.Pipe()
	fail(err)
	g.Remote = NewRemote(g.lab, name, fromGuest, toGuest, func() string { return "the guest has ended or does not answer:\n" + g.console.String() })
	g.cmd = exec.Command("ip", "netns", "exec", g.Wire.NS, "linux.uml", "mem=512M", "rootfstype=hostfs", "rootflags=/", "ro",
		"init="+init, "vec0:transport=tap,ifname=tap0,depth=64", "con=null", "con0=null,fd:1", "ssl=null", "ssl0=fd:3,fd:4", "uml_dir="+root, "umid=uml")
	g.cmd.Stdout, g.cmd.Stderr = g.console, g.console
	g.cmd.ExtraFiles = []*os.File{in, out}
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	fail(g.cmd.Start())
	_ = in.Close()
	_ = out.Close()
	stop := make(chan struct{})
	fail(g.rouse(stop))
	waited := make(chan struct{})
	go func() { _ = g.cmd.Wait(); close(waited) }()
	g.lab.Cleanup(func() {
		close(stop)
		_ = toGuest.Close() // the guest powers off
		select {
		case <-waited:
		case <-time.After(5 * time.Second):
		}
		_ = syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL)
		_ = fromGuest.Close()
		<-waited
	})
}

// rouse sends the guest a frame of no protocol again and again until stop is
// closed: now and then its driver leaves a frame lying, without an interrupt,
// until the next one comes. The frames go to the tap device alone.
func (g *Guest) rouse(stop chan struct{}) error {
	const experimental = 0x88b5 // EtherType for local experiments, IEEE 802
	return g.Wire.Do(func() error {
		tap, err := net.InterfaceByName("tap0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		go func() {
			defer unix.Close(fd)
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			to := &unix.SockaddrLinklayer{Ifindex: tap.Index, Protocol: experimental>>8 | experimental&0xff<<8, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
					_ = unix.Sendto(fd, make([]byte, 46), 0, to) // one that is lost has a successor
				}
			}
		}()
		return nil
	})
}

// Lab is the lab that the guest is in.
func (g *Guest) Lab() *Lab { return g.lab }

// Join connects a host to the guest's wire, by an interface with addresses in
// CIDR form, and gives the guest its own.
func (g *Guest) Join(h *Host, dev string, addrs, guest []string) {
	g.lab.Helper()
	g.lab.Join(h, dev, addrs, g.Wire, "port0", nil)
	g.Wire.Sysctl("net.ipv6.conf.port0.disable_ipv6", "1")
	g.Wire.Run("ip", "link", "set", "port0", "master", "sw0")
	for _, a := range guest {
		args := []string{"ip", "addr", "add", a, "dev", "vec0"}
		if strings.Contains(a, ":") {
			args = append(args, "nodad")
		}
		g.Run(args...)
	}
	g.lab.awaitIPv6(g.Run, "vec0", guest)
}
