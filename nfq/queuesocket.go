package nfq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// queueSocket is the socket of a queue outside Go's poller. The poller would
// have a thread woken for each packet that arrives, also while the one reader
// is at work; like this nobody waits but the reader, and only when there is
// nothing to do.
type queueSocket struct {
	fd, wake int // wake is an eventfd
	stopping atomic.Bool
	poll     [2]unix.PollFd
	// full says that the last read brought a burst: what follows it is worth
	// a short wait, because then one read brings more.
	full bool
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

const (
	// burst is how many packets one read must bring to be followed by a
	// pause, in which the next ones gather. It is as long as a few packets
	// take to judge; a single request and its answer never meet it.
	burst = 8
	pause = 30 * time.Microsecond
)

// takeSocket takes the socket away from Go's poller; conn is closed, also on
// error.
func takeSocket(conn *netlink.Conn) (*queueSocket, error) {
	s := &queueSocket{fd: -1, wake: -1}
	raw, err := conn.SyscallConn()
	if err == nil {
		if e := raw.Control(func(fd uintptr) { s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
			err = e
		}
	}
	if err == nil {
		s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err = errors.Join(err, conn.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("queue socket: %w", err), s.close())
	}
	return s, nil
}

// receive fills the ring with what is there, and waits until something is; 0
// messages and no error say that it was stopped.
func (s *queueSocket) receive(ring []mmsghdr) (int, syscall.Errno) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd),
			uintptr(unsafe.Pointer(&ring[0])), uintptr(len(ring)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			s.full = int(n) >= burst
			return int(n), 0
		case unix.EINTR:
		case unix.EAGAIN:
			s.wait()
			if s.stopped() {
				return 0, 0
			}
		default:
			return 0, errno
		}
	}
}

// wait returns when there is something to read, or soon after a burst.
func (s *queueSocket) wait() {
	if s.full {
		s.full = false
		_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(pause)}, nil) // one that was cut short is as good
		return
	}
	s.poll = [2]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}, {Fd: int32(s.wake), Events: unix.POLLIN}}
	_, _ = unix.Poll(s.poll[:], -1) // whatever it was, reading will tell
	if s.poll[1].Revents != 0 && !s.stopped() {
		s.drain() // of a stop that was quicker than its wake-up
	}
}

func (s *queueSocket) send(b []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_WRITE, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return os.NewSyscallError("write", errno)
	}
	return nil
}

// stop makes receive return until resume is called.
func (s *queueSocket) stop() {
	s.stopping.Store(true)
	_, _ = unix.Write(s.wake, binary.NativeEndian.AppendUint64(nil, 1)) // full: it wakes already
}

func (s *queueSocket) stopped() bool { return s.stopping.Load() }

func (s *queueSocket) resume() {
	s.stopping.Store(false)
	s.drain()
}

func (s *queueSocket) drain() { _, _ = unix.Read(s.wake, make([]byte, 8)) }

func (s *queueSocket) close() error {
	var errs []error
	for _, fd := range []*int{&s.fd, &s.wake} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}

// appendMessage appends a netlink message that asks for no answer.
func appendMessage(b []byte, typ uint16, body []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	return append(append(b, 0, 0, 0, 0, 0, 0, 0, 0), body...)
}
