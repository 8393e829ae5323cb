#!/usr/bin/env bash
# Subject:   github.com/google/gopacket v1.1.19, IPv6HopByHop and IPv6Destination with SerializeOptions.FixLengths
# Expected:  options are padded to a multiple of 8 octets (RFC 8200 section 4.2).
# Behaviour: as many octets are added as the header is beyond a multiple of 8, not as it lacks. A header of 4 octets beyond it
#            comes out right; the router alert of MLD and RSVP (RFC 2711), which is 6 octets with the header, is refused.
# Seen:      2026-11-30: 2 octets of data: IPv6HopByHop actual length must be multiple of 8; 8 octets: no error
# Needs:     go. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >main.go <<'G'
package main

import (
	"fmt"
	"os"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func write(octets int) error {
	h := &layers.IPv6HopByHop{}
	h.NextHeader = layers.IPProtocolICMPv6
	h.Options = append(h.Options, &layers.IPv6HopByHopOption{OptionType: 5, OptionData: make([]byte, octets)})
	err := gopacket.SerializeLayers(gopacket.NewSerializeBuffer(), gopacket.SerializeOptions{FixLengths: true}, h)
	fmt.Println(octets, "octets of data:", err)
	return err
}

func main() {
	if write(2) == nil || write(8) != nil {
		os.Exit(1)
	}
}
G
go mod init finding >/dev/null 2>&1
go get github.com/google/gopacket@v1.1.19 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go run .
