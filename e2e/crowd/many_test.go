package crowd

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/ike"
)

// Many callers come up in one daemon and stay, are rekeyed all at once, outlive
// a reload, and hear of the daemon's end; they come back to the next one, which
// is told to end them. A neighbour's packets pass meanwhile, alone and in a TCP
// stream. IPFW_IKE_FIGURES=1: 50,000 callers, whose children come to their soft
// lifetime as well; IPFW_IKE_CALLERS=1000,10000 in other steps.
func TestMany(t *testing.T) {
	steps := []int{1000}
	if figures() {
		steps = []int{1000, 10000, 50000}
	}
	if list := os.Getenv("IPFW_IKE_CALLERS"); list != "" {
		steps = nil
		for n := range strings.SplitSeq(list, ",") {
			i, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			steps = append(steps, i)
		}
	}
	s := newSite(t)
	s.rules = `
rule "neighbour" {
  action         = "protect"
  with           = "neighbour"
  direction      = "both"
  remote_address = "10.95.0.1"
}
ipsec "neighbour" {
  mode = "transport"
  ike  = "neighbour"
}
ike "neighbour" {
  remote_endpoint = "10.95.0.1"
  local_id        = "server.example"
  remote_id       = "neighbour.example"
  psk_file        = "psk"
}
`
	if figures() {
		s.ipsec = "  lifetime = \"1m\"\n"
	}
	policy := s.policy("")
	d := s.server.IPFW(policy)
	pid := func() int { return d.Cmd.Process.Pid }
	n := s.neighbour()
	n.quiet("alone")
	c := gather(t, s.crowd, steps[len(steps)-1], func(_ int, p *ike.Peer) { p.DPD = -1 })
	base, before := resident(t, pid()), 0
	for _, count := range steps {
		used, began := cpuTime(t, pid()), time.Now()
		load := n.busy()
		c.callAll(before, count, 16, 4*time.Minute)
		span := time.Since(began)
		used = cpuTime(t, pid()) - used
		load(fmt.Sprint("while they come, ", count))
		took, missing := c.delays()
		st := ask(t, d)
		if missing > 0 || st.IKE.SAs != count+1 || st.IKE.Children != count+1 {
			t.Fatalf("%d missing of %d: %v; the daemon has %d and %d", missing, count, c.fails, st.IKE.SAs, st.IKE.Children)
		}
		t.Logf("%6d SAs: %.0f handshakes/s, %.0f of the daemon's core; p50 %.1f p95 %.1f max %.1f ms; %.1f MB, %.1f KB for each; lost %d, unsent %d",
			count, float64(count-before)/span.Seconds(), float64(count-before)/used.Seconds(), ms(part(took, .5)), ms(part(took, .95)), ms(part(took, 1)),
			resident(t, pid()), (resident(t, pid())-base)*1024/float64(count), st.IKE.Lost, st.IKE.Unsent)
		before = count
		s.looks(d, count)
		n.quiet(fmt.Sprint("with ", count))
	}
	all := before
	if figures() {
		used, began, first := cpuTime(t, pid()), time.Now(), c.count(ike.ChildRekeyed)
		load := n.busy()
		s.Eventually(3*time.Minute, "all children are rekeyed", func() bool { return c.count(ike.ChildRekeyed) >= all })
		t.Logf("%d children at the end of their minute were rekeyed in %.0f s, beside probes; the daemon's core was busy %.1f %%",
			c.count(ike.ChildRekeyed)-first, time.Since(began).Seconds(), 100*float64(cpuTime(t, pid())-used)/float64(time.Since(began)))
		load("while their children are rekeyed")
	}
	// All IKE SAs at once: a storm that jitter otherwise prevents.
	rekeyed := c.count(ike.IKERekeyed)
	began := time.Now()
	load := n.busy()
	d.Ask("ike", "rekey", "crowd", "--wait", "0s")
	s.Eventually(lab.Patience, "all are rekeyed", func() bool { return c.count(ike.IKERekeyed)-rekeyed >= all })
	t.Logf("%d IKE SAs rekeyed in %.1f s", all, time.Since(began).Seconds())
	load("while all are rekeyed")
	if st := ask(t, d); st.IKE.Children != all+1 || c.count(ike.IKEDown) > 0 {
		t.Fatalf("%d children after that, %d down: %v", st.IKE.Children, c.count(ike.IKEDown), c.fails)
	}
	began = time.Now()
	load = n.busy()
	d.Ask("reload")
	t.Logf("reload with %d SAs: %.0f ms", all, ms(time.Since(began)))
	load("in a reload")
	if st := ask(t, d); st.IKE.Children != all+1 {
		t.Fatalf("%d children after a reload", st.IKE.Children)
	}
	began = time.Now()
	d.Signal(syscall.SIGTERM)
	if err := d.Wait(time.Minute); err != nil {
		t.Fatal(err)
	}
	ended := time.Since(began)
	time.Sleep(200 * time.Millisecond)
	t.Logf("end with %d SAs: %.2f s, %d of them have heard of it", all, ended.Seconds(), c.count(ike.IKEDown))
	if ended > 20*time.Second || c.count(ike.IKEDown) < all*9/10 {
		t.Errorf("the end took %v, and %d of %d have heard of it", ended, c.count(ike.IKEDown), all)
	}
	began = time.Now()
	d = s.server.IPFW(policy)
	t.Logf("ready again after %.2f s", time.Since(began).Seconds())
	began = time.Now()
	c.callAll(0, all, 16, 4*time.Minute)
	took, missing := c.delays()
	t.Logf("%d come back to it in %.1f s: p50 %.1f p95 %.1f max %.1f ms", len(took), time.Since(began).Seconds(), ms(part(took, .5)), ms(part(took, .95)), ms(part(took, 1)))
	if missing > 0 {
		t.Errorf("%d of %d do not come back: %v", missing, all, c.fails)
	}
	n.quiet("when they are back")
	load = n.busy()
	down := c.count(ike.IKEDown)
	began = time.Now()
	d.Ask("ike", "terminate", "crowd", "--wait", "0s")
	told := time.Since(began)
	s.Eventually(lab.Patience, "all have heard that they are terminated", func() bool { return c.count(ike.IKEDown)-down >= all })
	t.Logf("`ike terminate` of %d: %.0f ms, all have heard of it after %.1f s", all, ms(told), time.Since(began).Seconds())
	load("while all are terminated")
}

