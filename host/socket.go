package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ipfw/ipfw/nfq"
)

// DefaultSocket is where the daemon listens unless told otherwise.
const DefaultSocket = "/run/ipfw/ipfw.sock"

// controlSocket is the listening control socket and the lock that makes its
// path ours. The lock is held by the kernel for as long as the process lives,
// so a socket file without a locked lock is what a dead daemon left.
type controlSocket struct {
	net.Listener
	lock *os.File
}

// listenControl makes the control socket, mode 0600, in place of one that a
// dead daemon left. A live daemon there is an error that names its pid.
func listenControl(path string) (*controlSocket, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	if fi, err := os.Lstat(path); err == nil && fi.Mode()&fs.ModeSocket == 0 {
		lock.Close()
		return nil, fmt.Errorf("control socket: %s is there and is no socket: remove it or name another path with --socket", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		lock.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// The mask makes the socket 0600 from its first moment on; chmod
	// afterwards would leave a gap.
	mask := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(mask)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &controlSocket{Listener: l, lock: lock}, nil
}

// Close removes the socket and gives up its path.
func (s *controlSocket) Close() error {
	return errors.Join(s.Listener.Close(), s.lock.Close())
}

// Accept takes only callers who run as root or as this daemon's user: the
// mode of the file says so too, but a mode can be changed by mistake.
func (s *controlSocket) Accept() (net.Conn, error) {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if cred, err := peer(c); err == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid()) {
			return c, nil
		}
		c.Close()
	}
}

// peer says who is at the other end of a unix socket.
func peer(c net.Conn) (*unix.Ucred, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.New("not a unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(err, credErr)
}

// lockFile takes the lock and writes our pid in the file, for the error that
// the next one gets.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("control socket: lock %s: %w", path, err)
		}
		owner := "process unknown"
		var b [32]byte
		if n, _ := f.ReadAt(b[:], 0); n > 0 {
			owner = "process " + strings.TrimSpace(string(b[:n]))
		}
		return nil, fmt.Errorf("ipfw is running already (%s) with the control socket %s: stop it first, or name another path with --socket",
			owner, strings.TrimSuffix(path, ".lock"))
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return f, nil
}

// dialControl connects to a daemon's socket; its errors are sentences.
// left looks for the table without a daemon.
func dialControl(ctx context.Context, path string, left func() (Left, error)) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("no permission for the control socket %s: run this as root (sudo)", path)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		e := &NotRunningError{Socket: path}
		if l, err := left(); err == nil { // who may not know is told less
			e.Left = &l
		}
		return nil, e
	default:
		return nil, fmt.Errorf("control socket: %w", err)
	}
}

// NotRunningError says that no daemon answers at a socket.
type NotRunningError struct {
	Socket string
	// Left is the nftables table as it is; nil: the caller may not know.
	Left *Left
}

// Left is what is there of the nftables table when nobody answers.
type Left = nfq.Left

// Table says in a word what the table does without a daemon: "none", nothing is
// filtered; "shut", nothing new passes; "open", all does that nobody judges; "other", a
// daemon with another socket has it. Empty: the caller may not know.
func (e *NotRunningError) Table() string {
	switch {
	case e.Left == nil:
		return ""
	case e.Left.Owner != "":
		return "other"
	case e.Left.Open:
		return "open"
	case e.Left.There:
		return "shut"
	}
	return "none"
}

// Error says so, what is in force all the same, and what to do.
func (e *NotRunningError) Error() string {
	switch e.Table() {
	case "other":
		return fmt.Sprintf("no ipfw is running at %s, but %s has its table: name its socket with --socket", e.Socket, e.Left.Owner)
	case "open":
		return fmt.Sprintf("no ipfw is running at %s, and its table is still there: on_failure = \"open\" has it let pass what nobody judges. `ipfw run` or its systemd unit takes it over, `ipfw open` removes it", e.Socket)
	case "shut":
		return fmt.Sprintf("no ipfw is running at %s, and its table is still in force: nothing new passes but loopback. `ipfw run` or its systemd unit takes it over, `ipfw open` removes it and opens the host", e.Socket)
	case "none":
		return fmt.Sprintf("no ipfw is running at %s, and its table is not there: ipfw filters nothing. Start it with `ipfw run` or its systemd unit, or name its socket with --socket", e.Socket)
	}
	return fmt.Sprintf("no ipfw is running at %s: start it with `ipfw run` or its systemd unit, or name its socket with --socket", e.Socket)
}
