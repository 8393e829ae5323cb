package rules

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
)

// maxLifetime bounds the lifetimes of SAs: what is longer is meant as "never".
const maxLifetime = 365 * 24 * time.Hour

// ipsecBlocks reads the ipsec blocks; the ike blocks are read before.
func (l *loader) ipsecBlocks() {
	seen := map[string]hcl.Range{}
	for _, b := range l.blocks["ipsec"] {
		s := l.ipsec(b)
		if len(b.Labels) > 0 {
			l.unique(b, seen)
			l.policy.IPsec = append(l.policy.IPsec, s)
		}
	}
}

// ipsec reads one ipsec block.
func (l *loader) ipsec(b *hclsyntax.Block) IPsec {
	var manual, outer *hclsyntax.Block
	k := l.open(b, []string{"mode", "protocol", "ike", "local_endpoint", "remote_endpoint", "encapsulation",
		"encryption", "integrity", "key_exchange", "replay_window", "esn",
		"lifetime", "lifetime_bytes", "lifetime_packets", "tfc_padding", "dummy_packets"},
		map[string]func(*hclsyntax.Block){
			"manual": func(in *hclsyntax.Block) { manual = in },
			"outer":  func(in *hclsyntax.Block) { outer = in },
		})
	s := IPsec{Name: k.name, Place: l.place(b.DefRange()), Places: k.places()}
	if k.require("mode", `"transport" between this host and its peer, "tunnel" for what is behind them too`) {
		s.Tunnel = k.word("mode", []string{"transport", "tunnel"}, 0) == 1
	}
	s.AH = k.word("protocol", []string{"esp", "ah"}, 0) == 1
	s.Encap = Encap(k.word("encapsulation", encapNames, int(EncapAuto)))
	if s.AH && s.Encap == EncapUDP {
		l.fail(k.at("encapsulation"), "Arguments do not fit", "AH cannot be carried in UDP (RFC 3948 is for ESP only), nor does it pass a NAT.")
	}
	s.LocalEndpoint, s.RemoteEndpoint = k.address("local_endpoint"), k.address("remote_endpoint")
	if a, z := s.LocalEndpoint, s.RemoteEndpoint; a.IsValid() && z.IsValid() && a.Is4() != z.Is4() {
		l.fail(k.at("remote_endpoint"), "Arguments do not fit", "local_endpoint and remote_endpoint are of different families; the traffic inside may be of either.")
	}
	s.ESN = k.flag("esn", manual == nil)
	k.replay(&s, manual != nil)
	s.Lifetime = k.duration("lifetime", time.Minute, maxLifetime)
	s.LifetimeBytes = k.size("lifetime_bytes")
	s.LifetimePackets = k.integer("lifetime_packets", 1, 1<<63, 0)

	s.TFC = int(k.integer("tfc_padding", 1, 65535, 0))
	s.Dummies, s.DummiesPer = k.rate("dummy_packets")
	for _, arg := range []string{"tfc_padding", "dummy_packets"} {
		if k.has(arg) && (!s.Tunnel || s.AH) {
			l.fail(k.at(arg), "Arguments do not fit", "Padding and dummy packets against traffic analysis are for ESP in tunnel mode (RFC 4303 sections 2.6 and 2.7).")
		}
	}
	if s.Dummies > 0 && s.DummiesPer/time.Duration(s.Dummies) < time.Millisecond {
		l.fail(k.at("dummy_packets"), "Wrong value", "dummy_packets is at most 1000 in a second.")
	}
	if outer != nil {
		s.Outer = l.outer(outer)
		if !s.Tunnel {
			l.fail(outer.DefRange(), "Arguments do not fit", "Only tunnel mode makes an outer header.")
		}
	}

	switch hasIKE := k.has("ike"); {
	case hasIKE && manual != nil:
		l.fail(k.at("ike"), "Arguments do not fit", "Keys come from ike or from a manual block, not from both.")
	case hasIKE:
		k.negotiated(&s)
	case manual == nil:
		l.missing(b.DefRange(), "Argument missing", `%s has no keys: name an ike block (ike = "NAME"), or, for tests and closed labs, write a manual block.`, k.subject())
	}
	if manual != nil {
		s.Manual = l.manual(manual, s.AH)
		if _, err := s.Manual.suite(s.AH); err != nil && !l.diags.HasErrors() {
			l.fail(manual.DefRange(), "Arguments do not fit", "%s.", upperFirst(err.Error()))
		}
		for _, arg := range []string{"encryption", "integrity", "key_exchange"} {
			if k.has(arg) {
				l.fail(k.at(arg), "Arguments do not fit", "%s outside of the manual block is what IKE may negotiate; with keys set by hand it stands in the manual block.", arg)
			}
		}
		k.require("remote_endpoint", "an SA set by hand is with one peer, and this is its address")
		if s.Tunnel {
			k.require("local_endpoint", "a tunnel set by hand has two ends")
		}
	}
	return s
}

