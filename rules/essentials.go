package rules

import (
	"net/netip"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// essentials gives ipfw's own rules: what a host needs in order to have a
// network at all, and its policy's own IPsec peers. They stand before the
// user's rules: a rule that discards everything must not cut the host off
// from its neighbours, nor a rule that protects everything ask for protection
// of the messages that make the keys.
func essentials(p *Policy) []rule {
	var out []rule
	add := func(name, why, direction string, s engine.Selector) {
		out = append(out, rule{Rule: engine.Rule{
			Name: "essential-" + name, Description: why, Action: engine.Bypass, Essential: true,
			In: direction != "out", Out: direction != "in", Selector: s,
		}})
	}
	add("loopback", "the host talking to itself", "both", engine.Selector{Interfaces: []string{"lo"}})

	// RFC 4890 section 4.4.1: traffic that must not be dropped. Hop limit 255,
	// which proves that a neighbour sent it, is for the kernel to check
	// (RFC 4861 section 7.1).
	add("neighbors", "IPv6 neighbour discovery, RFC 4890 section 4.4.1", "both",
		icmpTypes(packet.ICMPv6, 135, 136))
	add("routers-out", "IPv6 router solicitation, RFC 4890 section 4.4.1", "out", icmpTypes(packet.ICMPv6, 133))
	add("routers-in", "IPv6 router advertisement, RFC 4890 section 4.4.1", "in", icmpTypes(packet.ICMPv6, 134))
	// Without reports, switches that listen to them do not deliver neighbour
	// solicitations, which are multicast.
	add("multicast-out", "IPv6 multicast listener reports, RFC 4890 section 4.4.1", "out",
		icmpTypes(packet.ICMPv6, 131, 132, 143))
	add("multicast-in", "IPv6 multicast listener queries, RFC 4890 section 4.4.1", "in", icmpTypes(packet.ICMPv6, 130))
	// The same for IPv4: queries come to a group (RFC 3376 section 4.1.12), and
	// reports go to one (section 4.2.14, RFC 2236 section 9). A switch that hears
	// none stops the streams of a group after some minutes.
	groups := []engine.AddrRange{prefixRange("224.0.0.0/4")}
	add("igmp-out", "IPv4 multicast group reports, RFC 3376", "out", engine.Selector{
		Protocols: []uint8{packet.IGMP}, Remote: groups})
	add("igmp-in", "IPv4 multicast group queries, RFC 3376", "in", engine.Selector{
		Protocols: []uint8{packet.IGMP}, Local: groups})
	// Which of them may come in or go out at all, those that speak of protected
	// traffic may not, says the engine before it asks any rule.
	add("errors-ipv6", "IPv6 path MTU discovery and loops, RFC 4890 section 4.4.1", "both", icmpTypes(packet.ICMPv6, 2, 3))
	add("errors-ipv4", "IPv4 path MTU discovery (RFC 1191) and loops (RFC 792)", "both", engine.Selector{
		Protocols: []uint8{packet.ICMP},
		ICMP: []engine.ICMPSel{
			{Protocol: packet.ICMP, Type: 3, Code: 4}, // fragmentation needed and DF set
			{Protocol: packet.ICMP, Type: 11, Code: -1},
		}})

	// The answers of a DHCP server come to the broadcast address, or to one
	// that the host does not have yet, so they belong to no flow. The RFCs say
	// on which ports servers and clients listen, and not from which they send:
	// there are servers and relays that answer from others, and from another
	// address. Asking for one kept nobody out, as a sender is free in its choice.
	add("dhcp", "DHCP client, RFC 2131 section 4.1", "out", engine.Selector{
		Protocols: []uint8{packet.UDP}, LocalPorts: ports(68), RemotePorts: ports(67)})
	add("dhcp-answers", "answers to the DHCP client, RFC 2131 section 4.1", "in", engine.Selector{
		Protocols: []uint8{packet.UDP}, LocalPorts: ports(68)})
	linkLocal := []engine.AddrRange{prefixRange("fe80::/10")}
	add("dhcpv6", "DHCPv6 client, RFC 8415 section 7.2", "out", engine.Selector{
		Protocols: []uint8{packet.UDP}, LocalPorts: ports(546), RemotePorts: ports(547), Local: linkLocal})
	add("dhcpv6-answers", "answers to the DHCPv6 client, RFC 8415 section 7.2", "in", engine.Selector{
		Protocols: []uint8{packet.UDP}, LocalPorts: ports(546), Local: linkLocal})

	for i := range p.IKE {
		k := &p.IKE[i]
		add("ike-"+k.Name, "IKE, and ESP in UDP, RFC 7296 section 2 and RFC 3948", "both", engine.Selector{
			Protocols: []uint8{packet.UDP}, LocalPorts: ports(500, 4500), Local: one(k.LocalEndpoint), Remote: k.ranges()})
	}
	for i := range p.IPsec {
		s := &p.IPsec[i]
		sel := engine.Selector{Protocols: []uint8{packet.ESP}, Local: one(s.LocalEndpoint), Remote: one(s.RemoteEndpoint)}
		if s.AH {
			sel.Protocols[0] = packet.AH
		}
		if k, ok := p.FindIKE(s.IKE); ok {
			if sel.Local == nil {
				sel.Local = one(k.LocalEndpoint)
			}
			if sel.Remote == nil {
				sel.Remote = k.ranges()
			}
		}
		add("ipsec-"+s.Name, "the sealed packets of ipsec "+s.Name, "both", sel)
		if s.Manual != nil && s.Encap == EncapUDP {
			sel.Protocols = []uint8{packet.UDP}
			sel.LocalPorts = ports(4500)
			add("ipsec-udp-"+s.Name, "the sealed packets of ipsec "+s.Name+" in UDP, RFC 3948", "both", sel)
		}
	}
	return out
}

func icmpTypes(proto uint8, types ...uint8) engine.Selector {
	s := engine.Selector{Protocols: []uint8{proto}}
	for _, t := range types {
		s.ICMP = append(s.ICMP, engine.ICMPSel{Protocol: proto, Type: t, Code: -1})
	}
	return s
}

func ports(list ...uint16) []engine.PortRange {
	var out []engine.PortRange
	for _, p := range list {
		out = append(out, engine.PortRange{First: p, Last: p})
	}
	return out
}

func prefixRange(s string) engine.AddrRange {
	p := netip.MustParsePrefix(s)
	return engine.AddrRange{First: p.Addr(), Last: lastAddr(p)}
}

// one gives the range of one address, or nothing for the invalid one.
func one(a netip.Addr) []engine.AddrRange {
	if !a.IsValid() {
		return nil
	}
	return []engine.AddrRange{{First: a, Last: a}}
}
