package nfq

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// waiter waits for a socket outside Go's poller. The poller would have a thread
// woken for each packet that arrives, also while the one reader is at work;
// like this nobody waits but the reader, and only when there is nothing to do.
type waiter struct {
	fd, wake int // wake is an eventfd
	stopping atomic.Bool
	poll     [2]unix.PollFd
	// full says that the last read brought a burst: what follows it is worth
	// a short wait, because then one read brings more.
	full bool
}

const (
	// burst is how many packets one read must bring to be followed by a
	// pause, in which the next ones gather. It is as long as a few packets
	// take to judge; a single request and its answer never meet it.
	burst = 8
	pause = 30 * time.Microsecond
)

func (s *waiter) openWake() (err error) {
	s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return err
}

// wait returns when there is something to read, or soon after a burst.
func (s *waiter) wait() {
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

// stop makes the reader return until resume is called.
func (s *waiter) stop() {
	s.stopping.Store(true)
	_, _ = unix.Write(s.wake, binary.NativeEndian.AppendUint64(nil, 1)) // full: it wakes already
}

func (s *waiter) stopped() bool { return s.stopping.Load() }

func (s *waiter) resume() {
	s.stopping.Store(false)
	s.drain()
}

func (s *waiter) drain() { _, _ = unix.Read(s.wake, make([]byte, 8)) }

func (s *waiter) close() error {
	var errs []error
	for _, fd := range []*int{&s.fd, &s.wake} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}
