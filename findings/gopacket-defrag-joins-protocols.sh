#!/usr/bin/env bash
# Subject:   github.com/google/gopacket v1.1.19, ip4defrag
# Expected:  fragments are joined when source, destination, identification and protocol are the same (RFC 791 section 3.2).
# Behaviour: the protocol is not compared. Of two datagrams of one host, UDP and TCP, with the same identification, the first
#            fragment of one and the last of the other become one datagram, and the rest of both is lost. Linux gives
#            each kind of socket identifications of its own, so that such pairs occur.
# Seen:      2026-11-30: TCP "uuuuuuuu" + "TTTTTTTT" is handed out, where u came in a fragment of UDP
# Needs:     go. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >main.go <<'G'
package main

import (
	"bytes"
	"fmt"
	"net"
	"os"

	"github.com/google/gopacket/ip4defrag"
	"github.com/google/gopacket/layers"
)

func fragment(protocol layers.IPProtocol, last bool, octet byte) *layers.IPv4 {
	f := &layers.IPv4{
		Version: 4, IHL: 5, Length: 28, Id: 7, Flags: layers.IPv4MoreFragments, TTL: 64, Protocol: protocol,
		SrcIP: net.IP{192, 0, 2, 1}, DstIP: net.IP{192, 0, 2, 2},
	}
	f.Payload = bytes.Repeat([]byte{octet}, 8)
	if last {
		f.Flags, f.FragOffset = 0, 1
	}
	return f
}

func main() {
	d := ip4defrag.NewIPv4Defragmenter()
	mixed := false
	for _, f := range []*layers.IPv4{
		fragment(layers.IPProtocolUDP, false, 'u'), fragment(layers.IPProtocolTCP, false, 't'),
		fragment(layers.IPProtocolTCP, true, 'T'), fragment(layers.IPProtocolUDP, true, 'U'),
	} {
		whole, err := d.DefragIPv4(f)
		if err != nil {
			panic(err)
		}
		if whole != nil {
			fmt.Printf("%v %q\n", whole.Protocol, whole.Payload)
			mixed = mixed || whole.Protocol == layers.IPProtocolTCP && string(whole.Payload) == "uuuuuuuuTTTTTTTT"
		}
	}
	if !mixed {
		os.Exit(1)
	}
}
G
go mod init finding >/dev/null 2>&1
go get github.com/google/gopacket@v1.1.19 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go run .
