package attack

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// seals is an SA that an initiator sends by.
type seals struct {
	s  *site
	sa *esp.SA
}

// child makes the SA of an answer that has agreed to one: its SPI is the
// gateway's, its keys come from the nonces.
func (c *initiator) child(s *site, from netip.Addr, list []payloadOf, ni, nr []byte) *seals {
	s.Helper()
	return c.sealing(s, esp.Tunnel, from, list, ni, nr)
}

// transport is child in transport mode.
func (c *initiator) transport(s *site, from netip.Addr, list []payloadOf, ni, nr []byte) *seals {
	s.Helper()
	return c.sealing(s, esp.Transport, from, list, ni, nr)
}

func (c *initiator) sealing(s *site, mode esp.Mode, from netip.Addr, list []payloadOf, ni, nr []byte) *seals {
	s.Helper()
	p := find(list, plSA)
	if len(p) < 12 {
		s.Fatalf("no SA in the answer: %s", notice(list))
	}
	key := prf(c.d, ni, nr, []byte{1})
	key = append(key, prf(c.d, key, ni, nr, []byte{2})...)
	suite, err := esp.NewSuite(esp.ESP, "aes-256-gcm-16", "")
	if err != nil {
		s.Fatal(err)
	}
	sa, err := esp.New(esp.Config{SPI: binary.BigEndian.Uint32(p[8:]), Direction: esp.Out, Mode: mode, Suite: suite,
		EncryptionKey: esp.NewKey(key[:36]), Src: from, Dst: s.v.self})
	if err != nil {
		s.Fatal(err)
	}
	return &seals{s, sa}
}

func (k *seals) send(inner []byte) {
	k.s.Helper()
	b, _, fault := k.sa.Seal(nil, inner, time.Now().UnixNano())
	if fault != esp.OK {
		k.s.Fatalf("seal: %v", fault)
	}
	k.s.wan.send(b)
}

// configRequest asks for an address of a family.
func configRequest(v *family) payloadOf {
	typ := byte(1)
	if v.name == "v6" {
		typ = 8
	}
	return payloadOf{plCP, []byte{1, 0, 0, 0, 0, typ, 0, 0}}
}

// leased is the address that an answer lends.
func leased(list []payloadOf) netip.Addr {
	b := find(list, plCP)
	for b = b[min(4, len(b)):]; len(b) >= 4; {
		n := int(binary.BigEndian.Uint16(b[2:]))
		if typ := b[1]; len(b) >= 4+n && (typ == 1 && n == 4 || typ == 8 && n >= 16) {
			a, _ := netip.AddrFromSlice(b[4 : 4+min(n, 16)]) // of IPv6 a prefix length follows
			return a
		}
		b = b[min(4+n, len(b)):]
	}
	return netip.Addr{}
}

