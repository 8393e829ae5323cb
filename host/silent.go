package host

import (
	"context"
	"fmt"
	"time"
)

// SilentError says that a daemon has taken a question and gives no answer.
type SilentError struct {
	Socket  string
	PID     int           // 0: it cannot be seen
	After   time.Duration // for which it was waited
	Stopped bool          // somebody has stopped the process (SIGSTOP, a debugger)
}

// Error says so, why, and what to do.
func (e *SilentError) Error() string {
	s := fmt.Sprintf("the daemon at %s%s does not answer: it has said nothing for %s", e.Socket, processText(e.PID), e.After)
	if e.Stopped {
		return s + fmt.Sprintf(", because it is stopped. Packets that it has to judge wait or are lost until it goes on: kill -CONT %d", e.PID)
	}
	return s + "; what it enforces stays in force. Its log may say more"
}

func processText(pid int) string {
	if pid == 0 {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}

// watch tells whoever waits for an answer how the daemon is. A question to a
// stopped one fails. A change does not: the daemon will make it once it goes on.
func (c *Client) watch(method, path string, answered <-chan struct{}, fail context.CancelCauseFunc) {
	began, next := time.Now(), c.silent
	for {
		t := time.NewTimer(time.Until(began.Add(next)))
		select {
		case <-answered:
			t.Stop()
			return
		case <-t.C:
		}
		pid := int(c.daemon.Load())
		stopped := pid != 0 && stateOf(pid) == 'T'
		waited := next
		if next == c.silent {
			next = c.long
		} else {
			next += c.long
		}
		switch {
		case method == "GET" && stopped:
			fail(&SilentError{Socket: c.socket, PID: pid, After: waited, Stopped: true})
			return
		case method == "GET":
			c.slow(fmt.Sprintf("the daemon%s has not answered for %s; this waits", processText(pid), waited))
		case stopped:
			c.slow(fmt.Sprintf("the daemon (process %d) is stopped; it will do this once it goes on (kill -CONT %d), and this waits for it", pid, pid))
		case path == "/v1/reload" && waited >= c.long:
			c.slow(fmt.Sprintf("the daemon%s has been at the reload for %s and goes on with it; this waits for the end. Ctrl-C ends the waiting, not the reload; `ipfw status` says what is in force", processText(pid), waited))
		}
	}
}

func (c *Client) slow(text string) {
	if c.Slow != nil {
		c.Slow(text)
	}
}

// stateOf gives the letter of a process's state as in /proc/PID/stat, 0 if it
// cannot be read: T is stopped by a signal, t by a debugger, which counts as T.
func stateOf(pid int) byte {
	f := statFields(proc.read(pid, "stat"))
	if len(f) == 0 || len(f[0]) != 1 {
		return 0
	}
	if f[0][0] == 't' {
		return 'T'
	}
	return f[0][0]
}
