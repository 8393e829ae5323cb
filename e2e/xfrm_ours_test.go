package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/nfq"
	"github.com/ipfw/ipfw/packet"
)

// xfrmSide is ipfw's side: the packet path of the daemon, in this process,
// whose SAs are changed from row to row without starting anything again.
type xfrmSide struct {
	*engine.Engine
	host *lab.Host
	fw   *nfq.Firewall
	sad  *esp.SAD
	out  atomic.Pointer[esp.SA]
	in   *esp.SA
}

// Handle judges a packet as the daemon does.
func (s *xfrmSide) Handle(in *engine.Input, out *engine.Output, f packet.Fault) engine.Result {
	if f != packet.OK {
		return s.Malformed(f)
	}
	return s.Process(in, out)
}

// Now is the clock of what Unseal, which the Engine has, is given.
func (s *xfrmSide) Now() int64 { return s.fw.Now() }

// newXFRMSide begins to filter on the host, where everything but neighbour
// discovery must be protected.
func newXFRMSide(t *testing.T, h *lab.Host) *xfrmSide {
	t.Helper()
	s := &xfrmSide{host: h, sad: esp.NewSAD()}
	var local, remote []engine.AddrRange
	for f := range 2 {
		for _, a := range []netip.Addr{outerIPFW[f], innerIPFW[f]} {
			local = append(local, engine.AddrRange{First: a, Last: a})
		}
		for _, a := range []netip.Addr{outerKernel[f], innerKernel[f]} {
			remote = append(remote, engine.AddrRange{First: a, Last: a})
		}
	}
	s.Engine = engine.New(&engine.Policy{Rules: []engine.Rule{
		{Name: "neighbours", Action: engine.Bypass, In: true, Out: true, Selector: engine.Selector{Protocols: []uint8{packet.ICMPv6},
			ICMP: []engine.ICMPSel{{Protocol: packet.ICMPv6, Type: 135, Code: -1}, {Protocol: packet.ICMPv6, Type: 136, Code: -1}}}},
		{Name: "kernel", Action: engine.Protect, With: "kernel", In: true, Out: true, Selector: engine.Selector{Local: local, Remote: remote}},
	}}, engine.Options{
		SAD:      s.sad,
		Outbound: func(*engine.Rule, *engine.Input) *esp.SA { return s.out.Load() },
		IsLocal: func(a netip.Addr) bool {
			return slices.ContainsFunc(local, func(r engine.AddrRange) bool { return r.First == a })
		},
	})
	if err := h.Do(func() (err error) { s.fw, err = nfq.Open(nfq.Config{Protect: true}); return err }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.fw.Run(ctx, s) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := s.fw.Close(false); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// newXFRMKeys draws keys for a row.
func newXFRMKeys(r xfrmRow, n int) *xfrmKeys {
	k := new(xfrmKeys)
	for way := range 2 {
		k.spi[way] = 0x1000 + uint32(2*n+way)
		k.encryption[way] = make([]byte, r.suite.Encryption.KeyMaterial())
		k.integrity[way] = make([]byte, r.suite.Integrity.KeyMaterial())
		_, _ = rand.Read(k.encryption[way]) // never fails: crypto/rand
		_, _ = rand.Read(k.integrity[way])
	}
	return k
}

// sa makes the SA of one way: 0 from ipfw to the kernel, 1 back.
func (s *xfrmSide) sa(t testing.TB, r xfrmRow, k *xfrmKeys, way int) *esp.SA {
	t.Helper()
	c := esp.Config{SPI: k.spi[way], Mode: r.mode, Suite: r.suite, ESN: r.esn, ReplayWindow: 128, AHAlign8: r.ahAlign8,
		EncryptionKey: esp.NewKey(k.encryption[way]), IntegrityKey: esp.NewKey(k.integrity[way]), Owner: esp.Owner{Name: "kernel"}, Created: s.fw.Now()}
	ours, theirs := r.outer()
	c.Direction, c.Src, c.Dst = esp.Out, ours, theirs
	if way == 1 {
		c.Direction, c.Src, c.Dst = esp.In, theirs, ours
	}
	if r.udp {
		c.Encap = esp.Encap{SrcPort: 4500, DstPort: 4500}
	}
	sa, err := esp.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

// configure puts a row in force.
func (s *xfrmSide) configure(t testing.TB, r xfrmRow, k *xfrmKeys) {
	t.Helper()
	old := s.out.Swap(s.sa(t, r, k, 0))
	if old != nil {
		old.Close()
	}
	s.renew(t, r, k)
}

// renew puts a new inbound SA with an empty replay window in place of the one
// that is there.
func (s *xfrmSide) renew(t testing.TB, r xfrmRow, k *xfrmKeys) {
	t.Helper()
	if s.in != nil {
		s.sad.Remove(s.in)
	}
	s.in = s.sa(t, r, k, 1)
	if err := s.sad.Insert(s.in); err != nil {
		t.Fatal(err)
	}
}

// probe is a sealed ping of the kernel, with a sequence number of its own.
func (s *xfrmSide) probe(t testing.TB, r xfrmRow) []byte {
	t.Helper()
	src, dst := r.inner()
	spec := packet.Spec{Src: src, Dst: dst, Protocol: packet.ICMP, ICMPType: 8, EchoID: 77, EchoSeq: 1, Payload: bytes.Repeat([]byte("probe"), 12)}
	if r.inner6 {
		spec.Protocol, spec.ICMPType = packet.ICMPv6, 128
	}
	b, err := packet.Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	sealed, _, f := s.out.Load().Seal(nil, b, s.fw.Now())
	if f != esp.OK {
		t.Fatal(f)
	}
	return sealed
}

// sees waits until the inbound SA has counted n of a fault, and nothing else.
func (s *xfrmSide) sees(f esp.Fault, n, packets uint64) bool {
	for end := time.Now().Add(waitLong / 4); time.Now().Before(end); time.Sleep(time.Millisecond) {
		c := s.in.Counters()
		if c.Faults[f] == n && c.Packets == packets {
			for g, k := range c.Faults {
				if k != 0 && esp.Fault(g) != f {
					return false
				}
			}
			return true
		}
	}
	return false
}
