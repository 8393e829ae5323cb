package attack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/packet"
)

// inbox is a victim's program: it keeps what it receives on a UDP port.
type inbox struct {
	t    testing.TB
	conn *net.UDPConn

	mu   sync.Mutex
	got  []string
	from []netip.AddrPort
}

// receive opens a UDP port in a host. An invalid address means all of the
// family of v.
func receive(t testing.TB, h *lab.Host, at netip.AddrPort) *inbox {
	t.Helper()
	b := &inbox{t: t}
	if err := h.Do(func() (err error) { b.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.conn.Close() })
	go func() {
		p := make([]byte, 1<<16)
		for {
			n, from, err := b.conn.ReadFromUDPAddrPort(p)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				b.mu.Lock()
				b.got, b.from = append(b.got, string(p[:n])), append(b.from, from)
				b.mu.Unlock()
			}
		}
	}()
	return b
}

// has says whether a datagram with the text has come.
func (b *inbox) has(text string) bool { return b.count(text) > 0 }

func (b *inbox) count(text string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range b.got {
		if strings.Contains(g, text) {
			n++
		}
	}
	return n
}

// await waits for a datagram with the text.
func (b *inbox) await(text string) {
	b.t.Helper()
	eventually(b.t, "the program receives "+text, func() bool { return b.has(text) })
}

// send sends from the inbox's own port.
func (b *inbox) send(to netip.AddrPort, text string) error {
	_, err := b.conn.WriteToUDPAddrPort([]byte(text), to)
	return err
}

// A tool is a program that the test binary runs again as somebody else: the
// variable names it, and the arguments are its own. What it prints is for the
// test.

const toolVariable = "IPFW_ATTACK_TOOL"

func runTool() bool {
	name := os.Getenv(toolVariable)
	if name == "" {
		return false
	}
	all := map[string]func([]string) error{"prime": primeLoopback, "hold": holdPort, "handed": sendHanded}
	if err := all[name](os.Args[1:]); err != nil {
		fmt.Println("ERROR", err)
		os.Exit(1)
	}
	return true
}

// unprivileged is who the local attackers are.
const unprivileged = 65534

// as starts a tool in a host as an unprivileged user that has only the
// capabilities named. files become descriptors from 4 on.
func as(t testing.TB, h *lab.Host, caps []uintptr, files []*os.File, name string, args ...string) *program {
	t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	ctx, cancel := context.WithCancel(context.Background())
	p := &program{cmd: exec.CommandContext(ctx, "/proc/self/fd/3", args...), cancel: cancel, done: make(chan struct{})}
	p.cmd.Env = []string{toolVariable + "=" + name}
	p.cmd.ExtraFiles = append([]*os.File{self}, files...) // the folder of the test binary is root's own
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: unprivileged, Gid: unprivileged}, AmbientCaps: caps}
	if err := h.Do(p.cmd.Start); err != nil { // the thread's namespace is the program's
		cancel()
		t.Fatal(err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(p.stop)
	return p
}

// program is a tool that runs.
type program struct {
	cmd    *exec.Cmd
	cancel func()
	out    output
	done   chan struct{}
	err    error
}

// stop ends it.
func (p *program) stop() { p.cancel(); <-p.done }

// end waits for its end and gives what it has printed.
func (p *program) end(t testing.TB) string {
	t.Helper()
	eventually(t, "the attacker's program ends", func() bool {
		select {
		case <-p.done:
			return true
		default:
			return false
		}
	})
	if p.err != nil {
		t.Fatalf("the attacker's program: %v\n%s", p.err, p.out.String())
	}
	return p.out.String()
}

// output is what a program writes while a test reads.
type output struct {
	mu sync.Mutex
	b  []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b = append(o.b, p...)
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.b)
}

// primeLoopback sends, for each value of the mark's upper byte, packets with
// that mark on the loopback device, for ports of their own: one that is bound to
// it, which IPv6 has no way for, and one that says it comes from the far end. Then
// it sends one without from the same port the ordinary way. Arguments: our
// address, the far one with its port, and the text.
func primeLoopback(args []string) error {
	from, to, text := netip.MustParseAddr(args[0]), netip.MustParseAddrPort(args[1]), args[2]
	family, at, far := sockaddrs(from, to)
	_, self, _ := sockaddrs(from, to)
	raw, err := unix.Socket(family, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	for i := range 256 {
		port := uint16(10000 + i)
		setPort(at, port)
		if err := unix.SetsockoptInt(raw, unix.SOL_SOCKET, unix.SO_MARK, i<<24); err != nil {
			return err
		}
		forged, err := packet.Build(packet.Spec{Src: to.Addr(), Dst: from, Protocol: packet.UDP, SrcPort: to.Port(), DstPort: port, Payload: []byte("prime")})
		if err != nil {
			return err
		}
		for _, marked := range []bool{true, false} {
			fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			if marked {
				if err := errors.Join(unix.BindToDevice(fd, "lo"), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, i<<24)); err != nil {
					return err
				}
			}
			if err := unix.Bind(fd, at); err != nil {
				return err
			}
			if marked {
				_ = unix.Sendto(fd, []byte("prime"), 0, far) // no way there: the forged one is left
				if err := unix.Sendto(raw, forged, 0, self); err != nil {
					return err
				}
			} else {
				_ = unix.Sendto(fd, []byte(text), 0, far) // refused is what is hoped for
			}
			_ = unix.Close(fd)
		}
	}
	return nil
}

// sendHanded sends by a socket that somebody else has made, with each value of
// the mark's upper byte. Arguments: the far address with its port, and the text.
func sendHanded(args []string) error {
	_, _, far := sockaddrs(netip.Addr{}, netip.MustParseAddrPort(args[0]))
	for i := range 256 {
		if err := unix.SetsockoptInt(4, unix.SOL_SOCKET, unix.SO_MARK, i<<24); err != nil {
			return err
		}
		_ = unix.Sendto(4, []byte(args[1]), 0, far) // refused is what is hoped for
	}
	return nil
}

// holdPort binds a UDP port, prints "bound", and then prints what it receives.
func holdPort(args []string) error {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(args[0])))
	if err != nil {
		return err
	}
	fmt.Println("bound")
	b := make([]byte, 1<<16)
	for {
		n, _, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return err
		}
		fmt.Printf("received %q\n", b[:n])
	}
}

func sockaddrs(from netip.Addr, to netip.AddrPort) (family int, at, far unix.Sockaddr) {
	if to.Addr().Is4() {
		a := &unix.SockaddrInet4{}
		if from.IsValid() {
			a.Addr = from.As4()
		}
		return unix.AF_INET, a, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	a := &unix.SockaddrInet6{}
	if from.IsValid() {
		a.Addr = from.As16()
	}
	return unix.AF_INET6, a, &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
}

func setPort(a unix.Sockaddr, port uint16) {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		a.Port = int(port)
	case *unix.SockaddrInet6:
		a.Port = int(port)
	}
}

// cpuTicks is the processor time that a process has used, in hundredths of a
// second.
func cpuTicks(t testing.TB, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return user + system
}

// highWater is the most memory that a process has ever had, in KiB.
func highWater(t testing.TB, pid int) int {
	t.Helper()
	n := highWaterOf(pid)
	if n == 0 {
		t.Fatal("the kernel does not say how much memory the daemon has: it has ended")
	}
	return n
}

// highWaterOf is the same of a process that may have ended: then it is 0.
func highWaterOf(pid int) (n int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // without a text it has ended
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &n); err == nil {
			return n
		}
	}
	return 0
}
