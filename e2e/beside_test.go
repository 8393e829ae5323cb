//go:build guest

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/e2e/vm"
	"github.com/ipfw/ipfw/host"
)

// Ports of the server, as its ipfw and the rules of others see them.
const (
	portOpen   = 7001 // open for both
	portShut   = 7002 // only ipfw shuts it
	portSealed = 7003 // ipfw protects it, others let it pass
	portTheirs = 7004 // only others shut it
)

// beside is a pair of hosts with ipfw, whose server has rules or devices of others
// as well:
//
//	+------------------+                   +------------------------+
//	| client, ipfw  c0 |-------------------| s0  server, ipfw,      |
//	| 10.77.0.2 fd77::2|                   | others  .1  fd77::1    |
//	+------------------+                   +------------------------+
//
// IPv4 is protected with keys of IKE, in UDP, IPv6 with keys set by hand, natively.
type beside struct {
	*lab.Lab
	t              *testing.T
	client, server *lab.Host
	a, b           *lab.Daemon   // of the client and the server
	policy         string        // more lines of the server's policy
	serverPolicy   string        // all of it
	theirs         bool          // others shut portTheirs
	dev            string        // by which the client sends
	programs       *lab.Programs // of others, on the server; nil: none
	add            addedUp
}

// change is what others do while ipfw runs; kept, if in the end their rules are
// not what they were.
type change struct {
	what string
	do   func()
	kept bool
}

const besidePolicy = `policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "open" {
  action     = "bypass"
  direction  = "in"
  protocol   = ["tcp", "udp"]
  local_port = [%[1]d, %[2]d]
}
rule "sealed-v4" {
  action         = "protect"
  with           = "agreed"
  direction      = "%[3]s"
  protocol       = ["tcp", "udp"]
  remote_address = "%[4]s"
  %[5]s = %[6]d
}
rule "sealed-v6" {
  action         = "protect"
  with           = "by-hand"
  direction      = "%[3]s"
  protocol       = ["tcp", "udp"]
  remote_address = "%[7]s"
  %[5]s = %[6]d
}
ipsec "agreed" {
  mode = "transport"
  ike  = "peer"
}
ike "peer" {
  remote_endpoint = "%[4]s"
  local_id        = "%[8]s"
  remote_id       = "%[9]s"
  private_key     = "own.key"
  public_keys     = "peers/"
}
`

// besidePair makes the pair; ipfw is not there yet.
func besidePair(t *testing.T) *beside {
	t.Helper()
	lab.Need(t, "nft", "ping", "tcpdump")
	l, client, server := lab.Pair(t)
	for _, port := range []uint16{portOpen, portShut, portSealed, portTheirs} {
		if err := server.Do(func() error { return lab.Serve(port) }); err != nil {
			t.Fatal(err)
		}
	}
	return &beside{Lab: l, t: t, client: client, server: server, dev: "c0"}
}

// start starts ipfw on both hosts.
func (b *beside) start() {
	b.t.Helper()
	b.RawKeys(false, "client", "server")
	first, second := b.Blocks("by-hand", lab.Manual{Name: "by-hand", Local: "fd77::1", Remote: "fd77::2"})
	b.serverPolicy = fmt.Sprintf(besidePolicy, portOpen, portTheirs, "in", "10.77.0.2", "local_port", portSealed, "fd77::2", "server", "client") + first + b.policy
	b.b = b.server.IPFW(b.File("server/policy.hcl", b.serverPolicy))
	b.a = b.client.IPFW(b.File("client/policy.hcl",
		fmt.Sprintf(besidePolicy, portOpen, portTheirs, "out", "10.77.0.1", "remote_port", portSealed, "fd77::1", "client", "server")+second))
	// In a guest that has just booted this is the first queue of all.
	if out := b.b.Output(); strings.Contains(out, "cannot be read") {
		b.t.Errorf("ipfw has not found something of the kernel's:\n%s", out)
	}
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.t.Logf("client:\n%s\nserver:\n%s\nrules of the server at the end:\n%s", lastLines(b.a.Output(), 30), lastLines(b.b.Output(), 30), b.rules())
		}
	})
}

var besideAddresses = []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1")}

// connects says whether the client can open a TCP connection to a port within a
// time that is short: a test that waits for the contrary calls it again.
func (b *beside) connects(to netip.AddrPort) bool {
	err := b.client.Do(func() error {
		c, err := net.DialTimeout("tcp", to.String(), 3*time.Second)
		if err == nil {
			err = c.Close()
		}
		return err
	})
	return err == nil
}

// carries fails the test unless so many bytes go to an address and back.
func (b *beside) carries(when, network string, to netip.AddrPort, size int) {
	b.t.Helper()
	x := lab.Transfer{Network: network, To: to, Size: size, Limit: waitLong}
	if err := b.client.Do(x.Do); err != nil {
		b.t.Errorf("%s: %v: %v\n%s", when, x, err, b.status())
	}
}

