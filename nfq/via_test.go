package nfq

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/vishvananda/netlink"
)

// via leads what a host sends to an address over wire n, until back is called.
func via(h *testHost, to netip.Addr, n, far int) (back func()) {
	h.t.Helper()
	gw := addr4(n, far)
	if to.Is6() {
		gw = addr6(n, far)
	}
	way := netlink.Route{Dst: &net.IPNet{IP: to.AsSlice(), Mask: net.CIDRMask(to.BitLen(), to.BitLen())}, Gw: gw.AsSlice()}
	h.try(func() error { return netlink.RouteAdd(&way) })
	return func() { h.try(func() error { return netlink.RouteDel(&way) }) }
}

// askAnew is ask on a connection that has nothing on its way.
func askAnew(c net.Conn, wait time.Duration) error {
	b := make([]byte, 1<<10)
	for {
		_ = c.SetReadDeadline(time.Now().Add(silence))
		if _, err := c.Read(b); err != nil {
			return ask(c, wait)
		}
	}
}

// A policy that names interfaces is asked about each that a flow uses, in each
// direction, although the kernel answers for the flow: what goes by eth1 comes
// up, is dropped, and passes by eth0 as before. An interface with a new name is
// another one.
func TestOffloadByInterface(t *testing.T) {
	t.Parallel()
	eachReceiver(t, func(t *testing.T, cfg Config) {
		client, server := pair(t)
		wire(client, server, 1)
		for _, h := range []*testHost{client, server} {
			h.do(func() {
				for _, name := range []string{"all", "eth0", "eth1"} {
					sysctl(t, "ipv4/conf/"+name+"/rp_filter", "0")
				}
			})
		}
		client.echo(7)
		server.echo(7)
		o := new(offloader)
		o.generation.Store(1)
		cfg.Offload, cfg.Interfaces = 1, true
		fw := server.start(cfg, func(in *engine.Input) engine.Result {
			r := o.judge(in)
			if in.Packet.HasPorts && (in.InIf == "eth1" || in.OutIf == "eth1") {
				return engine.Result{}
			}
			return r
		})
		for _, network := range []string{"tcp", "udp"} {
			for from, opener := range []*testHost{client, server} {
				for _, address := range []func(n, host int) netip.Addr{addr4, addr6} {
					far := address(0, 2-from)
					name := fmt.Sprintf("%s from host %d to %v", network, from+1, far)
					o.came()
					c, err := opener.dial(network, far, 7, patience)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					if n := askUntilOffloaded(t, name, c, o); n < 2 {
						t.Errorf("%s: %d packets came up, want one of each direction at least", name, n)
					}
					// The client's packets come by eth1: nothing gets in.
					back := via(client, address(0, 2), 1, 2)
					if err := askAnew(c, silence); err == nil {
						t.Errorf("%s: the client is heard by eth1", name)
					}
					back()
					askOften(t, name+", back", c, 1)
					// The server's leave by eth1: nothing gets out.
					back = via(server, address(0, 1), 1, 1)
					if err := askAnew(c, silence); err == nil {
						t.Errorf("%s: the server is heard by eth1", name)
					}
					back()
					askOften(t, name+", back again", c, 20)
				}
			}
		}
		c, err := client.dial("udp", addr4(0, 2), 7, patience)
		if err != nil {
			t.Fatal(err)
		}
		askOften(t, "before the new name", c, 10)
		o.came()
		server.rename("eth0", "lan0")
		if n := askUntilOffloaded(t, "by the new name", c, o); n < 2 {
			t.Errorf("%d packets came up for the new name, want one of each direction at least", n)
		}
		// Nor does another policy take what this one has let pass.
		cfg.Offload = o.generation.Add(1)
		if err := fw.Reload(cfg); err != nil {
			t.Fatal(err)
		}
		o.shut.Store(true)
		if err := ask(c, silence); err == nil {
			t.Error("what the policy before let pass by this interface, this one does too")
		}
	})
}
