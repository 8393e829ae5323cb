package attack

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
)

// Of RFC 7296 and RFC 4555.
const useTransport, natSource, natDest, mobikeSupported, updateAddresses = 16391, 16388, 16389, 16396, 16400

// transport asks for an ESP child in transport mode between two hosts.
func transportPayloads(spi uint32, local, remote netip.Addr) []payloadOf {
	return append(childPayloads(spi, netip.PrefixFrom(local, local.BitLen()), netip.PrefixFrom(remote, remote.BitLen())), note(useTransport))
}

// from sends a request with a forged source, then the same from home, which is
// where an answer may be heard.
func (c *initiator) from(s *site, forged netip.Addr, exchange byte, list ...payloadOf) []payloadOf {
	s.Helper()
	c.mid++
	msg := c.sealed(exchange, list...)
	s.wan.send(udp(s, forged, uint16(c.conn.LocalAddr().(*net.UDPAddr).Port), s.v.self, 500, string(msg)))
	var got []payloadOf
	_, _ = c.ask(msg, 3, func(b []byte) bool {
		if b[19]&0x20 != 0 && binary.BigEndian.Uint32(b[20:]) == c.mid {
			got = c.open(b)
		}
		return got != nil
	})
	return got
}

// Hosts that know each other by one authority, and speak in transport mode: each of
// them speaks for the address at which it hears, and for no other that it writes on
// its packets.
func TestAddressOfSomebodyElse(t *testing.T) {
	a := attack(t, "G6", peer, "takes the address of another host that it does not have")
	ways := map[string]func(s *site, c *initiator, victim netip.Addr) []payloadOf{
		"calls from there": func(s *site, c *initiator, victim netip.Addr) []payloadOf {
			me := idFQDN("thief.example")
			return c.from(s, victim, exAuth, append([]payloadOf{{plIDi, me}, c.authPSK(me, psk), note(mobikeSupported)},
				transportPayloads(0x7002, victim, s.v.self)...)...)
		},
		"calls from home, and moves there": func(s *site, c *initiator, victim netip.Addr) []payloadOf {
			me := idFQDN("thief.example")
			list, err := c.request(exAuth, 30, append([]payloadOf{{plIDi, me}, c.authPSK(me, psk), note(mobikeSupported)},
				transportPayloads(0x7002, s.v.far, s.v.self)...)...)
			if err != nil || find(list, plSA) == nil {
				s.Fatalf("the thief has no SA of his own: %v, %s", err, notice(list))
			}
			c.from(s, victim, exInfo, note(updateAddresses))
			c.lastNi = make([]byte, 32)
			_, _ = rand.Read(c.lastNi) // never fails: crypto/rand
			list, _ = c.request(exChild, 3, append([]payloadOf{{plNonce, c.lastNi}}, transportPayloads(0x7003, victim, s.v.self)...)...)
			c.ni, c.nr = c.lastNi, find(list, plNonce)
			return list
		},
	}
	for how, play := range ways {
		for _, v := range []*family{&v4, &v6} {
			a.play(t, v.name+" "+how, v, func(t *testing.T, v *family) {
				s := newSite(t, v)
				s.File("gateway/psk", psk+"\n")
				s.run(closed(native) + fmt.Sprintf(`
rule "hosts" {
  action         = "protect"
  with           = "hosts"
  direction      = "both"
  remote_address = %q
}
ipsec "hosts" {
  mode = "transport"
  ike  = "hosts"
}
ike "hosts" {
  local_id = "gateway.example"
  psk_file = "psk"
}
`, v.all))
				box := receive(t, s.gateway, v.any(9999))
				call := func(from netip.Addr) *initiator {
					c := newInitiator(t, s.beyond, from, v.self)
					t.Cleanup(c.close)
					c.more = []payloadOf{note(natSource, make([]byte, 20)...), note(natDest, make([]byte, 20)...)}
					if _, err := c.begin(groupX25519, 30); err != nil {
						t.Fatal(err)
					}
					return c
				}
				try := func(c *initiator, from netip.Addr, list []payloadOf, text string) {
					if find(list, plSA) != nil {
						c.transport(s, from, list, c.ni, c.nr).send(udp(t, from, 5000, v.self, 9999, text))
					}
				}
				victim := s.addresses(1)[0]
				evil := marker("evil")
				c := call(v.far)
				try(c, victim, play(s, c, victim), evil)
				// The honest use: the victim itself calls.
				good := marker("good")
				me := idFQDN("victim.example")
				c = call(victim)
				list, err := c.request(exAuth, 30, append([]payloadOf{{plIDi, me}, c.authPSK(me, psk)}, transportPayloads(0x7001, victim, v.self)...)...)
				if err != nil {
					t.Fatal(err)
				}
				try(c, victim, list, good)
				box.await(good)
				if box.has(evil) {
					t.Errorf("what the thief sends in the name of %s is delivered", victim)
				}
				a.saw(v.name+" "+how, "delivered in the name of another host: %v", box.has(evil))
			})
		}
	}
}
