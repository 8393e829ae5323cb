package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/packet"
)

// statusOf is what tests read of `ipfw status --json`.
type statusOf struct {
	Rules []struct {
		Name                  string
		Packets, Bytes, Flows uint64
	}
	Reasons map[string]uint64
	Queue   struct {
		Packets       uint64
		Offload       string
		QueueDropped  uint64 `json:"queue_dropped"`
		SocketDropped uint64 `json:"socket_dropped"`
		NewDropped    uint64 `json:"new_dropped"`
	}
	IKE struct {
		EarlyOpened uint64 `json:"early_opened"`
		EarlyLost   uint64 `json:"early_lost"`
	}
}

func status(t *testing.T, d *lab.Daemon) (s statusOf) {
	t.Helper()
	if err := json.Unmarshal([]byte(d.Ask("status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *statusOf) rule(name string) (packets, bytes, flows uint64) {
	for _, r := range s.Rules {
		if r.Name == name {
			return r.Packets, r.Bytes, r.Flows
		}
	}
	return 0, 0, 0
}

// What the kernel carries by itself is in the counters of the rule and of the
// flow, and a reload takes nothing of it back.
func TestCountersTellTheTruth(t *testing.T) { lab.EachOffload(t, tryCountersTellTheTruth) }

func tryCountersTellTheTruth(t *testing.T, way string) {
	l, client, server := lab.Pair(t)
	echoServer(t, server, 7001)
	policy := l.File("policy.hcl", twoPorts(false, ""))
	server.Sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait", "1")
	d := server.IPFW(policy)
	const size = 32 << 20
	carry := func(c net.Conn) {
		t.Helper()
		buf := make([]byte, 64<<10)
		_ = c.SetDeadline(time.Now().Add(waitLong))
		for sent := 0; sent < size; sent += len(buf) {
			if _, err := c.Write(buf); err != nil {
				t.Fatal(err)
			}
			for got := 0; got < len(buf); {
				n, err := c.Read(buf[got:])
				if err != nil {
					t.Fatal(err)
				}
				got += n
			}
		}
	}
	var conns []net.Conn
	least := uint64(0)
	check := func(what string) {
		t.Helper()
		s := status(t, d)
		packets, bytes, flows := s.rule("echo")
		if bytes < least || bytes > least+least/5 || packets < bytes/70_000 || flows != uint64(len(conns)) {
			t.Errorf("%s: rule has %d packets, %d bytes, %d flows; want about %d bytes, %d flows", what, packets, bytes, flows, least, len(conns))
		}
		if s.Queue.Offload != way {
			t.Errorf("status says offload %q", s.Queue.Offload)
		}
		if up := s.Queue.Packets; (up < 200) != (way == "flow") {
			t.Errorf("%s: %d packets have come up", what, up)
		}
	}
	for i, address := range addresses(7001) {
		err := within(t, client, func() error {
			c, err := net.DialTimeout("tcp", address, waitLong)
			if err == nil {
				conns = append(conns, c)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
		carry(conns[i])
		least += 2 * size
		check(address)
	}
	d.Signal(syscall.SIGHUP)
	l.Eventually(waitLong, "the policy is loaded again", func() bool { return strings.Contains(d.Ask("events"), "reload") })
	check("after a reload")
	carry(conns[0])
	least += 2 * size
	check("carried after a reload")

	var offloaded int
	for line := range strings.Lines(d.Ask("flows", "--json")) {
		var f struct {
			Rule      string
			Offloaded bool
			BytesOut  uint64 `json:"bytes_out"`
			BytesIn   uint64 `json:"bytes_in"`
			State     string
		}
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err)
		}
		if f.Rule != "echo" {
			continue
		}
		if f.BytesOut < size || f.BytesIn < size || f.State != "established" {
			t.Errorf("flow: %s", line)
		}
		if f.Offloaded {
			offloaded++
		}
	}
	if want := map[string]int{"flow": 2, "none": 0}[way]; offloaded != want {
		t.Errorf("%d flows are offloaded, want %d:\n%s", offloaded, want, d.Ask("flows"))
	}
	// The kernel tells when a flow ends, and what it has carried until then.
	for _, c := range conns {
		carry(c)
		least += 2 * size
		c.Close()
	}
	check("closed")
	l.Eventually(waitLong, "the flows are forgotten", func() bool { return !strings.Contains(d.Ask("flows"), "echo") || way == "none" })
	check("forgotten")
}

// The kernel drops the rest of a flow that a new policy cuts: no more of it
// comes up, each packet counts for the rule that discards, and the next policy
// is asked anew.
func TestCutFlowStaysInTheKernel(t *testing.T) {
	l, client, server := lab.Pair(t)
	var u net.PacketConn
	if err := within(t, server, func() (err error) { u, err = net.ListenPacket("udp", ":7001"); return err }); err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := u.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = u.WriteTo(buf[:n], from)
			}
		}
	}()
	policy := func(action string) string {
		return fmt.Sprintf(`
policy {
  inbound  = "discard"
  outbound = "bypass"
  offload  = "flow"
}
rule %q {
  action     = %q
  direction  = "in"
  protocol   = "udp"
  local_port = 7001
}
`, action, action)
	}
	file := l.File("policy.hcl", policy("bypass"))
	d := server.IPFW(file)
	put := func(action string) {
		t.Helper()
		l.File("policy.hcl", policy(action))
		d.Ask("reload")
	}
	for _, address := range addresses(7001) {
		var c net.Conn
		if err := within(t, client, func() (err error) { c, err = net.Dial("udp", address); return err }); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		buf := make([]byte, 64)
		echo := func() bool {
			_ = c.SetDeadline(time.Now().Add(time.Second))
			if _, err := c.Write([]byte("word")); err != nil {
				return false
			}
			_, err := c.Read(buf)
			return err == nil
		}
		l.Eventually(waitLong, "the flow is open", echo)
		put("discard")
		_ = c.SetDeadline(time.Time{}) // that of the last word
		before := status(t, d)
		was, _, _ := before.rule("discard")
		const burst, volley = 10_000, 500
		for sent := uint64(0); sent < burst; {
			for range volley {
				if _, err := c.Write([]byte("word")); err != nil {
					t.Fatal(err)
				}
			}
			sent += volley
			// What the kernel has no time for yet waits in a queue of a thousand
			// packets (net.core.netdev_max_backlog).
			l.Eventually(waitLong, "all is counted", func() bool {
				s := status(t, d)
				is, _, _ := s.rule("discard")
				return is-was == sent
			})
		}
		if s := status(t, d); s.Queue.Packets-before.Queue.Packets > burst/2 {
			t.Errorf("%s: %d packets of %d came up", address, s.Queue.Packets-before.Queue.Packets, burst)
		}
		put("bypass")
		l.Eventually(waitLong, "it is open again", echo)
	}
}

// A flow that was let through in the clear stands still in both directions as
// soon as the policy protects it: no packet of it leaves in the clear, and
// those that come in are counted and discarded.
func TestOffloadedFlowIsProtectedAtOnce(t *testing.T) {
	lab.EachOffload(t, tryOffloadedFlowIsProtectedAtOnce)
}

func tryOffloadedFlowIsProtectedAtOnce(t *testing.T, _ string) {
	l, client, server := lab.Pair(t)
	lab.Need(t, "tcpdump")
	echoServer(t, server, 7001)
	policy := l.File("policy.hcl", twoPorts(false, ""))
	d := server.IPFW(policy)
	s := mustOpen(t, client, addresses(7001)[0])
	block, _ := l.Blocks("a", lab.Manual{Local: "10.77.0.1", Remote: "10.77.0.2"})
	l.File("policy.hcl", strings.Replace(twoPorts(false, ""), `"bypass"
  direction`, `"protect"
  with       = "peer"
  direction`, 1)+block)
	d.Signal(syscall.SIGHUP)
	// The engine has it, and its rules are shown, a moment before the kernel.
	l.Eventually(waitLong, "the new policy is in force", func() bool { return strings.Contains(d.Ask("status"), "generation 2,") })
	wire := server.Capture("s0", "src host 10.77.0.1 and tcp port 7001")
	if s.moves(time.Second) {
		t.Error("the flow goes on in the clear")
	}
	if n := wire.Count("tcp"); n > 0 {
		t.Errorf("%d packets left in the clear:\n%s", n, wire.Text("tcp"))
	}
	if counted(t, d, "clear-text") == 0 {
		t.Errorf("no packet was counted as clear text:\n%s", d.Ask("status"))
	}
}

// The connections of a busy server come and go; what each has carried counts,
// and the flows go with them.
func TestManyShortConnections(t *testing.T) {
	l, client, server := lab.Pair(t)
	lab.Need(t, "nginx", "curl")
	startNginx(t, l, server, 80)
	server.Sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait", "1")
	d := server.IPFW(l.File("policy.hcl", strings.Replace(bypassPolicy, "policy {\n", "policy {\n  offload = \"flow\"\n", 1)))
	const n = 200
	client.Run("sh", "-c", fmt.Sprintf("for i in $(seq %d); do echo url=http://10.77.0.1/index.html; echo output=/dev/null; done | curl -s --no-keepalive -H 'Connection: close' -K -", n))
	s := status(t, d)
	if packets, _, flows := s.rule("web"); flows != n || packets < 8*n || packets > 14*n {
		t.Errorf("%d connections: %d flows, %d packets", n, flows, packets)
	}
	l.Eventually(waitLong, "the flows are forgotten", func() bool {
		return strings.Count(d.Ask("flows"), "web") < n
	})
}

// A flood of new flows, to an open port and to a shut one, does not starve the
// sessions that live, nor the daemon's own commands.
func TestFloodOfNewFlows(t *testing.T) { lab.EachOffload(t, tryFloodOfNewFlows) }

func tryFloodOfNewFlows(t *testing.T, _ string) {
	l, client, server := lab.Pair(t)
	echoServer(t, server, 7001)
	d := server.IPFW(l.File("policy.hcl", twoPorts(false, "")+`
rule "open" {
  action     = "bypass"
  direction  = "in"
  protocol   = "udp"
  local_port = 7100
}
`))
	var live []*session
	for _, address := range addresses(7001) {
		live = append(live, mustOpen(t, client, address))
	}
	w := rawSocket(t, client, "c0", macOf(client, "c0"), macOf(server, "s0"))
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { done <- n }()
		for ; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			b, err := packet.Build(packet.Spec{
				Src: netip.AddrFrom4([4]byte{10, 77, byte(1 + n>>8&0x7f), byte(n)}), Dst: netip.MustParseAddr("10.77.0.1"),
				Protocol: packet.UDP, SrcPort: uint16(n >> 4), DstPort: 7100 + uint16(n&1), TTL: 64,
			})
			if err != nil {
				panic(err)
			}
			w.send(t, b)
		}
	}()
	for range 6 {
		time.Sleep(300 * time.Millisecond)
		for i, s := range live {
			if !s.moves(waitLong) {
				t.Errorf("session %d starves (%v)", i, s.failed.Load())
			}
		}
	}
	during := status(t, d)
	close(stop)
	n := <-done
	if during.Queue.Packets < uint64(n)/100 {
		t.Errorf("of %d packets of the flood %d came up: it was none", n, during.Queue.Packets)
	}
	rounds := live[0].rounds.Load() + live[1].rounds.Load()
	t.Logf("%d packets of the flood, %d came up; %d were dropped by full queues, of these %d of new flows; %d rounds of the live sessions",
		n, during.Queue.Packets, during.Queue.QueueDropped+during.Queue.SocketDropped, during.Queue.NewDropped, rounds)
	if lost := during.Queue.QueueDropped + during.Queue.SocketDropped; lost > during.Queue.NewDropped {
		t.Errorf("%d packets were lost in full queues, only %d of them of new flows", lost, during.Queue.NewDropped)
	}
}

