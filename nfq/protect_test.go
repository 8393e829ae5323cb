package nfq

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sealing is how two hosts protect what runs between them.
type sealing struct {
	proto  esp.Protocol
	mode   esp.Mode
	outer6 bool // the sealed packets are IPv6
	udp    bool
}

func (s sealing) String() string {
	name := fmt.Sprintf("%v-%v", s.proto, s.mode)
	if s.udp {
		name += "-udp"
	}
	if s.outer6 {
		return name + "-over-ipv6"
	}
	return name + "-over-ipv4"
}

// sealer is the engine of one of two hosts that protect everything between
// them; the other's addresses are remote.
func sealer(t testing.TB, s sealing, local, remote netip.Addr, here, there []netip.Addr, spiIn, spiOut uint32, forward bool) *engine.Engine {
	t.Helper()
	suite, err := esp.NewSuite(s.proto, map[bool]string{true: "aes-128-gcm-16"}[s.proto == esp.ESP], map[bool]string{true: "hmac-sha2-256-128"}[s.proto == esp.AH])
	if err != nil {
		t.Fatal(err)
	}
	sad := esp.NewSAD()
	var out *esp.SA
	for _, d := range []esp.Direction{esp.In, esp.Out} {
		c := esp.Config{SPI: spiIn, Direction: d, Mode: s.mode, Suite: suite, Src: remote, Dst: local, Owner: esp.Owner{Name: "peer"}}
		if d == esp.Out {
			c.SPI, c.Src, c.Dst = spiOut, local, remote
		}
		if s.udp {
			c.Encap = esp.Encap{SrcPort: 4500, DstPort: 4500}
		}
		if s.proto == esp.ESP {
			c.EncryptionKey = esp.NewKey(bytes.Repeat([]byte{7}, suite.Encryption.KeyMaterial()))
		} else {
			c.IntegrityKey = esp.NewKey(bytes.Repeat([]byte{7}, suite.Integrity.KeyMaterial()))
		}
		sa, err := esp.New(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := sad.Insert(sa); err != nil {
			t.Fatal(err)
		}
		if d == esp.Out {
			out = sa
		}
	}
	r := engine.Rule{Name: "peer", Action: engine.Protect, With: "peer", In: !forward, Out: !forward, Forward: forward}
	for _, a := range here {
		r.Local = append(r.Local, engine.AddrRange{First: a, Last: a})
	}
	for _, a := range there {
		r.Remote = append(r.Remote, engine.AddrRange{First: a, Last: a})
	}
	neighbours := engine.Rule{Name: "neighbours", Action: engine.Bypass, In: true, Out: true, Selector: engine.Selector{
		Protocols: []uint8{packet.ICMPv6}, ICMP: []engine.ICMPSel{{Protocol: packet.ICMPv6, Type: 135, Code: -1}, {Protocol: packet.ICMPv6, Type: 136, Code: -1}}}}
	return engine.New(&engine.Policy{Rules: []engine.Rule{neighbours, r}}, engine.Options{
		SAD:      sad,
		Outbound: func(*engine.Rule, *engine.Input) *esp.SA { return out },
		IsLocal: func(a netip.Addr) bool {
			for _, h := range here {
				if a == h {
					return !forward
				}
			}
			return a == local
		},
	})
}

// processor is the Handler that a daemon is.
type processor struct{ *engine.Engine }

func (p processor) Handle(in *engine.Input, out *engine.Output, f packet.Fault) engine.Result {
	if f != packet.OK {
		return p.Malformed(f)
	}
	in.Now = p.Now()
	return p.Process(in, out)
}

// Now implements Opener.
func (processor) Now() int64 { return handlerNow() }

// handlerNow is the clock of Handlers that have one of their own.
func handlerNow() int64 { return int64(time.Since(handlersStarted)) }

var handlersStarted = time.Now()

// protect runs a protecting firewall on the host.
func (h *testHost) protect(cfg Config, e *engine.Engine) *Firewall {
	h.t.Helper()
	cfg.Protect = true
	r, err := h.tryHandler(cfg, processor{e})
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// wiretap gathers what passes an interface of the host.
type wiretap struct {
	mu      sync.Mutex
	packets [][]byte
	fd      int
}

func (h *testHost) tap(link string) *wiretap { return h.listen(link, unix.SOCK_DGRAM) }

// listen makes a wiretap of packets (SOCK_DGRAM) or of frames (SOCK_RAW).
func (h *testHost) listen(link string, kind int) *wiretap {
	h.t.Helper()
	w := new(wiretap)
	h.try(func() (err error) {
		const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8
		w.fd, err = unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC, all)
		if err == nil {
			err = unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
		}
		if err == nil {
			err = unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
		}
		if err != nil {
			return err
		}
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Attrs().Index})
	})
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 1<<17)
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, _, err := unix.Recvfrom(w.fd, b, 0)
			if err != nil {
				continue // nothing came, for a while
			}
			w.mu.Lock()
			w.packets = append(w.packets, bytes.Clone(b[:n]))
			w.mu.Unlock()
		}
	}()
	// Closed under the reader, the number would soon be another socket's.
	h.t.Cleanup(func() { close(stop); <-ended; unix.Close(w.fd) })
	return w
}