// looks asks the daemon for all it has, and says how long that took.
func (s *site) looks(d *lab.Daemon, count int) {
	s.Helper()
	var line strings.Builder
	for _, args := range [][]string{{"sas", "--json"}, {"sas"}, {"ike", "list", "--json"}, {"status"}} {
		began := time.Now()
		out := d.Ask(args...)
		fmt.Fprintf(&line, "  %s %.0f ms", strings.Join(args, " "), ms(time.Since(began)))
		if want := map[string]int{"sas": 2, "ike": 1}[args[0]] * (count + 1); args[len(args)-1] == "--json" && strings.Count(out, "\n") != want {
			s.Errorf("%v: %d lines, want %d", args, strings.Count(out, "\n"), want)
		}
	}
	s.Log(line.String())
}

// neighbour is one real daemon whose packets are timed.
type neighbour struct {
	*site
	host *lab.Host
}

func (s *site) neighbour() *neighbour {
	s.Helper()
	h := s.attacker // a host like another, in this test
	h.Run("ip", "addr", "add", "10.95.0.1/32", "dev", "lo")
	h.Run("ip", "route", "add", "10.77.0.1", "via", "10.78.0.1", "src", "10.95.0.1")
	s.server.Run("ip", "route", "add", "10.95.0.1", "via", "10.78.0.2")
	s.File("neighbour/psk", secret+"\n")
	h.IPFW(s.File("neighbour/policy.hcl", `
policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "server" {
  action         = "protect"
  with           = "server"
  direction      = "both"
  remote_address = "10.77.0.1"
}
ipsec "server" {
  mode = "transport"
  ike  = "server"
}
ike "server" {
  remote_endpoint = "10.77.0.1"
  local_id        = "neighbour.example"
  remote_id       = "server.example"
  psk_file        = "psk"
}
`))
	return &neighbour{s, h}
}

