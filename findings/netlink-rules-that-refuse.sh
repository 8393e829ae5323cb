#!/usr/bin/env bash
# Subject:   github.com/vishvananda/netlink v1.3.1, RuleList and RuleAdd
# Expected:  a routing rule that refuses (blackhole, unreachable, prohibit) is read as one, and RuleAdd with what was read makes
#            it again.
# Behaviour: the field Type stays zero, and Table too: nothing says that the rule refuses. RuleAdd of what was read, which is
#            how programs put back what they have removed, makes a rule that looks up a routing table, the first that
#            no rule has yet. No error. A kill switch made of such a rule is gone.
# Seen:      Linux 6.18.44, iproute2 6.1.0, 2026-11-30:
#            before: 100: from 192.0.2.0/24 blackhole       read: type 0 table 0
#            after:  100: from 192.0.2.0/24 lookup 1
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
	rules, err := netlink.RuleList(netlink.FAMILY_V4)
	if err != nil {
		panic(err)
	}
	for _, r := range rules {
		if r.Priority != 100 {
			continue
		}
		fmt.Println("read: type", r.Type, "table", r.Table)
		if err := netlink.RuleDel(&r); err != nil {
			panic(err)
		}
		if err := netlink.RuleAdd(&r); err != nil {
			panic(err)
		}
	}
}
G
go mod init finding >/dev/null 2>&1
go get github.com/vishvananda/netlink@v1.3.1 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go build -o finding .
unshare -n bash -ec 'ip rule add from 192.0.2.0/24 blackhole pref 100; ip rule show pref 100
  ./finding; ip rule show pref 100' | tee seen.txt
grep -q 'from 192.0.2.0/24 blackhole' seen.txt && grep -q 'type 0 table 0' seen.txt && grep -q 'from 192.0.2.0/24 lookup [0-9]' seen.txt
