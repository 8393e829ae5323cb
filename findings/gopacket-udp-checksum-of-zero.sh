#!/usr/bin/env bash
# Subject:   github.com/google/gopacket v1.1.19, layers.UDP.SerializeTo with ComputeChecksums
# Expected:  a checksum that comes out as zero is written as 0xffff: zero says that there is none (RFC 768), and is not allowed
#            over IPv6 (RFC 8200 section 8.1).
# Behaviour: it is written as zero. One datagram in 65,536 has no checksum over IPv4 and is dropped by whoever gets it over
#            IPv6. No error.
# Seen:      2026-11-30: 2001:db8::1 port 1 to 2001:db8::2 port 2: of 65,536 payloads of two octets 1 has checksum 0000 and
#            0 have ffff
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

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func main() {
	seen := map[[2]byte]int{}
	for i := range 65536 {
		ip := &layers.IPv6{Version: 6, NextHeader: layers.IPProtocolUDP, HopLimit: 64, SrcIP: net.ParseIP("2001:db8::1"), DstIP: net.ParseIP("2001:db8::2")}
		udp := &layers.UDP{SrcPort: 1, DstPort: 2}
		if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
			panic(err)
		}
		b := gopacket.NewSerializeBuffer()
		options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
		if err := gopacket.SerializeLayers(b, options, ip, udp, gopacket.Payload{byte(i >> 8), byte(i)}); err != nil {
			panic(err)
		}
		seen[[2]byte(b.Bytes()[46:48])]++
	}
	zero, ones := seen[[2]byte{}], seen[[2]byte{0xff, 0xff}]
	fmt.Printf("of 65,536 payloads of two octets %d has checksum 0000 and %d have ffff\n", zero, ones)
	if zero != 1 || ones != 0 {
		os.Exit(1)
	}
}
G
go mod init finding >/dev/null 2>&1
go get github.com/google/gopacket@v1.1.19 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go run .