// ping pings the server, and says how it went; nothing may be lost.
func (n *neighbour) ping(what string, args ...string) {
	n.Helper()
	out, err := n.host.Try(5*time.Minute, append([]string{"ping", "-q", "-n", "-I", "10.95.0.1", "-W", "5"}, append(args, "10.77.0.1")...)...)
	_, rtt, ok := strings.Cut(strings.TrimSpace(out), "rtt ")
	if err != nil || !ok || !strings.Contains(out, " 0% packet loss") {
		n.Errorf("pings of a neighbour, %s: %v\n%s", what, err, out)
	}
	n.Logf("        a neighbour's pings, %s: %s", what, rtt)
}

func (n *neighbour) quiet(what string) { n.ping(what, "-c", "30", "-i", "0.02") }

// busy pings, and sends a TCP stream, until the function that it gives is called.
func (n *neighbour) busy() func(what string) {
	n.Helper()
	stream := n.stream()
	p := n.host.Start("ping", "-q", "-n", "-I", "10.95.0.1", "-W", "5", "-i", "0.02", "10.77.0.1")
	return func(what string) {
		n.Helper()
		p.Signal(syscall.SIGINT)
		_ = p.Wait(time.Minute)
		_, rtt, _ := strings.Cut(strings.TrimSpace(p.Output()), "--- 10.77.0.1 ping statistics ---\n")
		n.Logf("        a neighbour's pings, %s: %s; %s", what, strings.ReplaceAll(rtt, "\n", "; "), stream())
	}
}

// stream sends 64 KiB over TCP, protected, each 10 ms. The function that it gives
// ends that, and says what has come and how long nothing came at worst.
func (n *neighbour) stream() func() string {
	n.Helper()
	var l net.Listener
	var c net.Conn
	err := n.server.Do(func() (err error) { l, err = net.Listen("tcp4", "10.77.0.1:0"); return err })
	if err == nil {
		defer l.Close()
		err = n.host.Do(func() (err error) {
			from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 95, 0, 1)}, Timeout: 30 * time.Second}
			c, err = from.Dial("tcp4", l.Addr().String())
			return err
		})
	}
	if err != nil {
		n.Fatal(err)
	}
	in, err := l.Accept()
	if err != nil {
		n.Fatal(err)
	}
	sent, came := make(chan int), make(chan string)
	done := make(chan struct{})
	go func() {
		total, b := 0, make([]byte, 64<<10)
		for end := false; !end; {
			k, _ := c.Write(b)
			total += k
			select {
			case <-done:
				end = true
			case <-time.After(10 * time.Millisecond):
			}
		}
		c.Close()
		sent <- total
	}()
	go func() {
		total, worst, last, b := 0, time.Duration(0), time.Now(), make([]byte, 256<<10)
		began := last
		for {
			k, err := in.Read(b)
			if err != nil {
				break
			}
			now := time.Now()
			total, worst, last = total+k, max(worst, now.Sub(last)), now
		}
		in.Close()
		if want := <-sent; want != total {
			n.Errorf("%d of %d bytes came through a neighbour's TCP stream", total, want)
		}
		came <- fmt.Sprintf("TCP %.1f MB/s, nothing for %.0f ms at worst", float64(total)/1e6/time.Since(began).Seconds(), ms(worst))
	}()
	return func() string { close(done); return <-came }
}

// cpuTime is what a process has used, of user and system time.
func cpuTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')'):]))
	var user, system int
	if _, err := fmt.Sscan(fields[12]+" "+fields[13], &user, &system); err != nil { // utime, stime: proc(5)
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
