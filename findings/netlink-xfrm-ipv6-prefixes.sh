#!/usr/bin/env bash
# Subject:   github.com/vishvananda/netlink v1.3.1, XfrmPolicyList
# Expected:  an IPv6 policy comes back with its IPv6 selectors.
# Behaviour: a selector whose prefix has 32 bits or less, and whose address has zeros after its first four octets, is read as IPv4:
#            its first four octets with that prefix; with FAMILY_V6 too. Such prefixes are what providers and large sites
#            have (RFC 6177). The templates are right. Written back with XfrmPolicyAdd, it is an IPv4 policy.
# Seen:      Linux 6.18.44, iproute2 6.1.0, 2026-11-30:
#            2001:db8:1::/64 -> 2001:db9:1::/64    read: 2001:db8:1::/64 -> 2001:db9:1::/64
#            2001:db8::/32 -> 2001:db9::/32        read: 32.1.13.184/32 -> 32.1.13.185/32
# Needs:     root (unshare), go, ip. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >main.go <<'G'
package main

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

func main() {
	policies, err := netlink.XfrmPolicyList(netlink.FAMILY_V6)
	if err != nil {
		panic(err)
	}
	for _, p := range policies {
		fmt.Println(p.Src, "->", p.Dst)
	}
}
G
go mod init finding >/dev/null 2>&1
go get github.com/vishvananda/netlink@v1.3.1 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go build -o finding .
unshare -n bash -ec 'for n in 2001:db8:1::/64,2001:db9:1::/64 2001:db8::/32,2001:db9::/32; do
    ip xfrm policy add src ${n%,*} dst ${n#*,} dir out tmpl src 2001:db8::1 dst 2001:db9::1 proto esp mode tunnel
  done
  ./finding' | sort | tee seen.txt
[ "$(cat seen.txt)" = "2001:db8:1::/64 -> 2001:db9:1::/64
32.1.13.184/32 -> 32.1.13.185/32" ]
