package packet

import (
	"sort"
	"strings"
	"testing"
)

func TestProtocolNames(t *testing.T) {
	rows := []struct {
		name   string
		number uint8
	}{
		{"tcp", 6}, {"TCP", 6}, {"udp", 17}, {"icmp", 1}, {"ipv6-icmp", 58}, {"icmpv6", 58}, {"esp", 50}, {"ah", 51},
		{"gre", 47}, {"sctp", 132}, {"udplite", 136}, {"hopopt", 0}, {"ipv4", 4}, {"ipv6", 41}, {"ospf", 89}, {"vrrp", 112},
		{"mobility-header", 135}, {"ipencap", 4}, {"ipip", 94}, {"igmp", 2}, {"pim", 103}, {"l2tp", 115}, {"isis", 124},
		{"ipv6-route", 43}, {"ipv6-frag", 44}, {"ipv6-nonxt", 59}, {"ipv6-opts", 60}, {"hip", 139}, {"shim6", 140}, {"etherip", 97},
		{"dccp", 33}, {"rsvp", 46}, {"eigrp", 88}, {"bit-emu", 147}, {"rohc", 142}, {"wesp", 141}, {"manet", 138}, {"xnet", 15}, {"skip", 57},
	}
	for _, r := range rows {
		if n, ok := ProtocolNumber(r.name); !ok || n != r.number {
			t.Errorf("%s: %d, %v, want %d", r.name, n, ok, r.number)
		}
	}
	for n := range 256 {
		name := ProtocolName(uint8(n))
		if m, ok := ProtocolNumber(name); name[0] > '9' && (!ok || int(m) != n) {
			t.Errorf("%d is %s is %d", n, name, m)
		}
	}
	for _, a := range protocolAliases {
		if n, ok := ProtocolNumber(a.name); !ok || n != a.number || ProtocolName(n) == a.name {
			t.Errorf("alias %s: %d", a.name, n)
		}
	}
	for _, name := range []string{"", "ip", "any", "6", "nonsense"} {
		if n, ok := ProtocolNumber(name); ok {
			t.Errorf("%q is %d", name, n)
		}
	}
	if ProtocolName(200) != "200" {
		t.Error(ProtocolName(200))
	}
}

func TestICMPNames(t *testing.T) {
	rows := []struct {
		proto uint8
		name  string
		typ   uint8
	}{
		{ICMP, "echo-request", 8}, {ICMP, "echo-reply", 0}, {ICMP, "destination-unreachable", 3}, {ICMP, "time-exceeded", 11}, {ICMP, "parameter-problem", 12}, {ICMP, "Redirect", 5},
		{ICMPv6, "echo-request", 128}, {ICMPv6, "echo-reply", 129}, {ICMPv6, "packet-too-big", 2}, {ICMPv6, "time-exceeded", 3}, {ICMPv6, "destination-unreachable", 1},
		{ICMPv6, "router-solicitation", 133}, {ICMPv6, "neighbor-solicitation", 135}, {ICMPv6, "neighbour-advertisement", 136}, {ICMPv6, "mld2-listener-report", 143},
	}
	for _, r := range rows {
		if n, ok := ICMPTypeNumber(r.proto, r.name); !ok || n != r.typ {
			t.Errorf("%s: %d, %v", r.name, n, ok)
		}
	}
	for _, proto := range []uint8{ICMP, ICMPv6} {
		seen, last := map[string]bool{}, uint8(0)
		for _, e := range icmpTable(proto) {
			if seen[e.name] || e.number < last {
				t.Errorf("%s: twice, or out of order", e.name)
			}
			seen[e.name], last = true, e.number
		}
		for n := range 256 {
			name := ICMPTypeName(proto, uint8(n))
			if m, ok := ICMPTypeNumber(proto, name); name[0] > '9' && (!ok || int(m) != n) {
				t.Errorf("%d is %s is %d", n, name, m)
			}
		}
	}
	if _, ok := ICMPTypeNumber(TCP, "echo-request"); ok || ICMPTypeName(TCP, 8) != "8" || ICMPTypeName(ICMP, 200) != "200" {
		t.Error("a name where there is none")
	}
}

func TestServiceNames(t *testing.T) {
	rows := []struct {
		name string
		port uint16
	}{
		{"ssh", 22}, {"SSH", 22}, {"http", 80}, {"www", 80}, {"https", 443}, {"domain", 53}, {"dns", 53}, {"ntp", 123}, {"smtp", 25}, {"imap", 143}, {"imap2", 143},
		{"submission", 587}, {"microsoft-ds", 445}, {"smb", 445}, {"nfs", 2049}, {"postgresql", 5432}, {"mysql", 3306}, {"isakmp", 500}, {"ipsec-nat-t", 4500},
		{"ms-wbt-server", 3389}, {"rdp", 3389}, {"mdns", 5353}, {"bgp", 179}, {"ldaps", 636}, {"telnet", 23}, {"syslog", 514}, {"redis", 6379}, {"wireguard", 51820},
		{"dhcpv6-client", 546}, {"dhcpv6-server", 547}, {"bootps", 67}, {"bootpc", 68}, {"snmp", 161}, {"sunrpc", 111}, {"rsync", 873}, {"tfido", 60177}, {"dicom", 11112},
	}
	for _, r := range rows {
		if p, ok := ServicePort(r.name); !ok || p != r.port {
			t.Errorf("%s: %d, %v, want %d", r.name, p, ok, r.port)
		}
	}
	for _, name := range []string{"", "80", "nonsense"} {
		if p, ok := ServicePort(name); ok {
			t.Errorf("%q is %d", name, p)
		}
	}
	names := []struct {
		port  uint16
		proto uint8
		want  string
	}{
		{22, TCP, "ssh"}, {443, TCP, "https"}, {443, UDP, "https"}, {514, UDP, "syslog"}, {514, TCP, "shell"}, {53, UDPLite, "domain"},
		{22, UDP, ""}, {22, ICMP, ""}, {40000, TCP, ""}, {0, TCP, ""}, {65535, UDP, ""}, {1, TCP, "tcpmux"}, {60179, TCP, "fido"}, {36412, SCTP, "s1-control"},
	}
	for _, r := range names {
		if got := ServiceName(r.port, r.proto); got != r.want {
			t.Errorf("%d/%s: %q, want %q", r.port, ProtocolName(r.proto), got, r.want)
		}
	}
	seen := map[string]bool{}
	for i, s := range services {
		if seen[s.name] || s.name != strings.ToLower(s.name) || s.over == 0 || i > 0 && s.port < services[i-1].port {
			t.Errorf("%v: twice, not lower case, or out of order", s)
		}
		seen[s.name] = true
	}
	for _, a := range serviceAliases {
		if seen[a.name] {
			t.Errorf("alias %s is a name too", a.name)
		}
		if p, ok := ServicePort(a.name); !ok || p != a.port {
			t.Errorf("alias %s: %d", a.name, p)
		}
	}
	if !sort.SliceIsSorted(serviceAliases[:], func(i, j int) bool { return serviceAliases[i].name < serviceAliases[j].name }) {
		t.Error("aliases are not sorted")
	}
}
