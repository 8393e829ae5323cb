#!/usr/bin/env bash
# Subject:   github.com/google/nftables v0.3.0, with tables that have flags owner and persist (Linux 6.9 and later)
# Expected:  AddTable on a table that exists changes nothing, as `nft add table` does for a plain one.
# Behaviour: it sends flags 0, which asks the kernel to take the flags away. While the table's owner lives, the owner
#            itself is refused with EOPNOTSUPP; when the owner is gone and the table has only persist, so is everybody.
#            The same call on a plain table is fine. And ListTables gives the flags with their bytes turned round.
# Seen:      Linux 6.18.44, 2026-11-30:
#            owned: AddTable by its owner: conn.Receive: netlink receive: operation not supported; flags 0x6000000
#            orphan: AddTable: conn.Receive: netlink receive: operation not supported; flags 0x4000000
#            plain: AddTable: <nil>
# Needs:     root, go, unshare. Exit status: 0 as described, 1 otherwise, 2 on a kernel without persist.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >main.go <<'G'
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// makeTable makes a table with flags of our choosing, in a batch of its own.
func makeTable(c *netlink.Conn, flags byte) error {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte("finding\x00")},
		{Type: unix.NFTA_TABLE_FLAGS, Data: []byte{0, 0, 0, flags}},
	})
	if err != nil {
		return err
	}
	m := func(t int, f netlink.HeaderFlags, b ...byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(t), Flags: netlink.Request | f}, Data: b}
	}
	if _, err := c.SendMessages([]netlink.Message{
		m(unix.NFNL_MSG_BATCH_BEGIN, 0, 0, 0, 0, unix.NFNL_SUBSYS_NFTABLES),
		m(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, netlink.Create|netlink.Acknowledge, append([]byte{unix.NFPROTO_INET, 0, 0, 0}, attrs...)...),
		m(unix.NFNL_MSG_BATCH_END, 0, 0, 0, 0, unix.NFNL_SUBSYS_NFTABLES),
	}); err != nil {
		return err
	}
	_, err = c.Receive()
	return err
}

// add calls AddTable and gives its error and the flags that are listed.
func add(c *nftables.Conn) (error, uint32) {
	c.AddTable(&nftables.Table{Name: "finding", Family: nftables.TableFamilyINet})
	err := c.Flush()
	list, _ := nftables.New() // an answer may be left on the first connection
	tables, lerr := list.ListTables()
	if lerr != nil || len(tables) != 1 {
		return fmt.Errorf("list: %v, %v", tables, lerr), 0
	}
	return err, tables[0].Flags
}

func main() {
	var raw *netlink.Conn
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(n *netlink.Conn) error { raw = n; return nil }))
	if err != nil {
		panic(err)
	}
	if err := makeTable(raw, 6); err != nil {
		fmt.Println("this kernel has no owner and persist:", err)
		os.Exit(2)
	}
	bad := false
	err, flags := add(c)
	fmt.Printf("owned: AddTable by its owner: %v; flags %#x\n", err, flags)
	bad = bad || !errors.Is(err, unix.EOPNOTSUPP) || flags != 0x6000000
	c.CloseLasting()
	c, _ = nftables.New()
	err, flags = add(c)
	fmt.Printf("orphan: AddTable: %v; flags %#x\n", err, flags)
	bad = bad || !errors.Is(err, unix.EOPNOTSUPP) || flags != 0x4000000
	c.FlushRuleset()
	if err := c.Flush(); err != nil {
		panic(err)
	}
	add(c)
	err, _ = add(c)
	fmt.Printf("plain: AddTable: %v\n", err)
	if bad || err != nil {
		os.Exit(1)
	}
}
G
go mod init finding >/dev/null 2>&1
go get github.com/google/nftables@v0.3.0 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go build -o finding .
uname -r
unshare --net ./finding
