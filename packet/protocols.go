package packet

import (
	"strconv"
	"strings"
)

// ProtocolNumber gives the number of an IANA protocol keyword or of one of its
// usual aliases ("icmpv6", "ospf"); case does not matter. Numbers written as
// digits are not names.
func ProtocolNumber(name string) (uint8, bool) {
	name = strings.ToLower(name)
	if name == "" {
		return 0, false
	}
	for n, keyword := range protocols {
		if keyword == name {
			return uint8(n), true
		}
	}
	for _, a := range protocolAliases {
		if a.name == name {
			return a.number, true
		}
	}
	return 0, false
}

// ProtocolName gives the IANA keyword of a protocol number in lower case, or
// the number in decimal where there is none.
func ProtocolName(n uint8) string {
	if protocols[n] != "" {
		return protocols[n]
	}
	return strconv.Itoa(int(n))
}

// protocols holds the keywords of the IANA registry "Assigned Internet
// Protocol Numbers", in lower case and with the spelling of protocols(5) where
// the two differ.
var protocols = [256]string{
	"hopopt", "icmp", "igmp", "ggp", "ipv4", "st", "tcp", "cbt", // 0
	"egp", "igp", "bbn-rcc-mon", "nvp-ii", "pup", "argus", "emcon", "xnet", // 8
	"chaos", "udp", "mux", "dcn-meas", "hmp", "prm", "xns-idp", "trunk-1", // 16
	"trunk-2", "leaf-1", "leaf-2", "rdp", "irtp", "iso-tp4", "netblt", "mfe-nsp", // 24
	"merit-inp", "dccp", "3pc", "idpr", "xtp", "ddp", "idpr-cmtp", "tp++", // 32
	"il", "ipv6", "sdrp", "ipv6-route", "ipv6-frag", "idrp", "rsvp", "gre", // 40
	"dsr", "bna", "esp", "ah", "i-nlsp", "swipe", "narp", "min-ipv4", // 48
	"tlsp", "skip", "ipv6-icmp", "ipv6-nonxt", "ipv6-opts", "any-host-internal", "cftp", "any-local-network", // 56
	"sat-expak", "kryptolan", "rvd", "ippc", "any-distributed-fs", "sat-mon", "visa", "ipcv", // 64
	"cpnx", "cphb", "wsn", "pvp", "br-sat-mon", "sun-nd", "wb-mon", "wb-expak", // 72
	"iso-ip", "vmtp", "secure-vmtp", "vines", "iptm", "nsfnet-igp", "dgp", "tcf", // 80
	"eigrp", "ospf", "sprite-rpc", "larp", "mtp", "ax.25", "ipip", "micp", // 88
	"scc-sp", "etherip", "encap", "any-private-encryption", "gmtp", "ifmp", "pnni", "pim", // 96
	"aris", "scps", "qnx", "a/n", "ipcomp", "snp", "compaq-peer", "ipx-in-ip", // 104
	"vrrp", "pgm", "any-0-hop", "l2tp", "ddx", "iatp", "stp", "srp", // 112
	"uti", "smp", "sm", "ptp", "isis", "fire", "crtp", "crudp", // 120
	"sscopmce", "iplt", "sps", "pipe", "sctp", "fc", "rsvp-e2e-ignore", "mobility-header", // 128
	"udplite", "mpls-in-ip", "manet", "hip", "shim6", "wesp", "rohc", "ethernet", // 136
	"aggfrag", "nsh", "homa", "bit-emu", // 144
	253: "experiment-1", 254: "experiment-2", 255: "reserved",
}

// protocolAliases are other names in use: of protocols(5), of older editions
// of the registry, of other firewalls.
var protocolAliases = [...]struct {
	name   string
	number uint8
}{
	{"icmpv6", ICMPv6}, {"icmp6", ICMPv6}, {"ipencap", IPv4}, {"ip-encap", IPv4}, {"6in4", IPv6},
	{"hop-by-hop", HopByHop}, {"ipv6-hopopt", HopByHop}, {"ipsec-esp", ESP}, {"ipsec-ah", AH}, {"ipv6-nonext", NoNext},
	{"ipv6-dstopts", DestOptions}, {"ospfigp", 89}, {"is-is", 124},
	{"udp-lite", UDPLite}, {"mobility", Mobility}, {"mh", Mobility}, {"ipv6-mh", Mobility}, {"mpls", 137},
	{"rspf", 73}, {"sipp-esp", ESP}, {"sipp-ah", AH}, {"st2", 5}, {"carp", 112},
}
