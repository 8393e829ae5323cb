package ike

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// benchNet is a responder and clients that come and go: what the responder
// does is timed, what the clients do is not.
type benchNet struct {
	b     testing.TB
	y     *Core
	peer  *Peer // as clients have it
	at    netip.AddrPort
	now   time.Time
	spent time.Duration // by the responder
	sizes map[uint8]int // bytes of IKE by exchange type, of the last handshake
}

func newBenchNet(b testing.TB, change func(client, responder *Peer)) *benchNet {
	b.Helper()
	pa, pb := pskPeers()
	pa.LocalID, pb.RemoteID, pb.Endpoint = Identity{}, "", netip.AddrPort{}
	if change != nil {
		change(pa, pb)
	}
	y, err := New(Config{Peers: []*Peer{pb}, Rand: rand.Reader, Limits: Limits{HalfOpenPerAddr: 1 << 20, SAs: 1 << 20}})
	if err != nil {
		b.Fatal(err)
	}
	return &benchNet{b: b, y: y, peer: pa, at: netip.MustParseAddrPort("192.0.2.2:500"), now: simStart}
}

// handle has the responder take one datagram.
func (n *benchNet) handle(d Datagram) []Datagram {
	start := time.Now()
	o := n.y.Handle(n.now, d)
	n.spent += time.Since(start)
	return o.Send
}

// client connects client i; it reports whether its child came up.
func (n *benchNet) client(i int) bool {
	n.b.Helper()
	from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 500)
	p := *n.peer
	if p.LocalID.IsZero() {
		p.LocalID = Identity{idFQDN, fmt.Sprintf("c%d.example", i)}
	}
	x, err := New(Config{Peers: []*Peer{&p}, Rand: rand.Reader})
	if err != nil {
		n.b.Fatal(err)
	}
	o, err := x.Initiate(n.now, Call{Peer: p.Name, Child: "net", Local: from, Remote: n.at})
	if err != nil {
		n.b.Fatal(err)
	}
	up := false
	n.sizes = map[uint8]int{}
	for queue := o.Send; len(queue) > 0; queue = queue[1:] {
		d := queue[0]
		n.sizes[d.Data[18]] += len(d.Data)
		if d.Remote.Addr() == n.at.Addr() {
			queue = append(queue, n.handle(Datagram{Local: d.Remote, Remote: d.Local, Data: d.Data})...)
			continue
		}
		o := x.Handle(n.now, Datagram{Local: d.Remote, Remote: d.Local, Data: d.Data})
		for _, e := range o.Events {
			up = up || e.Kind == ChildUp
		}
		queue = append(queue, o.Send...)
	}
	return up
}

// benchKinds are the kinds of handshakes that are measured.
var benchKinds = []struct {
	name   string
	change func(testing.TB) func(client, responder *Peer)
}{
	{"psk-x25519", func(testing.TB) func(a, b *Peer) {
		return func(a, b *Peer) {
			a.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tX25519)}
			b.Proposals = a.Proposals
		}
	}},
	{"psk-x25519-mlkem768", func(testing.TB) func(a, b *Peer) { return nil }},
	{"ecdsa-x25519", func(t testing.TB) func(a, b *Peer) {
		return func(a, b *Peer) {
			a.LocalID = Identity{idFQDN, "a.example"}
			withCerts(t, newPKI(t), a, b, "ecdsa")
			a.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tX25519)}
			b.Proposals = a.Proposals
		}
	}},
	{"ecdsa-x25519-mlkem768", func(t testing.TB) func(a, b *Peer) {
		return func(a, b *Peer) {
			a.LocalID = Identity{idFQDN, "a.example"}
			withCerts(t, newPKI(t), a, b, "ecdsa")
		}
	}},
}

// BenchmarkResponder is how many handshakes one core can answer, IKE SA and
// first child, without the work of sockets.
func BenchmarkResponder(b *testing.B) {
	for _, k := range benchKinds {
		b.Run(k.name, func(b *testing.B) {
			n := newBenchNet(b, k.change(b))
			for i := range b.N {
				if !n.client(i) {
					b.Fatal("no child")
				}
			}
			b.ReportMetric(float64(b.N)/n.spent.Seconds(), "handshakes/s/core")
		})
	}
}

// BenchmarkSAs is a responder with many clients: memory of each (IKE SA and
// child, without the ciphers of package esp), and what the next handshake and
// the timers cost then.
func BenchmarkSAs(b *testing.B) {
	for _, count := range []int{1000, 10000, 50000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			for range b.N {
				n := newBenchNet(b, benchKinds[0].change(b))
				before := heapBytes()
				for i := range count {
					if !n.client(i) {
						b.Fatal("no child")
					}
				}
				perSA := float64(heapBytes()-before) / float64(count)
				n.spent = 0
				for i := range 100 {
					n.client(count + i)
				}
				b.ReportMetric(perSA, "B/SA")
				b.ReportMetric(float64(n.spent.Microseconds())/100, "µs/handshake")
				// A minute later all are asked whether they live.
				start, asked := time.Now(), 0
				for end := n.now.Add(35 * time.Second); ; {
					at, _ := n.y.Next()
					if at.After(end) {
						break
					}
					asked += len(n.y.Tick(at).Send)
				}
				b.ReportMetric(float64(time.Since(start).Nanoseconds())/float64(asked), "ns/probe")
				if asked < count {
					b.Errorf("%d probes to %d clients", asked, count)
				}
			}
		})
	}
}

func heapBytes() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkFlood is what a spoofed IKE_SA_INIT costs under a flood of them,
// when cookies are asked for; 1 of 1,000 comes from an honest client, and
// all of those must get through.
func BenchmarkFlood(b *testing.B) {
	n := newBenchNet(b, nil)
	msg := initMessage(b, 9)
	honest, up := 0, 0
	var flood time.Duration
	for i := range b.N {
		binary.BigEndian.PutUint64(msg, uint64(i+1))
		n.spent = 0
		n.handle(Datagram{Local: n.at, Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, byte(i >> 16), byte(i >> 8), byte(i)}), 500), Data: append([]byte(nil), msg...)})
		flood += n.spent
		if i%1000 == 999 {
			honest++
			if n.client(honest) {
				up++
			}
		}
	}
	b.ReportMetric(float64(flood.Nanoseconds())/float64(b.N), "ns/spoofed")
	b.ReportMetric(float64(up)/float64(max(honest, 1))*100, "%honest")
	b.ReportMetric(float64(n.y.Stats().HalfOpen), "half-open")
	if up != honest {
		b.Errorf("%d of %d honest clients got through", up, honest)
	}
}

// TestMessageSizes prints what a handshake puts on the wire.
func TestMessageSizes(t *testing.T) {
	for _, k := range benchKinds {
		n := newBenchNet(t, k.change(t))
		if !n.client(1) {
			t.Fatal("no child")
		}
		s := n.sizes
		t.Logf("%-22s IKE_SA_INIT %4d, IKE_INTERMEDIATE %4d, IKE_AUTH %4d: %d bytes of IKE both ways", k.name,
			s[exIKESAInit], s[exIntermediate], s[exIKEAuth], s[exIKESAInit]+s[exIntermediate]+s[exIKEAuth])
		// ML-KEM-768's key has 1,184 bytes, its ciphertext 1,088 (FIPS 203).
		if pq := s[exIntermediate] > 0; pq && s[exIntermediate] < 1184+1088 {
			t.Errorf("%s: IKE_INTERMEDIATE has %d bytes", k.name, s[exIntermediate])
		}
	}
}
