//go:build guest

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// behind is a pair whose server forwards for a box behind a device of others, who
// translate addresses:
//
//	client ---- s0 server dev ---- box 172.17.0.2, .3   fd72::2, ::3
//
// ipfw lets the box's port 80 be reached, and the box open what it likes.
type behind struct {
	*beside
	box    *lab.Host
	bridge string
}

const behindPolicy = `
rule "published" {
  action        = "bypass"
  direction     = "forward"
  opened_by     = "remote"
  local_address = ["172.17.0.0/24", "fd72::/64"]
  protocol      = "tcp"
  local_port    = 80
}
rule "box-out" {
  action        = "bypass"
  direction     = "forward"
  opened_by     = "local"
  local_address = ["172.17.0.0/24", "fd72::/64"]
}
`

// besideBox makes it, with the box behind a bridge.
func besideBox(t *testing.T, dev string) *behind {
	t.Helper()
	b := &behind{beside: besidePair(t), bridge: dev}
	b.policy = behindPolicy
	b.box = b.Host("box")
	b.Join(b.box, "eth0", []string{"172.17.0.2/24", "172.17.0.3/24", "fd72::2/64", "fd72::3/64"}, b.server, "veth0", nil)
	b.server.Run("ip", "link", "add", dev, "type", "bridge")
	b.server.Run("ip", "link", "set", "veth0", "master", dev)
	b.server.Run("ip", "link", "set", dev, "up")
	b.server.Run("ip", "addr", "add", "172.17.0.1/24", "dev", dev)
	b.server.Run("ip", "addr", "add", "fd72::1/64", "dev", dev, "nodad")
	b.server.Sysctl("net.ipv4.ip_forward", "1")
	b.server.Sysctl("net.ipv6.conf.all.forwarding", "1")
	b.box.Run("ip", "route", "add", "default", "via", "172.17.0.1")
	b.box.Run("ip", "route", "add", "default", "via", "fd72::1")
	for _, port := range []uint16{80, 81} {
		if err := b.box.Do(func() error { return lab.Serve(port) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.client.Do(func() error { return lab.Serve(portOpen) }); err != nil {
		t.Fatal(err)
	}
	// So that the client asks for what is behind the server.
	for _, to := range []string{"172.17.0.0/24", "10.96.0.0/16"} {
		b.client.Run("ip", "route", "add", to, "via", "10.77.0.1")
	}
	for _, to := range []string{"fd72::/64", "fd96::/64"} {
		b.client.Run("ip", "route", "add", to, "via", "fd77::1")
	}
	for _, addr := range []string{"172.17.0.2", "fd72::2"} {
		b.Eventually(waitLong, addr+" answers", func() bool { return pings(b.server, addr) })
	}
	return b
}

// crosses is what ipfw promises about what is forwarded: open carries, shut is
// discarded and counted; both by addresses that others translate. The box gets out.
func (b *behind) crosses(when string, open, shut []string) {
	b.t.Helper()
	for _, to := range open {
		b.carries(when, "tcp", netip.MustParseAddrPort(to), 200_000)
	}
	for _, to := range shut {
		before := counted(b.t, b.b, "default")
		if b.connects(netip.MustParseAddrPort(to)) {
			b.t.Errorf("%s: %s is open", when, to)
		}
		if counted(b.t, b.b, "default") == before {
			b.t.Errorf("%s: %s is not counted as discarded:\n%s", when, to, b.status())
		}
	}
	for _, to := range ports(portOpen, "10.77.0.2", "fd77::2") {
		x := lab.Transfer{Network: "tcp", To: netip.MustParseAddrPort(to), Size: 100_000, Limit: waitLong}
		if err := b.box.Do(x.Do); err != nil {
			b.t.Errorf("%s: from the box, %v: %v\n%s", when, x, err, b.status())
		}
	}
	b.holds(when)
}

// tables runs iptables-restore of both families with rules that only differ in
// their addresses.
func (b *behind) tables(rules string) {
	b.t.Helper()
	for i, program := range []string{"iptables-restore", "ip6tables-restore"} {
		b.server.Run(program, b.File(program, b.words(i, rules)))
	}
}

// words puts a family and its addresses into rules, in the place of words in capital
// letters.
func (b *behind) words(family int, rules string) string {
	words := [][]string{
		{"FAMILY", "ip", "BOX2", "172.17.0.3", "BOX", "172.17.0.2", "[BOX]", "172.17.0.2", "NET", "172.17.0.0/24", "VIP", "10.96.0.10", "LOOP", "127.0.0.0/8", "DEV", b.bridge, "KIND", "ipv4"},
		{"FAMILY", "ip6", "[BOX2]", "[fd72::3]", "[BOX]", "[fd72::2]", "BOX2", "fd72::3", "BOX", "fd72::2", "NET", "fd72::/64", "VIP", "fd96::10", "LOOP", "::1/128", "DEV", b.bridge, "KIND", "ipv6"},
	}[family]
	if family == 0 {
		rules = strings.NewReplacer("[BOX]", "BOX", "[BOX2]", "BOX2").Replace(rules)
	}
	return strings.NewReplacer(words...).Replace(rules)
}

// files loads rules of nft for both families.
func (b *behind) files(rules string) {
	b.t.Helper()
	for i, name := range []string{"v4.nft", "v6.nft"} {
		b.server.Run("nft", "-f", b.File(name, b.words(i, rules)))
	}
}

// ports are a port at two addresses.
func ports(port int, v4, v6 string) []string {
	return []string{fmt.Sprintf("%s:%d", v4, port), fmt.Sprintf("[%s]:%d", v6, port)}
}

// Docker's rules as its engine writes them by iptables (up to 28), and as it does by
// nftables (29): a published port, isolation, masquerading, forwarding shut.
func TestBesideDocker(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		load func(b *behind)
	}{
		{"iptables", func(b *behind) {
			b.tables(`*filter
:INPUT ACCEPT
:FORWARD DROP
:OUTPUT ACCEPT
:DOCKER-USER -
:DOCKER-FORWARD -
:DOCKER-CT -
:DOCKER-BRIDGE -
:DOCKER -
:DOCKER-ISOLATION-STAGE-1 -
:DOCKER-ISOLATION-STAGE-2 -
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i DEV -j ACCEPT
-A DOCKER-CT -o DEV -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-BRIDGE -o DEV -j DOCKER
-A DOCKER-ISOLATION-STAGE-1 -i DEV ! -o DEV -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o DEV -j DROP
-A DOCKER -d BOX ! -i DEV -o DEV -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER -d BOX ! -i DEV -o DEV -p tcp -m tcp --dport 81 -j ACCEPT
-A DOCKER ! -i DEV -o DEV -j DROP
COMMIT
*nat
:PREROUTING ACCEPT
:INPUT ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
:DOCKER -
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d LOOP -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s NET ! -o DEV -j MASQUERADE
-A POSTROUTING -s BOX -d BOX -p tcp -m tcp --dport 80 -j MASQUERADE
-A DOCKER ! -i DEV -p tcp -m tcp --dport 8080 -j DNAT --to-destination [BOX]:80
-A DOCKER ! -i DEV -p tcp -m tcp --dport 8081 -j DNAT --to-destination [BOX]:81
COMMIT
*raw
:PREROUTING ACCEPT
:OUTPUT ACCEPT
-A PREROUTING -d BOX ! -i DEV -j DROP
COMMIT
`)
		}},
		{"nftables", func(b *behind) {
			b.files(`table FAMILY docker-bridges {
  map filter-forward-in-jumps { type ifname : verdict; elements = { "DEV" : jump filter-forward-in__DEV } }
  map filter-forward-out-jumps { type ifname : verdict; elements = { "DEV" : jump filter-forward-out__DEV } }
  map nat-postrouting-out-jumps { type ifname : verdict; elements = { "DEV" : jump nat-postrouting-out__DEV } }
  chain filter-forward-in__DEV {
    ct state established,related accept
    iifname "DEV" accept
    FAMILY daddr BOX tcp dport { 80, 81 } accept
    drop
  }
  chain filter-forward-out__DEV { ct state established,related accept; oifname != "DEV" accept; accept; }
  chain nat-postrouting-out__DEV { oifname != "DEV" FAMILY saddr NET masquerade; }
  chain nat-prerouting-and-output {
    iifname != "DEV" tcp dport 8080 dnat to [BOX]:80
    iifname != "DEV" tcp dport 8081 dnat to [BOX]:81
  }
  chain filter-FORWARD {
    type filter hook forward priority filter; policy accept;
    oifname vmap @filter-forward-in-jumps
    iifname vmap @filter-forward-out-jumps
  }
  chain nat-PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local jump nat-prerouting-and-output; }
  chain nat-OUTPUT { type nat hook output priority -100; policy accept; FAMILY daddr != LOOP fib daddr type local jump nat-prerouting-and-output; }
  chain nat-POSTROUTING { type nat hook postrouting priority srcnat; policy accept; iifname vmap @nat-postrouting-out-jumps; FAMILY saddr NET oifname != "DEV" masquerade; }
  chain raw-PREROUTING { type filter hook prerouting priority raw; policy accept; FAMILY daddr BOX iifname != "DEV" drop; }
}
`)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := besideBox(t, "docker0")
			row.load(b)
			before := b.rules()
			b.start()
			b.crosses("beside Docker", ports(8080, "10.77.0.1", "fd77::1"), ports(8081, "10.77.0.1", "fd77::1"))
			b.ends(before)
		})
	}
}

// ends stops ipfw on the server, and holds the rules of others to what they were.
func (b *beside) ends(before string) {
	b.t.Helper()
	b.stop(b.b)
	if after := b.rules(); after != before {
		b.t.Errorf("rules before ipfw:\n%s\nand after it:\n%s", before, after)
	}
}

// libvirt's rules of its default network, as it writes them by iptables and, from
// 10.4 on, by nftables: guests get out and are translated, nobody gets in.
func TestBesideLibvirt(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		load func(b *behind)
	}{
		{"iptables", func(b *behind) {
			b.tables(`*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
:LIBVIRT_INP -
:LIBVIRT_OUT -
:LIBVIRT_FWI -
:LIBVIRT_FWO -
:LIBVIRT_FWX -
-A INPUT -j LIBVIRT_INP
-A OUTPUT -j LIBVIRT_OUT
-A FORWARD -j LIBVIRT_FWX
-A FORWARD -j LIBVIRT_FWI
-A FORWARD -j LIBVIRT_FWO
-A LIBVIRT_INP -i DEV -p udp -m udp --dport 53 -j ACCEPT
-A LIBVIRT_INP -i DEV -p udp -m udp --dport 67 -j ACCEPT
-A LIBVIRT_OUT -o DEV -p udp -m udp --dport 68 -j ACCEPT
-A LIBVIRT_FWX -i DEV -o DEV -j ACCEPT
-A LIBVIRT_FWI -d NET -o DEV -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A LIBVIRT_FWI -o DEV -j REJECT
-A LIBVIRT_FWO -s NET -i DEV -j ACCEPT
-A LIBVIRT_FWO -i DEV -j REJECT
COMMIT
*nat
:PREROUTING ACCEPT
:INPUT ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
:LIBVIRT_PRT -
-A POSTROUTING -j LIBVIRT_PRT
-A LIBVIRT_PRT -s NET ! -d NET -p tcp -j MASQUERADE --to-ports 1024-65535
-A LIBVIRT_PRT -s NET ! -d NET -p udp -j MASQUERADE --to-ports 1024-65535
-A LIBVIRT_PRT -s NET ! -d NET -j MASQUERADE
COMMIT
`)
		}},
		{"nftables", func(b *behind) {
			b.files(`table FAMILY libvirt_network {
  chain guest_cross { iif "DEV" oif "DEV" counter accept; }
  chain guest_input { oif "DEV" FAMILY daddr NET ct state established,related counter accept; oif "DEV" counter reject; }
  chain guest_output { FAMILY saddr NET iif "DEV" counter accept; iif "DEV" counter reject; }
  chain forward { type filter hook forward priority filter; policy accept; counter jump guest_cross; counter jump guest_input; counter jump guest_output; }
  chain guest_nat {
    type nat hook postrouting priority srcnat; policy accept;
    meta l4proto tcp FAMILY saddr NET FAMILY daddr != NET counter masquerade to :1024-65535
    meta l4proto udp FAMILY saddr NET FAMILY daddr != NET counter masquerade to :1024-65535
    FAMILY saddr NET FAMILY daddr != NET counter masquerade
  }
}
`)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := besideBox(t, "virbr0")
			row.load(b)
			before := b.rules()
			b.start()
			b.crosses("beside libvirt", nil, nil)
			for _, to := range ports(80, "172.17.0.2", "fd72::2") { // open for ipfw, not for libvirt
				if b.connects(netip.MustParseAddrPort(to)) {
					t.Errorf("%s is open", to)
				}
			}
			b.ends(before)
		})
	}
}
