package nfq

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// waiter waits for a socket outside Go's poller. The poller would have a thread
// woken for each packet that arrives, also while the one reader is at work;
// like this nobody waits but the reader, and only when there is nothing to do.
//
// A reader that runs out of work stays awake for a moment: it lets others have
// the processor, and looks again. To put it to sleep and wake it costs as much
// as many packets, most of all in a virtual machine, where it takes the host to
// do so; and whoever brings a packet has to pay for the waking.
//
//	nothing to read --> after a burst: pause, long in a flood --> awake for a moment --> asleep until there is something
//
// The system calls of a reader that is not asleep are hidden from Go's
// scheduler, which would otherwise give its place to others within
// microseconds, and wake more threads for that; see Config.Awake.
type waiter struct {
	fd, wake int // wake is an eventfd
	stopping atomic.Bool
	poll     [2]unix.PollFd
	awake    *awake
	since    time.Time // that it waits awake; zero: it does not
	// full says that the last read brought a burst: what follows it is worth
	// a short wait, because then one read brings more.
	full bool
	long bool // the last pause was a long one
	hold int  // so many bursts bring short pauses before a long one is tried again
}

const (
	// burst is how many packets one read must bring to be followed by a
	// pause, in which the next ones gather. It is as long as a few packets
	// take to judge; a single request and its answer never meet it.
	burst = 8
	pause = 30 * time.Microsecond
	// A long pause is for a flood, which fills it: one read and one answer for
	// flood packets and more take much less than for each a few, and whoever
	// they are for is woken once. Packets that wait for the answers to
	// others, as those of requests do, do not fill it, and are left alone for
	// the next holdoff bursts.
	longPause = 200 * time.Microsecond
	flood     = 24
	holdoff   = 1000
	// linger is how long a reader waits awake.
	linger = 50 * time.Microsecond
)

// awake is how many more readers may wait awake at the same time.
type awake struct{ left atomic.Int32 }

func (a *awake) enter() bool {
	if a.left.Add(-1) >= 0 {
		return true
	}
	a.left.Add(1)
	return false
}

func (a *awake) leave() { a.left.Add(1) }

func (s *waiter) openWake() (err error) {
	s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return err
}

// got takes note that a read has brought n packets.
func (s *waiter) got(n int) {
	s.full = n >= burst
	switch {
	case s.long && n < flood:
		s.hold = holdoff
	case s.full && s.hold > 0:
		s.hold--
	}
	s.long = false
	s.calm()
}

// pause lets packets gather.
func (s *waiter) pause() {
	s.full, s.long = false, s.hold == 0
	t := unix.Timespec{Nsec: int64(pause)}
	if s.long {
		t.Nsec = int64(longPause)
	}
	unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0) // one that was cut short is as good
}

// calm ends waiting awake.
func (s *waiter) calm() {
	if !s.since.IsZero() {
		s.since = time.Time{}
		s.awake.leave()
	}
}

// wait returns when there may be something to read.
func (s *waiter) wait() {
	if !s.rest() {
		s.sleep()
	}
}

// rest waits for a moment, if the reader need not sleep.
func (s *waiter) rest() bool {
	switch {
	case s.full:
		s.pause()
	case s.lingers():
		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	default:
		return false
	}
	return true
}

// lingers says whether the reader may wait awake.
func (s *waiter) lingers() bool {
	if s.since.IsZero() {
		if !s.awake.enter() {
			return false
		}
		s.since = time.Now()
		return true
	}
	if time.Since(s.since) < linger {
		return true
	}
	s.calm()
	return false
}

// sleep returns when there is something to read, or the reader is to stop.
func (s *waiter) sleep() {
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
	s.calm()
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
