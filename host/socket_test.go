package host

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSocketIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "er", "s")
	s, err := listenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for p, want := range map[string]fs.FileMode{path: fs.ModeSocket | 0o600, filepath.Dir(path): fs.ModeDir | 0o700, path + ".lock": 0o600} {
		if fi, err := os.Lstat(p); err != nil || fi.Mode() != want {
			t.Errorf("%s: mode %v, %v; want %v", p, fi.Mode(), err, want)
		}
	}
}

func TestSocketOfALiveDaemonIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := listenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = listenControl(path)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) || !strings.Contains(err.Error(), path) {
		t.Errorf("a second daemon gets %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the second one removed the socket: %v", err)
	}
	s.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a stopped daemon leaves its socket: %v", err)
	}
	if s, err = listenControl(path); err != nil {
		t.Errorf("after a stop: %v", err)
	}
	s.Close()
}

func TestSocketOfADeadDaemonIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := listenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	// What the kernel leaves of a killed process: the files, without lock
	// and listener.
	if err := os.Rename(path, path+".kept"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := os.Rename(path+".kept", path); err != nil {
		t.Fatal(err)
	}
	_, err = NewClient(path).Status(t.Context())
	var no *NotRunningError
	if !errors.As(err, &no) || no.Socket != path {
		t.Errorf("a client of the dead daemon gets %v", err)
	}
	s, err = listenControl(path)
	if err != nil {
		t.Fatalf("the dead daemon's socket is in the way: %v", err)
	}
	s.Close()
}

func TestSocketNeverRemovesAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := listenControl(path); err == nil || !strings.Contains(err.Error(), "no socket") {
		s.Close()
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

func TestClientWithoutDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for _, row := range []struct {
		left  Left
		err   error
		table string
		want  string
	}{
		{err: errors.New("no"), want: ": start it with `ipfw run` or its systemd unit, or name its socket with --socket"},
		{table: "none", want: ", and its table is not there: ipfw filters nothing. Start it with `ipfw run` or its systemd unit, or name its socket with --socket"},
		{left: Left{There: true}, table: "shut", want: ", and its table is still in force: nothing new passes but loopback. `ipfw run` or its systemd unit takes it over, `ipfw open` removes it and opens the host"},
		{left: Left{There: true, Open: true}, table: "open", want: ", and its table is still there: on_failure = \"open\" has it let pass what nobody judges. `ipfw run` or its systemd unit takes it over, `ipfw open` removes it"},
		{left: Left{There: true, Owner: "process 7"}, table: "other", want: ", but process 7 has its table: name its socket with --socket"},
	} {
		c := NewClient(path)
		c.Left = func() (Left, error) { return row.left, row.err }
		_, err := c.Status(t.Context())
		var no *NotRunningError
		if want := "no ipfw is running at " + path + row.want; !errors.As(err, &no) || err.Error() != want || no.Table() != row.table {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// A daemon that ends while it is asked is told of as one.
func TestClientOfADaemonThatEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for unread := true; ; unread = !unread { // the client hears of an end, or of a reset
			c, err := l.Accept()
			if err != nil {
				return
			}
			if !unread {
				_, _ = c.Read(make([]byte, 4096))
			}
			c.Close()
		}
	}()
	for range 4 {
		_, err = NewClient(path).Reload(t.Context(), ReloadRequest{})
		if want := "the daemon at " + path + " has ended before it answered: its log says why, and `ipfw status` what is in force"; err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestStatNumber(t *testing.T) {
	for _, c := range []struct {
		stat   string
		parent int
	}{
		{"12 (sh) S 7 12 12 0", 7},
		{"12 (a) b) (c) S 7 12 12 0", 7},
		{"12 (sh) S", 0},
		{"12 (sh", 0},
		{"", 0},
		{"12 (sh) S x", 0},
	} {
		if got := statNumber([]byte(c.stat), statParent); got != c.parent {
			t.Errorf("%q: parent %d, want %d", c.stat, got, c.parent)
		}
	}
	if got := proc.stat(os.Getpid(), statParent); got != os.Getppid() {
		t.Errorf("our own parent is %d, want %d", got, os.Getppid())
	}
}

func TestFindSSH(t *testing.T) {
	const v = "203.0.113.9 40000 198.51.100.10 22"
	if got := FindSSH(func(string) string { return v }); got != v {
		t.Errorf("got %q", got)
	}
}
