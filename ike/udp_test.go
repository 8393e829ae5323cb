package ike

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// endpoint is a Server with what it asked for.
type endpoint struct {
	*Server
	port uint16
	stop context.CancelFunc
	done chan struct{}

	mu      sync.Mutex
	actions []Action
	events  []Event
	acted   int
}

// freePort gives a UDP port that nobody has just now.
func freePort(t *testing.T) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return uint16(c.LocalAddr().(*net.UDPAddr).Port)
}

// serve runs a Server on loopback; its one port is that for NAT traversal too, so
// that its messages stand behind markers.
func serve(t *testing.T, port uint16, p *Peer) *endpoint {
	t.Helper()
	e := &endpoint{port: port, done: make(chan struct{})}
	var err error
	e.Server, err = Listen(ServerConfig{
		Config: Config{Rand: rand.Reader, Port: port, NATPort: port, Peers: []*Peer{p}, Source: func(netip.Addr) netip.Addr { return p.Endpoint.Addr() }},
		Act: func(list []Action) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.actions = append(e.actions, list...)
		},
		Acted: func() { e.mu.Lock(); defer e.mu.Unlock(); e.acted++ },
		Event: func(ev Event) { e.mu.Lock(); defer e.mu.Unlock(); e.events = append(e.events, ev) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	go func() { defer close(e.done); e.Run(ctx, 10*time.Second) }()
	t.Cleanup(func() { stop(); <-e.done })
	return e
}

// waitFor waits until an endpoint has done something.
func (e *endpoint) waitFor(t *testing.T, kind ActionKind) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		e.mu.Lock()
		found := slices.ContainsFunc(e.actions, func(a Action) bool { return a.Kind == kind })
		e.mu.Unlock()
		if found {
			return
		}
	}
	t.Fatalf("no %s; events %v", kind, e.events)
}

// Two Servers agree over real sockets, of either family, and part in good order.
func TestServer(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			if c, err := net.ListenPacket("udp", net.JoinHostPort(host, "0")); err != nil {
				t.Skipf("SKIPPED: no %s here", host)
			} else {
				c.Close()
			}
			at := netip.MustParseAddr(host)
			pa, pb := pskPeers()
			portA, portB := freePort(t), freePort(t)
			pa.Endpoint, pb.Endpoint = netip.AddrPortFrom(at, portB), netip.AddrPortFrom(at, portA)
			net := []TrafficSelector{SelectorOf(netip.PrefixFrom(at, at.BitLen()))}
			for _, p := range []*Peer{pa, pb} {
				p.Children[0].LocalTS, p.Children[0].RemoteTS = net, net
			}
			a, b := serve(t, portA, pa), serve(t, portB, pb)
			if err := a.Call(func(c *Core, now time.Time) Output {
				o, err := c.Initiate(now, Call{Peer: "b", Child: "net"})
				if err != nil {
					t.Error(err)
				}
				return o
			}); err != nil {
				t.Fatal(err)
			}
			a.waitFor(t, Install)
			b.waitFor(t, Install)
			if !b.Post(func(c *Core, now time.Time) Output { return c.Rekey(now, "a", "net") }) {
				t.Error("not posted")
			}
			a.waitFor(t, UseSA) // the side that was asked sends by it when the old one is gone

			// Garbage and strangers do not disturb.
			a.Deliver(Datagram{Local: netip.AddrPortFrom(at, portA), Remote: netip.AddrPortFrom(at, 9), Data: make([]byte, 40)})
			a.stop()
			<-a.done
			a.mu.Lock()
			if a.acted == 0 {
				t.Error("nobody is told that a step with actions is over")
			}
			a.mu.Unlock()
			b.waitFor(t, Remove) // it was said, and b need not find out
			if err := a.Call(func(*Core, time.Time) Output { return Output{} }); err == nil {
				t.Error("a Server that has ended does what it is told")
			}
			if n := a.Losses(); n != (Losses{}) {
				t.Errorf("lost on loopback: %+v", n)
			}
		})
	}
}

// Somebody who has a port says so in a sentence.
func TestListenTaken(t *testing.T) {
	pa, _ := pskPeers()
	port := freePort(t)
	e := serve(t, port, pa)
	_, err := Listen(ServerConfig{Config: Config{Rand: rand.Reader, Port: port, NATPort: port}})
	if err == nil {
		t.Fatal("a port is taken twice")
	}
	e.stop()
	<-e.done
	s, err := Listen(ServerConfig{Config: Config{Rand: rand.Reader, Port: port, NATPort: port}})
	if err != nil {
		t.Fatalf("the port is not given back: %v", err)
	}
	_ = s.Close()
}
