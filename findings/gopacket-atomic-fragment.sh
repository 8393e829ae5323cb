#!/usr/bin/env bash
# Subject:   github.com/google/gopacket v1.1.19, IPv6 packets with a Fragment header that are whole
# Expected:  a packet whose Fragment header has offset 0 and no more fragments (an atomic fragment, RFC 6946) is decoded to its
#            transport header, as one without that header is.
# Behaviour: decoding ends: what follows is a layer Fragment, and there is no transport layer. A program that looks for TCP or
#            UDP does not see the packet. NAT64 translators make such packets.
# Seen:      2026-11-30: without: UDP 1->2; with: IPv6, IPv6Fragment, Fragment, no transport layer
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

const (
	addresses = "20010db8000000000000000000000001" + "20010db8000000000000000000000002"
	datagram  = "0001000200090000ff"
)

func transport(text string) gopacket.TransportLayer {
	b, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	p := gopacket.NewPacket(b, layers.LayerTypeIPv6, gopacket.Default)
	for _, l := range p.Layers() {
		fmt.Print(l.LayerType(), " ")
	}
	fmt.Println("- transport layer:", p.TransportLayer() != nil)
	return p.TransportLayer()
}

func main() {
	without := transport("60000000" + "0009" + "11" + "40" + addresses + datagram)
	with := transport("60000000" + "0011" + "2c" + "40" + addresses + "1100000000000007" + datagram)
	if without == nil || with != nil {
		os.Exit(1)
	}
}
G
go mod init finding >/dev/null 2>&1
go get github.com/google/gopacket@v1.1.19 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go run .
