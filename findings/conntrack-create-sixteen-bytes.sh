#!/usr/bin/env bash
# Subject:   github.com/vishvananda/netlink v1.3.1, ConntrackCreate
# Expected:  an IPv4 flow made of what net.ParseIP gives (16 bytes, as for every net.IP of IPv4 that was not cut by To4)
#            becomes that connection, or an error.
# Behaviour: the first four of the 16 bytes are taken for the address: the call succeeds, and the kernel has a connection
#            from 0.0.0.0 to 0.0.0.0 with the ports that were asked for. With To4 it is right.
# Seen:      Linux 6.18.44, 2026-11-30:
#            16 bytes: <nil>; the kernel has 0.0.0.0:1016 -> 0.0.0.0:7
#            4 bytes: <nil>; the kernel has 192.0.2.7:1004 -> 192.0.2.8:7
# Needs:     root, go, unshare. Exit status: 0 as described, 1 otherwise.
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

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// create makes one UDP connection and says which one the kernel has then.
func create(from, to net.IP) (err error, has string) {
	port := uint16(1000 + len(from))
	err = netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, &netlink.ConntrackFlow{
		FamilyType: unix.AF_INET, TimeOut: 100,
		Forward: netlink.IPTuple{SrcIP: from, DstIP: to, SrcPort: port, DstPort: 7, Protocol: unix.IPPROTO_UDP},
		Reverse: netlink.IPTuple{SrcIP: to, DstIP: from, SrcPort: 7, DstPort: port, Protocol: unix.IPPROTO_UDP},
	})
	list, lerr := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	if lerr != nil {
		return lerr, ""
	}
	for _, f := range list {
		if f.Forward.SrcPort == port {
			has = fmt.Sprintf("%v:%d -> %v:%d", f.Forward.SrcIP, port, f.Forward.DstIP, f.Forward.DstPort)
		}
	}
	return err, has
}

func main() {
	from, to := net.ParseIP("192.0.2.7"), net.ParseIP("192.0.2.8")
	err, long := create(from, to)
	fmt.Printf("16 bytes: %v; the kernel has %s\n", err, long)
	bad := err != nil || long != "0.0.0.0:1016 -> 0.0.0.0:7"
	err, short := create(from.To4(), to.To4())
	fmt.Printf("4 bytes: %v; the kernel has %s\n", err, short)
	if bad || err != nil || short != "192.0.2.7:1004 -> 192.0.2.8:7" {
		os.Exit(1)
	}
}
G
go mod init finding >/dev/null 2>&1
go get github.com/vishvananda/netlink@v1.3.1 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go build -o finding .
uname -r
unshare --net ./finding
