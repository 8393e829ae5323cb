package nfq

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// encapHandler is a processor that can refuse IKE.
type encapHandler struct {
	*engine.Engine
	ike     atomic.Bool // lets it in
	refused atomic.Int64
	from    sync.Map // interfaces that opened packets came by
}

func (h *encapHandler) Handle(in *engine.Input, out *engine.Output, f packet.Fault) engine.Result {
	if f != packet.OK {
		return h.Malformed(f)
	}
	if in.SA != "" {
		h.from.Store(in.InIf, true)
	}
	if p := &in.Packet; in.Dir == engine.In && !in.Arriving && p.Protocol == packet.UDP && (p.DstPort == portNAT || p.DstPort == portIKE) {
		if h.ike.Load() {
			return engine.Result{Verdict: engine.Bypass}
		}
		h.refused.Add(1)
		return engine.Result{}
	}
	in.Now = h.Now()
	return h.Process(in, out)
}

// Now implements Opener.
func (*encapHandler) Now() int64 { return handlerNow() }

// encapsulated runs a firewall for ESP in UDP on one of two hosts of wire 0.
func encapsulated(h *testHost, host int, v6 bool, cfg Config) (*Firewall, *encapHandler) {
	h.t.Helper()
	addr := map[bool]func(n, host int) netip.Addr{false: addr4, true: addr6}[v6]
	both := func(host int) []netip.Addr { return []netip.Addr{addr4(0, host), addr6(0, host)} }
	s := sealing{proto: esp.ESP, mode: esp.Tunnel, outer6: v6, udp: true}
	e := &encapHandler{Engine: sealer(h.t, s, addr(0, host), addr(0, 3-host), both(host), both(3-host), 0x1000+uint32(host), 0x1003-uint32(host), false)}
	e.ike.Store(true)
	cfg.Protect, cfg.Encapsulated = true, true
	fw, err := h.tryHandler(cfg, e)
	if err != nil {
		h.t.Fatal(err)
	}
	return fw, e
}

// IKE goes out by both ports and comes in by them, if policy lets it in.
func TestIKEPorts(t *testing.T) {
	t.Parallel()
	for i := range 4 {
		v6, port := i%2 > 0, [...]uint16{portNAT, portIKE}[i/2]
		a, b := pair(t)
		heard := make(chan Datagram, 10)
		hear := func(d *Datagram) {
			c := *d
			c.Message = bytes.Clone(d.Message)
			heard <- c
		}
		addr := map[bool]func(n, host int) netip.Addr{false: addr4, true: addr6}[v6]
		from, to := netip.AddrPortFrom(addr(0, 1), port), netip.AddrPortFrom(addr(0, 2), port)
		fw, _ := encapsulated(a, 1, v6, Config{KeyExchange: true})
		far, e := encapsulated(b, 2, v6, Config{KeyExchange: true, IKE: hear})
		message := bytes.Repeat([]byte("ike"), 100)
		send := func(d Datagram) {
			t.Helper()
			if err := fw.SendIKE(&d); err != nil {
				t.Fatal(err)
			}
		}
		for i, local := range []netip.AddrPort{netip.AddrPortFrom(netip.Addr{}, port), from, netip.AddrPortFrom(netip.Addr{}, port)} {
			if i == 2 { // longer than the link carries
				message = bytes.Repeat([]byte("ike"), 1000)
			}
			send(Datagram{Local: local, Remote: to, Message: message})
			select {
			case d := <-heard:
				if d.Local != to || d.Remote != from || !bytes.Equal(d.Message, message) || d.Link == 0 {
					t.Errorf("heard %v > %v on %d, %d bytes", d.Remote, d.Local, d.Link, len(d.Message))
				}
			case <-time.After(patience):
				t.Fatal("not heard")
			}
		}
		if err := fw.SendKeepalive(&Datagram{Remote: netip.AddrPortFrom(to.Addr(), portNAT)}); err != nil {
			t.Error(err)
		}
		e.ike.Store(false)
		send(Datagram{Local: from, Remote: to, Message: message})
		seen := func() bool { return e.refused.Load() == 1 && e.Stats().Reasons[engine.ReasonKeepalive] == 1 }
		for deadline := time.Now().Add(patience); !seen() && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		if !seen() || len(heard) > 0 || far.Stats().Dropped < 2 {
			t.Errorf("%d heard that policy forbids, %d refused; %d dropped, %d keepalives", len(heard), e.refused.Load(), far.Stats().Dropped, e.Stats().Reasons[engine.ReasonKeepalive])
		}
		for _, bad := range []Datagram{{Remote: netip.AddrPort{}}, {Local: netip.AddrPortFrom(addr(0, 1), 1), Remote: netip.AddrPortFrom(addrOf(map[bool]string{true: "10.1.1.1", false: "fd00::1"}[v6]), 1)}} {
			if err := fw.SendIKE(&bad); err == nil {
				t.Errorf("sent %v", bad)
			}
		}
	}
}

