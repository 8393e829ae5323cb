package vm

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// How TestFigurePaths is divided: every load takes pathTime, and there are as many
// rounds as begin within pathLimit, but no more than pathRounds.
const (
	pathTime   = 1500 * time.Millisecond
	pathLimit  = 7 * time.Minute
	pathRounds = 7
)

// TestFigurePathsStrongSwan measures, in one guest and in turn, what one TCP stream
// and datagrams of three sizes get through: with no protection, by the kernel's
// own ESP as strongSwan sets it up, by ipfw, by the kernel's WireGuard and by
// wireguard-go. Ratios are of no protection in the same round. It is emulated, so
// a way that computes more loses more than on a machine of its own.
func TestFigurePathsStrongSwan(t *testing.T) {
	if os.Getenv(lab.KernelVariable) != "" {
		measurePaths(t)
		return
	}
	share := ""
	for _, k := range Kernels() {
		if !wanted(t, k, false) {
			continue
		}
		if share == "" {
			share = programs(t)
			build := func(env []string, args ...string) {
				cmd := exec.Command(args[0], args[1:]...)
				cmd.Env = append(os.Environ(), env...)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
				}
			}
			build(nil, "gcc", "-O2", "-o", filepath.Join(share, "udp"), "../../bench/c/udp.c")
			build([]string{"GOBIN=" + share, "GOFLAGS="}, "go", "install", "golang.zx2c4.com/wireguard@latest")
		}
		t.Run(k.Name, func(t *testing.T) { Boot(t, k, share, Config{}).again(t, nil) })
	}
}

// path is one way between two hosts of its own.
type path struct {
	name, what     string
	up             func(p *path)
	t              *testing.T
	l              *lab.Lab
	client, server *lab.Host
	target         string
	figures        map[string][]float64 // by load
}

func paths() []*path {
	return []*path{
		{name: "none", what: "no protection", up: func(*path) {}},
		{name: "kernel-esp", what: "the kernel's ESP, AES-GCM-128, set up by strongSwan", up: func(p *path) { p.upSwan("no") }},
		{name: "kernel-esp-udp", what: "the same in UDP", up: func(p *path) { p.upSwan("yes") }},
		{name: "ipfw-esp", what: "ipfw's ESP, AES-GCM-128, keys by IKE", up: func(p *path) { p.upIPFW("none") }},
		{name: "ipfw-esp-udp", what: "the same in UDP", up: func(p *path) { p.upIPFW("udp") }},
		{name: "wireguard", what: "the kernel's WireGuard", up: func(p *path) {
			p.upWireGuard("wgk", func(h *lab.Host, dev string) { h.Run("ip", "link", "add", dev, "type", "wireguard") })
		}},
		{name: "wireguard-go", what: "wireguard-go", up: func(p *path) {
			p.upWireGuard("wgo", func(h *lab.Host, dev string) {
				h.Start("env", "WG_PROCESS_FOREGROUND=1", "LOG_LEVEL=error", shared("wireguard"), dev)
				p.l.Eventually(lab.Patience, "wireguard-go listens", func() bool {
					_, err := h.Try(lab.Patience, "wg", "show", dev)
					return err == nil
				})
			})
		}},
	}
}

// shared is where the guest has a program that the machine has made for it.
func shared(name string) string {
	return filepath.Join(filepath.Dir(os.Getenv(lab.BuiltEnv)), name)
}

// load is something to carry.
type load struct {
	name string
	run  func(p *path) float64
	unit string
}

func loads() []load {
	all := []load{{"tcp", (*path).tcp, "Mbit/s"}}
	for _, size := range []int{64, 512, 1400} {
		all = append(all, load{fmt.Sprintf("udp-%d", size), func(p *path) float64 { return p.udp(size) }, "kpkt/s"})
	}
	return all
}