// A caller gets the addresses that were lent to him, and speaks for no other.
func TestPoolAddresses(t *testing.T) {
	a := attack(t, "G6", peer, "takes a pool's address that was not lent to him")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		s.File("gateway/psk", psk+"\n")
		pool := map[string]string{"v4": "10.99.0.0/24", "v6": "fd99::/64"}[v.name]
		s.run(closed(native) + fmt.Sprintf(`
rule "callers" {
  action         = "protect"
  with           = "calls"
  direction      = "forward"
  opened_by      = "remote"
  local_address  = %q
  remote_address = %q
}
ipsec "calls" {
  mode = "tunnel"
  ike  = "calls"
}
ike "calls" {
  local_id = "gateway.example"
  psk_file = "psk"
  pool     = [%q]
}
`, v.lanNet, pool, pool))
		box := receive(t, s.lan, v.any(9999))
		all, lan := netip.MustParsePrefix(pool), netip.MustParsePrefix(v.lanNet)
		call := func(from netip.Addr, id string, more ...payloadOf) (*initiator, []payloadOf) {
			c := newInitiator(t, s.beyond, from, v.self)
			t.Cleanup(c.close)
			if _, err := c.begin(groupX25519, 30); err != nil {
				t.Fatal(err)
			}
			me := idFQDN(id)
			list, err := c.request(exAuth, 30, append([]payloadOf{{plIDi, me}, c.authPSK(me, psk)}, more...)...)
			if err != nil {
				t.Fatal(err)
			}
			return c, list
		}
		// The honest caller has what was lent to him, and it works.
		c, list := call(v.far, "victim.example", append([]payloadOf{configRequest(v)}, childPayloads(0x7001, all, lan)...)...)
		victim := leased(list)
		if !all.Contains(victim) {
			t.Fatalf("the honest caller is lent %v: %s", victim, notice(list))
		}
		good := marker("good")
		c.child(s, v.far, list, c.ni, c.nr).send(udp(t, victim, 5000, v.lanHost, 9999, good))
		box.await(good)

		addrs := s.addresses(3)
		took := 0
		evil := marker("evil")
		try := func(how string, c *initiator, from netip.Addr, list []payloadOf, ni, nr []byte) {
			if find(list, plSA) == nil || find(list, plTSi) == nil {
				return
			}
			sa := c.child(s, from, list, ni, nr)
			sa.send(udp(t, victim, 5001, v.lanHost, 9999, evil+how))
			sa.send(udp(t, all.Masked().Addr().Next().Next().Next().Next(), 5001, v.lanHost, 9999, evil+how))
			time.Sleep(2 * grace)
			if box.has(evil + how) {
				took++
				t.Errorf("%s: what he sends in the name of the victim's address, or of one that nobody has, is delivered", how)
			}
		}
		for i, how := range []string{"asks for no address", "asks for no child"} {
			var more []payloadOf
			if i == 0 {
				more = childPayloads(0x7002, all, lan)
			}
			c, list := call(addrs[i], fmt.Sprintf("thief%d.example", i), more...)
			try(how, c, addrs[i], list, c.ni, c.nr)
			try(how+", then makes a child", c, addrs[i], c.another(v, 0x7003, netip.PrefixFrom(victim, victim.BitLen()), lan), c.lastNi, c.lastNr)
			try(how+", then makes a child for all", c, addrs[i], c.another(v, 0x7004, all, lan), c.lastNi, c.lastNr)
		}
		c, list = call(addrs[2], "thief2.example", append([]payloadOf{configRequest(v)}, childPayloads(0x7005, all, lan)...)...)
		if own := leased(list); own == victim {
			t.Errorf("two callers have %v", own)
		}
		try("has an address of his own", c, addrs[2], list, c.ni, c.nr)
		try("has an address of his own, and makes another child", c, addrs[2], c.another(v, 0x7006, netip.PrefixFrom(victim, victim.BitLen()), lan), c.lastNi, c.lastNr)
		a.saw(v.name, "ways by which he speaks for others: %d of 6", took)
	})
}

// another makes a child by CREATE_CHILD_SA, and gives the answer.
func (c *initiator) another(v *family, spi uint32, local, remote netip.Prefix) []payloadOf {
	c.lastNi = make([]byte, 32)
	_, _ = rand.Read(c.lastNi)
	list, err := c.request(exChild, 30, append([]payloadOf{{plNonce, c.lastNi}}, childPayloads(spi, local, remote)...)...)
	if err != nil {
		return nil // the IKE SA is gone: refused as well
	}
	c.lastNr = find(list, plNonce)
	return list
}

