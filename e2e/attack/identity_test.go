package attack

import (
	"net/netip"
	"testing"
)

// One identity does not take all IKE SAs.
func TestSAsOfOneIdentity(t *testing.T) {
	a := attack(t, "G14", peer, "40 IKE SAs of one identity")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		s.run(s.callers(""))
		addrs := s.addresses(64)
		var all []*initiator
		for i := range 40 {
			c := newInitiator(t, s.beyond, addrs[i], v.self)
			defer c.close()
			if _, err := c.begin(groupX25519, 30); err != nil {
				t.Fatal(err)
			}
			me := idFQDN("greedy.example")
			list, err := c.request(exAuth, 30, append([]payloadOf{{plIDi, me}, c.authPSK(me, psk)},
				childPayloads(uint32(0x7001+i), netip.PrefixFrom(v.inner, v.inner.BitLen()), netip.PrefixFrom(v.self, v.self.BitLen()))...)...)
			if err == nil && find(list, plAUTH) != nil {
				all = append(all, c)
			}
		}
		alive := 0
		for _, c := range all { // who still gets an answer
			if _, err := c.request(exInfo, 1); err == nil {
				alive++
			}
		}
		if err := s.honest(addrs[50], "ann.example"); err != nil {
			t.Errorf("an honest caller: %v", err)
		}
		if alive > 16 {
			t.Errorf("one identity holds %d IKE SAs", alive)
		}
		if alive == 0 {
			t.Error("an authenticated peer holds no IKE SA at all")
		}
		a.saw(v.name, "%d of %d made are alive", alive, len(all))
	})
}
