package rules

import (
	"fmt"
	"net/netip"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
)

// DefaultEncryption is what IKE proposes where a policy names nothing, best
// first: the MUST and SHOULD of RFC 8221, without what is on its way out.
func DefaultEncryption() []string {
	return []string{"aes-256-gcm-16", "aes-128-gcm-16", "chacha20-poly1305", "aes-256-cbc", "aes-128-cbc"}
}

// DefaultIntegrity is DefaultEncryption for integrity algorithms.
func DefaultIntegrity() []string {
	return []string{"hmac-sha2-256-128", "hmac-sha2-384-192", "hmac-sha2-512-256"}
}

// Protocol is that of the block's SAs.
func (s *IPsec) Protocol() esp.Protocol {
	if s.AH {
		return esp.AH
	}
	return esp.ESP
}

// Mode is that of the block's SAs.
func (s *IPsec) Mode() esp.Mode {
	if s.Tunnel {
		return esp.Tunnel
	}
	return esp.Transport
}

// Suites are what the block's SAs may do to packets: the one suite of a manual
// block, or those that IKE proposes, best first. Combined ciphers, which have
// proposals of their own (RFC 7296 section 3.3), come before the others.
func (s *IPsec) Suites() []esp.Suite {
	if s.Manual != nil {
		suite, err := s.Manual.suite(s.AH)
		if err != nil {
			return nil // Load has refused it
		}
		return []esp.Suite{suite}
	}
	encryption, integrity := s.Encryption, s.Integrity
	if len(encryption) == 0 {
		encryption = DefaultEncryption()
	}
	if len(integrity) == 0 {
		integrity = DefaultIntegrity()
	}
	if s.AH {
		encryption = []string{""}
	}
	var list []esp.Suite
	add := func(encryption, integrity string) {
		if suite, err := esp.NewSuite(s.Protocol(), encryption, integrity); err == nil {
			list = append(list, suite)
		}
	}
	for _, e := range encryption {
		if encryptions[e].combined() {
			add(e, "")
		}
	}
	for _, e := range encryption {
		for _, i := range integrity {
			if !encryptions[e].combined() {
				add(e, i)
			}
		}
	}
	return list
}

// Joins says whether the block's SAs can be between this host at near and its
// peer at far, as packets in transport mode say it. In tunnel mode the packets'
// own addresses do not matter.
func (s *IPsec) Joins(near, far netip.Addr) bool {
	return s.Tunnel || (!s.LocalEndpoint.IsValid() || s.LocalEndpoint == near) &&
		(!s.RemoteEndpoint.IsValid() || s.RemoteEndpoint == far)
}

// MayHaveSA says whether there can be an SA of an ipsec block for packets between
// near and far: with keys set by hand there is, and IKE may make one.
func (p *Policy) MayHaveSA(s *IPsec, near, far netip.Addr) bool {
	peer, _ := p.FindIKE(s.IKE)
	return s.WhyNoSA(peer, near, far) == ""
}

// WhyNoSA says in words why there can be no SA of an ipsec block for packets
// between near and far; empty: there can be one. peer is the ike block that the
// keys come from, nil where they are set by hand.
func (s *IPsec) WhyNoSA(peer *IKE, near, far netip.Addr) string {
	switch {
	case s.Tunnel:
		return ""
	case s.LocalEndpoint.IsValid() && s.LocalEndpoint != near:
		return fmt.Sprintf("its SA is for this host's address %s only", s.LocalEndpoint)
	case peer != nil && peer.LocalEndpoint.IsValid() && peer.LocalEndpoint != near:
		return fmt.Sprintf("ike %q speaks from this host's address %s only", peer.Name, peer.LocalEndpoint)
	case s.RemoteEndpoint.IsValid() && s.RemoteEndpoint != far:
		return fmt.Sprintf("its SA is with %s only", s.RemoteEndpoint)
	case peer != nil && !peer.Covers(far):
		return fmt.Sprintf("ike %q does not speak with %s", peer.Name, far)
	}
	return ""
}

// DryRun gives an engine that judges packets as the daemon would, with all the
// SAs that this policy can have, and seals none. o sets its bounds.
func (p *Policy) DryRun(o engine.Options) *engine.Engine {
	o.Outbound = engine.Pretend(func(r *engine.Rule, in *engine.Input) bool {
		s, ok := p.FindIPsec(r.With)
		return ok && p.MayHaveSA(s, in.Packet.Src, in.Packet.Dst)
	})
	return engine.New(&p.Engine, o)
}
