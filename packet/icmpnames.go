package packet

import (
	"strconv"
	"strings"
)

// ICMPTypeNumber gives the number of an ICMP (proto ICMP) or ICMPv6 (proto
// ICMPv6) type by its IANA name, or by a usual alias; case does not matter.
func ICMPTypeNumber(proto uint8, name string) (typ uint8, ok bool) {
	name = strings.ToLower(name)
	for _, t := range icmpTable(proto) {
		if t.name == name {
			return t.number, true
		}
	}
	return 0, false
}

// ICMPTypeName gives the IANA name of an ICMP or ICMPv6 type in lower case,
// words joined by dashes, or the number in decimal where there is none.
func ICMPTypeName(proto, typ uint8) string {
	for _, t := range icmpTable(proto) {
		if t.number == typ {
			return t.name
		}
	}
	return strconv.Itoa(int(typ))
}

type icmpType struct {
	number uint8
	name   string
}

func icmpTable(proto uint8) []icmpType {
	switch proto {
	case ICMP:
		return icmpTypes
	case ICMPv6:
		return icmpv6Types
	}
	return nil
}

// icmpTypes is the IANA registry "ICMP Type Numbers"; the aliases stand after
// the name that is printed.
var icmpTypes = []icmpType{
	{0, "echo-reply"}, {0, "pong"},
	{3, "destination-unreachable"}, {3, "dest-unreachable"}, {3, "unreachable"},
	{4, "source-quench"},
	{5, "redirect"},
	{6, "alternate-host-address"},
	{8, "echo-request"}, {8, "echo"}, {8, "ping"},
	{9, "router-advertisement"},
	{10, "router-solicitation"}, {10, "router-selection"},
	{11, "time-exceeded"}, {11, "ttl-exceeded"},
	{12, "parameter-problem"},
	{13, "timestamp-request"}, {13, "timestamp"},
	{14, "timestamp-reply"},
	{15, "information-request"}, {15, "info-request"},
	{16, "information-reply"}, {16, "info-reply"},
	{17, "address-mask-request"}, {17, "mask-request"},
	{18, "address-mask-reply"}, {18, "mask-reply"},
	{30, "traceroute"},
	{31, "datagram-conversion-error"},
	{32, "mobile-host-redirect"},
	{33, "ipv6-where-are-you"},
	{34, "ipv6-i-am-here"},
	{35, "mobile-registration-request"},
	{36, "mobile-registration-reply"},
	{37, "domain-name-request"},
	{38, "domain-name-reply"},
	{39, "skip"},
	{40, "photuris"},
	{41, "experimental-mobility"}, {41, "seamoby"},
	{42, "extended-echo-request"},
	{43, "extended-echo-reply"},
	{253, "experiment-1"},
	{254, "experiment-2"},
}

// icmpv6Types is the IANA registry `ICMPv6 "type" Numbers`.
var icmpv6Types = []icmpType{
	{1, "destination-unreachable"}, {1, "dest-unreachable"}, {1, "unreachable"},
	{2, "packet-too-big"}, {2, "too-big"},
	{3, "time-exceeded"}, {3, "ttl-exceeded"},
	{4, "parameter-problem"},
	{100, "private-experimentation-100"},
	{101, "private-experimentation-101"},
	{128, "echo-request"}, {128, "echo"}, {128, "ping"},
	{129, "echo-reply"}, {129, "pong"},
	{130, "multicast-listener-query"}, {130, "mld-listener-query"}, {130, "mld-query"},
	{131, "multicast-listener-report"}, {131, "mld-listener-report"}, {131, "mld-report"},
	{132, "multicast-listener-done"}, {132, "mld-listener-done"}, {132, "mld-done"}, {132, "mld-listener-reduction"},
	{133, "router-solicitation"}, {133, "nd-router-solicit"},
	{134, "router-advertisement"}, {134, "nd-router-advert"},
	{135, "neighbor-solicitation"}, {135, "neighbour-solicitation"}, {135, "nd-neighbor-solicit"},
	{136, "neighbor-advertisement"}, {136, "neighbour-advertisement"}, {136, "nd-neighbor-advert"},
	{137, "redirect"}, {137, "redirect-message"}, {137, "nd-redirect"},
	{138, "router-renumbering"},
	{139, "node-information-query"}, {139, "icmp-node-information-query"},
	{140, "node-information-response"}, {140, "icmp-node-information-response"},
	{141, "inverse-neighbor-discovery-solicitation"}, {141, "ind-neighbor-solicit"},
	{142, "inverse-neighbor-discovery-advertisement"}, {142, "ind-neighbor-advert"},
	{143, "version-2-multicast-listener-report"}, {143, "mld2-listener-report"}, {143, "mldv2-report"},
	{144, "home-agent-address-discovery-request"},
	{145, "home-agent-address-discovery-reply"},
	{146, "mobile-prefix-solicitation"},
	{147, "mobile-prefix-advertisement"},
	{148, "certification-path-solicitation"},
	{149, "certification-path-advertisement"},
	{150, "experimental-mobility"}, {150, "seamoby"},
	{151, "multicast-router-advertisement"},
	{152, "multicast-router-solicitation"},
	{153, "multicast-router-termination"},
	{154, "fmipv6"},
	{155, "rpl-control"},
	{156, "ilnpv6-locator-update"},
	{157, "duplicate-address-request"},
	{158, "duplicate-address-confirmation"},
	{159, "mpl-control"},
	{160, "extended-echo-request"},
	{161, "extended-echo-reply"},
	{200, "private-experimentation-200"},
	{201, "private-experimentation-201"},
}
