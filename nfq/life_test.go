package nfq

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/engine"
)

// childEnv makes the test binary a firewall that passes everything, until it
// is killed.
const childEnv = "IPFW_NFQ_TEST_CHILD"

func TestMain(m *testing.M) {
	if how := os.Getenv(childEnv); how != "" {
		child(how)
	}
	flag.Parse()
	flag.Set("test.parallel", "16") // these tests wait more than they work
	os.Exit(lab.Main(m))
}

func child(how string) {
	var cfg Config
	if _, err := fmt.Sscan(how, &cfg.Receiver, &cfg.FailOpen, &cfg.Protect); err != nil {
		panic(err)
	}
	h := new(handler)
	h.set(func(in *engine.Input) engine.Result {
		return engine.Result{Verdict: engine.Bypass, NewFlow: !in.Tracked, Established: in.Tracked}
	})
	fw, err := Open(cfg)
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	panic(fw.Run(context.Background(), &running{Firewall: fw, handler: h}))
}

// spawn starts a child in the namespace and gives what kills it.
func (h *testHost) spawn(cfg Config) (pid int, kill func()) {
	h.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %v %v", childEnv, cfg.Receiver, cfg.FailOpen, cfg.Protect))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	h.try(cmd.Start) // forks from the thread in the namespace
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	h.t.Cleanup(kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		h.t.Fatalf("child: %q, %v", line, err)
	}
	return cmd.Process.Pid, kill
}

// Nobody passes while the daemon is dead; who had passed goes on with the next
// one, which learns from the kernel that they had.
func TestKilledAndTakenOver(t *testing.T) {
	t.Parallel()
	eachReceiver(t, func(t *testing.T, cfg Config) {
		client, server := pair(t)
		server.echo(7)
		_, kill := server.spawn(cfg)
		in4, err := client.dial("tcp", addr4(0, 2), 7, patience)
		if err != nil {
			t.Fatal(err)
		}
		in6, err := client.dial("tcp", addr6(0, 2), 7, patience)
		if err != nil {
			t.Fatal(err)
		}
		if err := ask(in4, patience); err != nil {
			t.Fatal(err)
		}
		kill()
		before := ofNoGroup(server.listing("ipfw", nftables.TableFamilyINet))
		if got := client.reach("tcp", addr4(0, 2), 7, silence); got != "silence" {
			t.Errorf("new flow without a daemon: %s", got)
		}
		if err := ask(in4, silence); err == nil {
			t.Error("old flow passed without a daemon")
		}

		var strangers atomic.Int64
		fw := server.start(cfg, func(in *engine.Input) engine.Result {
			if in.Packet.HasPorts && !in.Tracked {
				strangers.Add(1)
			}
			return engine.Result{Verdict: engine.Bypass, NewFlow: !in.Tracked, Established: in.Tracked}
		})
		if after := ofNoGroup(server.listing("ipfw", nftables.TableFamilyINet)); after != before {
			t.Errorf("table changed at takeover: %s", firstDifference(after, before))
		}
		// The word asked above may be an answer of its own by now: ask twice.
		for range 2 {
			if err := ask(in4, patience); err != nil {
				t.Errorf("old flow after takeover: %v", err)
			}
			if err := ask(in6, patience); err != nil {
				t.Errorf("old IPv6 flow after takeover: %v", err)
			}
		}
		if n := strangers.Load(); n > 0 {
			t.Errorf("%d packets of old flows not marked as admitted", n)
		}
		if got := client.reach("tcp", addr4(0, 2), 7, patience); got != "open" {
			t.Errorf("new flow after takeover: %s", got)
		}
		if strangers.Load() == 0 {
			t.Error("a new flow was marked as admitted from its first packet")
		}
		_ = fw
	})
}

func TestFailOpen(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	server.echo(7)
	_, kill := server.spawn(Config{FailOpen: true})
	kill()
	if got := client.reach("tcp", addr4(0, 2), 7, patience); got != "open" {
		t.Errorf("fail open without a daemon: %s", got)
	}
}

// Close opens or shuts, as told; Remove undoes the latter.
func TestClose(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	server.echo(7)
	for _, failOpen := range []bool{false, true} {
		fw := server.start(Config{FailOpen: failOpen}, drop)
		fw.stop()
		if err := fw.Close(true); err != nil {
			t.Fatal(err)
		}
		if got := client.reach("udp", addr4(0, 2), 7, silence); got != "silence" {
			t.Errorf("left shut, fail open %v: %s", failOpen, got)
		}
		if got := server.reach("udp", addr4(0, 2), 7, patience); got != "open" {
			t.Errorf("loopback of a host left shut: %s", got)
		}
		server.try(func() error { return Remove(Config{}) })
		if got := client.reach("udp", addr4(0, 2), 7, patience); got != "open" {
			t.Errorf("after Remove: %s", got)
		}
	}
	fw := server.start(Config{}, drop)
	fw.stop()
	if err := fw.Close(false); err != nil {
		t.Fatal(err)
	}
	if got := client.reach("udp", addr4(0, 2), 7, patience); got != "open" {
		t.Errorf("after Close: %s", got)
	}
	if err := fw.Reload(Config{}); err == nil {
		t.Error("Reload after Close succeeded")
	}
}

