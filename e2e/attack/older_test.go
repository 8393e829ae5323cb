package attack

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// chatter counts the lines that come, and writes some itself if it is told to.
func chatter(n *atomic.Int64, write bool) func(net.Conn) {
	return func(c net.Conn) {
		if write {
			go func() {
				for {
					if _, err := c.Write([]byte("line\n")); err != nil {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
			}()
		}
		r := bufio.NewReader(c)
		for {
			if _, err := r.ReadString('\n'); err != nil {
				return
			}
			n.Add(1)
		}
	}
}

// dialFrom connects a host, until the test ends.
func dialFrom(t *testing.T, h *lab.Host, to netip.AddrPort) (c net.Conn) {
	t.Helper()
	if err := h.Do(func() (err error) { c, err = net.DialTimeout("tcp", to.String(), patience); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// older is a policy that lets this host open what it likes, and nobody else.
func older(offload string) string {
	return strings.Replace(closed(way{offload: offload}), `outbound = "discard"`, `outbound = "bypass"`, 1)
}

// The program that has accepted a connection listens no more when ipfw starts, as
// `nc -l` does. The connection is the stranger's all the same.
func TestConnectionWhoseListenerIsGone(t *testing.T) {
	a := attack(t, "G11", offPath, "stays connected where nobody listens any more")
	for _, tracked := range []bool{false, true} {
		for _, writes := range []bool{false, true} {
			for _, v := range []*family{&v4, &v6} {
				name := fmt.Sprintf("%s tracked=%v writes=%v", v.name, tracked, writes)
				a.play(t, name, v, func(t *testing.T, v *family) {
					s := newSite(t, v)
					if tracked { // a rule of others has connection tracking on from the beginning
						s.gateway.Run("sh", "-c", "nft add table inet x; nft 'add chain inet x c { type filter hook input priority 0; }'; nft add rule inet x c ct state new counter")
					}
					var in, back atomic.Int64
					var l net.Listener
					if err := s.gateway.Do(func() (err error) {
						l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(v.any(7001)))
						return err
					}); err != nil {
						t.Fatal(err)
					}
					go func() {
						c, err := l.Accept()
						_ = l.Close()
						if err == nil {
							t.Cleanup(func() { _ = c.Close() })
							chatter(&in, writes)(c)
						}
					}()
					go chatter(new(atomic.Int64), true)(dialFrom(t, s.beyond, at(v.self, 7001)))
					serve(t, s.beyond, v.any(7002), chatter(new(atomic.Int64), true))
					go chatter(&back, true)(dialFrom(t, s.gateway, at(v.far, 7002)))
					eventually(t, "both connections carry lines", func() bool { return in.Load() > 3 && back.Load() > 3 })
					s.run(older("flow"))
					was := in.Load()
					now := back.Load()
					eventually(t, "what this host has opened goes on", func() bool { return back.Load() > now+100 })
					if more := in.Load() - was; more > 2 {
						t.Errorf("%d lines came in after the start", more)
					}
					a.saw(name, "after the start %d lines in; honest %d", in.Load()-was, back.Load()-now)
				})
			}
		}
	}
}

// The far end alone writes on a connection that this host has opened, so that its
// packet is always the first that connection tracking sees. A firewall of this host
// drops a segment on its way out, which the socket's counters count twice. Then
// there is a second start, which finds the marks of the first.
func TestOwnConnectionAtTheSecondStart(t *testing.T) {
	a := attack(t, "G11", slip, "starts ipfw twice beside a connection of this host")
	for _, offload := range []string{"flow", "none"} {
		for _, how := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
			for _, v := range []*family{&v4, &v6} {
				name := fmt.Sprintf("%s %s %v", v.name, offload, how)
				a.play(t, name, v, func(t *testing.T, v *family) {
					s := newSite(t, v)
					var back atomic.Int64
					var there atomic.Int64
					serve(t, s.beyond, v.any(7002), chatter(&there, true))
					own := dialFrom(t, s.gateway, at(v.far, 7002))
					go chatter(&back, false)(own)
					goesOn := func(when string) {
						was := back.Load()
						eventually(t, "what this host has opened goes on "+when, func() bool { return back.Load() > was+20 })
					}
					goesOn("before")
					d := s.run(older(offload))
					goesOn("after the first start")
					s.gateway.Run("nft", "table inet x { chain c { type filter hook output priority 0; tcp dport 7002 counter drop; }; }")
					if _, err := own.Write([]byte("line\n")); err != nil {
						t.Fatal(err)
					}
					eventually(t, "a segment is dropped", func() bool {
						return !strings.Contains(s.gateway.Run("nft", "list", "table", "inet", "x"), "packets 0 ")
					})
					s.gateway.Run("nft", "delete", "table", "inet", "x")
					eventually(t, "the segment comes in the end", func() bool { return there.Load() == 1 })
					d.Signal(how)
					if err := d.Wait(patience); err != nil && how != syscall.SIGKILL {
						t.Fatal(err)
					}
					s.run(older(offload))
					goesOn("after the second")
					a.saw(name, "it goes on after both")
				})
			}
		}
	}
}
