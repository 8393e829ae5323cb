package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/rules"
)

// protection is what becomes of a packet that a rule protects: what
// `ipfw explain --json` says of the SA it goes under or has to come out of.
type protection struct {
	IPsec string `json:"ipsec"` // the block
	Place string `json:"place"`
	// Seals says that this host seals the packet; else the packet has to
	// come sealed.
	Seals    bool   `json:"seals"`
	Protocol string `json:"protocol"` // "esp" or "ah"
	Mode     string `json:"mode"`     // "transport" or "tunnel"
	Keys     string `json:"keys"`     // "manual" or "ike"
	IKE      string `json:"ike,omitempty"`
	// RemoteAuth is how callers prove themselves, where it is not as this
	// host does: "EAP-TLS".
	RemoteAuth string `json:"remote_auth,omitempty"`
	SPI        uint32 `json:"spi,omitempty"` // of keys set by hand
	// Source and Destination are those of the sealed packet: an address, or
	// a DNS name; absent where the route or the peer decides.
	Source      string `json:"source,omitempty"`
	Destination string `json:"destination,omitempty"`
	// Encapsulation is ESP in UDP: "none", "udp", or "auto": where a NAT
	// is in the way, or it is faster.
	Encapsulation string `json:"encapsulation"`
	ESN           bool   `json:"esn"`
	// NoSA says why there can be no SA for this packet; absent: there can.
	NoSA string `json:"no_sa,omitempty"`

	PathMTU int `json:"path_mtu"`     // that the sizes are for, in bytes
	Length  int `json:"length_bytes"` // of the packet in the clear, in bytes
	// Forms are the suite of keys set by hand, or those that IKE proposes,
	// best first; each without UDP and with it where both may be.
	Forms []sealedForm `json:"forms,omitempty"`
}

// sealedForm is one way in which the packet may be sealed. Sizes are in bytes.
type sealedForm struct {
	Suite        string `json:"suite"`
	UDP          bool   `json:"udp"`
	SealedLength int    `json:"sealed_length_bytes"` // of this packet
	InnerMTU     int    `json:"inner_mtu"`           // the longest packet that fits the path
	TCPMSS       int    `json:"tcp_mss"`             // the longest TCP segment that does
}

// protectionOf gives what becomes of a packet that policy protects, nil for
// any other.
func protectionOf(p *rules.Policy, o *engine.Outcome, mtu int) *protection {
	if o.Verdict != engine.Protect || o.Rule == nil {
		return nil
	}
	s, ok := p.FindIPsec(o.Rule.With)
	if !ok {
		return nil
	}
	x := &protection{
		IPsec: s.Name, Place: s.Place, Seals: o.Leaves(),
		Protocol: s.Protocol().String(), Mode: s.Mode().String(), Keys: "ike", IKE: s.IKE,
		Encapsulation: s.Encap.String(), ESN: s.ESN, PathMTU: mtu, Length: o.Input.Packet.Len,
	}
	peer, ok := p.FindIKE(s.IKE)
	if ok && peer.EAP {
		x.RemoteAuth = "EAP-TLS"
	}
	near, far := o.Input.Packet.Src, o.Input.Packet.Dst
	if !x.Seals {
		near, far = far, near
	}
	if m := s.Manual; m != nil {
		x.Keys, x.SPI = "manual", m.SPIIn
		if x.Seals {
			x.SPI = m.SPIOut
		}
	}
	if s.AH || s.Manual != nil && s.Encap == rules.EncapAuto {
		x.Encapsulation = rules.EncapNone.String() // nobody looks for a NAT
	}
	if x.NoSA = s.WhyNoSA(peer, near, far); x.NoSA != "" {
		return x
	}
	x.Source, x.Destination = near.String(), far.String()
	like := far
	if s.Tunnel {
		x.Source, x.Destination, like = tunnelEnds(p, s, far)
	}
	if !x.Seals {
		x.Source, x.Destination = x.Destination, x.Source
	}
	x.forms(s, o, like)
	return x
}

// tunnelEnds gives the addresses of a tunnel, empty where they are not known,
// and one of the family that they are of; without any, that of the packet.
func tunnelEnds(p *rules.Policy, s *rules.IPsec, packet netip.Addr) (local, remote string, like netip.Addr) {
	like = packet
	name := func(a netip.Addr) string {
		if !a.IsValid() {
			return ""
		}
		like = a
		return a.String()
	}
	here, there := s.LocalEndpoint, s.RemoteEndpoint
	if peer, ok := p.FindIKE(s.IKE); ok {
		if !here.IsValid() {
			here = peer.LocalEndpoint
		}
		if len(peer.Remote) == 1 && !there.IsValid() {
			if r := peer.Remote[0]; r.Name != "" {
				remote = r.Name
			} else if r.Range.First == r.Range.Last {
				there = r.Range.First
			}
		}
	}
	local = name(here)
	if remote == "" {
		remote = name(there)
	}
	return local, remote, like
}

