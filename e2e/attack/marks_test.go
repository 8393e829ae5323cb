package attack

import (
	"fmt"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A program that may set marks (CAP_NET_RAW is enough) sets each there is, on
// loopback and on a socket that root has made for it. None opens anything.
func TestMarksOfOthers(t *testing.T) {
	a := attack(t, "G8", rawUser, "SO_MARK on loopback, then the same ports")
	for _, offload := range []string{"flow", "none"} {
		for _, v := range []*family{&v4, &v6} {
			a.play(t, v.name+" "+offload, v, func(t *testing.T, v *family) {
				s, f, outside, policy := markSite(t, v, offload)
				s.run(policy)
				text := marker("marked")
				for _, to := range []string{outside.String(), at(v.inner, 7777).String()} {
					as(t, s.gateway, []uintptr{unix.CAP_NET_RAW}, nil, "prime", v.self.String(), to, text).end(t)
				}
				f.fence()
				bad := s.wan.inClear(text)
				if len(bad) > 0 {
					t.Errorf("%d packets pass a policy that discards or protects them: %s", len(bad), say(bad))
				}
				a.saw(v.name+" "+offload, "in the clear: %d of 512", len(bad))
			})
		}
	}
}

// The same on a socket that root has made and handed on.
func TestMarksOnHandedSocket(t *testing.T) {
	a := attack(t, "G8", rawUser, "SO_MARK on a socket that root has made")
	a.each(t, func(t *testing.T, v *family) {
		s, f, outside, policy := markSite(t, v, "flow")
		s.run(policy)
		var file *os.File
		family, self, _ := sockaddrs(v.self, outside)
		if err := s.gateway.Do(func() error {
			fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			file = os.NewFile(uintptr(fd), "socket")
			return unix.Bind(fd, self)
		}); err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		text := marker("handed")
		for _, to := range []string{outside.String(), at(v.inner, 7777).String()} {
			as(t, s.gateway, []uintptr{unix.CAP_NET_RAW}, []*os.File{file}, "handed", to, text).end(t)
		}
		f.fence()
		bad := s.wan.inClear(text)
		if len(bad) > 0 {
			t.Errorf("%d packets pass a policy that discards or protects them: %s", len(bad), say(bad))
		}
		a.saw(v.name, "in the clear: %d of 512", len(bad))
	})
}

// markSite is a gateway that lets its programs send in the clear to one port
// only, and protects what goes to the far network.
func markSite(t *testing.T, v *family, offload string) (s *site, f *far, outside netip.AddrPort, policy string) {
	t.Helper()
	s = newSite(t, v)
	w := way{mode: "tunnel", protocol: "esp", offload: offload}
	block, f := s.link("peer", 0x1001, w)
	policy = closed(w) + v.gatewayRules() + block + fmt.Sprintf(`
rule "honest" {
  action         = "bypass"
  direction      = "out"
  protocol       = "udp"
  remote_address = %q
  remote_port    = 7778
}
`, v.far)
	return s, f, at(v.far, 7777), policy
}
