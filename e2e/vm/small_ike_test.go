package vm

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
)

// TestSmallGatewayIKE: a gateway with one processor and 256 MB is called by 1,000
// peers, each with an identity and an address of its own, and packets pass through
// each tunnel, both ways. When it reads its policy anew, all stay up.
//
//	lan 198.51.100.77 -- gateway 10.77.0.2 == tunnel i == 10.32.i/250.i%250+1 far (10.64.i/250.i%250+1)
func TestSmallGatewayIKE(t *testing.T) {
	inside(t, false, smallIKE, Config{Processors: 1, Memory: smallMemory})
}

func smallIKE(t *testing.T) {
	s := newSmallSite(t)
	s.far.Run("ip", "route", "add", "local", "10.32.0.0/16", "dev", "lo")
	const secret = "the callers' own secret, and long"
	s.File("psk", secret+"\n")
	for i := range tunnels {
		fmt.Fprintf(&s.policy, "ipsec \"t%d\" {\n  mode = \"tunnel\"\n  ike = \"t%[1]d\"\n  encapsulation = \"none\"\n}\n"+
			"ike \"t%[1]d\" {\n  local_endpoint = \"10.77.0.2\"\n  remote_endpoint = %q\n  local_id = \"gateway.example\"\n  remote_id = %q\n  psk_file = \"psk\"\n}\n",
			i, tunnelPeer(i).String(), callerName(i))
	}
	c := newCallers(s, []byte(secret))
	s.start()
	c.call(16)
	s.tell("all up")
	s.plays()
	if up, down := c.seen(); up != tunnels || down > 0 {
		t.Errorf("%d tunnels came up and %d went down, want %d and none", up, down, tunnels)
	}
}

func callerName(i int) string { return fmt.Sprintf("c%d.example", i) }

// callers are all peers in one key exchange on real sockets. What comes out of one
// of their SAs goes back through its twin, with its ends exchanged.
type callers struct {
	*smallSite
	ike *ike.Server
	esp int // a raw socket
	sad *esp.SAD

	mu       sync.Mutex
	out      map[uint32]*esp.SA // by the SPI of the inbound one
	pairs    map[uint64][2]*esp.SA
	up, down int
	failed   error
	moved    chan struct{} // something has changed
}

func newCallers(s *smallSite, secret []byte) *callers {
	s.Helper()
	c := &callers{smallSite: s, sad: esp.NewSAD(), out: map[uint32]*esp.SA{}, pairs: map[uint64][2]*esp.SA{}, moved: make(chan struct{}, 1)}
	var peers []*ike.Peer
	for i := range tunnels {
		id, err := ike.ParseIdentity(callerName(i))
		if err != nil {
			s.Fatal(err)
		}
		peers = append(peers, &ike.Peer{Name: callerName(i), Endpoint: netip.MustParseAddrPort("10.77.0.2:500"), Local: tunnelPeer(i),
			LocalID: id, RemoteID: "gateway.example", PSK: secret, DPD: -1, Children: []*ike.Child{{Name: "net",
				LocalTS:  []ike.TrafficSelector{ike.SelectorOf(netip.PrefixFrom(tunnelInner(i), 32))},
				RemoteTS: []ike.TrafficSelector{ike.SelectorOf(netip.MustParsePrefix("198.51.100.0/24"))}}}})
	}
	if err := s.far.Do(func() (err error) {
		if c.ike, err = ike.Listen(ike.ServerConfig{Config: ike.Config{Peers: peers, Rand: rand.Reader}, Act: c.act, Event: c.event}); err != nil {
			return err
		}
		c.esp, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(esp.ESP))
		if err == nil {
			err = unix.SetsockoptInt(c.esp, unix.IPPROTO_IP, unix.IP_HDRINCL, 1)
		}
		if err == nil {
			err = unix.SetsockoptTimeval(c.esp, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200000})
		}
		return err
	}); err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { c.ike.Run(ctx, 0) })
	all.Go(func() { c.answer(ctx) })
	s.Cleanup(func() { cancel(); all.Wait(); unix.Close(c.esp) })
	return c
}

