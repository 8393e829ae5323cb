package nfq

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/ipfw/ipfw/engine"
	"golang.org/x/sys/unix"
)

// offloader passes flows to and from port 7 and lets the kernel answer for the
// rest of them, in the name of a generation.
type offloader struct {
	generation atomic.Uint32
	shut       atomic.Bool
	up         atomic.Int64 // packets of port 7 that came up
	tracked    atomic.Int64 // ... of connections that had passed before
}

func (o *offloader) judge(in *engine.Input) engine.Result {
	if !in.Packet.HasPorts || in.Packet.DstPort != 7 && in.Packet.SrcPort != 7 {
		return pass(in)
	}
	o.up.Add(1)
	if in.Tracked {
		o.tracked.Add(1)
	}
	if o.shut.Load() {
		return engine.Result{}
	}
	r := engine.Result{Verdict: engine.Bypass, NewFlow: !in.Tracked, Established: in.Tracked}
	if in.Offloadable {
		r.Offload = o.generation.Load()
	}
	return r
}

// came says how many packets have come up since it was asked last.
func (o *offloader) came() int64 { return o.up.Swap(0) }

// askOften asks on a connection n times.
func askOften(t *testing.T, what string, c net.Conn, n int) {
	t.Helper()
	for i := range n {
		if err := ask(c, patience); err != nil {
			t.Fatalf("%s, word %d: %v", what, i, err)
		}
	}
}

// askUntilOffloaded asks on a connection until ten answers in a row have come
// without a packet that came up, and says how many came up before.
func askUntilOffloaded(t *testing.T, what string, c net.Conn, o *offloader) (up int64) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		askOften(t, what, c, 10)
		n := o.came()
		if n == 0 {
			return up
		}
		up += n
	}
	t.Fatalf("%s: %d packets came up, and still do", what, up)
	return up
}

