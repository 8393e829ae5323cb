package nfq

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/ipfw/ipfw/engine"
	"golang.org/x/sys/unix"
)

// states gives the tables of the name on the host.
func (h *testHost) states(name string) (there []tableState) {
	h.t.Helper()
	h.try(func() error {
		r, err := openRuleset()
		if err != nil {
			return err
		}
		defer r.close()
		there, err = r.tables(name)
		return err
	})
	return there
}

// needOwners skips a test on a kernel whose tables have no owners.
func (h *testHost) needOwners() {
	h.t.Helper()
	var can abilities
	h.try(func() error {
		r, err := openRuleset()
		if err != nil {
			return err
		}
		defer r.close()
		can, err = r.detect()
		return err
	})
	if !can.own {
		h.t.Skip("SKIPPED: this kernel has no tables with flags owner and persist (Linux 6.9)")
	}
}

// nft runs the program on the host.
func (h *testHost) nft(command string) (out string, err error) {
	h.t.Helper()
	h.do(func() {
		var b []byte
		b, err = exec.Command("nft", strings.Fields(command)...).CombinedOutput()
		out = string(b)
	})
	return out, err
}

// kept says what of the table a test does not let go.
func (h *testHost) kept(t *testing.T, when string, flags, owner uint32) {
	t.Helper()
	there := h.states("ipfw")
	if len(there) != 1 || there[0].flags != flags || there[0].owner != owner {
		t.Errorf("%s: tables %+v, want one with flags %d of owner %d", when, there, flags, owner)
	}
}

// Nobody else can change the table, with the library or with nft; the daemon
// itself can, and a daemon that has gone leaves it to whoever comes.
func TestOwned(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	server.needOwners()
	server.echo(7)
	server.echo(9)
	fw := server.start(Config{Offload: 1}, port(9, engine.Result{}))
	mine := fw.rules.raw.PID()
	server.kept(t, "started", tableOwner|tablePersist, mine)
	want := server.listing("ipfw", nftables.TableFamilyINet)
	foreignTable(t, server)
	table := &nftables.Table{Name: "ipfw", Family: nftables.TableFamilyINet}
	for _, harm := range []struct {
		name string
		do   func(c *nftables.Conn)
	}{
		{"delete the table", func(c *nftables.Conn) { c.DelTable(table) }},
		{"flush the table", func(c *nftables.Conn) { c.FlushTable(table) }},
		{"flush a chain", func(c *nftables.Conn) { c.FlushChain(&nftables.Chain{Table: table, Name: "output"}) }},
		{"delete a chain", func(c *nftables.Conn) { c.DelChain(&nftables.Chain{Table: table, Name: "output_save"}) }},
		{"make it dormant or adopt it", func(c *nftables.Conn) { c.AddTable(table) }},
		{"insert a rule", func(c *nftables.Conn) {
			c.InsertRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Table: table, Name: "input"}, Exprs: []expr.Any{accept()}})
		}},
	} {
		server.try(func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			harm.do(c)
			if err := c.Flush(); !errors.Is(err, os.ErrPermission) {
				t.Errorf("%s: %v, want it to be refused", harm.name, err)
			}
			return nil
		})
	}
	for _, tc := range []struct {
		command string
		ok      bool
	}{
		{"flush ruleset", true}, {"delete table inet ipfw", false}, {"flush table inet ipfw", false},
		{"add table inet ipfw { flags dormant; }", false}, {"add rule inet ipfw input accept", false},
	} {
		if out, err := server.nft(tc.command); (err == nil) != tc.ok {
			t.Errorf("nft %s: %v\n%s", tc.command, err, out)
		}
	}
	if got := server.listing("other", nftables.TableFamilyINet); got != "" {
		t.Errorf("nft flush ruleset has left the other table:\n%s", got)
	}
	if got := server.listing("ipfw", nftables.TableFamilyINet); got != want {
		t.Errorf("the table has changed: %s", firstDifference(got, want))
	}
	if got := client.reach("udp", addr4(0, 2), 9, silence); got != "silence" {
		t.Errorf("shut port: %s", got)
	}
	if got := client.reach("tcp", addr4(0, 2), 7, patience); got != "open" {
		t.Errorf("open port: %s", got)
	}
	for range 3 {
		if err := fw.Reload(Config{}); err != nil {
			t.Error(err)
		}
	}
	if n := fw.Stats().Renewed; n != 0 {
		t.Errorf("renewed %d times", n)
	}
	server.try(func() error {
		if err := Remove(Config{}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
			t.Errorf("Remove beside a daemon that lives: %v", err)
		}
		return nil
	})
	fw.stop()
	if err := fw.Close(true); err != nil {
		t.Fatal(err)
	}
	server.kept(t, "left shut", tablePersist, 0)
	server.try(func() error { return Remove(Config{}) })
	if there := server.states("ipfw"); len(there) != 0 {
		t.Errorf("after Remove: %+v", there)
	}
}