// replay reads replay_window. Keys set by hand outlive the daemon, whose
// sequence numbers start again from 1: there the check is off unless asked for
// (RFC 4303 section 3.4.3).
func (k block) replay(s *IPsec, manual bool) {
	def := uint64(esp.DefaultWindow)
	if manual {
		def = 0
	}
	if manual && s.ESN {
		def = esp.DefaultWindow
	}
	n := k.integer("replay_window", 0, esp.MaxWindow, def)
	switch {
	case n > 0 && n < esp.MinWindow:
		k.l.fail(k.at("replay_window"), "Wrong value", "replay_window is a number of packets from %d to %d.", esp.MinWindow, esp.MaxWindow)
	case n == 0 && !manual:
		k.l.fail(k.at("replay_window"), "Wrong value", "Only keys set by hand may go without the replay check: replay_window is from %d to %d packets.", esp.MinWindow, esp.MaxWindow)
	case n == 0 && s.ESN:
		k.l.fail(k.at("esn"), "Arguments do not fit", "64-bit sequence numbers need the replay check (RFC 4303 section 2.2.1): give replay_window, or leave esn out.")
	}
	s.ReplayWindow = int(n)
}

// dfWords are in the order of esp's constants.
var dfWords = []string{"copy", "set", "clear"}

// outer reads how the outer header of a tunnel is made.
func (l *loader) outer(b *hclsyntax.Block) (o esp.Outer) {
	k := l.open(b, []string{"df", "dscp", "ecn", "ttl", "copy_flow_label"}, nil)
	if len(b.Labels) > 0 {
		l.fail(b.LabelRanges[0], "Name not wanted", "An outer block has no name.")
	}
	o.DF = esp.DF(k.word("df", dfWords, int(esp.CopyDF)))
	if it, ok := k.one("dscp", `"copy", or one DSCP`); ok && !isText(it, "copy") {
		var list []uint8
		if into(k, &list, parseDSCP)(it) {
			o.DSCP, o.SetDSCP = list[0], true
		}
	}
	o.NoECN = !k.flag("ecn", true)
	o.TTL = uint8(k.integer("ttl", 1, 255, 0))
	o.CopyFlowLabel = k.flag("copy_flow_label", false)
	return o
}

// negotiated reads what goes with IKE only.
func (k block) negotiated(s *IPsec) {
	l := k.l
	s.IKE = k.str("ike", "the name of an ike block")
	l.uses["ike "+s.IKE] = true
	s.Encryption = k.algorithms("encryption", encryptions)
	s.Integrity = k.algorithms("integrity", integrities)
	s.KeyExchange = k.algorithms("key_exchange", keyExchanges)
	for _, i := range s.Integrity {
		if !s.AH && integrities[i].Counter {
			l.fail(k.at("integrity"), "Arguments do not fit", "integrity %s is for AH (RFC 4543 section 4); in ESP it is encryption = %q, without integrity.", i, i)
		}
	}
	if s.AH && len(s.Encryption) > 0 {
		l.fail(k.at("encryption"), "Arguments do not fit", `AH does not encrypt: leave encryption out, or write protocol = "esp".`)
	}
	if !s.AH {
		k.integrityFits(s.Encryption, s.Integrity)
	}
	peer, ok := l.policy.FindIKE(s.IKE)
	if !ok {
		if names := l.labels("ike"); s.IKE != "" && !contains(names, s.IKE) {
			l.missing(k.at("ike"), "Unknown ike block", "%s.",
				noBlock("ike", s.IKE, names, fmt.Sprintf(`ike %q { remote_endpoint = "192.0.2.7", psk_file = "PATH" }, or with keys or certificates`, s.IKE)))
		}
		return
	}
	for i, a := range []netip.Addr{s.LocalEndpoint, s.RemoteEndpoint} {
		if linkLocal(a) {
			l.fail(k.at([]string{"local_endpoint", "remote_endpoint"}[i]), "Wrong value", "%s.", errLinkLocal(a.String()))
		}
	}
	if peer.RequestAddress && !s.Tunnel {
		l.fail(k.at("mode"), "Arguments do not fit", `ike %q asks for an address, and that lives inside a tunnel: mode = "tunnel".`, s.IKE)
	}
	// Whether sealed packets travel in UDP is settled once for a peer.
	for i := range l.policy.IPsec {
		o := &l.policy.IPsec[i]
		if o.IKE != s.IKE || o.IKE == "" || o.Name == s.Name {
			continue
		}
		for _, x := range [][2]*IPsec{{o, s}, {s, o}} {
			if udp, other := x[0], x[1]; udp.Encap == EncapUDP && (other.Encap == EncapNone || other.AH) {
				l.fail(k.b.DefRange(), "Arguments do not fit", `ipsec %q and ipsec %q share ike %q, whose packets all travel in UDP or none: with encapsulation = "udp" in %q, %q cannot go without. Give one of them an ike block of its own.`,
					o.Name, s.Name, s.IKE, udp.Name, other.Name)
			}
		}
	}
	if len(peer.Pool) > 0 && !s.Tunnel {
		l.fail(k.at("mode"), "Arguments do not fit", `ike %q gives addresses from a pool to its callers, and those live inside a tunnel: mode = "tunnel".`, s.IKE)
	}
	if s.RemoteEndpoint.IsValid() && !peer.Covers(s.RemoteEndpoint) {
		l.fail(k.at("remote_endpoint"), "Arguments do not fit", "remote_endpoint %s is not among the remote_endpoint of ike %q: the keys would come from somebody else.", s.RemoteEndpoint, s.IKE)
	}
	if s.LocalEndpoint.IsValid() && peer.LocalEndpoint.IsValid() && s.LocalEndpoint != peer.LocalEndpoint {
		l.fail(k.at("local_endpoint"), "Arguments do not fit", "ike %q speaks from %s, not from %s.", s.IKE, peer.LocalEndpoint, s.LocalEndpoint)
	}
}

