package attack

import (
	"testing"
	"time"
)

// Fragments of messages that never end take no memory worth the name.
func TestFragmentsOfStrangers(t *testing.T) {
	a := attack(t, "G13", offPath, "4 MB of IKE fragments for each of 32 half-open IKE SAs")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		d := s.run(s.callers(""))
		addrs := s.addresses(32)
		if err := s.honest(v.far, "ann.example"); err != nil {
			t.Fatal(err)
		}
		was := highWater(t, d.Cmd.Process.Pid)
		for _, from := range addrs {
			c := newInitiator(t, s.beyond, from, v.self)
			if _, err := c.begin(groupX25519, 30); err != nil {
				t.Fatal(err)
			}
			c.mid = 1
			for n := uint16(1); n < 64; n++ {
				if _, err := c.conn.Write(c.fragment(exAuth, n, 64, make([]byte, 65000))); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Millisecond) // so that the socket holds them
			}
			c.close()
		}
		if err := s.honest(v.far, "ann.example"); err != nil {
			t.Errorf("an honest caller: %v", err)
		}
		more := highWater(t, d.Cmd.Process.Pid) - was
		if more > 40<<10 {
			t.Errorf("half-open IKE SAs of 32 addresses have taken %d KiB", more)
		}
		a.saw(v.name, "memory's highest: %d KiB more", more)
	})
}
