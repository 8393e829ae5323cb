package host

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/nfq"
)

// fakeProcess is a process in a proc file system of a test.
type fakeProcess struct {
	pid, parent, session, began int
	audit, cgroup               string // empty: none
	sockets                     []uint32
}

func fakeProc(t *testing.T, list []fakeProcess) processes {
	t.Helper()
	root := t.TempDir()
	for _, x := range list {
		dir := filepath.Join(root, fmt.Sprint(x.pid))
		if err := os.MkdirAll(filepath.Join(dir, "fd"), 0o700); err != nil {
			t.Fatal(err)
		}
		if x.audit == "" {
			x.audit = "4294967295"
		}
		stat := fmt.Sprintf("%d (a) b) S %d %d %d%s %d 0 0", x.pid, x.parent, x.pid, x.session, strings.Repeat(" 0", 15), x.began)
		for name, text := range map[string]string{"stat": stat, "sessionid": x.audit, "cgroup": "0::" + x.cgroup + "\n"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for i, inode := range x.sockets {
			if err := os.Symlink(fmt.Sprintf("socket:[%d]", inode), filepath.Join(dir, "fd", fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	return processes(root)
}

// TestFinder: whose session a process is part of, also where it was started apart.
// In each list 50 asks, and socket 1 is the session of whoever sits at it.
func TestFinder(t *testing.T) {
	at := func(local, remote string, inode uint32) nfq.Connection {
		return nfq.Connection{Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote), Inode: inode, Opener: engine.OpenedByRemote}
	}
	ssh := at("198.51.100.1:22", "192.0.2.7:5000", 1)
	other := at("198.51.100.1:22", "192.0.2.8:5000", 2)
	local := at("127.0.0.1:80", "127.0.0.1:5000", 3)
	mosh := nfq.Connection{UDP: true, Local: netip.MustParseAddrPort("198.51.100.1:60001"), Remote: netip.MustParseAddrPort("192.0.2.7:7000"), Inode: 4}
	const scope = "/user.slice/user-0.slice/session-7.scope"
	for _, row := range []struct {
		name string
		list []fakeProcess
		want []nfq.Connection
	}{
		{"a parent has it", []fakeProcess{{pid: 9, parent: 1, sockets: []uint32{1}}, {pid: 50, parent: 9}}, []nfq.Connection{ssh}},
		{"a background job whose shell lives", []fakeProcess{{pid: 9, parent: 1, sockets: []uint32{1}}, {pid: 20, parent: 9, session: 20}, {pid: 50, parent: 1, session: 20}}, []nfq.Connection{ssh}},
		{"over UDP", []fakeProcess{{pid: 9, parent: 1, sockets: []uint32{4}}, {pid: 50, parent: 9}}, []nfq.Connection{mosh}},
		{"apart, by the audit session", []fakeProcess{
			{pid: 8, parent: 1, began: 1, audit: "6", sockets: []uint32{2}},
			{pid: 19, parent: 1, began: 5, audit: "7", sockets: []uint32{1}},
			{pid: 10, parent: 19, began: 6, audit: "7", sockets: []uint32{1}},
			{pid: 11, parent: 10, began: 9, audit: "7", sockets: []uint32{2}}, // what a user has opened is no session
			{pid: 50, parent: 1, session: 50, began: 7, audit: "7"}}, []nfq.Connection{ssh}},
		{"apart, by the control group", []fakeProcess{
			{pid: 8, parent: 1, began: 1, cgroup: "/user.slice/user-0.slice/session-70.scope", sockets: []uint32{2}},
			{pid: 10, parent: 1, began: 6, cgroup: scope, sockets: []uint32{1}},
			{pid: 50, parent: 1, session: 50, began: 7, cgroup: scope}}, []nfq.Connection{ssh}},
		{"what begins with a session is part of it, but no more is", []fakeProcess{
			{pid: 9, parent: 1, began: 1, audit: "7", sockets: []uint32{2}}, {pid: 20, parent: 9, began: 2, audit: "7", sockets: []uint32{1}},
			{pid: 50, parent: 20, began: 3, audit: "7"}}, []nfq.Connection{other, ssh}},
		{"by loopback alone", []fakeProcess{{pid: 9, parent: 1, began: 1, audit: "7", sockets: []uint32{1}},
			{pid: 20, parent: 1, began: 2, audit: "7", sockets: []uint32{3}}, {pid: 50, parent: 20, began: 3, audit: "7"}}, []nfq.Connection{ssh, local}},
		{"a service", []fakeProcess{{pid: 9, parent: 1, cgroup: "/system.slice/ssh.service", sockets: []uint32{1}}, {pid: 50, parent: 1, cgroup: "/system.slice/ssh.service"}}, nil},
	} {
		f := finder{proc: fakeProc(t, row.list), list: []nfq.Connection{ssh, other, local}, datagrams: func(want func(uint32) bool) (list []nfq.Connection, err error) {
			if want(mosh.Inode) {
				list = append(list, mosh)
			}
			return list, nil
		}}
		got := f.of(50)
		slices.SortFunc(got, func(a, b nfq.Connection) int { return b.Remote.Compare(a.Remote) })
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}