// Whoever comes second is told who was first, and changes nothing.
func TestSecondOwner(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	server.echo(7)
	pid, _ := server.spawn(Config{})
	table := server.listing("ipfw", nftables.TableFamilyINet)
	for _, cfg := range []Config{
		{}, {Receiver: Callback},
		{Table: "other"}, {Table: "other", Receiver: Callback}, // the same queue
		{Queue: 99}, // the same table
		{Table: "other", Queue: DefaultQueue - 1, Queues: 3},
	} {
		_, err := server.tryStart(cfg, drop)
		if want := fmt.Sprintf("process %d (/proc/self/exe", pid); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want it to name %q", cfg, err, want)
		}
		if got := server.listing("other", nftables.TableFamilyINet); got != "" {
			t.Errorf("%+v: left a table:\n%s", cfg, got)
		}
	}
	if got := server.listing("ipfw", nftables.TableFamilyINet); got != table {
		t.Errorf("table of the first changed: %s", firstDifference(got, table))
	}
	if got := client.reach("tcp", addr4(0, 2), 7, patience); got != "open" {
		t.Errorf("through the first: %s", got)
	}
}

// A reload under load loses no packet and lets none through that is shut.
func TestReloadUnderTraffic(t *testing.T) {
	t.Parallel()
	eachReceiver(t, func(t *testing.T, cfg Config) {
		client, server := pair(t)
		server.echo(7)
		server.echo(9)
		fw := server.start(cfg, port(9, engine.Result{}))

		stop := make(chan struct{})
		var all sync.WaitGroup
		var asked atomic.Int64
		for _, to := range []string{"10.9.0.2", "fd00:9::2"} {
			c, err := client.dial("udp", addrOf(to), 7, patience)
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := ask(c, patience); err != nil {
						t.Errorf("udp to %v during reloads, after %d: %v", to, asked.Load(), err)
						return
					}
					asked.Add(1)
				}
			})
		}
		shut, err := client.dial("udp", addr4(0, 2), 9, patience)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					shut.Write([]byte("x"))
					time.Sleep(time.Millisecond)
				}
			}
		})
		for i := range 40 {
			next := cfg
			next.CopyRange = []int{CopyHeaders, CopyAll}[i%2]
			next.FailOpen = i%4 >= 2
			if err := fw.Reload(next); err != nil {
				t.Fatal(err)
			}
			before := asked.Load()
			for deadline := time.Now().Add(patience); asked.Load() < before+10 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
		}
		close(stop)
		all.Wait()
		shut.SetReadDeadline(time.Now().Add(silence))
		if n, err := shut.Read(make([]byte, 10)); err == nil {
			t.Errorf("%d bytes came back through a shut port during reloads", n)
		}
		if s := fw.Stats(); s.QueueDropped+s.UserDropped+s.SendErrors+s.Overruns+s.Unreadable != 0 {
			t.Errorf("lost something: %+v", s)
		}
		for _, bad := range []Config{{Queue: 5}, {Table: "x"}, {Queues: 2}, {Mask: 0xff}, {QueueLength: 1}} {
			bad.Receiver = cfg.Receiver
			if err := fw.Reload(bad); err == nil || !strings.Contains(err.Error(), "restart") {
				t.Errorf("Reload(%+v): %v", bad, err)
			}
		}
	})
}

// A table that is deleted and made again, as an older ipfw with other chains
// needs it, is replaced in one go too.
func TestReplaceOfAnotherShape(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.try(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := c.AddTable(&nftables.Table{Name: "ipfw", Family: nftables.TableFamilyINet})
		c.AddChain(&nftables.Chain{
			Name: "old", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
		})
		return c.Flush()
	})
	h.start(Config{}, pass)
	got := h.listing("ipfw", nftables.TableFamilyINet)
	if strings.Contains(got, "old") || !strings.Contains(got, "chain output_save") {
		t.Errorf("table after start:\n%s", got)
	}
}