// A killed daemon leaves its table in force, and the next one adopts it without
// making it anew; a plain one of an older ipfw it replaces.
func TestOwnedTakeover(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	server.needOwners()
	server.echo(7)
	_, kill := server.spawn(Config{})
	kill()
	server.kept(t, "killed", tablePersist, 0)
	if got := client.reach("udp", addr4(0, 2), 7, silence); got != "silence" {
		t.Errorf("killed: %s", got)
	}
	if _, err := server.nft("flush ruleset"); err != nil { // nobody's now
		t.Error(err)
	}
	if there := server.states("ipfw"); len(there) != 0 {
		t.Errorf("nobody's table after nft flush ruleset: %+v", there)
	}

	_, kill = server.spawn(Config{})
	handle := server.chainHandles()
	kill()
	fw := server.start(Config{}, pass)
	server.kept(t, "adopted", tableOwner|tablePersist, fw.rules.raw.PID())
	if got := server.chainHandles(); got != handle {
		t.Errorf("chains were made anew: handles %s, were %s", got, handle)
	}
	if got := client.reach("udp", addr4(0, 2), 7, patience); got != "open" {
		t.Errorf("adopted: %s", got)
	}
	fw.stop()
	fw.Close(false)

	plain := server.start(Config{noOwner: true}, pass)
	server.kept(t, "of an older ipfw", 0, 0)
	plain.stop()
	plain.Close(true)
	fw = server.start(Config{}, pass)
	server.kept(t, "replaced", tableOwner|tablePersist, fw.rules.raw.PID())
}

// chainHandles tells chains that were made anew from those that were kept.
func (h *testHost) chainHandles() (all string) {
	h.t.Helper()
	out, err := h.nft("-a list table inet ipfw")
	if err != nil {
		h.t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "chain ") {
			all += strings.TrimSpace(line) + "\n"
		}
	}
	return all
}

// A dead daemon's rules hold its BPF program, and those of the next one let it
// go.
func TestTakeoverLeaksNoProgram(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	pid, kill := h.spawn(Config{Protect: true})
	ids := programs(t, pid)
	if len(ids) == 0 {
		t.Skip("SKIPPED: this kernel takes no BPF program for ESP")
	}
	kill()
	h.start(Config{Protect: true}, drop)
	for _, id := range ids {
		var err error
		for deadline := time.Now().Add(patience); err == nil && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			var p *ebpf.Program
			if p, err = ebpf.NewProgramFromID(id); err == nil {
				p.Close()
			}
		}
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("BPF program %d of the dead daemon: %v", id, err)
		}
	}
}

// programs gives the BPF programs that a process has open.
func programs(t *testing.T, pid int) (ids []ebpf.ProgramID) {
	t.Helper()
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		b, _ := os.ReadFile(info)
		for line := range strings.Lines(string(b)) {
			var id ebpf.ProgramID
			if _, err := fmt.Sscanf(line, "prog_id: %d", &id); err == nil {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// An owner whose last descriptor is closed while a system call is at its socket
// owns the table until that returns. The next daemon waits for it.
func TestOwnerThatIsGoing(t *testing.T) {
	t.Parallel()
	_, server := pair(t)
	server.needOwners()
	const long = 300 * time.Millisecond
	server.try(func() error {
		r, err := openRuleset()
		if err != nil {
			return err
		}
		r.own = true
		if err := r.install(&tableSpec{name: "ipfw", marks: marks(DefaultMask), queue: DefaultQueue, queues: 1, shut: true, first: true},
			families(true)); err != nil {
			return errors.Join(err, r.close())
		}
		raw, err := r.raw.SyscallConn()
		if err != nil {
			return errors.Join(err, r.close())
		}
		held := -1
		if e := raw.Control(func(fd uintptr) { held, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); e != nil || err != nil {
			return errors.Join(e, err, r.close())
		}
		if err := errors.Join(r.close(), unix.SetNonblock(held, false),
			unix.SetsockoptTimeval(held, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: long.Microseconds()})); err != nil {
			return err
		}
		began := make(chan struct{})
		go func() {
			close(began)
			_, _, _ = unix.Recvfrom(held, make([]byte, 1), 0)
		}()
		<-began
		time.Sleep(long / 10) // it is in the call, or the test shows nothing
		return unix.Close(held)
	})
	fw := server.start(Config{}, drop)
	server.kept(t, "started", tableOwner|tablePersist, fw.rules.raw.PID())
}
