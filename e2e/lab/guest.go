package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
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
// Limits: x86; one vec0; no nftables family but bridge; writable are /run and
// /tmp/guest only.
type Guest struct {
	lab     *Lab
	Name    string
	Wire    *Host // where captures are taken: "tap0", or "sw0" for all ports
	console *lockedBuffer
	cmd     *exec.Cmd
	ended   chan struct{}

	mu   sync.Mutex // one request at a time
	line *os.File
	from chan agentAnswer
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
	Need(l, "linux.uml", "modprobe", "ip", "stty")
	modules, _ := filepath.Glob("/usr/lib/uml/modules/*")
	if len(modules) != 1 {
		l.Fatalf("modules of user-mode-linux: found %q, want one folder", modules)
	}
	self, err := os.Executable()
	if err != nil {
		l.Fatal(err)
	}
	g := &Guest{lab: l, Name: name, Wire: l.Host(name + "-wire"), console: new(lockedBuffer), ended: make(chan struct{}), from: make(chan agentAnswer)}
	g.Wire.Run("ip", "link", "add", "sw0", "type", "bridge", "mcast_snooping", "0")
	g.Wire.Run("ip", "tuntap", "add", "mode", "tap", "name", "tap0")
	for _, dev := range []string{"sw0", "tap0"} {
		g.Wire.Sysctl("net.ipv6.conf."+dev+".disable_ipv6", "1")
		g.Wire.Run("ip", "link", "set", dev, "up")
	}
	g.Wire.Run("ip", "link", "set", "tap0", "master", "sw0")

	root := filepath.Join(l.Dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "lib/modules"), 0o755),
		os.Symlink(modules[0], filepath.Join(root, "lib/modules", filepath.Base(modules[0])))); err != nil {
		l.Fatal(err)
	}
	init := l.File(name+"/init.sh", fmt.Sprintf(guestInit, root, guestModules, agentVariable, self))
	if err := os.Chmod(init, 0o755); err != nil {
		l.Fatal(err)
	}
	g.boot(root, init)
	var hello agentAnswer
	select {
	case hello = <-g.from:
	case <-g.ended:
	case <-time.After(Patience):
	}
	if hello.Out != agentHello {
		l.Fatalf("the guest did not boot:\n%s", g.console.String())
	}
	return g
}

// boot starts the kernel with pipes for its console and its serial line.
func (g *Guest) boot(root, init string) {
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
	g.line = toGuest
	g.cmd = exec.Command("ip", "netns", "exec", g.Wire.NS, "linux.uml", "mem=512M", "rootfstype=hostfs", "rootflags=/", "ro",
		"init="+init, "vec0:transport=tap,ifname=tap0,depth=64", "con=null", "con0=null,fd:1", "ssl=null", "ssl0=fd:3,fd:4", "uml_dir="+root, "umid=uml")
	g.cmd.Stdout, g.cmd.Stderr = g.console, g.console
	g.cmd.ExtraFiles = []*os.File{in, out}
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	fail(g.cmd.Start())
	_ = in.Close()
	_ = out.Close()
	go g.read(fromGuest)
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

// read takes answers off the serial line until it ends.
func (g *Guest) read(from *os.File) {
	defer close(g.ended)
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var a agentAnswer
		if json.Unmarshal(lines.Bytes(), &a) == nil {
			g.from <- a
		}
	}
}

// Ask has the agent do one thing, and gives what it says within the limit.
func (g *Guest) ask(limit time.Duration, q agentRequest) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	q.Limit = limit
	b, err := json.Marshal(q)
	if err != nil {
		return "", err
	}
	if _, err := g.line.Write(append(b, '\n')); err != nil {
		return "", err
	}
	select {
	case a := <-g.from:
		if a.Error != "" {
			return a.Out, errors.New(a.Error)
		}
		return a.Out, nil
	case <-g.ended:
		return "", fmt.Errorf("the guest has ended:\n%s", g.console.String())
	case <-time.After(limit + 30*time.Second):
		return "", fmt.Errorf("the guest does not answer:\n%s", g.console.String())
	}
}

// Try runs a command in the guest, as Host.Try does.
func (g *Guest) Try(limit time.Duration, args ...string) (string, error) {
	return g.ask(limit, agentRequest{Op: "run", Args: args})
}

// Run runs a command in the guest that must succeed.
func (g *Guest) Run(args ...string) string {
	g.lab.Helper()
	out, err := g.Try(Patience, args...)
	if err != nil {
		g.lab.Fatalf("%s: %s: %v\n%s", g.Name, strings.Join(args, " "), err, out)
	}
	return out
}

// Pipe runs a command that gets text to read.
func (g *Guest) Pipe(limit time.Duration, input string, args ...string) (string, error) {
	return g.ask(limit, agentRequest{Op: "run", Args: args, Input: input})
}

// Tool runs one of the test's own functions in the guest; see Agent.
func (g *Guest) Tool(args ...string) (string, error) {
	return g.ask(time.Minute, agentRequest{Op: "tool", Args: args})
}

// Start starts a command in the background; what it prints goes to a file of
// the guest, whose path it gives. The command ends with the guest.
func (g *Guest) Start(args ...string) (output string) {
	g.lab.Helper()
	out, err := g.ask(time.Minute, agentRequest{Op: "start", Args: args})
	if err != nil {
		g.lab.Fatalf("%s: %s: %v", g.Name, strings.Join(args, " "), err)
	}
	return out
}

// Serve starts an echo server in the guest; see Serve.
func (g *Guest) Serve(port uint16) {
	g.lab.Helper()
	if _, err := g.ask(time.Minute, agentRequest{Op: "serve", Port: port}); err != nil {
		g.lab.Fatalf("%s: echo server: %v", g.Name, err)
	}
}

// Transfer sends from the guest; see Transfer.
func (g *Guest) Transfer(t Transfer) error {
	_, err := g.ask(t.Limit+10*time.Second, agentRequest{Op: "transfer", Transfer: t})
	return err
}

// Encapsulate opens the guest's sockets for ESP in UDP on a port.
func (g *Guest) Encapsulate(port uint16) error {
	_, err := g.ask(time.Minute, agentRequest{Op: "encapsulate", Port: port})
	return err
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
}

// Read gives a file of the guest, of /proc perhaps.
func (g *Guest) Read(path string) (string, error) {
	return g.ask(time.Minute, agentRequest{Op: "read", Args: []string{path}})
}
