package nfq

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// This file knows what a verdict may put in the place of a packet. Since Linux 7.2
// the kernel holds that to rules, and drops the packet without a word where it breaks
// one (nfqnl_validate_write): an IPv4 packet keeps its options and its place among
// fragments; an IPv6 packet keeps its next header and its extension headers, so that
// no sealed one can take the place of a clear one, nor the other way round; and
// nothing is replaced in a network namespace of another user namespace than the
// first. Before, one of the same family may take the place. That is the better way
// where there is a choice: connection tracking remembers the packet's connection,
// also for the next daemon.

// replacing is what a verdict may replace.
type replacing int

const (
	replaceNothing  replacing = iota
	replaceByRules            // see mayReplace
	replaceAnything           // of the same family
)

// canReplace says what that is here.
func canReplace(release string) replacing {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err == nil && (major < 7 || major == 7 && minor < 2) {
		return replaceAnything
	}
	if inFirstUserNamespace() {
		return replaceByRules
	}
	return replaceNothing
}

// replaceable says whether a packet may go on as another.
func (w *worker) replaceable(was, now []byte) bool {
	if len(now) > maxPayload || was[0]>>4 != now[0]>>4 {
		return false
	}
	switch w.fw.can.replace {
	case replaceAnything:
		return true
	case replaceByRules:
		return mayReplace(was, now)
	}
	return false
}

// mayReplace is the kernel's rule about two packets of a family, which are whole.
func mayReplace(was, now []byte) bool {
	if was[0]>>4 == 6 {
		return was[6] == now[6] && !extends(was[6])
	}
	n := int(was[0]&0xf) * 4
	const dontFragment = 0x40 // of the flags, which may change
	return was[0] == now[0] && (was[6]^now[6])&^dontFragment == 0 && was[7] == now[7] && bytes.Equal(was[20:n], now[20:n])
}

// onLink says that a packet is for an IPv6 address of the link that it has come by,
// and of no other: by another device the kernel would not take it, so it goes on in
// its place or not at all, and since Linux 7.2 it is not at all.
func onLink(b []byte) bool {
	return b[0]>>4 == 6 && netip.AddrFrom16([16]byte(b[24:40])).IsLinkLocalUnicast()
}

// extends says whether a next header is an extension header to the kernel (its
// ipv6_ext_hdr), behind which there may be more.
func extends(nextHeader byte) bool {
	switch nextHeader {
	case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT, unix.IPPROTO_AH, unix.IPPROTO_NONE, unix.IPPROTO_DSTOPTS:
		return true
	}
	return false
}

// firstUserNamespace is the inode of the user namespace that the machine starts
// with, PROC_USER_INIT_INO of linux/proc_ns.h.
const firstUserNamespace = 0xEFFFFFFD

// inFirstUserNamespace says whether this network namespace belongs to that. If the
// kernel does not tell, because it belongs to one that cannot be seen from here, it
// counts as another.
func inFirstUserNamespace() bool {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return false
	}
	defer f.Close()
	fd, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Ino == firstUserNamespace
}
