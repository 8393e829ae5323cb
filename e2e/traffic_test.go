package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// bypassPolicy lets in ping, the web and iperf3, and nothing else.
const bypassPolicy = `
policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "ping" {
  action    = "bypass"
  direction = "in"
  protocol  = ["icmp", "icmpv6"]
  icmp_type = "echo-request"
}
rule "web" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = [80, 5201]
}
rule "iperf-udp" {
  action     = "bypass"
  direction  = "in"
  protocol   = "udp"
  local_port = 5201
}
`

// A ping of 60,000 bytes is some forty fragments each way.
func TestBigPing(t *testing.T) { lab.EachOffload(t, tryBigPing) }

func tryBigPing(t *testing.T, _ string) {
	l, client, server := lab.Pair(t)
	lab.Need(t, "ping")
	server.IPFW(l.File("policy.hcl", bypassPolicy))
	for _, addr := range []string{"10.77.0.1", "fd77::1"} {
		for _, way := range []struct {
			from *lab.Host
			to   string
		}{{client, addr}, {server, strings.Replace(strings.Replace(addr, "77.0.1", "77.0.2", 1), "::1", "::2", 1)}} {
			// The neighbours find each other first: what waits for that is
			// bounded, and two datagrams of this size fill it.
			l.Eventually(waitLong, way.to+" answers a small ping", func() bool {
				_, err := way.from.Try(3*time.Second, "ping", "-c", "1", "-W", "1", way.to)
				return err == nil
			})
			out, err := way.from.Try(waitLong, "ping", "-c", "5", "-i", "0.1", "-W", "20", "-s", "60000", way.to)
			if err != nil || !strings.Contains(out, " 0% packet loss") {
				t.Errorf("%s to %s: %v\n%s", way.from.Name, way.to, err, out)
			}
		}
	}
}

// Every byte of a file and a gibibyte of iperf3 go through the queue, GSO
// packets included.
func TestTransferWithoutCorruption(t *testing.T) { lab.EachOffload(t, tryTransferWithoutCorruption) }

func tryTransferWithoutCorruption(t *testing.T, _ string) {
	l, client, server := lab.Pair(t)
	lab.Need(t, "nginx", "curl", "iperf3")
	size := 256 << 20
	sum := writeRandom(t, l, "www/big", size)
	startNginx(t, l, server, 80)
	server.IPFW(l.File("policy.hcl", bypassPolicy))
	for _, host := range both {
		got := client.Run("sh", "-c", fmt.Sprintf("curl -sg http://%s/big | sha256sum", host))
		if strings.Fields(got)[0] != sum {
			t.Errorf("%s: the file came out different", host)
		}
	}
	server.Start("iperf3", "-s")
	time.Sleep(300 * time.Millisecond)
	for _, args := range [][]string{{"-c", "10.77.0.1"}, {"-6", "-c", "fd77::1"}, {"-R", "-c", "10.77.0.1"}} {
		out, err := client.Try(60*time.Second, append([]string{"iperf3", "-J", "-n", "1G"}, args...)...)
		var result struct {
			End struct {
				Received struct {
					Bytes, BitsPerSecond float64
				} `json:"sum_received"`
			} `json:"end"`
		}
		if err != nil {
			t.Fatalf("iperf3 %v: %v\n%s", args, err, out)
		}
		if err := json.Unmarshal([]byte(out), &result); err != nil {
			t.Fatal(err)
		}
		if result.End.Received.Bytes < 0.98*(1<<30) {
			t.Errorf("iperf3 %v: %v bytes came through of a gibibyte", args, result.End.Received.Bytes)
		}
	}
}

// Outbound connections work while nothing may come in, over both families,
// TCP, UDP and ping.
func TestOutboundUnderInboundDiscard(t *testing.T) {
	t.Parallel()
	lab.EachOffload(t, tryOutboundUnderInboundDiscard)
}

func tryOutboundUnderInboundDiscard(t *testing.T, _ string) {
	l, client, server := lab.Pair(t)
	lab.Need(t, "nginx", "curl", "ping")
	startNginx(t, l, client, 80)
	server.IPFW(l.File("policy.hcl", "policy {\n  inbound = \"discard\"\n  outbound = \"bypass\"\n}\n"))
	for _, host := range []string{"10.77.0.2", "[fd77::2]"} {
		if !opens(server, host, 80) {
			t.Errorf("the server cannot open http://%s", host)
		}
		if out, err := server.Try(waitLong, "ping", "-c", "1", "-W", "60", bare(host)); err != nil {
			t.Errorf("the server cannot ping %s: %v\n%s", host, err, out)
		}
	}
	for _, addr := range []string{"10.77.0.1", "fd77::1"} {
		if _, err := client.Try(5*time.Second, "ping", "-c", "1", "-W", "1", addr); err == nil {
			t.Errorf("the client can ping %s", addr)
		}
	}
}

// writeRandom writes a file of random bytes below the test's folder and gives
// its SHA-256.
func writeRandom(t *testing.T, l *lab.Lab, name string, size int) string {
	t.Helper()
	path := filepath.Join(l.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	src := rand.NewChaCha8([32]byte{1})
	buf := make([]byte, 1<<20)
	for n := 0; n < size; n += len(buf) {
		_, _ = src.Read(buf)
		h.Write(buf)
		if _, err := f.Write(buf); err != nil {
			t.Fatal(err)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
