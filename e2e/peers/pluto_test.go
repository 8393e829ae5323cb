package peers

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
)

// TestLibreswan holds ike against libreswan: who calls, rekeys of both kinds
// from either side, pings through what comes out of it. It wants a key
// exchange with each rekey of a child, as it does when left alone.
func TestLibreswan(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	guest, us := l.Guest("guest"), l.Host("us")
	guest.Join(us, "c0", []string{"10.77.0.2/24"}, []string{"10.77.0.1/24"})
	guest.Run("ip", "addr", "add", "10.2.0.1/32", "dev", "lo")
	guest.Run("ip", "route", "add", "10.1.0.1/32", "dev", "vec0", "via", "10.77.0.2")
	pluto := guest.Pluto("net", `ikev2=insist
authby=secret
left=10.77.0.1
leftid=@peer.example
leftsubnet=10.2.0.1/32
leftupdown=/bin/true
right=10.77.0.2
rightid=@us.example
rightsubnet=10.1.0.1/32
auto=add`, `@peer.example @us.example : PSK "`+secret+`"`)
	m := new(matrix)
	for _, call := range sides {
		t.Run(call+" calls", func(t *testing.T) {
			start := time.Now()
			defer func() {
				m.add(t, "libreswan", row{name: "psk, rekeys of child and IKE SA from both sides", call: call}, time.Since(start))
			}()
			r := row{call: call}
			peer := r.peer(&site{theirsSeen: addrs("10.77.0.1", "fd77::1")})
			peer.Children[0].LocalTS, peer.Children[0].RemoteTS = peer.Children[0].LocalTS[:1], peer.Children[0].RemoteTS[:1]
			p := &play{T: t, start: start, site: &site{ours: addrs("10.77.0.2", "fd77::2")}, us: newStation(t, us, ike.Config{Peers: []*ike.Peer{peer}}, netip.MustParseAddr("10.77.0.2"))}
			defer func() {
				if t.Failed() {
					for _, e := range p.us.events() {
						t.Logf("us: %s", e)
					}
					t.Log(pluto.Log())
				}
				p.do(func(c *ike.Core, now time.Time) ike.Output { return c.Terminate(now, "", "") })
				p.eventually("the end", func() bool { p.us.mu.Lock(); defer p.us.mu.Unlock(); return len(p.us.core.Status()) == 0 })
			}()
			if call == "us" {
				p.initiate()
			} else if out, err := pluto.Whack("--initiate", "--name", "net"); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			p.eventually("a child", func() bool { return p.us.count(ike.ChildUp) == 1 })
			p.pings(guest)
			for _, by := range sides {
				for _, what := range []struct {
					kind         ike.EventKind
					child, whack string
				}{{ike.ChildRekeyed, "net", "--rekey-ipsec"}, {ike.IKERekeyed, "", "--rekey-ike"}} {
					before := p.us.count(what.kind)
					if by == "us" {
						p.do(func(c *ike.Core, now time.Time) ike.Output { return c.Rekey(now, "peer", what.child) })
					} else if out, err := pluto.Whack(what.whack, "--name", "net"); err != nil {
						t.Errorf("whack %s: %v\n%s", what.whack, err, out)
					}
					p.eventually(fmt.Sprintf("%s by %s", what.kind, by), func() bool { return p.us.count(what.kind) > before })
					p.pings(guest)
				}
			}
		})
	}
	m.print(t)
}

// pings pings both ways.
func (p *play) pings(guest *lab.Guest) {
	p.Helper()
	p.eventually("an answer to the peer's ping", func() bool {
		_, err := guest.Try(10*time.Second, "ping", "-n", "-c", "1", "-W", "1", "-I", innerTheirs[0].String(), innerOurs[0].String())
		return err == nil
	})
	p.us.mu.Lock()
	p.us.sent++
	n := p.us.sent
	p.us.mu.Unlock()
	p.eventually("an answer to our ping", func() bool {
		p.us.mu.Lock()
		p.us.seal("net", packet.Spec{Src: innerOurs[0], Dst: innerTheirs[0], Protocol: packet.ICMP, ICMPType: 8, EchoID: 77, EchoSeq: n, Payload: []byte("from us")})
		p.us.mu.Unlock()
		time.Sleep(50 * time.Millisecond)
		p.us.mu.Lock()
		defer p.us.mu.Unlock()
		return p.us.echo[n]
	})
}
