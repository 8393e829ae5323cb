package nfq

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
)

// shutter passes flows to and from port 7 until it is shut, and lets the kernel
// answer the same for the rest of them.
type shutter struct {
	offloader
}

func (s *shutter) judge(in *engine.Input) engine.Result {
	r := s.offloader.judge(in)
	if s.shut.Load() && r.Verdict == engine.Discard && in.Offloadable && in.Tracked {
		r.Offload = s.generation.Load()
	}
	return r
}

// The kernel drops the rest of a flow that a new policy cuts, counts it, and
// forgets that as soon as there is another policy.
func TestRefuse(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	server.echo(7)
	client.echo(7)
	s := new(shutter)
	s.generation.Store(1)
	cfg := Config{Offload: 1}
	fw := server.start(cfg, s.judge)
	reload := func(shut bool) {
		t.Helper()
		s.shut.Store(shut)
		cfg.Offload = s.generation.Add(1)
		if err := fw.Reload(cfg); err != nil {
			t.Fatal(err)
		}
	}
	for _, network := range []string{"udp", "tcp"} {
		for i, from := range []*testHost{client, server} {
			for _, to := range []string{addr4(0, 2-i).String(), addr6(0, 2-i).String()} {
				t.Run(fmt.Sprintf("%s from host %d to %s", network, i+1, to), func(t *testing.T) {
					reload(false)
					c, err := from.dial(network, addrOf(to), 7, patience)
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					from := netip.MustParseAddrPort(c.LocalAddr().String())
					askOften(t, "open", c, 20)
					counted := func() (packets uint64) {
						t.Helper()
						err := fw.Carried(true, func(f *engine.Carried) {
							if f.Source == from {
								packets = f.Packets[0] + f.Packets[1]
							}
						})
						if err != nil {
							t.Fatal(err)
						}
						return packets
					}
					reload(true)
					s.came()
					if err := ask(c, silence/4); err == nil {
						t.Fatal("it goes on")
					}
					sent := int64(1)
					for ; !cut(fw.Firewall, from); sent++ {
						if sent > 500 {
							t.Fatal("its packets go on coming up")
						}
						write(c)
						time.Sleep(10 * time.Millisecond)
					}
					before := counted()
					const more = 500
					for range more {
						write(c)
					}
					if n := s.came(); n > sent+tcpAgain {
						t.Errorf("%d packets came up, %d had been sent", n, sent)
					}
					if network == "udp" {
						after := counted()
						for end := time.Now().Add(patience); after < before+more && time.Now().Before(end); after = counted() {
							time.Sleep(10 * time.Millisecond)
						}
						if after < before+more || after > before+more+uint64(sent) {
							t.Errorf("the kernel has counted %d of %d packets", after-before, more)
						}
					}
					reload(false)
					if network == "udp" {
						askOften(t, "open again", c, 20)
					} else if err := ask(c, patience); err != nil { // TCP repeats itself
						t.Errorf("open again: %v", err)
					}
				})
			}
		}
	}
	if st := fw.Stats(); st.SendErrors+st.Unreadable != 0 {
		t.Errorf("%+v", st)
	}
}

// tcpAgain is how many packets TCP may have sent again before the connection
// was cut.
const tcpAgain = 20

// cut says whether the connection that was opened from an address has the mark
// of those that the kernel is to drop.
func cut(fw *Firewall, from netip.AddrPort) (is bool) {
	mark := fw.marks.refused() | fw.marks.offloaded()
	_ = fw.connections.dump(mark, mark, func(c *connection) {
		is = is || netip.AddrPortFrom(c.orig.src, c.orig.srcPort) == from
	})
	return is
}

func write(c net.Conn) {
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	_, _ = c.Write([]byte("word"))
}
