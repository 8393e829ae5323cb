#!/usr/bin/env bash
# Subject:   github.com/google/gopacket v1.1.19, ip4defrag
# Expected:  the last fragment of a datagram may have any length (RFC 791 section 3.2: only the others are multiples of 8).
# Behaviour: one of less than 8 octets is refused as handcrafted, and the datagram is never whole. Any datagram can end so: a
#            ping with 1,476 octets of data over Ethernet does.
# Seen:      2026-11-30: 8 octets: whole; 4 octets: defrag: fragment too small (handcrafted? 4 < 8)
# Needs:     go. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >main.go <<'G'
package main

import (
	"fmt"
	"net"
	"os"

	"github.com/google/gopacket/ip4defrag"
	"github.com/google/gopacket/layers"
)

// join gives the fragments of a datagram whose last one has so many octets.
func join(octets int) (whole bool, err error) {
	d := ip4defrag.NewIPv4Defragmenter()
	base := layers.IPv4{Version: 4, IHL: 5, Id: 7, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: net.IP{192, 0, 2, 1}, DstIP: net.IP{192, 0, 2, 2}}
	first, last := base, base
	first.Length, first.Flags, first.Payload = 1500, layers.IPv4MoreFragments, make([]byte, 1480)
	last.Length, last.FragOffset, last.Payload = uint16(20+octets), 1480/8, make([]byte, octets)
	if _, err := d.DefragIPv4(&first); err != nil {
		return false, err
	}
	out, err := d.DefragIPv4(&last)
	return out != nil, err
}

func main() {
	eight, err := join(8)
	fmt.Println("8 octets: whole:", eight, err)
	four, err := join(4)
	fmt.Println("4 octets: whole:", four, err)
	if !eight || four || err == nil {
		os.Exit(1)
	}
}
G
go mod init finding >/dev/null 2>&1
go get github.com/google/gopacket@v1.1.19 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go run .
