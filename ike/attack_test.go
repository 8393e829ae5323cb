package ike

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// initMessage is a valid IKE_SA_INIT of a stranger.
func initMessage(t testing.TB, seed uint64) []byte {
	t.Helper()
	p, _ := pskPeers()
	p.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tX25519)}
	c, err := New(Config{Peers: []*Peer{p}, Rand: testRand(seed)})
	if err != nil {
		t.Fatal(err)
	}
	o, err := c.Initiate(simStart, Call{Peer: "b", Child: "net", Local: netip.MustParseAddrPort("192.0.2.1:500")})
	if err != nil {
		t.Fatal(err)
	}
	return o.Send[0].Data
}

func addrN(n int) netip.AddrPort {
	b := [4]byte{10}
	binary.BigEndian.PutUint16(b[1:], uint16(n))
	return netip.AddrPortFrom(netip.AddrFrom4(b), 500)
}

// A flood of spoofed IKE_SA_INIT stays inside the limits, draws no answer
// longer than its question once cookies are asked for, and does not keep a
// peer that answers cookies from connecting.
func TestFlood(t *testing.T) {
	s := newSim(t, 3)
	pa, pb := pskPeers()
	pb.Endpoint = netip.AddrPort{}
	a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}})
	b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Limits: Limits{CookieAfter: 20, HalfOpen: 40}})
	msg := initMessage(t, 9)
	flood := func(n int) {
		for i := range n {
			binary.BigEndian.PutUint64(msg, uint64(i+1))
			o := b.Handle(s.now, Datagram{Local: netip.MustParseAddrPort("192.0.2.2:500"), Remote: addrN(i), Data: append([]byte(nil), msg...)})
			if len(o.Send) > 1 || b.guard.total >= 20 && len(o.Send) == 1 && len(o.Send[0].Data) > len(msg) && i > 20 {
				t.Fatalf("answer of %d bytes to %d", len(o.Send[0].Data), len(msg))
			}
		}
	}
	flood(5000)
	if b.guard.total != 20 || len(b.sas) != 20 || b.Stats().Cookies != 4980 {
		t.Errorf("%d half-open, %d SAs, %d cookies", b.guard.total, len(b.sas), b.Stats().Cookies)
	}
	s.call(a, "b", "net")
	for range 20 {
		flood(100)
		s.run(100 * time.Millisecond)
	}
	if len(s.pairs(a, b, "net")) != 1 {
		s.dump()
		t.Error("an honest peer did not get through")
	}
	s.run(2 * time.Minute)
	if b.guard.total != 0 || len(b.guard.perAddr) != 0 || len(b.inits) != 0 {
		t.Errorf("left: %d half-open, %d addresses, %d", b.guard.total, len(b.guard.perAddr), len(b.inits))
	}
	if n := b.has(Failed); n > 40*10 {
		t.Errorf("%d events", n)
	}
}

// withCookie is a message with the cookie of an answer in front of its payloads.
func withCookie(msg, answer []byte) []byte {
	n := len(answer) - headerLen
	b := append(append(append([]byte(nil), msg[:headerLen]...), answer[headerLen:]...), msg[headerLen:]...)
	b[headerLen], b[16] = msg[16], plNotify
	binary.BigEndian.PutUint32(b[24:], uint32(len(msg)+n))
	return b
}

// Whoever forges a peer's address fills no more than a part of what that address
// may hold: the peer, who answers cookies, is not shut out. It may hold no more
// than the limit itself.
func TestHalfOpenPerAddress(t *testing.T) {
	_, pb := pskPeers()
	pb.Endpoint = netip.AddrPort{}
	s := newSim(t, 3)
	b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Limits: Limits{HalfOpenPerAddr: 12}})
	msg := initMessage(t, 9)
	var answers []Datagram
	call := func(d Datagram) { answers = append(answers, b.Handle(s.now, d).Send...) }
	for i := range 50 {
		binary.BigEndian.PutUint64(msg, uint64(i+1))
		from := netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)), 500) // one /64
		call(Datagram{Local: netip.MustParseAddrPort("[2001:db8:1::1]:500"), Remote: from, Data: append([]byte(nil), msg...)})
	}
	if b.guard.total != 3 || len(answers) != 50 {
		t.Errorf("%d half-open for one /64 without cookies, want 3; %d answers", b.guard.total, len(answers))
	}
	for i, a := range answers[3:] {
		binary.BigEndian.PutUint64(msg, uint64(i+4))
		call(Datagram{Local: a.Local, Remote: a.Remote, Data: withCookie(msg, a.Data)})
	}
	if b.guard.total != 12 {
		t.Errorf("%d half-open for one /64, want 12", b.guard.total)
	}
}

