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

// A connection that is open when ipfw starts for the first time is judged as
// what it is: opened by whoever is at the other end of a port that this host
// listens on.
func TestOpenConnectionsAtTheFirstStart(t *testing.T) {
	a := attack(t, "G11", offPath, "stays connected to a port that policy shuts")
	for _, how := range []string{"first", "again"} {
		for _, offload := range []string{"flow", "none"} {
			for _, v := range []*family{&v4, &v6} {
				a.play(t, fmt.Sprintf("%s %s %s", v.name, how, offload), v, func(t *testing.T, v *family) { tryOpenConnections(t, a, v, how, offload) })
			}
		}
	}
}

func tryOpenConnections(t *testing.T, a *attempt, v *family, how, offload string) {
	s := newSite(t, v)
	policy := strings.Replace(closed(way{offload: offload}), `outbound = "discard"`, `outbound = "bypass"`, 1)
	if how != "first" {
		d := s.run(policy)
		d.Signal(syscall.SIGTERM)
		if err := d.Wait(patience); err != nil {
			t.Fatal(err)
		}
	}
	var in, out, back atomic.Int64 // lines: from the attacker, to him, and of the connection that this host has opened
	lines := func(n *atomic.Int64, write bool) func(net.Conn) {
		return func(c net.Conn) {
			if write {
				go func() {
					for range 100000 {
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
	serve(t, s.gateway, v.any(7001), lines(&in, true))
	serve(t, s.beyond, v.any(7002), lines(new(atomic.Int64), true))
	dial := func(h *lab.Host, to netip.AddrPort, n *atomic.Int64) {
		var c net.Conn
		if err := h.Do(func() (err error) { c, err = net.DialTimeout("tcp", to.String(), patience); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		go lines(n, true)(c)
	}
	dial(s.beyond, at(v.self, 7001), &out)
	dial(s.gateway, at(v.far, 7002), &back)
	eventually(t, "both connections carry lines", func() bool { return in.Load() > 3 && out.Load() > 3 && back.Load() > 3 })
	s.run(policy)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s\n%s\n%s", s.daemon.Ask("flows"), s.daemon.Ask("status"), s.gateway.Run("sh", "-c", "ss -tnoi; cat /proc/net/nf_conntrack"))
		}
	})
	was := back.Load()
	eventually(t, "the connection that this host has opened goes on", func() bool { return back.Load() > was+20 })
	i, o := in.Load(), out.Load()
	was = back.Load()
	eventually(t, "the connection that this host has opened goes on", func() bool { return back.Load() > was+100 })
	moreIn, moreOut := in.Load()-i, out.Load()-o
	if moreIn > 2 || moreOut > 2 {
		t.Errorf("of a connection to a port that policy shuts %d lines came in and %d left after the start", moreIn, moreOut)
	}
	a.saw(fmt.Sprintf("%s %s %s", v.name, how, offload), "after the start %d lines in, %d out; honest %d", moreIn, moreOut, back.Load()-was)
}