// forms fills in the sizes for every suite, sealed between addresses of like's
// family.
func (x *protection) forms(s *rules.IPsec, o *engine.Outcome, like netip.Addr) {
	pkt := &o.Input.Packet
	for _, suite := range s.Suites() {
		for _, udp := range []bool{false, true} {
			if only := x.Encapsulation; udp && only == "none" || !udp && only == "udp" {
				continue
			}
			c := esp.Config{Suite: suite, Mode: s.Mode(), Dst: like, TFC: s.TFC}
			if udp {
				c.Encap = esp.Encap{SrcPort: rules.NATPort, DstPort: rules.NATPort}
			}
			shape := esp.ShapeOf(&c)
			x.Forms = append(x.Forms, sealedForm{suite.String(), udp,
				shape.SealedLenOf(pkt.Bytes), shape.MaxInner(x.PathMTU), shape.MSS(x.PathMTU, pkt.Version == 6)})
		}
	}
}

// protection prints what becomes of a packet for people: the suites that are
// likely, or all.
func (a *app) protection(x *protection, all bool) {
	verb := "Must come sealed under"
	if x.Seals {
		verb = "Sealed under"
	}
	keys := "keys set by hand"
	if x.IKE != "" {
		keys = fmt.Sprintf("keys from ike %q", x.IKE)
		if x.RemoteAuth != "" {
			keys += ", which waits for callers with " + x.RemoteAuth
		}
	}
	a.printf("\n%s ipsec %q, %s: %s, %s mode, %s\n", verb, x.IPsec, x.Place, strings.ToUpper(x.Protocol), x.Mode, keys)
	if x.NoSA != "" {
		a.printf("  no SA can be there for this packet: %s\n", x.NoSA)
		return
	}
	from, to := orWords(x.Source, "the address that the route gives"), orWords(x.Destination, "the peer")
	if !x.Seals {
		from, to = orWords(x.Source, "the peer"), orWords(x.Destination, "any address of this host")
	}
	spi, udp := "", ""
	if x.SPI != 0 {
		spi = fmt.Sprintf(", SPI %#x", x.SPI)
	}
	switch x.Encapsulation {
	case "udp":
		udp = ", in UDP"
	case "auto":
		udp = ", in UDP where that is needed or faster"
	}
	a.printf("  on the wire: %s from %s to %s%s%s\n", x.Protocol, from, to, spi, udp)

	best := ""
	if x.Keys == "ike" && len(x.Forms) > 1 {
		best = ", the best first"
	}
	a.printf("  sizes in bytes, for a path of %d%s:\n", x.PathMTU, best)
	t := textTable{head: []string{"  THIS PACKET", "INNER MTU", "TCP MSS", "SUITE"}, right: "111"}
	row := func(f sealedForm, name string) {
		t.add("", fmt.Sprintf("  %d -> %d", x.Length, f.SealedLength), fitting(f.InnerMTU), fitting(f.TCPMSS), name)
	}
	groups, others := groupForms(x.Forms), 0
	if !all && len(groups) > 1 {
		for _, g := range groups[1:] {
			others += len(g.suites)
		}
		groups = groups[:1]
	}
	for _, g := range groups {
		row(g.forms[0], strings.Join(g.suites, ", "))
		if len(g.forms) > 1 {
			row(g.forms[1], "  in UDP")
		}
	}
	t.print(a, -1)
	if others > 0 {
		a.printf("  %s\n", a.paint(dim, "and "+plural(uint64(others), "more suite")+" (--all shows them)"))
	}
}

func orWords(s, words string) string {
	if s == "" {
		return words
	}
	return s
}

// fitting gives a size, or says that nothing fits.
func fitting(n int) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprint(n)
}

// formGroup is suites that make the same sizes; forms holds one, or with UDP
// and without.
type formGroup struct {
	suites []string
	forms  []sealedForm
}

// groupForms puts suites of the same sizes together, in the order of the first.
func groupForms(list []sealedForm) (groups []formGroup) {
	for len(list) > 0 {
		n := slices.IndexFunc(list, func(f sealedForm) bool { return f.Suite != list[0].Suite })
		if n < 0 {
			n = len(list)
		}
		g := formGroup{[]string{list[0].Suite}, list[:n]}
		list = list[n:]
		if i := slices.IndexFunc(groups, g.like); i >= 0 {
			groups[i].suites = append(groups[i].suites, g.suites...)
		} else {
			groups = append(groups, g)
		}
	}
	return groups
}

// like says whether two groups have the same sizes.
func (g formGroup) like(other formGroup) bool {
	return slices.EqualFunc(g.forms, other.forms, func(a, b sealedForm) bool {
		a.Suite = b.Suite
		return a == b
	})
}