// The port of another program is left to it.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	for _, port := range []uint16{portNAT, portIKE} {
		a, _ := pair(t)
		a.echo(port)
		_, err := a.tryHandler(Config{Protect: true, Encapsulated: true, KeyExchange: true}, processor{})
		if err == nil || !bytes.Contains([]byte(err.Error()), fmt.Appendf(nil, "UDP port %d", port)) {
			t.Errorf("error %v", err)
		}
	}
}

// Many flows of all kinds at once, while the table is renewed again and again
// and the far side takes ESP in UDP by turns from the queue and by the socket:
// all bytes come, none of them in the clear, by the interface they came by.
func TestEncapsulatedMixed(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	b.echo(7)
	for _, h := range []*testHost{a, b} {
		h.do(func() { sysctl(t, "ipv4/conf/all/rp_filter", "1") })
	}
	tap := b.tap("eth0")
	encapsulated(a, 1, false, Config{Queues: 2})
	fw, e := encapsulated(b, 2, false, Config{Queues: 2})
	done := make(chan bool)
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() {
			for _, to := range []netip.Addr{addr4(0, 2), addr6(0, 2)} {
				if err := a.bulk(to, 3<<20+i); err != nil {
					t.Errorf("tcp to %v: %v", to, err)
				}
			}
		})
	}
	all.Go(func() {
		for _, to := range []netip.Addr{addr4(0, 2), addr6(0, 2)} {
			for _, n := range []int{1, 1400, 50000} {
				if err := a.ping(to, n); err != nil {
					t.Errorf("ping %v of %d bytes: %v", to, n, err)
				}
				if got := a.reach("udp", to, 7, patience); got != "open" {
					t.Errorf("udp to %v: %s", to, got)
				}
			}
		}
	})
	go func() { all.Wait(); close(done) }()
	for i := 0; ; i++ {
		select {
		case <-done:
			tap.check(t, sealing{proto: esp.ESP, udp: true})
			e.from.Range(func(k, _ any) bool {
				if k != "eth0" {
					t.Errorf("an opened packet came by %q", k)
				}
				return true
			})
			if st := fw.Stats(); st.Packets != st.Accepted+st.Dropped || st.Opened == 0 || st.Unsent != 0 {
				t.Errorf("stats do not add up: %+v", st)
			}
			return
		default:
			begun := time.Now()
			if err := fw.Reload(Config{Queues: 2, Protect: true, Encapsulated: i%4 != 3}); err != nil {
				t.Error(err)
			}
			// Where a reload takes long, it leaves the flows as much of the time.
			time.Sleep(max(20*time.Millisecond, 4*time.Since(begun)))
		}
	}
}

// Sending allocates nothing.
func TestSenderNoAllocs(t *testing.T) {
	a, _ := pair(t)
	fw, _ := encapsulated(a, 1, false, Config{})
	s := newWorker(fw, nil, new(queueStats)).send
	var pkts [][]byte
	for i := range 40 {
		b, err := packet.Build(packet.Spec{Src: addr4(0, 1), Dst: addr4(0, 2), Protocol: packet.UDP, SrcPort: 4500, DstPort: 4500,
			DontFragment: true, Payload: bytes.Repeat([]byte{byte(i + 1)}, 1000)})
		if err != nil {
			t.Fatal(err)
		}
		pkts = append(pkts, b)
	}
	// The firewall runs, and what it does meanwhile allocates: on a slow machine
	// once in nearly every run, but not in all.
	least := math.Inf(1)
	for range 25 {
		least = min(least, testing.AllocsPerRun(1, func() { // twice
			s.add(pkts, ipv4UDP, 0)
			s.flush()
		}))
	}
	if least != 0 {
		t.Errorf("%v allocations", least)
	}
	if st := s.w.stats; st.sealed.Load() != 50*40 || st.unsent.Load() != 0 {
		t.Errorf("%d sent, %d not", st.sealed.Load(), st.unsent.Load())
	}
}
