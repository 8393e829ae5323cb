package vm

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// tunnels is how many the small gateway has, smallMemory its memory in MB.
const (
	tunnels     = 1000
	smallMemory = 256
)

// TestSmallGatewayXFRM: a gateway with one processor and 256 MB has 1,000 tunnels
// to as many peers, which the kernel's own IPsec plays in the same 256 MB, and
// packets pass through each of them, both ways.
//
//	lan 198.51.100.77 -- gateway 10.77.0.2 == tunnel i == 10.32.i/250.i%250+1 far (10.64.i/250.i%250+1)
func TestSmallGatewayXFRM(t *testing.T) {
	inside(t, false, smallGateway, Config{Processors: 1, Memory: smallMemory})
}

func tunnelPeer(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 32, byte(i / 250), byte(i%250 + 1)})
}
func tunnelInner(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 64, byte(i / 250), byte(i%250 + 1)})
}

// smallSite is the gateway and what it is between.
type smallSite struct {
	*lab.Lab
	lan, gateway, far *lab.Host
	policy            strings.Builder
	d                 *lab.Daemon
	began             time.Time
}

func newSmallSite(t *testing.T) *smallSite {
	l := lab.New(t)
	s := &smallSite{Lab: l, lan: l.Host("lan"), gateway: l.Host("gateway"), far: l.Host("far")}
	l.Join(s.lan, "n0", []string{"198.51.100.77/24"}, s.gateway, "a0", []string{"198.51.100.1/24"})
	l.Join(s.gateway, "w0", []string{"10.77.0.2/24"}, s.far, "f0", []string{"10.77.0.1/24"})
	s.gateway.Sysctl("net.ipv4.ip_forward", "1")
	s.lan.Run("ip", "route", "add", "default", "via", "198.51.100.1")
	s.gateway.Run("ip", "route", "add", "10.32.0.0/16", "via", "10.77.0.1")
	s.gateway.Run("ip", "route", "add", "10.64.0.0/16", "via", "10.77.0.1")
	s.policy.WriteString("policy {\n  inbound  = \"discard\"\n  outbound = \"discard\"\n  forward  = \"discard\"\n}\n")
	for i := range tunnels {
		fmt.Fprintf(&s.policy, "rule \"t%d\" {\n  action = \"protect\"\n  with = \"t%[1]d\"\n  direction = \"forward\"\n  local_address = \"198.51.100.0/24\"\n  remote_address = %q\n}\n", i, tunnelInner(i).String())
	}
	return s
}

// start starts the gateway's daemon. Tried on a machine with more, it takes that for
// one with as little memory as the guest has.
func (s *smallSite) start() {
	s.Helper()
	var starter []string
	if total(s) > smallMemory<<10 {
		starter = s.LittleMemory(smallMemory)
	}
	s.Logf("before ipfw: %s", memory(s))
	s.began = time.Now()
	s.d = s.gateway.StartIPFWUnder(starter, s.File("policy.hcl", s.policy.String()))
	s.d.Ready(10 * lab.Patience)
	s.tell("ready")
}

// tell says what memory there is, and what the daemon has of it.
func (s *smallSite) tell(what string) {
	s.Helper()
	s.Logf("%s after %v: %s; ipfw: %s", what, time.Since(s.began).Round(time.Second/10), memory(s), resident(s, s.d.Cmd.Process.Pid))
}

// plays sends through each tunnel, also when the policy has been read anew, and
// bounds what the daemon has taken.
func (s *smallSite) plays() {
	s.Helper()
	pass := func(what string) {
		s.Helper()
		began, missing := time.Now(), error(nil)
		if err := s.lan.Do(func() error { missing = throughEach(); return nil }); err != nil || missing != nil {
			s.Fatalf("%s: %v, %v\n%s\n%s", what, err, missing, s.d.Ask("status"), s.d.Output())
		}
		s.Logf("%s: a datagram through each of %d tunnels, and back: %v", what, tunnels, time.Since(began).Round(time.Second/10))
	}
	for round := range 3 {
		pass(fmt.Sprint("round ", round+1))
	}
	for round := range smallReloads {
		began := time.Now()
		s.d.Ask("reload")
		s.Logf("reload %d took %v", round+1, time.Since(began).Round(time.Second/10))
		pass("after it")
	}
	s.tell("at the end")
	if kb := lab.PeakMemory(s, s.d.Cmd.Process.Pid); kb > smallMemory<<10/2 {
		s.Errorf("ipfw has taken %d kB, more than half of what there is", kb)
	}
	if status := s.d.Ask("status"); !strings.Contains(status, "Protected traffic: 2,000 SAs") {
		s.Errorf("not %d SAs:\n%s", 2*tunnels, status)
	}
}

// smallReloads is how often the policy is read anew.
const smallReloads = 3