// A table that cannot be renewed at once is put back as soon as it can be.
func TestGuardTriesAgain(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	server.echo(9)
	fw := server.start(Config{noOwner: true}, port(9, engine.Result{}))
	fw.mu.Lock()
	fw.cfg.Protect, fw.tunnel.name = true, "no device can have this name"
	fw.mu.Unlock()
	if out, err := server.nft("flush ruleset"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for deadline := time.Now().Add(patience); fw.Stats().NotRenewed == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	fw.mu.Lock()
	fw.cfg.Protect = false
	fw.mu.Unlock()
	for deadline := time.Now().Add(patience); fw.Stats().Renewed == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if s := fw.Stats(); s.Renewed != 1 || s.NotRenewed == 0 {
		t.Errorf("renewed %d times, failed %d times", s.Renewed, s.NotRenewed)
	}
	if got := client.reach("udp", addr4(0, 2), 9, silence); got != "silence" {
		t.Errorf("shut port: %s", got)
	}
}

// What the queue has no room for is dropped by the kernel and counted.
func TestQueueOverflow(t *testing.T) {
	t.Parallel()
	eachReceiver(t, func(t *testing.T, cfg Config) {
		client, server := pair(t)
		cfg.QueueLength = 10
		goOn := make(chan struct{})
		var seen atomic.Int64
		fw := server.start(cfg, func(in *engine.Input) engine.Result {
			if in.Packet.HasPorts {
				seen.Add(1)
				<-goOn
			}
			return pass(in)
		})
		c, err := client.dial("udp", addr4(0, 2), 7, patience)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			c.Write([]byte("x"))
		}
		var s Stats
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if s = fw.Stats(); s.QueueDropped+s.Waiting >= 100 {
				break
			}
		}
		close(goOn)
		var waiting uint64 // without what neighbours have to say
		for _, q := range s.Queues {
			if q.Class == queueNew.String() {
				waiting += q.Waiting
			}
		}
		if s.QueueDropped < 80 || waiting == 0 || waiting > 10 || len(s.Queues) != 4 || s.NewDropped != s.QueueDropped {
			t.Errorf("stats of a full queue: %+v", s)
		}
	})
}

// Several queues share the load by address, and each flow stays on one.
func TestQueues(t *testing.T) {
	t.Parallel()
	eachReceiver(t, func(t *testing.T, cfg Config) {
		cfg.Queues = 3
		client, server := pair(t)
		server.echo(7)
		fw := server.start(cfg, pass)
		for _, n := range []string{"tcp", "udp"} {
			if got := client.reach(n, addr6(0, 2), 7, patience); got != "open" {
				t.Errorf("%s over several queues: %s", n, got)
			}
		}
		s := fw.Stats()
		nums := []uint16{}
		for _, q := range s.Queues {
			nums = append(nums, q.Queue)
		}
		slices.Sort(nums)
		if !slices.Equal(nums, []uint16{4301, 4302, 4303, 4304, 4305, 4306, 4307, 4308, 4309, 4310}) {
			t.Errorf("queues: %v", nums)
		}
	})
}

// Where tables have no owners: somebody who flushes all rules, or only some of
// ours, opens nothing for long.
func TestGuard(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	server.echo(7)
	server.echo(9)
	fw := server.start(Config{noOwner: true}, port(9, engine.Result{}))
	table := &nftables.Table{Name: "ipfw", Family: nftables.TableFamilyINet}
	want := server.listing("ipfw", nftables.TableFamilyINet)
	for i, harm := range []struct {
		name string
		by   string // what is said of it
		do   func(c *nftables.Conn)
	}{
		{"flush ruleset", ") deleted it", func(c *nftables.Conn) { c.FlushRuleset() }},
		{"delete the table", ") deleted it", func(c *nftables.Conn) { c.DelTable(table) }},
		{"flush a chain", " rules", func(c *nftables.Conn) { c.FlushChain(&nftables.Chain{Table: table, Name: "output"}) }},
		{"insert a rule", ") added 1 rule", func(c *nftables.Conn) {
			c.InsertRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Table: table, Name: "input"}, Exprs: []expr.Any{accept()}})
		}},
	} {
		server.try(func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			harm.do(c)
			return c.Flush()
		})
		for deadline := time.Now().Add(patience); fw.Stats().Renewed <= uint64(i) && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		fw.mu.Lock()
		renewed := fw.renewed.Load() // and done with
		fw.mu.Unlock()
		if renewed != uint64(i)+1 {
			t.Errorf("%s: renewed %d times", harm.name, renewed)
		}
		if by := fw.Stats().ChangedBy; !strings.Contains(by, " (process ") || !strings.HasSuffix(by, harm.by) {
			t.Errorf("%s: told as %q, want a process and %q", harm.name, by, harm.by)
		}
		if got := server.listing("ipfw", nftables.TableFamilyINet); got != want {
			t.Errorf("%s: not renewed: %s", harm.name, firstDifference(got, want))
		}
		if got := client.reach("udp", addr4(0, 2), 9, silence); got != "silence" {
			t.Errorf("%s: shut port: %s", harm.name, got)
		}
	}
	if got := client.reach("tcp", addr4(0, 2), 7, patience); got != "open" {
		t.Errorf("open port in the end: %s", got)
	}
	foreignTable(t, server)
	if err := fw.Reload(Config{}); err != nil {
		t.Error(err)
	}
	time.Sleep(silence)
	if n := fw.Stats().Renewed; n != 4 {
		t.Errorf("renewed %d times, want 4", n)
	}
}