// check fails for every packet seen that is not sealed as told, and if there
// was none that is.
func (w *wiretap) check(t testing.TB, s sealing) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	sealed, clear := 0, 0
	for _, b := range w.packets {
		var p packet.Packet
		if len(b) == 0 || b[0]>>4 != 4 && b[0]>>4 != 6 {
			continue // ARP
		}
		if f := packet.Parse(&p, b, len(b)); f != packet.OK {
			t.Errorf("on the wire: %v: %x", f, b[:min(len(b), 64)])
			continue
		}
		switch {
		case p.Protocol == packet.ESP && s.proto == esp.ESP && !s.udp, p.Protocol == packet.AH && s.proto == esp.AH,
			s.udp && p.Protocol == packet.UDP && p.DstPort == 4500 && p.SrcPort == 4500, p.Fragment && p.FragOffset > 0:
			sealed += len(b)
		case p.Protocol == packet.ICMPv6 && p.ICMPType >= 130 && p.ICMPType <= 143 && p.ICMPType != 128:
		default:
			if clear++; clear < 5 {
				t.Errorf("clear on the wire: protocol %d, %v:%d > %v:%d", p.Protocol, p.Src, p.SrcPort, p.Dst, p.DstPort)
			}
		}
	}
	if sealed < 1<<20 {
		t.Errorf("%d sealed bytes on the wire, that is no proof", sealed)
	}
}

// ping sends pings of n bytes until one is answered. All that are under way
// before the host has heard of the path MTU are lost.
func (h *testHost) ping(to netip.Addr, n int) error {
	for deadline := time.Now().Add(patience); ; {
		var out []byte
		var err error
		h.do(func() {
			out, err = exec.Command("ping", "-n", "-c", "3", "-i", "0.1", "-W", "3", "-s", fmt.Sprint(n), to.String()).CombinedOutput()
		})
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %s", err, strings.ReplaceAll(string(out), "\n", "; "))
		}
	}
}

// bulk sends n bytes to an echo server, which sends them back, and compares.
func (h *testHost) bulk(to netip.Addr, n int) error {
	c, err := h.dial("tcp", to, 7, patience)
	if err != nil {
		return err
	}
	c.SetDeadline(time.Now().Add(patience))
	data := make([]byte, n)
	rand.Read(data)
	go c.Write(data)
	sum := sha256.New()
	if _, err := io.CopyN(sum, c, int64(n)); err != nil {
		return err
	}
	if sha256.Sum256(data) != [32]byte(sum.Sum(nil)) {
		return fmt.Errorf("other bytes came back")
	}
	return nil
}

// Two hosts protect what runs between them, in every shape, and nothing of it
// is seen on the wire.
func TestProtect(t *testing.T) {
	t.Parallel()
	for _, s := range []sealing{
		{esp.ESP, esp.Transport, false, false}, {esp.ESP, esp.Tunnel, false, false}, {esp.ESP, esp.Tunnel, true, false},
		{esp.ESP, esp.Transport, true, false}, {esp.AH, esp.Transport, false, false}, {esp.AH, esp.Transport, true, false},
		{esp.AH, esp.Tunnel, false, false}, {esp.AH, esp.Tunnel, true, false},
		{esp.ESP, esp.Transport, false, true}, {esp.ESP, esp.Transport, true, true},
		{esp.ESP, esp.Tunnel, false, true}, {esp.ESP, esp.Tunnel, true, true},
	} {
		for _, r := range []Receiver{Batch, Callback} {
			if r == Callback && s.proto == esp.AH && (s.mode != esp.Tunnel || !s.outer6) {
				continue
			}
			t.Run(fmt.Sprintf("%v/%v", s, r), func(t *testing.T) {
				a, b := pair(t)
				b.echo(7)
				addr := map[bool]func(n, host int) netip.Addr{false: addr4, true: addr6}[s.outer6]
				both := func(host int) []netip.Addr {
					if s.mode == esp.Transport {
						return []netip.Addr{addr(0, host)}
					}
					return []netip.Addr{addr4(0, host), addr6(0, host)}
				}
				tap := b.tap("eth0")
				// In UDP, and with native ESP as the receiver is, the two ways of each side are tried against one another.
				a.protect(Config{Receiver: r, Encapsulated: s.udp, noIntake: s.outer6}, sealer(t, s, addr(0, 1), addr(0, 2), both(1), both(2), 0x1001, 0x1002, false))
				fw := b.protect(Config{Receiver: r, Encapsulated: s.udp && r == Batch}, sealer(t, s, addr(0, 2), addr(0, 1), both(2), both(1), 0x1002, 0x1001, false))
				for _, to := range both(2) {
					for _, n := range []int{1, 1400, 60000} {
						if err := a.ping(to, n); err != nil {
							t.Errorf("ping %v of %d bytes: %v", to, n, err)
						}
					}
					if got := a.reach("udp", to, 7, patience); got != "open" {
						t.Errorf("udp to %v: %s", to, got)
					}
					if err := a.bulk(to, 1<<20); err != nil {
						t.Errorf("tcp to %v: %v", to, err)
					}
				}
				tap.check(t, s)
				if st := fw.Stats(); st.Sealed == 0 || st.Opened == 0 {
					t.Errorf("counters: %+v", st)
				}
			})
		}
	}
}
