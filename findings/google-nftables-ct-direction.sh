#!/usr/bin/env bash
# Subject:   github.com/google/nftables v0.3.0, GetRules of a chain with a rule on one direction of a connection
# Expected:  the chain's rules come back.
# Behaviour: `ct original ...` and `ct reply ...` make it an error, since the direction is read as four octets and is one; no rule of
#            the chain comes back, not those before it either. So a program cannot read a chain in which somebody else
#            matches the addresses, zone or counters of one direction.
# Seen:      Linux 6.18.44, nft 1.0.6, 2026-11-30: netlink: attribute 3 is not a uint32; length: 1, 0 of 2 rules
# Needs:     root (unshare), go, nft. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >main.go <<'G'
package main

import (
	"fmt"

	"github.com/google/nftables"
)

func main() {
	c, err := nftables.New()
	if err != nil {
		panic(err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "t"}
	for _, chain := range []string{"without", "with"} {
		rules, err := c.GetRules(table, &nftables.Chain{Table: table, Name: chain})
		fmt.Println(chain, len(rules), err)
	}
}
G
go mod init finding >/dev/null 2>&1
go get github.com/google/nftables@v0.3.0 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go build -o finding .
unshare -n bash -ec 'nft add table ip t
  for c in without with; do nft add chain ip t $c; nft add rule ip t $c tcp dport 80 accept; done
  nft add rule ip t without ct state new
  nft add rule ip t with ct original ip saddr 192.0.2.1
  ./finding' | tee seen.txt
grep -q '^without 2 <nil>$' seen.txt && grep -q '^with 0 .*not a uint32' seen.txt
