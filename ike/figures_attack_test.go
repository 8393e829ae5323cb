package ike

import (
	"encoding/binary"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"
)

// figures skips what only measures, unless it is asked for: IPFW_FIGURES=1.
func figures(t *testing.T) {
	t.Helper()
	if os.Getenv("IPFW_FIGURES") == "" {
		t.Skip("it only measures; IPFW_FIGURES=1 runs it")
	}
}

// halfOpen is a stranger that has gone through IKE_SA_INIT, and the exchange
// after it if there is one, and has not sent its IKE_AUTH. fragment makes a
// piece of one.
func halfOpen(t testing.TB, s *sim, name, addr string, to *node, props []Proposal) (fragment func(num, total, size int) Datagram) {
	t.Helper()
	p, _ := pskPeers()
	p.Proposals, p.Endpoint = props, netip.AddrPortFrom(to.addr, 500)
	n := s.add(name, addr, Config{Peers: []*Peer{p}})
	nat := s.nat
	s.nat = func(d Datagram) (Datagram, bool) {
		h, err := parseHeader(d.Data)
		return d, err == nil && (h.exchange != exIKEAuth || d.Local.Addr() != n.addr)
	}
	s.call(n, "b", "net")
	s.run(200 * time.Millisecond)
	s.nat = nat
	var sa *ikeSA
	for _, x := range n.sas {
		sa = x
	}
	if sa == nil || sa.req == nil || sa.req.exchange != exIKEAuth {
		s.dump()
		t.Fatalf("no IKE_AUTH is under way: %+v", sa)
	}
	s.nodes = s.nodes[:len(s.nodes)-1] // it does not send again by itself
	return func(num, total, size int) Datagram {
		frag := binary.BigEndian.AppendUint16(nil, uint16(num))
		frag = binary.BigEndian.AppendUint16(frag, uint16(total))
		h := sa.header(exIKEAuth, sa.req.id, false)
		h.version = version2
		m, err := sealOne(h, plSKF, plIDi, frag, make([]byte, size), sa.out)
		if err != nil {
			t.Fatal(err)
		}
		return Datagram{Local: sa.remote, Remote: sa.local, Data: m}
	}
}

// keptBytes is what half-open IKE SAs hold of messages in fragments.
func keptBytes(n *node) (count, bytes int) {
	for _, sa := range n.sas {
		for _, p := range sa.inFrag.parts {
			if p != nil {
				count++
				bytes += len(p)
			}
		}
	}
	return count, bytes
}

func TestFigureFragments(t *testing.T) {
	figures(t)
	s := newSim(t, 3)
	_, pb := pskPeers()
	pb.Endpoint = netip.AddrPort{}
	b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}})
	fragment := halfOpen(t, s, "stranger", "192.0.2.9", b, nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 63 {
		b.Handle(s.now, fragment(i+1, 64, 65000))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	n, bytes := keptBytes(b)
	t.Logf("fragments kept of one half-open IKE SA: %d, %d bytes; heap %+d KiB", n, bytes, (int64(after.HeapAlloc)-int64(before.HeapAlloc))/1024)
}

func TestFigureGroups(t *testing.T) {
	figures(t)
	for _, name := range []string{"x25519", "p-384", "p-521", "modp-2048", "modp-4096"} {
		group, _ := TransformNamed(TransformKE, name)
		s := newSim(t, 3)
		_, pb := pskPeers()
		pb.Endpoint = netip.AddrPort{} // the default proposals
		b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}})
		var first, second time.Duration
		answered := 0
		const strangers = 40
		for i := range strangers {
			p, _ := pskPeers()
			p.Proposals = []Proposal{ikeProp(tGCM128, tPRF, group)}
			c, err := New(Config{Peers: []*Peer{p}, Rand: testRand(uint64(i))})
			if err != nil {
				t.Fatal(err)
			}
			o, err := c.Initiate(s.now, Call{Peer: "b", Child: "net", Local: addrN(i)})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second with a cookie, if there is one
				d := o.Send[0]
				start := time.Now()
				got := b.Handle(s.now, Datagram{Local: d.Remote, Remote: d.Local, Data: d.Data})
				first += time.Since(start)
				if len(got.Send) == 0 {
					break
				}
				if o = c.Handle(s.now, Datagram{Local: got.Send[0].Remote, Remote: got.Send[0].Local, Data: got.Send[0].Data}); len(o.Send) == 0 {
					break
				}
				d = o.Send[0]
				if h, _ := parseHeader(d.Data); h.exchange != exIKEAuth {
					continue
				}
				answered++
				garbage := append([]byte(nil), d.Data...)
				garbage[len(garbage)-1] ^= 1
				start = time.Now()
				b.Handle(s.now, Datagram{Local: d.Remote, Remote: d.Local, Data: garbage})
				second += time.Since(start)
				break
			}
		}
		t.Logf("%s: %d of %d strangers get a half-open IKE SA; IKE_SA_INIT %.2f ms, garbage for IKE_AUTH %.2f ms each", name, answered, strangers,
			float64(first.Microseconds())/1000/strangers, float64(second.Microseconds())/1000/strangers)
	}
}

func TestFigureOneIdentity(t *testing.T) {
	figures(t)
	s := newSim(t, 3)
	up, others := 0, 0
	_, pb := pskPeers()
	pb.Endpoint, pb.RemoteID = netip.AddrPort{}, "*.example"
	b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Limits: Limits{SAs: 300}})
	caller := func(addr, id string) (call func() bool) {
		p, _ := pskPeers()
		p.LocalID = Identity{idFQDN, id}
		n := s.add(id, addr, Config{Peers: []*Peer{p}})
		return func() bool { // all but the first are without INITIAL_CONTACT
			was := b.Stats().Up
			n.begin(s.now)
			n.startIKE(p, netip.AddrPortFrom(n.addr, 500), netip.AddrPortFrom(b.addr, 500), []wish{{cfg: p.Children[0]}})
			s.take(n, n.end())
			s.run(100 * time.Millisecond)
			return b.Stats().Up > was
		}
	}
	greedy := caller("192.0.2.9", "greedy.example")
	for range 400 {
		if greedy() {
			up++
		}
	}
	honest := caller("192.0.2.10", "honest.example")
	for range 20 {
		if honest() {
			others++
		}
	}
	held := 0
	for _, st := range b.Status() {
		if st.RemoteID.Data == "greedy.example" {
			held++
		}
	}
	t.Logf("one identity got %d IKE SAs of 400 asked for, and holds %d of 300 places; of 20 calls of another %d came up; failures too-many: %d", up, held, others, b.Stats().Failures[TooMany])
}
