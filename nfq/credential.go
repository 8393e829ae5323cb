package nfq

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"math/big"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// credential is what tells the sockets of this daemon, by which injected packets
// leave, from all others: the user and the group that made them, as nftables'
// skuid and skgid compare them. A socket keeps them for life, whoever it is
// handed to. The group is drawn at each start and is nobody's: a thread takes it
// for as long as it opens such a socket, which takes CAP_SETGID. So a socket
// that root has made for another program (a systemd socket unit does) is not
// taken for ours, though that program can mark it.
type credential struct{ uid, gid uint32 }

// gidMap says which groups a process can have, by its user namespace
// (user_namespaces(7)): first inside, first outside, how many.
const gidMap = "/proc/thread-self/gid_map"

// drawCredential draws one. own says that the group is one of ours alone; where
// no group can be drawn, because the user namespace knows too few or the daemon
// may not take them, it is the daemon's own.
func drawCredential() (c credential, own bool, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c = credential{uint32(os.Geteuid()), uint32(os.Getegid())}
	text, err := os.ReadFile(gidMap)
	if err != nil {
		return c, false, nil // no user namespaces, no /proc: the check below needs neither
	}
	gid, ok, err := drawGroup(string(text))
	if err != nil || !ok {
		return c, false, err
	}
	drawn := credential{c.uid, gid}
	if err := drawn.with(func() error { return nil }); err != nil {
		return c, false, nil
	}
	return drawn, true, nil
}

// Groups below are given to users, to services and to containers' users by
// habit. The greatest is that of a signed word: -1 is no group.
const (
	leastGroup    = 1 << 16
	greatestGroup = 1<<31 - 1
)

// drawGroup draws a group from a map of them, the rare ones first.
func drawGroup(gidMap string) (gid uint32, ok bool, err error) {
	for _, least := range []uint64{leastGroup, 1} {
		var ranges [][2]uint64 // the first and the number of groups
		var all uint64
		for s := bufio.NewScanner(strings.NewReader(gidMap)); s.Scan(); {
			var first, outside, n uint64
			if _, err := fmt.Sscan(s.Text(), &first, &outside, &n); err != nil {
				return 0, false, fmt.Errorf("%s: %q: %w", "gid_map", s.Text(), err)
			}
			end := min(first+n, greatestGroup+1)
			if first = max(first, least); first < end {
				ranges = append(ranges, [2]uint64{first, end - first})
				all += end - first
			}
		}
		if all < 2 { // a group that can be guessed
			continue
		}
		n, err := rand.Int(rand.Reader, new(big.Int).SetUint64(all))
		if err != nil {
			return 0, false, err
		}
		at := n.Uint64()
		for _, r := range ranges {
			if at < r[1] {
				return uint32(r[0] + at), true, nil
			}
			at -= r[1]
		}
	}
	return 0, false, nil
}

// with runs f on a thread whose files and sockets get the group.
func (c credential) with(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer keepProcess()()
	before, err := unix.SetfsgidRetGid(int(c.gid))
	if err != nil {
		return fmt.Errorf("group %d: %w", c.gid, err)
	}
	defer unix.SetfsgidRetGid(before)
	// It tells of no failure (setfsgid(2)): ask.
	if now, _ := unix.SetfsgidRetGid(-1); uint32(now) != c.gid {
		return fmt.Errorf("group %d: %w", c.gid, unix.EPERM)
	}
	return f()
}

// keepProcess notes what a change of a thread's group takes away (prctl(2)), and
// gives what puts it back: the signal that the thread gets when its parent
// ends, and whether the process can be traced and dumped: the kernel sets that to
// fs.suid_dumpable, which may be more or less than was.
func keepProcess() (restore func()) {
	var deathSignal int32
	_ = unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&deathSignal)), 0, 0, 0)
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	return func() {
		if deathSignal != 0 {
			_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(deathSignal), 0, 0, 0)
		}
		if err == nil && dumpable <= 1 { // 2 (for root only) cannot be set
			_ = unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(dumpable), 0, 0, 0)
		}
	}
}