// Covers reports whether the peer may be at the address, as far as the policy
// tells (a DNS name may be anywhere).
func (i *IKE) Covers(a netip.Addr) bool {
	for _, e := range i.Remote {
		if e.Name != "" || e.Range.First.Compare(a) <= 0 && a.Compare(e.Range.Last) <= 0 {
			return true
		}
	}
	return len(i.Remote) == 0
}

// integrityFits reports integrity that combined-mode ciphers do not take, and
// encryption that needs integrity beside it (RFC 8221 sections 4 and 5).
func (k block) integrityFits(encryption, integrity []string) {
	if len(encryption) == 0 {
		return
	}
	plain, combined := false, false
	for _, e := range encryption {
		combined = combined || encryptions[e].combined()
		plain = plain || !encryptions[e].combined()
	}
	if combined && !plain && len(integrity) > 0 {
		k.l.fail(k.at("integrity"), "Arguments do not fit", "%s protects integrity itself: leave integrity out.", encryption[0])
	}
	if plain && len(integrity) == 0 {
		k.l.missing(k.at("encryption"), "Argument missing", "%s does not protect integrity, and without it IPsec is not safe (RFC 8221 section 4): add integrity = \"hmac-sha2-256-128\".", firstPlain(encryption))
	}
}

func firstPlain(list []string) string {
	for _, e := range list {
		if !encryptions[e].combined() {
			return e
		}
	}
	return ""
}