// Only the first packet of a flow comes up, until a reload; then one more does,
// and meets the new policy. Silence over all generations does not bring an old
// decision back.
func TestOffload(t *testing.T) {
	t.Parallel()
	eachReceiver(t, func(t *testing.T, cfg Config) {
		client, server := pair(t)
		client.echo(7)
		server.echo(7)
		o := new(offloader)
		o.generation.Store(1)
		cfg.Offload = 1
		fw := server.start(cfg, o.judge)
		reload := func() {
			t.Helper()
			cfg.Offload = o.generation.Add(1)
			if err := fw.Reload(cfg); err != nil {
				t.Fatal(err)
			}
		}
		type flow struct {
			net.Conn
			name string
		}
		var flows []flow
		for _, network := range []string{"tcp", "udp"} {
			for i, from := range []*testHost{client, server} {
				for _, to := range []string{addr4(0, 2-i).String(), addr6(0, 2-i).String()} {
					name := fmt.Sprintf("%s from host %d to %s", network, i+1, to)
					o.came()
					c, err := from.dial(network, addrOf(to), 7, patience)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					askOften(t, name, c, 20)
					if n := o.came(); n < 1 || n > 3 { // the first may be sent again
						t.Errorf("%s: %d packets came up, want the first", name, n)
					}
					flows = append(flows, flow{c, name})
				}
			}
		}
		for range 2 {
			o.came()
			o.tracked.Store(0)
			reload()
			for _, f := range flows {
				askOften(t, f.name+" after a reload", f, 10)
			}
			if n, few := o.came(), int64(len(flows)); n < few || n > 3*few || o.tracked.Load() != n {
				t.Errorf("after a reload %d packets of %d flows came up, %d of known flows", n, few, o.tracked.Load())
			}
		}
		for range generations - 1 {
			reload()
		}
		o.came()
		o.shut.Store(true)
		reload() // the number that the flows had is in force again
		for _, f := range flows {
			if err := ask(f, silence/4); err == nil {
				t.Errorf("%s goes on by a mark of %d reloads ago", f.name, generations)
			}
		}
		came := o.came()
		for deadline := time.Now().Add(patience); came < int64(len(flows)) && time.Now().Before(deadline); came += o.came() {
			time.Sleep(10 * time.Millisecond)
		}
		if came < int64(len(flows)) {
			t.Errorf("of packets of old generations %d came up", came)
		}
		if s := fw.Stats(); s.SendErrors+s.Unreadable != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A result for another policy than the one in force offloads nothing, and
// Decided changes the number without a reload.
func TestOffloadOfAnotherPolicy(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	server.echo(7)
	o := new(offloader)
	o.generation.Store(2)
	fw := server.start(Config{Offload: 1}, o.judge)
	c, err := client.dial("udp", addr4(0, 2), 7, patience)
	if err != nil {
		t.Fatal(err)
	}
	askOften(t, "under another policy", c, 5)
	if n := o.came(); n < 10 {
		t.Errorf("%d packets came up, want all 10", n)
	}
	fw.Decided(2)
	askOften(t, "after Decided", c, 5)
	if n := o.came(); n < 1 || n > 2 {
		t.Errorf("%d packets came up after Decided", n)
	}
	if err := fw.Reload(Config{}); err != nil {
		t.Fatal(err)
	}
	askOften(t, "without offload", c, 5)
	if n := o.came(); n < 10 {
		t.Errorf("%d packets came up without offload, want all 10", n)
	}
}

// The next daemon begins with a generation that no connection has, whatever
// the one before has left: a table, or marks alone.
func TestOffloadAndTakeOver(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	server.echo(7)
	c, err := client.dial("tcp", addr4(0, 2), 7, patience)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[uint32]bool)
	for i := range 2 * generations {
		o := new(offloader)
		o.generation.Store(1)
		fw := server.start(Config{Offload: 1}, o.judge)
		seen[fw.generation] = true
		askOften(t, "a new daemon", c, 5)
		// Without offload, or by an old mark, it would be ten or none.
		if n := o.came(); n < 1 || n > 8 {
			t.Errorf("start %d: %d packets came up", i, n)
		}
		fw.stop()
		if i%3 == 2 {
			if err := fw.Close(i%2 == 0); err != nil { // takes the table away, or shuts it
				t.Fatal(err)
			}
			continue
		}
		// Dead: the table stays as it is, and what was offloaded goes on.
		fw.guard.conn.Close()
		<-fw.guard.done
		for _, r := range fw.receivers {
			r.close()
		}
		fw.rules.close()
		askOften(t, "nobody there", c, 3)
		if got := client.reach("tcp", addr4(0, 2), 7, silence/4); got != "silence" {
			t.Errorf("new flow without a daemon: %s", got)
		}
		fw.mu.Lock()
		fw.closed = true
		fw.mu.Unlock()
	}
	if len(seen) < 3 {
		t.Errorf("generations %v: always the same", seen)
	}
}

// A mark that another program has put on its packets goes the way it did: such
// packets do not offload, the answers do.
func TestOffloadAndMarksOfOthers(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	client.echo(7)
	server.echo(7)
	counts := server.otherMarks()
	o := new(offloader)
	o.generation.Store(1)
	server.start(Config{Offload: 1}, o.judge)
	c, err := server.dial("udp", addr4(0, 1), 7, patience)
	if err != nil {
		t.Fatal(err)
	}
	askOften(t, "marked", c, 10)
	if n := o.came(); n < 2 || n > 4 {
		t.Errorf("%d packets came up, want the first and its answer", n)
	}
	n := counts()
	if n["mark wrong"] > 1 || n["mark right"] == 0 {
		t.Errorf("another program's packet marks: %v", n)
	}
	var foreign uint32
	server.try(func() error {
		conns, err := openConnections()
		if err != nil {
			return err
		}
		defer conns.close()
		return conns.dump(0, 0, func(c *connection) {
			if c.orig.dstPort == 7 {
				foreign = c.mark &^ DefaultMask
			}
		})
	})
	if foreign != theirCt {
		t.Errorf("another program's connection mark is %#x, want %#x", foreign, theirCt)
	}
}

// What the kernel carries is told, by the ends that the engine knows, through
// address translation as well, and told for the last time when it ends.
func TestCarried(t *testing.T) {
	t.Parallel()
	for _, nat := range []bool{false, true} {
		t.Run(fmt.Sprintf("nat=%v", nat), func(t *testing.T) {
			t.Parallel()
			client, router, server := newHost(t), newHost(t), newHost(t)
			wire(client, router, 0)
			wire(router, server, 1)
			route(client, 1, 0, 2)
			route(server, 0, 1, 1)
			router.do(func() { sysctl(t, "ipv4/ip_forward", "1") })
			server.echo(7)
			router.echo(7)
			o := new(offloader)
			o.generation.Store(1)
			type ends struct{ from, to string }
			judged := make(chan ends, 100)
			fw := router.start(Config{Offload: 1}, func(in *engine.Input) engine.Result {
				if in.Packet.HasPorts && in.Packet.DstPort == 7 {
					judged <- ends{in.Packet.Src.String(), in.Packet.Dst.String()}
				}
				return o.judge(in)
			})
			to := addr4(1, 2)
			if nat { // the router's own address and port stand for the server's, and hide the client
				to = addr4(0, 2)
				router.nat(t, addr4(1, 2).As4())
			}
			c, err := client.dial("udp", to, 7, patience)
			if err != nil {
				t.Fatal(err)
			}
			askOften(t, "through the router", c, 50)
			want := <-judged
			var got []engine.Carried
			gather := func(live bool) {
				got = nil
				if err := fw.Carried(live, func(c *engine.Carried) { got = append(got, *c) }); err != nil {
					t.Fatal(err)
				}
			}
			gather(true)
			if len(got) != 1 {
				t.Fatalf("told %d flows: %+v", len(got), got)
			}
			g := got[0]
			if (ends{g.Source.Addr().String(), g.Dest.Addr().String()}) != want || g.Dest.Port() != 7 ||
				!g.Forward || !g.Counted || !g.Replied || g.Ended || g.Protocol != unix.IPPROTO_UDP {
				t.Errorf("told %+v, judged %+v", g, want)
			}
			if g.Packets != [2]uint64{50, 50} || g.Bytes != [2]uint64{50 * (28 + 19), 50 * (28 + 19)} {
				t.Errorf("packets %v, bytes %v", g.Packets, g.Bytes)
			}
			gather(false)
			if len(got) != 0 {
				t.Errorf("ended: %+v", got)
			}
			router.try(func() error { return flushConnections() })
			for deadline := time.Now().Add(patience); len(got) == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				gather(false)
			}
			if len(got) != 1 || !got[0].Ended || got[0].Packets != g.Packets || got[0].Source != g.Source {
				t.Errorf("at the end: %+v", got)
			}
		})
	}
}

// flushConnections makes the kernel forget all connections.
func flushConnections() error {
	c, err := openConnections()
	if err != nil {
		return err
	}
	defer c.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.request(appendCt(nil, msgCtDelete, unix.NLM_F_REQUEST|unix.NLM_F_ACK, c.next()), func(uint16, []byte) {})
}

// nat sends what comes for UDP port 7 of the host to another host, in the
// host's own name.
func (h *testHost) nat(t *testing.T, to [4]byte) {
	h.try(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := c.AddTable(&nftables.Table{Name: "nat", Family: nftables.TableFamilyIPv4})
		pre := c.AddChain(&nftables.Chain{Name: "pre", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
		post := c.AddChain(&nftables.Chain{Name: "post", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
		udp := []expr.Any{meta(expr.MetaKeyL4PROTO), equal([]byte{unix.IPPROTO_UDP})}
		c.AddRule(&nftables.Rule{Table: table, Chain: pre, Exprs: append(udp,
			&expr.Immediate{Register: 1, Data: to[:]},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1})})
		c.AddRule(&nftables.Rule{Table: table, Chain: post, Exprs: append(udp, &expr.Masq{})})
		return c.Flush()
	})
}

// ICMP errors carry the mark of the connection they are about, and come up all
// the same.
func TestOffloadLeavesErrorsToTheDaemon(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	client.do(func() {
		// A closed port answers each datagram with an error.
		sysctl(t, "ipv4/icmp_ratelimit", "0")
	})
	o := new(offloader)
	o.generation.Store(1)
	var errors atomic.Int64
	server.start(Config{Offload: 1}, func(in *engine.Input) engine.Result {
		if in.Packet.HasICMP && in.Packet.ICMPType == 3 && in.Dir == engine.In {
			errors.Add(1)
		}
		return o.judge(in)
	})
	c, err := server.dial("udp", addr4(0, 1), 7, patience)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if _, err := c.Write([]byte("x")); err != nil { // the error about the one before
			c.Write([]byte("x"))
		}
		for deadline := time.Now().Add(patience); errors.Load() <= int64(i) && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
	}
	if n := errors.Load(); n < 5 {
		t.Errorf("%d errors came up, want 5", n)
	}
	if n := o.came(); n < 1 || n > 2 {
		t.Errorf("%d packets of the flow came up", n)
	}
}

// The kernel's setting to count is what it takes, and without offload it stays
// as it is.
func TestCountingIsTurnedOn(t *testing.T) {
	t.Parallel()
	_, server := pair(t)
	setting := func() (s string) {
		server.try(func() error {
			b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_acct")
			s = string(b)
			return err
		})
		return s
	}
	fw := server.start(Config{}, pass)
	if got := setting(); got != "0\n" {
		t.Errorf("without offload: %q", got)
	}
	if err := fw.Reload(Config{Offload: 1}); err != nil {
		t.Fatal(err)
	}
	if got := setting(); got != "1\n" {
		t.Errorf("with offload: %q", got)
	}
}

// It works the same where IPv4 and IPv6 have a table each.
func TestOffloadInSplitTables(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	server.echo(7)
	o := new(offloader)
	o.generation.Store(1)
	fw := server.start(Config{Offload: 1}, o.judge)
	fw.mu.Lock()
	fw.can.inet = false
	fw.mu.Unlock()
	o.generation.Store(2)
	if err := fw.Reload(Config{Offload: 2}); err != nil {
		t.Fatal(err)
	}
	if l := server.listing("ipfw", nftables.TableFamilyINet); l != "" {
		t.Errorf("a table for both families is left:\n%s", l)
	}
	for _, to := range []string{addr4(0, 2).String(), addr6(0, 2).String()} {
		o.came()
		c, err := client.dial("tcp", addrOf(to), 7, patience)
		if err != nil {
			t.Fatal(err)
		}
		askOften(t, to, c, 10)
		if n := o.came(); n < 1 || n > 3 {
			t.Errorf("%s: %d packets came up, want the first", to, n)
		}
	}
}
