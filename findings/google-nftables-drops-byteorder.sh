#!/usr/bin/env bash
# Subject:   github.com/google/nftables v0.3.0, GetRules of rules with an order comparison (<, >, a range) on a number in host
#            order: mark, length, ids, hours, counters of connections
# Expected:  the expressions that come back are the rule's; AddRule with them makes the same rule, or GetRules says that
#            it cannot read them.
# Behaviour: the `byteorder` expression is left out, without an error. What is left compares the bytes in the other order: read and
#            written again, `meta mark < 5` holds for other marks. (The package has a Byteorder expression, and writes it.)
# Seen:      Linux 6.18.44 (x86-64), nft 1.0.6, 2026-11-30: one datagram with mark 4
#            meta mark < 5, as nft made it: counts 1, expressions meta, byteorder, cmp, counter
#            read and added again: counts 0, expressions *expr.Meta *expr.Cmp *expr.Counter
# Needs:     root (unshare), go, nft, python3. Exit status: 0 as described, 1 otherwise.
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
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "given"}
	rules, err := c.GetRules(table, &nftables.Chain{Table: table, Name: "c"})
	if err != nil {
		panic(err)
	}
	for _, e := range rules[0].Exprs {
		fmt.Printf("%T ", e)
	}
	fmt.Println()
	again := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "again"}
	c.AddRule(&nftables.Rule{Table: again, Chain: &nftables.Chain{Table: again, Name: "c"}, Exprs: rules[0].Exprs})
	if err := c.Flush(); err != nil {
		panic(err)
	}
}
G
go mod init finding >/dev/null 2>&1
go get github.com/google/nftables@v0.3.0 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go build -o finding .
cat >send.py <<'P'
import socket
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind(("127.0.0.1", 9))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, 36, 4)  # SO_MARK
s.sendto(b"x", ("127.0.0.1", 9))
P
unshare -n bash -ec 'ip link set lo up
  for t in given again; do nft add table ip $t; nft "add chain ip $t c { type filter hook output priority 0; }"; done
  nft add rule ip given c meta mark "<" 5 counter
  ./finding
  python3 send.py
  nft list ruleset' | tee seen.txt
grep -q '^\*expr.Meta \*expr.Cmp \*expr.Counter $' seen.txt && grep -A4 'table ip given' seen.txt | grep -q 'packets 1 ' && grep -A4 'table ip again' seen.txt | grep -q 'packets 0 '