// manual reads keys set by hand. Only CBC with HMAC: the counter of a
// combined-mode or counter-mode cipher would start again with the daemon and
// use a nonce twice under one key.
func (l *loader) manual(b *hclsyntax.Block, ah bool) *Manual {
	k := l.open(b, []string{"spi_in", "spi_out", "encryption", "integrity", "key_file"}, nil)
	m := &Manual{}
	if len(b.Labels) > 0 {
		l.fail(b.LabelRanges[0], "Name not wanted", "A manual block has no name.")
	}
	for _, arg := range []string{"spi_in", "spi_out"} {
		if k.require(arg, "both ends agree on a number from 256 on for each direction") {
			n := k.spi(arg)
			if arg == "spi_in" {
				m.SPIIn = n
			} else {
				m.SPIOut = n
			}
		}
	}
	if ah {
		if k.has("encryption") {
			l.fail(k.at("encryption"), "Arguments do not fit", `AH does not encrypt: leave encryption out, or write protocol = "esp".`)
		}
	} else if k.require("encryption", `as in "aes-256-cbc"`) {
		if list := k.algorithms("encryption", encryptions); len(list) > 1 {
			l.fail(k.at("encryption"), "Wrong value", "Keys set by hand are for one cipher: name one.")
		} else if len(list) == 1 {
			m.Encryption = list[0]
			if encryptions[list[0]].Counter {
				l.fail(k.b.Body.Attributes["encryption"].Expr.Range(), "Cipher not safe with keys set by hand",
					"%s with keys set by hand would use the same nonces again after a restart, which gives the key away (RFC 8221 section 3, RFC 4106 section 2): "+
						"use aes-256-cbc with hmac-sha2-256-128, or let IKE make the keys.", list[0])
			}
		}
	}
	if k.require("integrity", `as in "hmac-sha2-256-128"; IPsec without integrity cannot be written`) {
		if list := k.algorithms("integrity", integrities); len(list) > 1 {
			l.fail(k.at("integrity"), "Wrong value", "Keys set by hand are for one algorithm: name one.")
		} else if len(list) == 1 {
			m.Integrity = list[0]
			if integrities[list[0]].Counter {
				l.fail(k.b.Body.Attributes["integrity"].Expr.Range(), "Algorithm not safe with keys set by hand",
					"%s with keys set by hand would use the same nonces again after a restart (RFC 8221 section 3): use hmac-sha2-256-128.", list[0])
			}
		}
	}
	if k.require("key_file", "keys never stand in the policy itself") {
		m.KeyFile = k.path("key_file")
		if k.secretFile("key_file", m.KeyFile) && m.Integrity != "" && !integrities[m.Integrity].Counter && (ah || k.cbc(m)) {
			k.tryKeys(m)
		}
	}
	return m
}

// cbc reports a cipher that takes keys set by hand.
func (k block) cbc(m *Manual) bool { return m.Encryption != "" && !encryptions[m.Encryption].Counter }

// spi reads a security parameter index. RFC 4303 section 2.1: 0 is for local
// use and 1 to 255 are reserved by IANA.
func (k block) spi(arg string) uint32 {
	return uint32(k.integer(arg, 256, 1<<32-1, 0))
}

// address reads one unicast address.
func (k block) address(arg string) netip.Addr {
	it, ok := k.one(arg, "an address")
	if !ok {
		return netip.Addr{}
	}
	s, _ := it.text()
	a, err := parseAddr(s)
	switch {
	case err != nil:
		hint := ""
		if strings.Contains(s, "/") || isHostName(s) {
			hint = "; ranges and DNS names go into the ike block"
		}
		k.l.fail(it.r, "Wrong value", "%s is one address%s%s.", arg, notThis(it), hint)
		return netip.Addr{}
	case a.IsMulticast() || a.IsUnspecified():
		k.l.fail(it.r, "Wrong value", "%s is the address of one host, not %q.", arg, s)
		return netip.Addr{}
	}
	return a
}

// isHostName reports whether s can be a DNS name: letters, digits and dashes
// between dots (RFC 1123 section 2.1), the last part not a number.
func isHostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	parts := strings.Split(s, ".")
	for _, p := range parts {
		if p == "" || len(p) > 63 || p[0] == '-' || p[len(p)-1] == '-' {
			return false
		}
		for _, c := range []byte(p) {
			if c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
				return false
			}
		}
	}
	return strings.Trim(parts[len(parts)-1], "0123456789") != ""
}

// endpoint reads where a peer may be.
func parseEndpoint(s string) (Endpoint, error) {
	if isHostName(s) {
		return Endpoint{Name: strings.ToLower(strings.TrimSuffix(s, "."))}, nil
	}
	// An address on one link only, with or without the interface behind it.
	if a, err := netip.ParseAddr(s); err == nil && linkLocal(a) {
		return Endpoint{}, errLinkLocal(s)
	}
	r, err := parseAddrRange(s)
	if err == nil && linkLocal(r.First) && linkLocal(r.Last) {
		return Endpoint{}, errLinkLocal(s)
	}
	if err != nil && strings.Trim(s, "0123456789abcdef.:/-") != "" {
		err = fmt.Errorf("%q is neither an address, a range of them, nor a DNS name", s)
	}
	return Endpoint{Range: r}, err
}

func linkLocal(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }

// errLinkLocal: an SA is between two addresses (RFC 4301 section 4.4.2.1), and
// such an address means another host on each link.
func errLinkLocal(s string) error {
	return fmt.Errorf("%q is a link-local address, which may be another host on each interface: keys are agreed on with a global or unique local one (fd00::/8)", s)
}

// ranges gives the addresses of the peers, or nil when they may be anywhere.
func (i *IKE) ranges() []engine.AddrRange {
	var out []engine.AddrRange
	for _, e := range i.Remote {
		if e.Name != "" {
			return nil
		}
		out = append(out, e.Range)
	}
	return out
}
