package nfq

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// enter brings the calling thread, which has to be locked for good, into a network
// namespace. The daemon is there already, and needs no privilege for it.
func enter(namespace *os.File) error {
	own, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	ours, err := namespace.Stat()
	if err != nil {
		return err
	}
	if os.SameFile(own, ours) {
		return nil
	}
	return os.NewSyscallError("setns", unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET))
}

// within calls f on a thread that is in a network namespace.
func within(namespace *os.File, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := enter(namespace)
		if err != nil {
			err = fmt.Errorf("the network namespace cannot be entered: %w", err)
		} else {
			err = f()
		}
		done <- err
	}()
	return <-done
}
