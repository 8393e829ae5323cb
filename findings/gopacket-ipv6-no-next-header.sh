#!/usr/bin/env bash
# Subject:   github.com/google/gopacket v1.1.19, an IPv6 header with nothing behind it
# Expected:  a packet with payload length 0 and next header 59 (no next header, RFC 8200 section 4.7) is valid, and decoded
#            without an error.
# Behaviour: it is an error: length 0 is taken for a jumbogram, which would need a hop-by-hop header.
# Seen:      2026-11-30: IPv6 length 0, but next header is NoNextHeader, not HopByHop
# Needs:     go. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >main.go <<'G'
package main

import (
	"encoding/hex"
	"fmt"
	"os"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func main() {
	b, err := hex.DecodeString("60000000" + "0000" + "3b" + "40" + "20010db8000000000000000000000001" + "20010db8000000000000000000000002")
	if err != nil {
		panic(err)
	}
	failure := gopacket.NewPacket(b, layers.LayerTypeIPv6, gopacket.Default).ErrorLayer()
	if failure == nil {
		fmt.Println("decoded")
		os.Exit(1)
	}
	fmt.Println(failure.Error())
}
G
go mod init finding >/dev/null 2>&1
go get github.com/google/gopacket@v1.1.19 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go run .
