package e2e

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/packet"
)

// A million frames of garbage, half of them with an IP header good enough to
// pass the kernel's own checks: ipfw lives, its memory is flat, nothing of it
// passes, and the web is served all the while.
func TestMillionRandomFrames(t *testing.T) {
	l, client, server := lab.Pair(t)
	lab.Need(t, "nginx", "curl")
	startNginx(t, l, server, 80)
	d := server.IPFW(l.File("policy.hcl", bypassPolicy))
	w := rawSocket(t, client, "c0", macOf(client, "c0"), macOf(server, "s0"))
	r := rand.New(rand.NewPCG(1, 2))
	// The flow table fills, and Go's heap finds its size.
	sendGarbage(t, w, r, 200_000)
	early := residentKiB(t, d.Cmd.Process.Pid)
	sendGarbage(t, w, r, 800_000)
	late := residentKiB(t, d.Cmd.Process.Pid)
	if late > early+early/4+8<<10 {
		t.Errorf("memory went from %d to %d KiB", early, late)
	}
	t.Logf("resident: %d KiB after 200,000 frames, %d KiB after a million", early, late)
	for _, host := range both {
		if !opens(client, host, 80) {
			t.Errorf("http://%s does not answer after the flood\n%s", host, tail(d.Output(), 2000))
		}
	}
	t.Logf("%s", d.Ask("status"))
}

func sendGarbage(t *testing.T, w *wire, r *rand.Rand, n int) {
	buf := make([]byte, 1500)
	for range n {
		b := buf[:20+r.IntN(200)]
		for i := 0; i+8 <= len(b); i += 8 {
			binary.LittleEndian.PutUint64(b[i:], r.Uint64())
		}
		switch r.IntN(4) {
		case 0: // anything
			b[0] = b[0]&0x0f | byte(4+2*r.IntN(2))<<4
		case 1, 2: // IPv4 that the kernel takes for good
			b[0] = 0x45
			binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
			b[6], b[7] = b[6]&0x40, 0
			b[9] = []byte{1, 6, 17, 47, 50, 51, 132, 136, 255}[r.IntN(9)]
			copy(b[12:], []byte{10, 77, 0, byte(3 + r.IntN(200)), 10, 77, 0, 1})
			b[10], b[11] = 0, 0
			binary.BigEndian.PutUint16(b[10:], packet.Checksum(b[:20], 0))
		case 3: // IPv6 with a chain of anything
			b = buf[:48+r.IntN(200)]
			b[0], b[1] = 0x60, 0
			binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
			b[6] = []byte{0, 6, 17, 43, 44, 50, 51, 58, 60, 132, 135, 139}[r.IntN(12)]
			copy(b[8:24], append([]byte{0xfd, 0x77}, make([]byte, 13)...))
			b[23] = byte(3 + r.IntN(200))
			copy(b[24:40], append([]byte{0xfd, 0x77}, make([]byte, 14)...))
			b[39] = 1
		}
		w.send(t, b)
	}
}

// scapy's fuzz() fills every field of real protocols with random values.
func TestScapyFuzz(t *testing.T) {
	l, client, server := lab.Pair(t)
	lab.Need(t, "nginx", "curl", "python3")
	if _, err := client.Try(waitLong, "/usr/bin/python3", "-c", "import scapy.all"); err != nil {
		lab.Skip(t, "python3-scapy is not installed; `make test` as root installs it")
	}
	startNginx(t, l, server, 80)
	d := server.IPFW(l.File("policy.hcl", bypassPolicy))
	script := l.File("fuzz.py", fmt.Sprintf(`
import logging; logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.all import *
random.seed(7)
v4 = IP(src="10.77.0.9", dst="10.77.0.1"); v6 = IPv6(src="fd77::9", dst="fd77::1")
kinds = [v4/fuzz(TCP()), v4/fuzz(UDP()), v4/fuzz(ICMP()), fuzz(IP(src="10.77.0.9", dst="10.77.0.1", version=4, ihl=None, len=None, chksum=None))/fuzz(TCP()),
  v6/fuzz(TCP()), v6/fuzz(UDP()), v6/fuzz(ICMPv6EchoRequest()), v6/fuzz(ICMPv6DestUnreach())/v4, v6/fuzz(IPv6ExtHdrRouting())/TCP(), v6/fuzz(IPv6ExtHdrDestOpt())/UDP(),
  v6/fuzz(IPv6ExtHdrHopByHop())/UDP(), v6/fuzz(IPv6ExtHdrFragment())/fuzz(UDP()), v4/fuzz(ICMP(type=3))/fuzz(IP())/fuzz(UDP())]
s = conf.L2socket(iface="c0")
for i in range(4000):
    try: s.send(Ether(dst="%s")/kinds[i %% len(kinds)]/Raw(os.urandom(i %% 90)))
    except (struct.error, OverflowError): pass
print("sent")
`, macOf(server, "s0")))
	if out, err := client.Try(2*time.Minute, "/usr/bin/python3", script); err != nil {
		t.Fatalf("scapy: %v\n%s", err, out)
	}
	if !opens(client, "10.77.0.1", 80) || !opens(client, "[fd77::1]", 80) {
		t.Errorf("the web does not answer after the fuzz\n%s", tail(d.Output(), 2000))
	}
}

// residentKiB is how much memory a process has.
func residentKiB(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatal("the kernel does not say how much memory the daemon has: it has ended")
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }
