package main

import (
	"net"
	"net/http"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A request is answered although signals interrupt its system calls, as those of
// Go's scheduler do.
func TestRequestDespiteSignals(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(20 * time.Millisecond) })}
	go func() { _ = s.Serve(l) }() // ends with the listener
	t.Cleanup(func() { _ = s.Close() })
	to, err := sockaddr(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	thread, done := make(chan int), make(chan error)
	go func() {
		runtime.LockOSThread()
		thread <- unix.Gettid()
		buf := make([]byte, 4096)
		for range 10 {
			if err := oneRequest(to, buf); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	id := <-thread
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		case <-time.After(time.Millisecond):
			if err := unix.Tgkill(os.Getpid(), id, unix.SIGURG); err != nil {
				t.Fatal(err)
			}
		}
	}
}
