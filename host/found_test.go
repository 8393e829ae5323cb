package host

import (
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/nfq"
	"github.com/ipfw/ipfw/packet"
)

// What becomes of the connections that are there at the start is told by count,
// and by what decides.
func TestFates(t *testing.T) {
	port := func(n uint16) []engine.PortRange { return []engine.PortRange{{First: n, Last: n}} }
	p := &engine.Policy{Rules: []engine.Rule{
		{Name: "web", Action: engine.Bypass, In: true, Selector: engine.Selector{Protocols: []uint8{packet.TCP}, LocalPorts: port(80), Interfaces: []string{"eth0"}}},
		{Name: "no-telnet", Action: engine.Discard, Out: true, Selector: engine.Selector{Protocols: []uint8{packet.TCP}, RemotePorts: port(23)}},
		{Name: "smb", Action: engine.Protect, With: "lan", In: true, Selector: engine.Selector{Protocols: []uint8{packet.TCP}, LocalPorts: port(445)}},
	}}
	p.Default[engine.Out] = engine.Bypass
	d := &daemon{engine: engine.New(p, engine.Options{}), firewall: newFakeKernel()}
	of := func(local, remote string, accepted bool) nfq.Connection {
		opener := engine.OpenedByLocal
		if accepted {
			opener = engine.OpenedByRemote
		}
		return nfq.Connection{Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote), Opener: opener}
	}
	found := &devices{byAddr: map[netip.Addr]string{netip.MustParseAddr("192.0.2.1"): "eth0", netip.MustParseAddr("2001:db8::1"): "eth0"},
		route: func(_, _ netip.Addr) string { return "eth0" }}
	for _, row := range []struct {
		list []nfq.Connection
		ssh  string
		want string
	}{
		{nil, "", ""},
		{[]nfq.Connection{{Local: netip.MustParseAddrPort("192.0.2.1:80"), Remote: netip.MustParseAddrPort("203.0.113.8:40000")}}, "",
			"found 1 connection: 0 go on, of 1 the kernel does not tell who opened it"},
		{[]nfq.Connection{of("127.0.0.1:80", "127.0.0.1:40000", true)}, "", ""},
		{[]nfq.Connection{of("192.0.2.1:80", "203.0.113.8:40000", true)}, "", "found 1 connection: 1 goes on"},
		{[]nfq.Connection{of("192.0.2.1:22", "203.0.113.8:40000", true)}, "203.0.113.8 40000 192.0.2.1 22",
			"found 1 connection: 0 go on, 1 is cut (1 by (inbound default)); your own ssh session does not go on as it is"},
		{[]nfq.Connection{
			of("192.0.2.1:80", "203.0.113.8:40000", true), of("[2001:db8::1]:80", "[2001:db8::9]:40000", true),
			of("192.0.2.1:22", "203.0.113.8:40000", true), of("[2001:db8::1]:22", "[2001:db8::9]:40000", true),
			of("192.0.2.1:40000", "203.0.113.8:443", false), of("192.0.2.1:40001", "203.0.113.8:23", false),
			of("192.0.2.1:445", "203.0.113.8:40000", true),
		}, "203.0.113.8 40001 192.0.2.1 22",
			`found 7 connections: 3 go on, 1 goes on under its SA alone (1 by rule "smb"), 3 are cut (2 by (inbound default), 1 by rule "no-telnet")`},
	} {
		if got := d.fates(row.list, found, row.ssh); got != row.want {
			t.Errorf("%q, want %q", got, row.want)
		}
	}
}
