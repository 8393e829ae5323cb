#!/usr/bin/env bash
# Subject:   github.com/google/nftables v0.3.0, CtExpect with a time-out
# Expected:  an expectation with Timeout 60000 (milliseconds) lasts a minute.
# Behaviour: the time-out is written in network order and the kernel reads it in the machine's, so on x86 another one is set (here almost
#            nineteen days); the library reads its own objects back in the same order, so a program that looks sees 60000. What is
#            made by nft with a minute, the library reads as 1625948160.
# Seen:      Linux 6.18.44, nft 1.0.6, 2026-12-01: timeout 18d19h39m8s160ms; made by nft, read by the library: 1625948160
# Needs:     root (unshare), go, nft, x86 or another little-endian machine. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >main.go <<'G'
package main

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

func main() {
	c, err := nftables.New()
	if err != nil {
		panic(err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "t"}
	c.AddObj(&nftables.NamedObj{Table: table, Name: "lib", Type: nftables.ObjTypeCtExpect,
		Obj: &expr.CtExpect{L3Proto: 2, L4Proto: 6, DPort: 5432, Timeout: 60000, Size: 4}})
	if err := c.Flush(); err != nil {
		panic(err)
	}
	objs, err := c.GetNamedObjects(table)
	if err != nil {
		panic(err)
	}
	for _, o := range objs {
		if n, ok := o.(*nftables.NamedObj); ok {
			fmt.Println("read by the library:", n.Name, n.Obj.(*expr.CtExpect).Timeout)
		}
	}
}
G
go mod init finding >/dev/null 2>&1
go get github.com/google/nftables@v0.3.0 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go build -o finding .
unshare -n bash -ec 'nft "add table ip t; add ct expectation ip t cli { protocol tcp; dport 5432; timeout 1m; size 4; l3proto ip; }"
  ./finding
  nft list ruleset' | tee seen.txt
grep -q 'read by the library: lib 60000$' seen.txt && grep -q 'read by the library: cli 1625948160$' seen.txt && grep -q 'timeout 18d19h39m8s160ms$' seen.txt && grep -q 'timeout 1m$' seen.txt
