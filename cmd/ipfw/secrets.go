package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// shelter is what a command that reads private keys does before: no memory of
// the process goes into a core file, and no other process of the same user may
// read it (ptrace(2), /proc/PID/mem). Both, because a core file that is piped
// to a program (core(5)) heeds no RLIMIT_CORE of 0, and what is started from
// here gets the limit alone. Tests that share their process have none.
func shelter() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("core files cannot be turned off, and keys could be in one: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("core files cannot be turned off, and keys could be in one: %w", err)
	}
	return nil
}

// lockMemory keeps what the process has touched, and will touch, out of swap.
// All of it, because Go copies what it likes where it likes. Only where no
// limit can be met: with one, each later mmap over it fails, and with that the
// daemon.
func lockMemory() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return err
	}
	if limit.Cur != unix.RLIM_INFINITY {
		// What is granted under a limit of nothing is granted for CAP_IPC_LOCK,
		// which in a user namespace counts for nothing, and then no limit counts.
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Max: limit.Max}); err != nil {
			return err
		}
	}
	err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	if limit.Cur != unix.RLIM_INFINITY {
		err = errors.Join(err, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit))
	}
	return err
}