func measurePaths(t *testing.T) {
	Need(t, ESP, WireGuard)
	all := paths()
	for _, p := range all {
		began := time.Now()
		p.t, p.target, p.figures = t, "10.77.0.1", map[string][]float64{}
		p.l, p.client, p.server = lab.Pair(t)
		p.server.Start("iperf3", "-s")
		p.up(p)
		p.l.Eventually(lab.Patience, p.name+" carries", func() bool {
			_, err := p.client.Try(lab.Patience, "ping", "-c", "1", "-W", "2", p.target)
			return err == nil
		})
		t.Logf("%s is up after %v", p.name, time.Since(began).Round(time.Second/10))
	}
	rounds := 0
	for began := time.Now(); rounds < pathRounds && (rounds < 2 || time.Since(began) < pathLimit); rounds++ {
		for i := range all { // each begins a round once
			p := all[(i+rounds)%len(all)]
			for _, l := range loads() {
				p.figures[l.name] = append(p.figures[l.name], l.run(p))
			}
			t.Logf("round %d of %s, %v after the first: %s", rounds+1, p.name, time.Since(began).Round(time.Second), p.last())
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "medians of %d rounds of %v; in brackets the median of the ratios to no protection in the same round\n%-16s", rounds, pathTime, "")
	for _, l := range loads() {
		fmt.Fprintf(&b, " %18s", l.name+" "+l.unit)
	}
	fmt.Fprintf(&b, " %14s", "s/GB of TCP")
	for _, p := range all {
		fmt.Fprintf(&b, "\n%-16s", p.name)
		for _, l := range loads() {
			ratios := make([]float64, rounds)
			for i := range rounds {
				ratios[i] = p.figures[l.name][i] / all[0].figures[l.name][i]
			}
			fmt.Fprintf(&b, " %10.1f (%.3f)", median(p.figures[l.name]), median(ratios))
		}
		fmt.Fprintf(&b, " %14.1f", median(p.figures["cpu"]))
	}
	for _, p := range all {
		fmt.Fprintf(&b, "\n%-16s %s", p.name, p.what)
	}
	t.Log(b.String())
}

// last is the last figure of each load.
func (p *path) last() string {
	var b strings.Builder
	for _, l := range loads() {
		f := p.figures[l.name]
		fmt.Fprintf(&b, " %s %.1f %s", l.name, f[len(f)-1], l.unit)
	}
	return b.String()
}

// median of figures that there are.
func median(list []float64) float64 {
	s := slices.Sorted(slices.Values(list))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// tcp is one stream; what the processors worked for it goes to "cpu".
func (p *path) tcp() float64 {
	p.t.Helper()
	before := busy(p.t)
	out := p.client.Run("iperf3", "-J", "-i", "0", "-c", p.target, "-t", fmt.Sprint(max(2, int(pathTime.Seconds()))), "-C", "cubic")
	worked := busy(p.t) - before
	var r struct {
		End struct {
			Received struct {
				Bytes         float64 `json:"bytes"`
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.End.Received.Bytes == 0 {
		p.t.Fatalf("%s: iperf3: %v\n%s", p.name, err, out)
	}
	p.figures["cpu"] = append(p.figures["cpu"], worked/(r.End.Received.Bytes/1e9))
	return r.End.Received.BitsPerSecond / 1e6
}

// udp is as many datagrams as one thread can send: thousands in a second that
// arrive.
func (p *path) udp(size int) float64 {
	p.t.Helper()
	ms := strconv.FormatInt(pathTime.Milliseconds(), 10)
	count := p.server.Start(shared("udp"), "count", "9000", ms)
	p.l.Eventually(lab.Patience, "the counter is ready", func() bool { return strings.Contains(count.Output(), "ready") })
	p.client.Run(shared("udp"), "send", p.target, "9000", strconv.Itoa(size), strconv.FormatInt((pathTime+time.Second/2).Milliseconds(), 10))
	if err := count.Wait(lab.Patience); err != nil {
		p.t.Fatalf("%s: counter: %v\n%s", p.name, err, count.Output())
	}
	words := strings.Fields(count.Output())
	n, err := strconv.ParseFloat(words[len(words)-1], 64)
	if err != nil || n == 0 {
		p.t.Errorf("%s: of datagrams of %d bytes none arrived: %v\n%s", p.name, size, err, count.Output())
	}
	return n / pathTime.Seconds() / 1e3
}

// busy is how long the guest's processors have worked (/proc/stat, in hundredths
// of a second: user, nice, system, irq, softirq).
func busy(t *testing.T) (seconds float64) {
	t.Helper()
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b))
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, _ := strconv.ParseFloat(f[i], 64) // digits
		seconds += n / 100
	}
	return seconds
}

// upSwan has a strongSwan on each host give the kernel its SAs, in transport mode.
func (p *path) upSwan(encap string) {
	var caller *lab.Charon
	// The kernel looks for each when the first SA is made, while the peer waits.
	p.server.Run("modprobe", "-a", "esp4", "gcm", "seqiv", "echainiv")
	ends := []struct {
		h        *lab.Host
		id, addr string
	}{{p.server, "server", "10.77.0.1"}, {p.client, "client", "10.77.0.2"}}
	for i, e := range ends {
		caller = e.h.CharonESP("  retransmit_tries = 12\n")
		caller.Load(fmt.Sprintf(`
connections {
  paths {
    version = 2
    local_addrs = %[2]s
    remote_addrs = %[4]s
    proposals = aes128-sha256-x25519
    encap = %[5]s
    local {
      auth = psk
      id = %[1]s
    }
    remote {
      auth = psk
      id = %[3]s
    }
    children {
      paths {
        mode = transport
        esp_proposals = aes128gcm16-noesn
      }
    }
  }
}
secrets {
  ike-paths {
    secret = "measured in an emulator"
  }
}
`, e.id, e.addr, ends[1-i].id, ends[1-i].addr, encap))
	}
	if out := caller.Do("--initiate", "--child", "paths"); !strings.Contains(out, "completed successfully") {
		p.t.Fatalf("%s: strongSwan does not come up:\n%s", p.name, out)
	}
	if out := p.server.Run("ip", "xfrm", "state"); !strings.Contains(out, "rfc4106(gcm(aes))") || strings.Contains(out, "espinudp") != (encap == "yes") {
		p.t.Fatalf("%s: not what was to be measured:\n%s", p.name, out)
	}
}

// upIPFW runs an ipfw on each host that protects all between them.
func (p *path) upIPFW(encapsulation string) {
	p.l.RawKeys(false, "client", "server")
	for i, h := range []*lab.Host{p.server, p.client} {
		self, peer := []string{"server", "client"}[i], []string{"client", "server"}[i]
		h.IPFW(p.l.File(self+"/policy.hcl", fmt.Sprintf(`
policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "all" {
  action         = "protect"
  with           = "peer"
  direction      = "both"
  remote_address = %[3]q
}
ipsec "peer" {
  mode          = "transport"
  ike           = %[2]q
  encryption    = ["aes-128-gcm-16"]
  encapsulation = %[4]q
}
ike %[2]q {
  remote_endpoint = %[3]q
  local_id        = %[1]q
  public_keys     = "peers/"
  private_key     = "own.key"
}
`, self, peer, []string{"10.77.0.2", "10.77.0.1"}[i], encapsulation)))
	}
}

// upWireGuard makes a tunnel of WireGuard between devices that create makes. Its
// MTU is what fits the wire by IPv4.
func (p *path) upWireGuard(dev string, create func(h *lab.Host, dev string)) {
	ends := []struct {
		h                 *lab.Host
		dev, addr, remote string
		key               string
	}{{h: p.client, dev: dev + "c", addr: "10.88.0.2", remote: "10.77.0.1"}, {h: p.server, dev: dev + "s", addr: "10.88.0.1", remote: "10.77.0.2"}}
	for i, e := range ends {
		ends[i].key = p.l.File(e.dev+".key", e.h.Run("wg", "genkey"))
		create(e.h, e.dev)
	}
	for i, e := range ends {
		peer := ends[1-i]
		e.h.Run("sh", "-c", fmt.Sprintf("wg set %s private-key %s listen-port 51820 peer $(wg pubkey <%s) endpoint %s:51820 allowed-ips %s/32",
			e.dev, e.key, peer.key, e.remote, peer.addr))
		e.h.Run("ip", "addr", "add", e.addr+"/24", "dev", e.dev)
		e.h.Run("ip", "link", "set", e.dev, "mtu", "1440", "up")
	}
	p.target = "10.88.0.1"
}
