package rules

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/engine"
)

func TestSuites(t *testing.T) {
	for _, c := range []struct {
		want string
		s    IPsec
	}{
		{"[aes-256-cbc/hmac-sha2-256-128]", IPsec{Manual: &Manual{Encryption: "aes-256-cbc", Integrity: "hmac-sha2-256-128"}}},
		{"[hmac-sha1-96]", IPsec{AH: true, Manual: &Manual{Integrity: "hmac-sha1-96"}}},
		{"[aes-128-gcm-16]", IPsec{IKE: "p", Encryption: []string{"aes-128-gcm-16"}}},
		{"[chacha20-poly1305 aes-256-cbc/hmac-sha2-512-256]", IPsec{IKE: "p", Encryption: []string{"aes-256-cbc", "chacha20-poly1305"}, Integrity: []string{"hmac-sha2-512-256"}}},
		{"[aes-128-gmac hmac-sha2-256-128]", IPsec{IKE: "p", AH: true, Integrity: []string{"aes-128-gmac", "hmac-sha2-256-128"}}},
	} {
		if got := fmt.Sprint(suiteNames(&c.s)); got != c.want {
			t.Errorf("%+v: %s, want %s", c.s, got, c.want)
		}
	}
}

func suiteNames(s *IPsec) (names []string) {
	for _, suite := range s.Suites() {
		names = append(names, suite.String())
	}
	return names
}

// TestMayHaveSA: with whom the SAs of a block can be.
func TestMayHaveSA(t *testing.T) {
	addr := netip.MustParseAddr
	p := &Policy{IKE: []IKE{{Name: "lan", Remote: []Endpoint{{Range: engine.AddrRange{First: addr("10.0.0.0"), Last: addr("10.0.0.255")}}}}, {Name: "any"},
		{Name: "from", LocalEndpoint: addr("10.0.0.6")}, {Name: "dns", Remote: []Endpoint{{Name: "vpn.example.org"}}}}}
	for _, c := range []struct {
		want bool
		far  string
		s    IPsec
	}{
		{true, "10.0.0.7", IPsec{Manual: &Manual{}, RemoteEndpoint: addr("10.0.0.7")}},
		{false, "10.0.0.8", IPsec{Manual: &Manual{}, RemoteEndpoint: addr("10.0.0.7")}},
		{true, "10.0.0.8", IPsec{Manual: &Manual{}, RemoteEndpoint: addr("10.0.0.7"), Tunnel: true}},
		{true, "10.0.0.7", IPsec{Manual: &Manual{}, RemoteEndpoint: addr("10.0.0.7"), LocalEndpoint: addr("10.0.0.5")}},
		{false, "10.0.0.7", IPsec{Manual: &Manual{}, RemoteEndpoint: addr("10.0.0.7"), LocalEndpoint: addr("10.0.0.6")}},
		{true, "10.0.0.7", IPsec{Manual: &Manual{}, RemoteEndpoint: addr("10.0.0.7"), LocalEndpoint: addr("10.0.0.6"), Tunnel: true}},
		{true, "10.0.0.8", IPsec{IKE: "lan"}},
		{false, "10.0.1.8", IPsec{IKE: "lan"}},
		{false, "10.0.0.8", IPsec{IKE: "lan", RemoteEndpoint: addr("10.0.0.7")}},
		{true, "10.0.1.8", IPsec{IKE: "lan", Tunnel: true}},
		{true, "10.0.1.8", IPsec{IKE: "any"}},
		{true, "10.0.1.8", IPsec{IKE: "dns"}},
		{false, "10.0.0.8", IPsec{IKE: "from"}},
		{true, "10.0.0.8", IPsec{IKE: "from", Tunnel: true}},
	} {
		if got := p.MayHaveSA(&c.s, addr("10.0.0.5"), addr(c.far)); got != c.want {
			t.Errorf("%+v with %s: %t", c.s, c.far, got)
		}
	}
}
