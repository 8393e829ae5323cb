//go:build guest

package e2e

import (
	"net/netip"
	"testing"
)

// kube-proxy's rules as it writes them by iptables and by nftables: a service with
// two endpoints by chance, a port of the node, a mark for what is to be masqueraded,
// and one service whose endpoint ipfw's policy does not let be reached.
func TestBesideKubeProxy(t *testing.T) {
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
:KUBE-FORWARD -
:KUBE-FIREWALL -
:KUBE-PROXY-FIREWALL -
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL ! -s LOOP -d LOOP -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT
:INPUT ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
:KUBE-SERVICES -
:KUBE-NODEPORTS -
:KUBE-POSTROUTING -
:KUBE-MARK-MASQ -
:KUBE-SVC-WEB -
:KUBE-SVC-OTHER -
:KUBE-EXT-WEB -
:KUBE-SEP-ONE -
:KUBE-SEP-TWO -
:KUBE-SEP-OTHER -
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-SERVICES -d VIP -p tcp -m tcp --dport 80 -j KUBE-SVC-WEB
-A KUBE-SERVICES -d VIP -p tcp -m tcp --dport 81 -j KUBE-SVC-OTHER
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-EXT-WEB
-A KUBE-EXT-WEB -j KUBE-MARK-MASQ
-A KUBE-EXT-WEB -j KUBE-SVC-WEB
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-SVC-WEB ! -s NET -d VIP -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-WEB -m statistic --mode random --probability 0.5 -j KUBE-SEP-ONE
-A KUBE-SVC-WEB -j KUBE-SEP-TWO
-A KUBE-SVC-OTHER -j KUBE-SEP-OTHER
-A KUBE-SEP-ONE -s BOX -j KUBE-MARK-MASQ
-A KUBE-SEP-ONE -p tcp -m tcp -j DNAT --to-destination [BOX]:80
-A KUBE-SEP-TWO -s BOX2 -j KUBE-MARK-MASQ
-A KUBE-SEP-TWO -p tcp -m tcp -j DNAT --to-destination [BOX2]:80
-A KUBE-SEP-OTHER -p tcp -m tcp -j DNAT --to-destination [BOX]:81
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
`)
		}},
		{"nftables", func(b *behind) {
			b.files(`table FAMILY kube-proxy {
  map service-ips { type KIND_addr . inet_proto . inet_service : verdict
    elements = { VIP . tcp . 80 : goto service-web, VIP . tcp . 81 : goto service-other } }
  map service-nodeports { type inet_proto . inet_service : verdict; elements = { tcp . 30080 : goto external-web } }
  chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
  chain masquerading { meta mark & 0x4000 == 0x0 return; meta mark set meta mark xor 0x4000; masquerade fully-random; }
  chain endpoint-one { FAMILY saddr BOX jump mark-for-masquerade; meta l4proto tcp dnat to [BOX]:80; }
  chain endpoint-two { FAMILY saddr BOX2 jump mark-for-masquerade; meta l4proto tcp dnat to [BOX2]:80; }
  chain endpoint-other { meta l4proto tcp dnat to [BOX]:81; }
  chain service-web { FAMILY daddr VIP FAMILY saddr != NET jump mark-for-masquerade; numgen random mod 2 vmap { 0 : goto endpoint-one, 1 : goto endpoint-two }; }
  chain service-other { numgen random mod 1 vmap { 0 : goto endpoint-other }; }
  chain external-web { jump mark-for-masquerade; goto service-web; }
  chain services { FAMILY daddr . meta l4proto . th dport vmap @service-ips; fib daddr type local FAMILY daddr != LOOP meta l4proto . th dport vmap @service-nodeports; }
  chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
  chain nat-output { type nat hook output priority -100; policy accept; jump services; }
  chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept; jump masquerading; }
  chain filter-forward { type filter hook forward priority -110; policy accept; ct state invalid drop; }
}
`)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := besideBox(t, "cni0")
			row.load(b)
			before := b.rules()
			b.start()
			open := append(ports(80, "10.96.0.10", "fd96::10"), ports(30080, "10.77.0.1", "fd77::1")...)
			for range 4 { // endpoints are taken by chance
				for _, to := range open {
					b.carries("by chance", "tcp", netip.MustParseAddrPort(to), 1000)
				}
			}
			b.crosses("beside kube-proxy", open, ports(81, "10.96.0.10", "fd96::10"))
			b.ends(before)
		})
	}
}