// act keeps the SAs that the key exchange makes.
func (c *callers) act(list []ike.Action) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range list {
		switch a.Kind {
		case ike.Install:
			in, err := tunnelSA(&a.Child, esp.In)
			if err != nil {
				c.failed = err
				return
			}
			out, err := tunnelSA(&a.Child, esp.Out)
			if err == nil {
				err = c.sad.Insert(in)
			}
			if err != nil {
				c.failed = err
				return
			}
			c.out[a.Child.SPIIn], c.pairs[a.Child.ID] = out, [2]*esp.SA{in, out}
		case ike.Remove:
			c.sad.Remove(c.pairs[a.Child.ID][0])
			delete(c.out, a.Child.SPIIn)
			delete(c.pairs, a.Child.ID)
		}
	}
}

func tunnelSA(ch *ike.ChildSA, d esp.Direction) (*esp.SA, error) {
	suite, err := esp.NewSuite(esp.ESP, ch.Encryption, ch.Integrity)
	if err != nil {
		return nil, err
	}
	conf := esp.Config{SPI: ch.SPIOut, Direction: d, Mode: esp.Tunnel, Suite: suite, ESN: ch.ESN, Src: ch.Local, Dst: ch.Remote}
	keys := ch.Out
	if d == esp.In {
		conf.SPI, conf.Src, conf.Dst, keys = ch.SPIIn, ch.Remote, ch.Local, ch.In
	}
	conf.EncryptionKey, conf.IntegrityKey = esp.NewKey(keys.Encryption), esp.NewKey(keys.Integrity)
	return esp.New(conf)
}

func (c *callers) event(e ike.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case e.Failure != ike.NoFailure:
		c.failed = fmt.Errorf("%s: %s: %s", e.Peer, e.Failure, e.Detail)
	case e.Kind == ike.ChildUp:
		c.up++
	case e.Kind == ike.ChildDown || e.Kind == ike.IKEDown:
		c.down++
	}
	select {
	case c.moved <- struct{}{}:
	default:
	}
}

func (c *callers) seen() (up, down int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.up, c.down
}

// call has all of them call the gateway, so many at a time.
func (c *callers) call(width int) {
	c.Helper()
	for called, end := 0, time.Now().Add(10*lab.Patience); ; {
		c.mu.Lock()
		up, failed := c.up, c.failed
		c.mu.Unlock()
		switch {
		case failed != nil || time.Now().After(end):
			c.Fatalf("%d of %d tunnels are up: %v\n%s", up, tunnels, failed, c.d.Ask("status"))
		case up == tunnels:
			return
		case called < tunnels && called-up < width:
			var bad error
			if err := c.ike.Call(func(k *ike.Core, now time.Time) (o ike.Output) {
				o, bad = k.Initiate(now, ike.Call{Peer: callerName(called), Child: "net"})
				return o
			}); err != nil || bad != nil {
				c.Fatal(err, bad)
			}
			called++
			continue
		}
		select {
		case <-c.moved:
		case <-time.After(time.Second):
		}
	}
}

// answer sends back what comes, until ctx ends.
func (c *callers) answer(ctx context.Context) {
	b := make([]byte, 1<<16)
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(c.esp, b, 0)
		if err != nil {
			continue
		}
		inner, in, _, f := c.sad.Open(b[:n], 0)
		var p packet.Packet
		if f != esp.OK || packet.Parse(&p, inner, len(inner)) != packet.OK || p.Protocol != packet.UDP {
			continue // whoever has sent it misses it
		}
		// Neither checksum changes by that.
		for i := range 4 {
			inner[12+i], inner[16+i] = inner[16+i], inner[12+i]
		}
		for i := range 2 {
			inner[p.Transport+i], inner[p.Transport+2+i] = inner[p.Transport+2+i], inner[p.Transport+i]
		}
		c.mu.Lock()
		out := c.out[in.SPI()]
		c.mu.Unlock()
		if out == nil {
			continue
		}
		if sealed, _, f := out.Seal(nil, inner, 0); f == esp.OK {
			_, dst, _ := out.Endpoints()
			_ = unix.Sendto(c.esp, sealed, 0, &unix.SockaddrInet4{Addr: dst.As4()})
		}
	}
}
