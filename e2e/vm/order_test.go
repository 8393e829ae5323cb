package vm

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipfw/ipfw/e2e/lab"
)

// TestOrder: the datagrams of a flow keep their order, and none stops, protected
// in both ways and by a bypass rule, while policies are reloaded and keys renewed:
// with one to eight processors, on kernels that may take the processor from
// themselves (preempt=full) and that may not.
func TestOrder(t *testing.T) {
	var all []Config
	for _, n := range []int{1, 2, 4, 8} {
		for _, p := range []string{"voluntary", "full"} {
			all = append(all, Config{Processors: n, Memory: 1024, Parameters: "preempt=" + p})
		}
	}
	inside(t, false, func(t *testing.T) {
		t.Logf("%d processors; %s", runtime.NumCPU(), preemption())
		for _, offload := range []string{"no ipfw", "none", "flow"} {
			t.Run(offload, func(t *testing.T) { orderly(t, offload) })
		}
	}, all...)
}

// preemption is what the kernel says about it.
func preemption() string {
	if err := unix.Mount("debugfs", "/sys/kernel/debug", "debugfs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return err.Error()
	}
	b, err := os.ReadFile("/sys/kernel/debug/sched/preempt")
	if err != nil {
		return err.Error()
	}
	return "preemption: " + strings.TrimSpace(string(b))
}

// orderFlows are flows by name; two of each, a port each from orderPort on.
var orderFlows = []string{"native", "udp", "bypass"}

const (
	orderPort = 7100
	// orderRounds is how often policies and keys change.
	orderRounds = 4
	// orderWindow is how many datagrams of a flow may be on their way: none is
	// lost for want of room.
	orderWindow = 128
)