// Cookies hold for one address, one nonce, one SPI, and not for ever.
func TestCookies(t *testing.T) {
	c, err := New(Config{Rand: testRand(1)})
	if err != nil {
		t.Fatal(err)
	}
	c.begin(simStart)
	h, ni, from := header{spiI: 7}, []byte("0123456789abcdef"), addrN(1)
	k, err := c.newCookie(h, ni, from)
	if err != nil {
		t.Fatal(err)
	}
	good := func(k []byte, h header, ni string, from netip.AddrPort) bool {
		return c.guard.goodCookie(k, h, []byte(ni), from)
	}
	if !good(k, h, string(ni), from) {
		t.Error("own cookie refused")
	}
	if good(k, header{spiI: 8}, string(ni), from) || good(k, h, "another nonce...", from) || good(k, h, string(ni), addrN(2)) ||
		good(nil, h, string(ni), from) || good(make([]byte, 33), h, string(ni), from) {
		t.Error("cookie holds for something else")
	}
	c.begin(simStart.Add(cookieLife + time.Second))
	c.newCookie(h, ni, from)
	if !good(k, h, string(ni), from) {
		t.Error("cookie refused right after the secret changed")
	}
	c.begin(simStart.Add(2*cookieLife + 2*time.Second))
	c.newCookie(h, ni, from)
	if good(k, h, string(ni), from) {
		t.Error("old cookie holds")
	}
}

// Forged and broken messages to an IKE SA that is up change nothing.
func TestForgery(t *testing.T) {
	s, a, b := upTwo(t, nil)
	var last Datagram
	s.tap = func(d Datagram) { last = d }
	s.take(a, a.Rekey(s.now, "", "net"))
	s.run(5 * time.Second)
	s.tap = nil
	before := fmt.Sprint(a.Status(), b.Status())
	for i := range last.Data {
		for _, bit := range []byte{1, 0x80} {
			m := append([]byte(nil), last.Data...)
			m[i] ^= bit
			for _, n := range []*node{a, b} {
				o := n.Handle(s.now, Datagram{Local: last.Remote, Remote: last.Local, Data: m})
				if len(o.Actions) != 0 {
					t.Fatalf("byte %d changed: %v", i, o.Actions)
				}
			}
		}
		b.Handle(s.now, Datagram{Local: last.Remote, Remote: last.Local, Data: last.Data[:i]})
	}
	s.run(time.Second)
	if got := fmt.Sprint(a.Status(), b.Status()); got != before {
		t.Errorf("the state has changed: %s, was %s", got, before)
	}
	if len(s.pairs(a, b, "net")) != 1 {
		t.Error("the child is gone")
	}
}

// The same calls with the same randomness have the same outcome, byte by byte.
func TestReplay(t *testing.T) {
	play := func() (out []byte) {
		s := newSim(t, 5)
		pa, pb := pskPeers()
		for _, p := range []*Peer{pa, pb} {
			p.Proposals = []Proposal{ikeProp(tCBC256, tPRF, tHMAC, tX25519)}
		}
		a, b := s.twoNodes(pa, pb)
		s.tap = func(d Datagram) { out = append(out, d.Data...) }
		s.loss, s.dup = 20, 20
		s.call(a, "b", "net")
		s.run(20 * time.Second)
		s.take(a, a.Rekey(s.now, "", ""))
		s.take(b, b.Rekey(s.now, "", "net"))
		s.run(time.Minute)
		return out
	}
	if x, y := play(), play(); string(x) != string(y) || len(x) == 0 {
		t.Errorf("two runs differ: %d and %d bytes", len(x), len(y))
	}
}

// Nothing that goes to people holds a secret.
func TestNoSecretsInEvents(t *testing.T) {
	s, a, b := upTwo(t, nil)
	s.take(a, a.Rekey(s.now, "", ""))
	s.run(5 * time.Second)
	for _, n := range []*node{a, b} {
		text := fmt.Sprintf("%+v %+v", n.log, n.Status())
		for _, x := range n.sad {
			for _, k := range [][]byte{x.In.Encryption, x.Out.Encryption, n.cfg.Peers[0].PSK} {
				for _, form := range []string{fmt.Sprintf("%x", k), fmt.Sprint(k), string(k)} {
					if len(k) > 0 && len(form) > 0 && strings.Contains(text, form) {
						t.Errorf("%s shows a secret", n.name)
					}
				}
			}
		}
	}
}