func smallGateway(t *testing.T) {
	Need(t, ESP)
	s := newSmallSite(t)
	for _, own := range []string{"10.32.0.0/16", "10.64.0.0/16"} {
		s.far.Run("ip", "route", "add", "local", own, "dev", "lo")
	}
	s.far.Run("ip", "route", "add", "198.51.100.0/24", "via", "10.77.0.2")
	var kernel strings.Builder
	for i := range tunnels {
		var keys [4][32]byte
		for k := range keys {
			_, _ = rand.Read(keys[k][:]) // never fails: crypto/rand
		}
		file := s.File(fmt.Sprintf("keys/%d", i), fmt.Sprintf("encryption_in = %x\nintegrity_in = %x\nencryption_out = %x\nintegrity_out = %x\n", keys[0], keys[1], keys[2], keys[3]))
		in, out := 0x10000+2*i, 0x10001+2*i
		fmt.Fprintf(&s.policy, "ipsec \"t%d\" {\n  mode = \"tunnel\"\n  local_endpoint = \"10.77.0.2\"\n  remote_endpoint = %q\n  manual {\n    spi_in = \"%#x\"\n    spi_out = \"%#x\"\n    encryption = \"aes-256-cbc\"\n    integrity = \"hmac-sha2-256-128\"\n    key_file = %q\n  }\n}\n",
			i, tunnelPeer(i).String(), in, out, file)
		for way, spi := range []int{in, out} {
			ends, inner := [2]string{tunnelPeer(i).String(), "10.77.0.2"}, [2]string{tunnelInner(i).String(), "198.51.100.0/24"}
			fmt.Fprintf(&kernel, "xfrm state add src %s dst %s proto esp spi %#x reqid %d mode tunnel enc cbc(aes) 0x%x auth-trunc hmac(sha256) 0x%x 128\n",
				ends[way], ends[1-way], spi, i+1, keys[2*way], keys[2*way+1])
			fmt.Fprintf(&kernel, "xfrm policy add src %s dst %s dir %s tmpl src %s dst %s proto esp reqid %d mode tunnel\n",
				inner[way], inner[1-way], []string{"out", "in"}[way], ends[way], ends[1-way], i+1)
		}
	}
	s.far.Run("ip", "-batch", s.File("kernel.batch", kernel.String()))
	if err := s.far.Do(func() error { return lab.Serve(7) }); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.plays()
	last := lab.Transfer{Network: "tcp", To: netip.AddrPortFrom(tunnelInner(tunnels-1), 7), Size: 1 << 20, Limit: lab.Patience}
	if err := s.lan.Do(last.Do); err != nil {
		t.Error(err)
	}
}

// throughEach sends a datagram through each tunnel, again and again until each has
// brought its own back.
func throughEach() error {
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return err
	}
	defer c.Close()
	waits := map[netip.Addr]bool{}
	for i := range tunnels {
		waits[tunnelInner(i)] = true
	}
	b := make([]byte, 1024)
	for end := time.Now().Add(lab.Patience); len(waits) > 0; {
		if time.Now().After(end) {
			return fmt.Errorf("nothing comes back by %d of %d tunnels", len(waits), tunnels)
		}
		n := 0
		for a := range waits {
			if n++; n > 100 { // no more at a time than fit into a queue
				break
			}
			_, _ = c.WriteToUDPAddrPort(fmt.Append(nil, a), netip.AddrPortFrom(a, 7)) // what is lost is sent again
		}
		for k := 0; k < min(n, 100); k++ {
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			k, from, err := c.ReadFromUDPAddrPort(b)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err == nil && string(b[:k]) == from.Addr().Unmap().String() {
				delete(waits, from.Addr().Unmap())
			}
		}
	}
	return nil
}

var (
	freeMemory = regexp.MustCompile(`(?m)^(MemTotal|MemFree|MemAvailable): +(\d+) kB`)
	ownMemory  = regexp.MustCompile(`(?m)^(VmHWM|VmRSS|RssAnon):\s+(\d+) kB`)
)

// total is how much memory there is, in kB.
func total(t testing.TB) (kb int) {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Sscanf(string(b), "MemTotal: %d kB", &kb)
	return kb
}

// memory is what the guest has and has left.
func memory(t testing.TB) string { return fields(t, "/proc/meminfo", freeMemory) }

// resident is what a process has, and has had at most.
func resident(t testing.TB, pid int) string {
	return fields(t, fmt.Sprintf("/proc/%d/status", pid), ownMemory)
}

// fields are those lines of a file, in MB.
func fields(t testing.TB, path string, which *regexp.Regexp) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range which.FindAllStringSubmatch(string(b), -1) {
		var kb float64
		_, _ = fmt.Sscan(m[2], &kb) // digits
		all = append(all, fmt.Sprintf("%s %.1f MB", m[1], kb/1024))
	}
	return strings.Join(all, ", ")
}
