package nfq

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/vishvananda/netlink"
)

// While the queue of new flows is full and nobody gets anywhere in it, what was
// let through before goes on, keys can be agreed on, and neighbours are found.
func TestFloodStarvesNobody(t *testing.T) {
	t.Parallel()
	for _, protect := range []bool{false, true} {
		name := "clear"
		if protect {
			name = "protect"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, server := pair(t)
			server.echo(7)
			server.echo(portIKE)
			client.echo(portNAT)
			goOn := make(chan struct{})
			fw := server.start(Config{QueueLength: 10, Protect: protect}, func(in *engine.Input) engine.Result {
				if in.Packet.HasPorts && in.Packet.DstPort == 9 {
					<-goOn
				}
				if in.Arriving {
					return engine.Result{Verdict: engine.Bypass, Reason: engine.ReasonIKE}
				}
				return pass(in)
			})
			defer close(goOn)
			var live []net.Conn
			for _, network := range []string{"tcp", "udp"} {
				for _, to := range []netip.Addr{addr4(0, 2), addr6(0, 2)} {
					c, err := client.dial(network, to, 7, patience)
					if err != nil {
						t.Fatal(err)
					}
					askOften(t, "before the flood", c, 3)
					live = append(live, c)
				}
			}
			flood, err := client.dial("udp", addr4(0, 2), 9, patience)
			if err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(patience); fw.Stats().NewDropped == 0 && time.Now().Before(deadline); {
				flood.Write([]byte("x"))
			}
			if got := client.reach("udp", addr4(0, 2), 7, silence); got != "silence" {
				t.Fatalf("a new flow: %s; the test would prove nothing", got)
			}
			forgetNeighbours(server)
			for _, c := range live {
				askOften(t, "live "+c.RemoteAddr().Network()+" to "+c.RemoteAddr().String(), c, 3)
			}
			called, err := client.dial("udp", addr6(0, 2), portIKE, patience)
			if err != nil {
				t.Fatal(err)
			}
			askOften(t, "a peer that calls", called, 1)
			var calls net.Conn
			server.try(func() error {
				d := net.Dialer{LocalAddr: &net.UDPAddr{Port: portNAT}} // IKE speaks from its port
				calls, err = d.Dial("udp", netip.AddrPortFrom(addr6(0, 1), portNAT).String())
				return err
			})
			defer calls.Close()
			askOften(t, "a call to a peer", calls, 1)
			for _, q := range fw.Stats().Queues {
				if q.Class != "new" && q.QueueDropped+q.UserDropped > 0 {
					t.Errorf("the flood reached the queue %+v", q)
				}
			}
		})
	}
}

// forgetNeighbours makes a host ask for its neighbours' addresses again.
func forgetNeighbours(h *testHost) {
	h.t.Helper()
	h.try(func() error {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			list, err := netlink.NeighList(0, family)
			if err != nil {
				return err
			}
			for i := range list {
				if err := netlink.NeighDel(&list[i]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
