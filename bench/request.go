package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	shortRequest = "GET / HTTP/1.0\r\n\r\n"
	keepRequest  = "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
)

// patience is how long a request may take.
const patience = 5 * time.Second

func sockaddr(text string) (*unix.SockaddrInet4, error) {
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return nil, err
	}
	if !a.Addr().Is4() {
		return nil, fmt.Errorf("%s: the benchmark speaks IPv4", text)
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
}

// uninterrupted makes a system call again that a signal has interrupted. Go's
// scheduler sends signals, and the kernel makes none anew of itself on a socket
// with a time limit (signal(7)); a second connect waits for the first.
func uninterrupted(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// oneRequest opens a connection, asks, reads the answer to its end, closes.
// It uses blocking system calls: the poller of the net package would cost as
// much again, and it is not what is to be measured.
func oneRequest(to *unix.SockaddrInet4, buf []byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(int64(patience))
	if err := errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)); err != nil {
		return err
	}
	if _, err := uninterrupted(func() (int, error) { return 0, unix.Connect(fd, to) }); err != nil {
		return err
	}
	if _, err := uninterrupted(func() (int, error) { return unix.Write(fd, []byte(shortRequest)) }); err != nil {
		return err
	}
	n := 0
	for {
		m, err := uninterrupted(func() (int, error) { return unix.Read(fd, buf[n:]) })
		if err != nil {
			return err
		}
		if m == 0 {
			break
		}
		if n += m; n == len(buf) {
			return errors.New("a long answer to a short request")
		}
	}
	if !bytes.Contains(buf[:min(n, 16)], []byte(" 200 ")) {
		return fmt.Errorf("the server says %.40q", buf[:n])
	}
	return nil
}

// schedule is when the requests of one connection are due.
type schedule struct {
	start time.Time
	every time.Duration // 0: no waiting
}

// run sends the requests and gives how long each took, in milliseconds.
//
// A request that finds its connection free is timed from its writing, so that
// the clock's coarseness does not count; one that is late because the answer
// before it was, from when it was due, so that a stall counts for all who had
// to wait.
func (s schedule) run(ctx context.Context, to string, end time.Time) ([]float64, error) {
	c, err := net.DialTimeout("tcp4", to, patience)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	rd := bufio.NewReader(c)
	var took []float64
	for due := s.start; ctx.Err() == nil; due = due.Add(s.every) {
		from := due
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
			from = time.Now()
		}
		if s.every == 0 {
			from = time.Now()
		}
		if from.After(end) {
			break
		}
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return took, err
		}
		if _, err := io.WriteString(c, keepRequest); err != nil {
			return took, err
		}
		answer, err := http.ReadResponse(rd, nil)
		if err != nil {
			return took, err
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			return took, err
		}
		answer.Body.Close()
		took = append(took, time.Since(from).Seconds()*1e3)
	}
	return took, nil
}