// Notifications and Deletes in the clear change nothing about an IKE SA that is
// up, whoever sends them and from wherever.
func TestForgedNotifications(t *testing.T) {
	a := attack(t, "G17", onPath, "Delete, INVALID_SPI and errors in the clear, with the right SPIs")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		s.run(s.callers(""))
		box := receive(t, s.gateway, v.any(9999))
		c := newInitiator(t, s.beyond, v.far, v.self)
		defer c.close()
		if _, err := c.begin(groupX25519, 30); err != nil {
			t.Fatal(err)
		}
		me := idFQDN("ann.example")
		list, err := c.request(exAuth, 30, append([]payloadOf{{plIDi, me}, c.authPSK(me, psk)},
			childPayloads(0x7001, netip.PrefixFrom(v.inner, v.inner.BitLen()), netip.PrefixFrom(v.self, v.self.BitLen()))...)...)
		if err != nil {
			t.Fatal(err)
		}
		sa := c.child(s, v.far, list, c.ni, c.nr)
		spi := find(list, plSA)[8:12]
		forgeries := [][]payloadOf{
			{{plDelete, []byte{1, 0, 0, 0}}},
			{{plDelete, append([]byte{3, 4, 0, 1}, spi...)}},
			{note(11, spi...)}, {note(4)}, {note(authFailed)}, {note(16384)}, nil, // INVALID_SPI, INVALID_IKE_SPI, INITIAL_CONTACT
		}
		for _, forged := range forgeries {
			for mid := range uint32(4) {
				for _, flags := range []byte{0x08, 0x00, 0x28, 0x20} {
					kind, b := chain(forged)
					msg := append(c.header(kind, exInfo, mid, 28+len(b)), b...)
					msg[19] = flags
					for _, port := range []uint16{uint16(c.conn.LocalAddr().(*net.UDPAddr).Port), 500} {
						s.wan.send(udp(t, v.far, port, v.self, 500, string(msg)))
						s.wan.send(udp(t, v.stranger, port, v.self, 500, string(msg)))
					}
				}
			}
		}
		// A whole exchange that was heard is sent again, and with one bit changed.
		again := c.sealed(exInfo, payloadOf{plDelete, []byte{1, 0, 0, 0}})
		again[len(again)-1] ^= 1
		s.wan.send(udp(t, v.far, uint16(c.conn.LocalAddr().(*net.UDPAddr).Port), v.self, 500, string(again)))
		good := marker("good")
		sa.send(udp(t, v.inner, 5000, v.self, 9999, good))
		box.await(good)
		if _, err := c.request(exInfo, 30); err != nil {
			t.Errorf("the IKE SA does not answer any more: %v", err)
		}
		a.saw(v.name, "%d forgeries; the IKE SA and its child live", len(forgeries)*4*4*4)
	})
}

// Packets that an attacker has recorded and sends again, from another address or
// port, with a bit changed, or cut: none is delivered, and nothing is sent to him.
func TestReplayAndTampering(t *testing.T) {
	a := attack(t, "G18", onPath, "sealed packets again, altered, cut, from elsewhere")
	for _, w := range []way{{mode: "tunnel", protocol: "esp", window: 64}, {mode: "transport", protocol: "esp", window: 64}, {mode: "tunnel", protocol: "esp", window: 64, udp: true}, {mode: "tunnel", protocol: "ah", window: 64}, {mode: "transport", protocol: "ah", window: 64}} {
		for _, v := range []*family{&v4, &v6} {
			a.play(t, v.name+" "+w.String(), v, func(t *testing.T, v *family) {
				s := newSite(t, v)
				block, f := s.link("peer", 0x1001, w)
				rules := v.gatewayRules()
				if w.mode == "transport" {
					_, rules, _ = strings.Cut(strings.ReplaceAll(rules, v.innerNet, v.far.String()), "\n}\n")
				}
				s.run(closed(w) + rules + block)
				box := receive(t, s.gateway, v.any(9999))
				good := marker("good")
				recorded := f.seal(f.udp(5000, "self", 9999, good))
				s.wan.send(recorded)
				box.await(good)
				f.fence()
				sent := 0
				send := func(b []byte) { s.wan.send(b); sent++ }
				for range 5 {
					send(recorded)
				}
				evil := marker("evil")
				fresh := f.seal(f.udp(5000, "self", 9999, evil))
				head := map[string]int{"v4": 20, "v6": 40}[v.name]
				for i := head; i < len(fresh); i += 3 { // every third byte behind the IP header
					b := bytes.Clone(fresh)
					b[i] ^= 0x10
					if w.udp && i < head+8 {
						continue // the UDP header is not protected, and its checksum may say so
					}
					send(b)
				}
				for _, n := range []int{head + 1, head + 8, len(fresh) - 1, len(fresh) - 16} {
					b := bytes.Clone(fresh[:n])
					if v.name == "v4" {
						binary.BigEndian.PutUint16(b[2:], uint16(n))
						b[10], b[11] = 0, 0
						binary.BigEndian.PutUint16(b[10:], packet.Checksum(b[:20], 0))
					} else {
						binary.BigEndian.PutUint16(b[4:], uint16(n-40))
					}
					send(b)
				}
				f.fence()
				if box.count(good) != 1 || box.has(evil) || len(box.got) != 1 {
					t.Errorf("delivered: the recorded packet %d times, an altered one: %v, %d in all", box.count(good), box.has(evil), len(box.got))
				}
				a.saw(v.name+" "+w.String(), "%d sent; delivered: %d", sent, len(box.got)-1)
				// The honest use: the packet itself, unaltered, is still good.
				s.wan.send(fresh)
				box.await(evil)
			})
		}
	}
}