func orderly(t *testing.T, offload string) {
	l, client, server := lab.Pair(t)
	var daemons []*lab.Daemon
	change := func(int) {}
	if offload != "no ipfw" {
		l.RawKeys(false, "client", "server")
		hosts := []*lab.Host{client, server}
		change = func(round int) {
			for end := range hosts {
				orderPolicy(l, end, offload, round)
			}
			for _, d := range daemons {
				d.Ask("reload")
			}
			for _, d := range daemons {
				for _, block := range []string{"native", "udp"} {
					d.Ask("ike", "rekey", block)
				}
			}
			daemons[round%2].Ask("ike", "rekey", "peer-native")
		}
		for end, h := range hosts {
			daemons = append(daemons, h.IPFW(orderPolicy(l, end, offload, 0)))
		}
	}
	var flows []*flow
	for i := range 2 * len(orderFlows) {
		f := &flow{name: orderFlows[i/2], port: uint16(orderPort + i), cpu: i % runtime.NumCPU(), server: server, client: client}
		flows = append(flows, f)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, f := range flows {
		if err := f.begin(); err != nil {
			t.Fatalf("%s, port %d: %v", f.name, f.port, err)
		}
	}
	for _, f := range flows {
		wg.Go(func() { f.err = f.run(stop) })
	}
	for round := range orderRounds {
		time.Sleep(time.Second) // with keys and a policy that do not change
		change(round + 1)
	}
	time.Sleep(time.Second)
	close(stop)
	wg.Wait()
	for _, f := range flows {
		there, back := f.there.seen.Load(), f.back.seen.Load()
		t.Logf("%-7s of %6d datagrams %6d came, %6d came back", f.name, f.sent, there, back)
		if f.err != nil {
			t.Errorf("%s: %v", f.name, f.err)
		}
		for way, o := range map[string]*order{"there": &f.there, "back": &f.back} {
			// A flow that becomes the kernel's, which after each reload it does
			// again, may overtake what still waits for its verdict.
			limit := 0
			if offload == "flow" && f.name == "bypass" {
				limit = orderRounds * orderWindow
			}
			if o.late > limit || o.twice > 0 {
				t.Errorf("%s, %s: %d datagrams were overtaken, first %s; %d came twice", f.name, way, o.late, o.first, o.twice)
			} else if o.late > 0 {
				t.Logf("%s, %s: %d datagrams were overtaken, as they may be where the kernel takes a flow over", f.name, way, o.late)
			}
		}
		if there < 100 || back < there/2 {
			t.Errorf("%s: of %d datagrams %d came and %d came back", f.name, f.sent, there, back)
		}
	}
	if t.Failed() {
		for _, d := range daemons {
			t.Logf("%s\n%s\n%s", d.Ask("status"), d.Ask("sas", "-v"), d.Output())
		}
	}
}

// orderPolicy writes the policy of one host, which changes from round to round.
func orderPolicy(l *lab.Lab, end int, offload string, round int) string {
	name, peer := []string{"client", "server"}[end], []string{"server", "client"}[end]
	var b strings.Builder
	fmt.Fprintf(&b, "policy {\n  inbound  = \"discard\"\n  outbound = \"discard\"\n  offload = %q\n}\n", offload)
	fmt.Fprintf(&b, "rule \"round\" {\n  action = \"bypass\"\n  direction = \"in\"\n  protocol = \"tcp\"\n  local_port = %d\n}\n", 1000+round)
	for i, kind := range orderFlows {
		action := fmt.Sprintf("action = \"protect\"\n  with = %q", kind)
		if kind == "bypass" {
			action = `action = "bypass"`
		}
		remote := orderAddr(kind, 1-end)
		port := []string{"remote_port", "local_port"}[end]
		fmt.Fprintf(&b, "rule %q {\n  %s\n  direction = %q\n  protocol = \"udp\"\n  remote_address = %q\n  %s = \"%d-%d\"\n}\n",
			kind, action, []string{"out", "in"}[end], remote.String(), port, orderPort+2*i, orderPort+2*i+1)
		if encapsulation := map[string]string{"native": "none", "udp": "udp"}[kind]; encapsulation != "" {
			fmt.Fprintf(&b, "ipsec %q {\n  mode = \"transport\"\n  ike = \"peer-%[1]s\"\n  encapsulation = %q\n}\n", kind, encapsulation)
			fmt.Fprintf(&b, "ike \"peer-%s\" {\n  remote_endpoint = %q\n  local_id = %q\n  remote_id = %q\n  public_keys = \"peers/\"\n  private_key = \"own.key\"\n}\n",
				kind, remote.String(), name, peer)
		}
	}
	return l.File(name+"/policy.hcl", b.String())
}

// orderAddr is the address of one end, for flows of a name: both families are played.
func orderAddr(kind string, end int) netip.Addr {
	if kind == "udp" {
		return netip.MustParseAddr([]string{"fd77::2", "fd77::1"}[end])
	}
	return netip.MustParseAddr([]string{"10.77.0.2", "10.77.0.1"}[end])
}

// flow is datagrams with numbers from a client to a server, and each of them back.
type flow struct {
	name           string
	port           uint16
	cpu            int // where it is sent, both ways: the kernel itself keeps no order among processors
	client, server *lab.Host
	out, in        *net.UDPConn
	there, back    order
	sent           uint64
	err            error
}

// order is what has come, of numbers that only grow.
type order struct {
	seen        atomic.Int64 // how many
	last        uint64
	late, twice int
	first       string // of those that were late
	recent      [4096]uint64
}

// take takes the next.
func (o *order) take(b []byte) {
	n := binary.BigEndian.Uint64(b)
	switch k := n % uint64(len(o.recent)); {
	case o.recent[k] == n:
		o.twice++
		return
	case n < o.last:
		o.late++
		o.first = cmp.Or(o.first, fmt.Sprintf("%d after %d", n, o.last))
		fallthrough
	default:
		o.recent[k] = n
	}
	o.last = max(o.last, n)
	o.seen.Add(1)
}

// begin opens the sockets, and returns when a first datagram has come back:
// others may overtake that.
func (f *flow) begin() error {
	at := netip.AddrPortFrom(orderAddr(f.name, 1), f.port)
	err := f.server.Do(func() (err error) {
		f.in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err == nil {
		err = f.client.Do(func() (err error) {
			f.out, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
			return err
		})
	}
	if err != nil {
		return err
	}
	go f.echo()
	b := make([]byte, 8)
	for end := time.Now().Add(lab.Patience); time.Now().Before(end); {
		_, _ = f.out.Write(b) // may be refused until there are keys
		_ = f.out.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := f.out.Read(b); err == nil {
			time.Sleep(time.Second) // more of them may come
			_ = f.out.SetReadDeadline(time.Now().Add(time.Millisecond))
			for err == nil {
				_, err = f.out.Read(b)
			}
			return f.out.SetReadDeadline(time.Time{})
		}
	}
	return errors.New("nothing comes back")
}

// echo sends back what comes.
func (f *flow) echo() {
	f.pin()
	b := make([]byte, 2048)
	for {
		n, from, err := f.in.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			if binary.BigEndian.Uint64(b) > 0 {
				f.there.take(b)
			}
			_, _ = f.in.WriteToUDPAddrPort(b[:n], from) // one that is lost is missed
		}
	}
}

// pin has the calling goroutine run on the flow's processor.
func (f *flow) pin() {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(f.cpu)
	_ = unix.SchedSetaffinity(0, &set)
}

// run sends until it is to stop, and then until one more comes back.
func (f *flow) run(stop chan struct{}) error {
	f.pin()
	var back atomic.Uint64 // the highest number that has
	go func() {
		b := make([]byte, 2048)
		for {
			if _, err := f.out.Read(b); errors.Is(err, net.ErrClosed) {
				return
			} else if err == nil {
				f.back.take(b)
				back.Store(f.back.last)
			}
		}
	}()
	defer f.in.Close()
	defer f.out.Close()
	b := make([]byte, 200)
	send := func() {
		f.sent++
		binary.BigEndian.PutUint64(b, f.sent)
		_, _ = f.out.Write(b) // one that is lost is missed
	}
	for {
		select {
		case <-stop:
			for end := time.Now().Add(lab.Patience); time.Now().Before(end); {
				send()
				for range 100 {
					if back.Load() == f.sent {
						return nil
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
			return errors.New("nothing comes back any more")
		default:
		}
		for range 16 {
			send()
		}
		// What is on its way comes, or is lost.
		for at := time.Now(); f.sent-back.Load() > orderWindow && time.Since(at) < time.Second; {
			time.Sleep(time.Millisecond)
		}
		runtime.Gosched()
	}
}
