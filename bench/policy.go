package main

import (
	"fmt"
	"strings"
)

// The ports that servers listen on.
const (
	iperfPort = 5201
	udpPort   = 5202
	webPort   = 80
)

// flowPorts are open to UDP, one flow each, for what 100,000 flows take.
const (
	flowPortFirst = 10000
	flowPortLast  = 59999
)

// filler is a rule that no packet of the benchmark matches, but that has to be
// told apart from those that it does match: it discards TCP or UDP from a host
// or network of 198.18.0.0/15 (RFC 2544) to one port.
type filler struct {
	protocol string
	from     string
	port     int
}

// fillers give the rules that stand in front of those that accept.
func fillers(n int) []filler {
	fs := make([]filler, n)
	for i := range fs {
		f := filler{protocol: "tcp", port: 1024 + i%4000}
		if i%4 == 3 {
			f.protocol = "udp"
		}
		bits := []int{32, 32, 31, 28, 24}[i%5]
		addr := uint32(198<<24|18<<16) + uint32(i*257)&0x1ffff
		addr &= ^uint32(0) << (32 - bits)
		f.from = fmt.Sprintf("%d.%d.%d.%d/%d", addr>>24, addr>>16&255, addr>>8&255, addr&255, bits)
		fs[i] = f
	}
	return fs
}

// opening is how many rules let the benchmark's own traffic in.
const opening = 2

// ipfwPolicy is the policy of the server, of so many rules, as ipfw writes it.
func ipfwPolicy(rules int, offload string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n  offload  = %q\n}\n", offload)
	for i, f := range fillers(rules - opening) {
		fmt.Fprintf(&b, "rule \"f%d\" {\n  action         = \"discard\"\n  direction      = \"in\"\n  protocol       = %q\n  remote_address = %q\n  local_port     = %d\n}\n",
			i, f.protocol, f.from, f.port)
	}
	fmt.Fprintf(&b, "rule \"tcp\" {\n  action     = \"bypass\"\n  direction  = \"in\"\n  protocol   = \"tcp\"\n  local_port = [%d, %d]\n}\n", iperfPort, webPort)
	fmt.Fprintf(&b, "rule \"udp\" {\n  action     = \"bypass\"\n  direction  = \"in\"\n  protocol   = \"udp\"\n  local_port = [%d, \"%d-%d\"]\n}\n", udpPort, flowPortFirst, flowPortLast)
	return b.String()
}

// nftPolicy is the same for nftables: stateful, rule after rule. The ICMP line
// stands for ipfw's essential rules.
func nftPolicy(rules int) string {
	var b strings.Builder
	b.WriteString("table inet bench {\n  chain in {\n    type filter hook input priority 0; policy drop;\n" +
		"    ct state established,related accept\n    ct state invalid drop\n    iifname lo accept\n    meta l4proto { icmp, ipv6-icmp } accept\n")
	for _, f := range fillers(rules - opening) {
		fmt.Fprintf(&b, "    ip saddr %s %s dport %d drop\n", f.from, f.protocol, f.port)
	}
	fmt.Fprintf(&b, "    tcp dport { %d, %d } accept\n    udp dport { %d, %d-%d } accept\n  }\n", iperfPort, webPort, udpPort, flowPortFirst, flowPortLast)
	b.WriteString("  chain out {\n    type filter hook output priority 0; policy accept;\n    ct state established,related accept\n  }\n}\n")
	return b.String()
}