func (b *beside) status() string {
	if b.b == nil {
		return ""
	}
	out, err := b.server.Try(waitLong, lab.Binary(b.t), "status", "--socket", b.b.Socket)
	if err != nil {
		return err.Error()
	}
	return out
}

// holds is what ipfw promises, whatever others do: what is allowed passes, what is
// denied is discarded and counted, what is protected crosses the wire sealed or not
// at all, and what others shut stays shut.
func (b *beside) holds(when string) {
	b.t.Helper()
	wire := b.client.Capture(b.dev, "")
	for _, addr := range besideAddresses {
		at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(addr, port) }
		for _, network := range []string{"tcp", "udp"} {
			size := map[string]int{"tcp": 200_000, "udp": 4000}[network]
			b.carries(when, network, at(portOpen), size)
			b.carries(when, network, at(portSealed), size)
		}
		before := counted(b.t, b.b, "default")
		if b.connects(at(portShut)) {
			b.t.Errorf("%s: %v is open", when, at(portShut))
		}
		if counted(b.t, b.b, "default") == before {
			b.t.Errorf("%s: what is discarded is not counted:\n%s", when, b.status())
		}
		if open := b.connects(at(portTheirs)); open == b.theirs {
			b.t.Errorf("%s: %v, which others decide about, is open: %v", when, at(portTheirs), open)
		}
	}
	clear := fmt.Sprintf("port %d", portSealed)
	if n := wire.Count(clear); n > 0 {
		b.t.Errorf("%s: %d packets of what is protected crossed in the clear:\n%s", when, n, wire.Text(clear))
	}
	for _, sealed := range []string{"udp port 4500", "ip6 proto 50"} {
		if wire.Count(sealed) == 0 {
			b.t.Errorf("%s: none of %q on the wire", when, sealed)
		}
	}
	for _, d := range []*lab.Daemon{b.a, b.b} {
		c := host.NewClient(d.Socket)
		b.add.look(b.t, c)
		c.Close()
	}
}

// rules is all that ipfw must leave as it was, without counters.
func (b *beside) rules() string {
	var all strings.Builder
	for _, command := range []string{"nft -s list ruleset", "ip rule", "ip -6 rule", "ip route show table all", "ip xfrm policy", "ip link"} {
		try := b.server.Try
		if b.programs != nil { // an nft reads what it has written itself
			try = b.programs.Try
		}
		out, err := try(waitLong, strings.Fields(command)...)
		fmt.Fprintf(&all, "# %s\n%s", command, out)
		if err != nil {
			fmt.Fprintf(&all, "%v\n", err)
		}
	}
	return all.String()
}

// run plays a row: others first, ipfw beside them, what others do then, and the
// end of ipfw.
func (b *beside) run(changes ...change) {
	b.t.Helper()
	for _, addr := range besideAddresses {
		b.carries("before ipfw", "tcp", netip.AddrPortFrom(addr, portShut), 1000)
	}
	before := b.rules()
	b.start()
	b.holds("beside")
	kept := false
	for _, c := range changes {
		c.do()
		b.holds(c.what)
		kept = kept || c.kept
	}
	// What is protected does not get in in the clear.
	b.stop(b.a)
	for _, addr := range besideAddresses {
		was := counted(b.t, b.b, "clear-text")
		if b.connects(netip.AddrPortFrom(addr, portSealed)) {
			b.t.Errorf("%v is open in the clear", addr)
		}
		if counted(b.t, b.b, "clear-text") == was {
			b.t.Errorf("what should have been sealed is not counted:\n%s", b.status())
		}
	}
	b.stop(b.b)
	if after := b.rules(); after != before && !kept {
		b.t.Errorf("rules before ipfw:\n%s\nand after it:\n%s", before, after)
	}
	for _, addr := range besideAddresses {
		b.carries("after ipfw", "tcp", netip.AddrPortFrom(addr, portShut), 1000)
		if open := b.connects(netip.AddrPortFrom(addr, portTheirs)); open == b.theirs {
			b.t.Errorf("after ipfw: %v, which others decide about, is open: %v", addr, open)
		}
	}
}

// stop ends an ipfw in the ordinary way.
func (b *beside) stop(d *lab.Daemon) {
	b.t.Helper()
	d.Signal(syscall.SIGTERM)
	if err := d.Wait(waitLong); err != nil {
		b.t.Errorf("ipfw: %v\n%s", err, d.Output())
	}
}

// suite is the release of Debian whose programs fit the kernel.
func suite() string {
	if k, err := vm.Here(); err == nil {
		return k.Suite
	}
	return vm.Kernels()[0].Suite
}
