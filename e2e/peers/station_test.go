package peers

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// station is an ike.Core on real sockets in a host, with the SAs that it makes.
// What comes out of one and is a ping is answered through the other.
//
//	UDP 500, 4500 --> Core --> Install --> esp.SA
//	UDP 4500, ESP ------------------------> esp.SA --> echo --> esp.SA
type station struct {
	t     testing.TB
	mu    sync.Mutex
	core  *ike.Core
	udp   map[netip.AddrPort]*net.UDPConn
	raw   map[netip.Addr]int // sockets for ESP without UDP
	pairs map[uint64]*pair
	using map[string]*pair // by Child.Name
	log   []ike.Event
	rows  []string // key log
	echo  map[uint16]bool
	lost  []string // what could not be opened or made
	wake  chan struct{}
	done  chan struct{}
	hold  bool // receives nothing: a peer that has died
	sent  uint16

	before func() // see delay

	stop      func() // closes everything, without a word to the peer
	childless bool   // asks for no child, for measurements
	opened    int    // packets, of all children
}

// createChildSA is the exchange type, at offset 18 of a message.
const createChildSA = 36

// pair is one child with both its SAs.
type pair struct {
	ike.ChildSA
	in, out *esp.SA
}

// newStation starts a Core on the host's addresses.
func newStation(t testing.TB, h *lab.Host, cfg ike.Config, addrs ...netip.Addr) *station {
	t.Helper()
	s := &station{t: t, udp: map[netip.AddrPort]*net.UDPConn{}, raw: map[netip.Addr]int{}, pairs: map[uint64]*pair{}, using: map[string]*pair{},
		echo: map[uint16]bool{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
	cfg.Rand = rand.Reader
	cfg.KeyLog = func(row string) { s.rows = append(s.rows, row) }
	var err error
	if s.core, err = ike.New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := h.Do(func() error {
		for _, a := range addrs {
			for _, port := range []uint16{500, 4500} {
				at := netip.AddrPortFrom(a, port)
				c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
				// A program that is just being started has the socket of
				// the station before for a moment, until it execs.
				for tries := 0; errors.Is(err, unix.EADDRINUSE) && tries < 100; tries++ {
					time.Sleep(20 * time.Millisecond)
					c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
				}
				if err != nil {
					return err
				}
				s.udp[at] = c
			}
		}
		for _, a := range addrs {
			family := unix.AF_INET
			if a.Is6() {
				family = unix.AF_INET6
			}
			fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(esp.ESP))
			if err != nil {
				return err
			}
			s.raw[a] = fd
			tv := unix.Timeval{Usec: 200000}
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
				return err
			}
			if err := unix.Bind(fd, rawAddr(a)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for at, c := range s.udp {
		all.Go(func() { s.receive(at, c) })
	}
	for a, fd := range s.raw {
		all.Go(func() { s.receiveRaw(a.Is6(), fd) })
	}
	all.Go(s.timer)
	s.stop = sync.OnceFunc(func() {
		close(s.done)
		for _, c := range s.udp {
			c.Close()
		}
		all.Wait()
		for _, fd := range s.raw {
			unix.Close(fd)
		}
	})
	t.Cleanup(s.stop)
	return s
}

// delay has f run as the next datagram of IKE arrives, before it is looked at:
// what f sends meets it.
func (s *station) delay(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

// with runs a call into the Core and does what comes out.
func (s *station) with(f func(now time.Time) ike.Output) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apply(f(time.Now()))
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *station) timer() {
	for {
		s.mu.Lock()
		at, ok := s.core.Next()
		s.mu.Unlock()
		wait := time.Hour
		if ok {
			wait = time.Until(at)
		}
		select {
		case <-s.done:
			return
		case <-s.wake:
		case <-time.After(wait):
			s.with(s.core.Tick)
		}
	}
}

func (s *station) receive(at netip.AddrPort, c *net.UDPConn) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		data := bytes.Clone(b[:n])
		s.mu.Lock()
		dead, before := s.hold, s.before
		s.mu.Unlock()
		if dead {
			continue
		}
		if at.Port() == 4500 {
			switch esp.Classify(data) {
			case esp.ESPPacket:
				s.open(data)
				continue
			case esp.IKEMessage:
				data = data[esp.NonESPMarker:]
			default:
				continue
			}
		}
		if before != nil {
			s.delay(nil)
			before()
		}
		s.with(func(now time.Time) ike.Output {
			return s.core.Handle(now, ike.Datagram{Local: at, Remote: from, Data: data})
		})
	}
}

func (s *station) receiveRaw(v6 bool, fd int) {
	b := make([]byte, 1<<16)
	for {
		select {
		case <-s.done:
			return
		default:
		}
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			continue
		}
		data := bytes.Clone(b[:n])
		if !v6 {
			data = data[int(data[0]&15)*4:]
		}
		s.mu.Lock()
		dead := s.hold
		s.mu.Unlock()
		if !dead {
			s.open(data)
		}
	}
}

// apply does what the Core asks for: SAs first.
func (s *station) apply(o ike.Output) {
	for _, a := range o.Actions {
		p := s.pairs[a.Child.ID]
		switch a.Kind {
		case ike.Install:
			p = s.install(a.Child)
			if a.Use {
				s.using[p.Name] = p
			}
		case ike.UseSA:
			s.using[p.Name] = p
		case ike.Remove:
			if s.using[p.Name] == p {
				delete(s.using, p.Name)
			}
			delete(s.pairs, a.Child.ID)
		case ike.Move:
			p.ChildSA.Local, p.ChildSA.Remote, p.UDPEncap = a.Child.Local, a.Child.Remote, a.Child.UDPEncap
			p.LocalPort, p.RemotePort = a.Child.LocalPort, a.Child.RemotePort
			e := esp.Encap{}
			if p.UDPEncap {
				e = esp.Encap{SrcPort: p.LocalPort, DstPort: p.RemotePort}
			}
			p.out.Move(p.Local, p.Remote, e)
		}
	}
	s.log = append(s.log, o.Events...)
	for _, d := range o.Send {
		if s.childless && d.Data[18] == createChildSA {
			continue
		}
		data := d.Data
		if d.Local.Port() == 4500 && !d.Keepalive {
			data = append(make([]byte, esp.NonESPMarker), data...)
		}
		s.send(d.Local, d.Remote, data)
	}
}

func (s *station) send(from, to netip.AddrPort, data []byte) {
	c := s.udp[from]
	if c == nil {
		s.lost = append(s.lost, fmt.Sprintf("datagram from %s, which we do not have", from))
		return
	}
	if _, err := c.WriteToUDPAddrPort(data, to); err != nil && !strings.Contains(err.Error(), "refused") {
		s.lost = append(s.lost, err.Error())
	}
}

func (s *station) install(ch ike.ChildSA) *pair {
	p := &pair{ChildSA: ch}
	make := func(d esp.Direction, spi uint32, k ike.Keys) *esp.SA {
		suite, err := esp.NewSuite(esp.ESP, ch.Encryption, ch.Integrity)
		if err != nil {
			s.t.Errorf("suite %q %q: %v", ch.Encryption, ch.Integrity, err)
			return nil
		}
		c := esp.Config{SPI: spi, Direction: d, Mode: esp.Tunnel, Suite: suite, ESN: ch.ESN,
			EncryptionKey: esp.NewKey(k.Encryption), IntegrityKey: esp.NewKey(k.Integrity), Src: ch.Local, Dst: ch.Remote}
		if ch.Mode == ike.Transport {
			c.Mode = esp.Transport
		}
		if ch.UDPEncap {
			c.Encap = esp.Encap{SrcPort: ch.LocalPort, DstPort: ch.RemotePort}
		}
		if d == esp.In {
			c.Src, c.Dst = c.Dst, c.Src
			c.Encap.SrcPort, c.Encap.DstPort = c.Encap.DstPort, c.Encap.SrcPort
		}
		sa, err := esp.New(c)
		if err != nil {
			s.t.Errorf("SA of %s: %v", ch.Name, err)
		}
		return sa
	}
	p.in, p.out = make(esp.In, ch.SPIIn, ch.In), make(esp.Out, ch.SPIOut, ch.Out)
	s.pairs[ch.ID] = p
	return p
}

// open takes ESP from SPI to ICV. Echo requests are answered, answers noted.
func (s *station) open(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	spi := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	var p *pair
	for _, x := range s.pairs {
		if x.SPIIn == spi {
			p = x
		}
	}
	if p == nil || p.in == nil {
		s.lost = append(s.lost, fmt.Sprintf("ESP with SPI %#x, which we do not have", spi))
		return
	}
	payload, next, _, f := p.in.OpenPayload(b, 0)
	var inner []byte
	switch {
	case f != esp.OK:
	case p.Mode == ike.Tunnel:
		inner, f = p.in.Inner(payload, next, 0)
	default:
		var err error
		if inner, err = packet.Build(packet.Spec{Src: p.Remote, Dst: p.Local, Protocol: next, Raw: true, Payload: payload}); err != nil {
			s.t.Error(err)
			return
		}
	}
	if f != esp.OK {
		s.lost = append(s.lost, fmt.Sprintf("ESP of %s: %v", p.Name, f))
		return
	}
	s.opened++
	s.apply(s.core.Seen(time.Now(), spi))
	var q packet.Packet
	if f := packet.Parse(&q, inner, len(inner)); f != packet.OK {
		s.lost = append(s.lost, fmt.Sprintf("inner packet: %v", f))
		return
	}
	icmp := inner[q.Transport:]
	spec := packet.Spec{Src: q.Dst, Dst: q.Src, Protocol: q.Protocol, EchoID: be16(icmp, 4), EchoSeq: be16(icmp, 6)}
	switch {
	case q.Protocol == packet.ICMP && q.ICMPType == 8:
		spec.ICMPType = 0
	case q.Protocol == packet.ICMPv6 && q.ICMPType == 128:
		spec.ICMPType = 129
	case q.Protocol == packet.ICMP && q.ICMPType == 0, q.Protocol == packet.ICMPv6 && q.ICMPType == 129:
		s.echo[spec.EchoSeq] = true
		return
	default:
		return
	}
	spec.Payload = icmp[8:]
	s.seal(p.Name, spec)
}

// seal builds a packet and sends it by the pair in use for a child.
func (s *station) seal(child string, spec packet.Spec) {
	p := s.using[child]
	if p == nil {
		s.lost = append(s.lost, "nothing to send by for "+child)
		return
	}
	clear, err := packet.Build(spec)
	if err != nil {
		s.t.Error(err)
		return
	}
	sealed, _, f := p.out.Seal(nil, clear, 0)
	if f != esp.OK {
		s.lost = append(s.lost, fmt.Sprintf("sealing for %s: %v", child, f))
		return
	}
	head := 20
	if p.Remote.Is6() {
		head = 40
	}
	if p.UDPEncap {
		s.send(netip.AddrPortFrom(p.Local, p.LocalPort), netip.AddrPortFrom(p.Remote, p.RemotePort), sealed[head+8:])
		return
	}
	if err := unix.Sendto(s.raw[p.Local], sealed[head:], 0, rawAddr(p.Remote)); err != nil {
		s.lost = append(s.lost, err.Error())
	}
}

// rawAddr is an address as raw sockets take it.
func rawAddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

func be16(b []byte, i int) uint16 {
	if len(b) < i+2 {
		return 0
	}
	return uint16(b[i])<<8 | uint16(b[i+1])
}
