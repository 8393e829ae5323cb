package ike

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// The domains of a gateway come to its callers with its DNS servers (RFC 8598),
// and stay through a rekey of the IKE SA; without a server none are told or taken.
func TestSplitDNS(t *testing.T) {
	for _, server := range []bool{true, false} {
		s := newSim(t, 8)
		pa, pb := pskPeers()
		pa.RequestIPv4 = true
		pb.Endpoint, pb.Pools = netip.AddrPort{}, []netip.Prefix{netip.MustParsePrefix("10.5.0.0/24")}
		pb.Domains = []string{"corp.example", "lab.example"}
		if server {
			pb.DNS = []netip.Addr{netip.MustParseAddr("10.1.0.53")}
		}
		a, _ := s.twoNodes(pa, pb)
		s.call(a, "b", "net")
		s.run(time.Minute)
		for range 2 {
			var want []string
			if server {
				want = pb.Domains
			}
			n := 0
			for _, x := range a.sad {
				if n++; !slices.Equal(x.Domains, want) {
					t.Errorf("with a server %v: %q", server, x.Domains)
				}
			}
			if n == 0 {
				s.dump()
				t.Fatal("no child")
			}
			s.take(a, a.Rekey(s.now, "b", ""))
			s.run(time.Minute)
			s.take(a, a.Rekey(s.now, "b", "net"))
			s.run(time.Minute)
		}
	}
}

// A name that could be more than a name on a command line is none.
func TestDomainsOfStrangers(t *testing.T) {
	for name, want := range map[string]string{
		"corp.example": "corp.example", "Corp.Example.": "corp.example", "_tcp.corp.example": "_tcp.corp.example", "xn--bro-hoa.example": "xn--bro-hoa.example", "local": "local",
		"": "", ".": "", "a..b": "", ".a": "", "-a.example": "", "--help": "", "a-": "", "~.": "", "a b": "", "a;b": "", "a\nnameserver 192.0.2.1": "", "a\x00": "", "$(x)": "", "büro.example": "", "a/b": "", "*.example": "",
		strings.Repeat("a", 64): "", strings.Repeat("a.", 127) + "a": "",
	} {
		if got, ok := domainOf([]byte(name)); got != want || ok != (want != "") {
			t.Errorf("%q is read as %q, %v", name, got, ok)
		}
	}
}

func FuzzDomain(f *testing.F) {
	f.Add([]byte("corp.example"))
	f.Add([]byte("-a.example."))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, ok := domainOf(b)
		if !ok {
			return
		}
		if strings.Trim(d, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || strings.HasPrefix(d, "-") || strings.HasPrefix(d, ".") || len(d) > 253 {
			t.Errorf("%q is read as %q", b, d)
		}
		if again, ok := domainOf([]byte(d)); !ok || again != d {
			t.Errorf("%q is read as %q, and that as %q", b, d, again)
		}
	})
}
