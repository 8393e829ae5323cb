package e2e

import (
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// Connections that are older than ipfw are judged by who has opened them: what
// policy shuts is cut, what it lets in and what this host has opened goes on, and
// ipfw says at its start how many there are. So too for those of the time between
// a stop and the next start.
func TestConnectionsBeforeTheStart(t *testing.T) { lab.EachOffload(t, tryConnectionsBeforeTheStart) }

func tryConnectionsBeforeTheStart(t *testing.T, _ string) {
	l, client, server := lab.Pair(t)
	open7001, open7002 := talkServer(t, server, 7001), talkServer(t, server, 7002)
	echoServer(t, client, 7003)
	policy := l.File("policy.hcl", twoPorts(false, ""))
	var out []*session
	open := func() {
		for i := range 2 {
			talkTo(t, client, addresses(7001)[i])
			talkTo(t, client, addresses(7002)[i])
		}
		out = append(out, mustOpen(t, server, "10.77.0.2:7003"), mustOpen(t, server, "[fd77::2]:7003"))
		l.Eventually(waitLong, "both servers hear all clients", func() bool { return open7001.hear() == len(out) && open7002.hear() == len(out) })
	}
	check := func(d *lab.Daemon) {
		t.Helper()
		l.Eventually(waitLong, "what policy lets in is heard, and nothing else", func() bool {
			return open7002.hear() == 0 && open7001.hear() == len(out)
		})
		for range 4 { // nor does another try of either side help
			if n := open7002.hear(); n > 0 {
				t.Errorf("%d connections that policy shuts go on:\n%s", n, d.Ask("flows"))
			}
		}
		for i, s := range out {
			if !s.moves(waitLong) {
				t.Errorf("connection %d, which this host has opened, does not go on", i)
			}
		}
	}
	open()
	d := server.IPFW(policy)
	check(d)
	const want = "found 6 connections: 4 go on, 2 are cut (2 by (inbound default))"
	if !strings.Contains(d.Output(), want) {
		t.Errorf("the log does not say %q:\n%s", want, d.Output())
	}

	d.Signal(syscall.SIGTERM)
	if err := d.Wait(waitLong); err != nil {
		t.Fatalf("SIGTERM: %v\n%s", err, d.Output())
	}
	open()
	check(server.IPFW(policy))
}

// talker is a server that speaks by itself, and counts who does so to it.
type talker struct {
	mu    sync.Mutex
	heard map[net.Conn]int // bytes
}

// hear gives how many connections something comes by in half a second.
func (s *talker) hear() (n int) {
	count := func() map[net.Conn]int { s.mu.Lock(); defer s.mu.Unlock(); return maps.Clone(s.heard) }
	before := count()
	time.Sleep(500 * time.Millisecond)
	for c, bytes := range count() {
		if bytes > before[c] {
			n++
		}
	}
	return n
}

func talkServer(t *testing.T, h *lab.Host, port int) *talker {
	t.Helper()
	s := &talker{heard: map[net.Conn]int{}}
	var ln net.Listener
	if err := within(t, h, func() (err error) {
		ln, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			chat(t, c, func(n int) { s.mu.Lock(); s.heard[c] += n; s.mu.Unlock() })
		}
	}()
	return s
}

// talkTo opens a connection on which both sides speak.
func talkTo(t *testing.T, h *lab.Host, address string) {
	t.Helper()
	if err := within(t, h, func() error {
		c, err := net.DialTimeout("tcp", address, waitLong)
		if err == nil {
			chat(t, c, func(int) {})
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// chat sends a line every 20 ms, and tells what comes, until the test ends.
func chat(t *testing.T, c net.Conn, heard func(n int)) {
	t.Cleanup(func() { c.Close() })
	go func() {
		for {
			if _, err := fmt.Fprintln(c, "hello"); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			heard(n)
		}
	}()
}

// onlyCalled is a policy whose peer may be called, and calls nobody.
const onlyCalled = `
policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "calls" {
  action         = "protect"
  with           = "peer"
  direction      = "out"
  remote_address = %q
}
`

// A daemon that takes over from one that has died, or from `ipfw shut`, lets a
// peer that may only be called open nothing. What had been opened to it goes on.
func TestTakeoverOpensNothing(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, extra := range []string{"", `  encapsulation = "udp"`} {
			t.Run(fmt.Sprintf("v6=%v,udp=%v", v6, extra != ""), func(t *testing.T) {
				l, client, server := lab.Pair(t)
				c, s := "10.77.0.2", "10.77.0.1"
				if v6 {
					c, s = "fd77::2", "fd77::1"
				}
				first, second := l.Blocks("a", lab.Manual{Local: c, Remote: s, Extra: extra})
				client.IPFW(l.File("client.hcl", fmt.Sprintf(protectAll, s)+first))
				policy := l.File("server.hcl", fmt.Sprintf(onlyCalled, c)+second)
				echoServer(t, server, 7001)
				echoServer(t, client, 7004)
				came := listenUDP(t, server, 7002)
				d := server.IPFW(policy)
				out := mustOpen(t, server, net.JoinHostPort(c, "7004"))

				// A UDP flow that the server has opened.
				called := listenUDPConn(t, client, 7003)
				var caller net.Conn
				if err := within(t, server, func() (err error) {
					caller, err = net.Dial("udp", net.JoinHostPort(c, "7003"))
					return err
				}); err != nil {
					t.Fatal(err)
				}
				defer caller.Close()
				b := make([]byte, 100)
				fmt.Fprint(caller, "hello")
				called.SetReadDeadline(time.Now().Add(waitLong))
				_, back, err := called.ReadFrom(b)
				if err != nil {
					t.Fatal(err)
				}
				answered := func(what string) bool {
					if _, err := called.WriteTo([]byte(what), back); err != nil {
						t.Fatal(err)
					}
					caller.SetReadDeadline(time.Now().Add(time.Second))
					n, err := caller.Read(b)
					return err == nil && string(b[:n]) == what
				}
				if !answered("before") {
					t.Fatal("no answer before")
				}
				shut := func(when string) {
					t.Helper()
					if _, err := openSession(t, client, net.JoinHostPort(s, "7001")); err == nil {
						t.Errorf("%s: a peer that may only be called has opened a TCP connection", when)
					}
					if err := within(t, client, func() error {
						conn, err := net.Dial("udp", net.JoinHostPort(s, "7002"))
						if err == nil {
							_, err = conn.Write([]byte("opened"))
						}
						return err
					}); err != nil {
						t.Fatal(err)
					}
					select {
					case <-came:
						t.Errorf("%s: a peer that may only be called has opened a UDP flow", when)
					case <-time.After(time.Second):
					}
				}
				shut("at first")
				for _, how := range []string{"after a crash", "after shut"} {
					d.Kill()
					if how == "after shut" {
						server.Run(lab.Binary(t), "shut", "--force", "-c", policy, "--socket", d.Socket)
					}
					d = server.IPFW(policy)
					if !answered(how) {
						t.Errorf("%s: a UDP flow that was open does not go on", how)
					}
					shut(how)
					if !out.moves(20 * time.Second) {
						t.Errorf("%s: a connection that was open does not go on", how)
					}
				}
			})
		}
	}
}

// listenUDPConn opens a UDP port in a host.
func listenUDPConn(t *testing.T, h *lab.Host, port int) (conn net.PacketConn) {
	t.Helper()
	if err := within(t, h, func() (err error) {
		conn, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