// A connection that a helper of the kernel expects, like FTP's for data,
// inherits the mark of the one that asked for it. It is judged all the same.
func TestExpectedConnectionIsJudged(t *testing.T) { lab.EachOffload(t, tryExpectedConnectionIsJudged) }

func tryExpectedConnectionIsJudged(t *testing.T, _ string) {
	l, client, server := lab.Pair(t)
	lab.Need(t, "nft")
	echoServer(t, server, 21)
	echoServer(t, client, 7005)
	server.Run("nft", "-f", l.File("helper.nft", `
table ip helped {
  ct helper ftp { type "ftp" protocol tcp; }
  chain pre { type filter hook prerouting priority -150; tcp dport 21 ct helper set "ftp"; }
  chain out { type filter hook output priority -150; ct state related ct status expected counter; }
}
`))
	policy := `
policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "ftp" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = 21
}
`
	d := server.IPFW(l.File("policy.hcl", policy))
	reach := func() error {
		return within(t, server, func() error {
			c, err := net.DialTimeout("tcp", "10.77.0.2:7005", time.Second)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	var control net.Conn
	if err := within(t, client, func() (err error) {
		control, err = net.DialTimeout("tcp", "10.77.0.1:21", waitLong)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	say := func(line string) {
		t.Helper()
		_ = control.SetDeadline(time.Now().Add(waitLong))
		if _, err := control.Write([]byte(line + "\r\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := control.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	const port = "PORT 10,77,0,2,27,93" // 27*256+93 is 7005
	say("USER anonymous")               // the helper wants to know where lines begin
	say(port)
	if err := reach(); err == nil {
		t.Error("the expected connection gets out, and the policy forbids it")
	}
	if out := server.Run("nft", "list", "chain", "ip", "helped", "out"); strings.Contains(out, "packets 0 ") {
		t.Fatalf("the kernel expected no connection; the test proves nothing:\n%s", out)
	}
	l.File("policy.hcl", policy+`
rule "data" {
  action      = "bypass"
  direction   = "out"
  protocol    = "tcp"
  remote_port = 7005
}
`)
	d.Signal(syscall.SIGHUP)
	l.Eventually(waitLong, "the new policy is in force", func() bool { return strings.Contains(d.Ask("status"), "generation 2,") })
	say(port)
	if err := reach(); err != nil {
		t.Errorf("the expected connection does not get out, and the policy allows it: %v", err)
	}
	s := status(t, d)
	if _, _, flows := s.rule("data"); flows != 1 {
		t.Errorf("the expected connection counts as %d flows of its rule", flows)
	}
}
