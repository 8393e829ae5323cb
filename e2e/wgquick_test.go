package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// wireguardGo is what the Go proxy is asked for.
const wireguardGo = "golang.zx2c4.com/wireguard@latest"

// buildWireguard builds the program, once for the machine's go cache.
func buildWireguard(t *testing.T, dir string) string {
	t.Helper()
	cmd := exec.Command("go", "install", wireguardGo)
	cmd.Dir = dir // the module's own versions, not ours
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go install %s: %v\n%s", wireguardGo, err, out)
	}
	return filepath.Join(dir, "wireguard")
}

// wg-quick's tunnel for everything, on a host with a strict reverse path filter.
// WireGuard's own packets have a mark, which wg-quick saves on their connection
// and restores for what arrives, so that the way back is looked for as they were
// sent: past the tunnel. With our bits in that mark the kernel would look into it.
//
//	+--------+ 10.77.0.2     10.77.0.1 +--------+
//	| client |-------------------------| server | 203.0.113.2: the far end of the tunnel
//	+--------+ 10.88.0.2 === 10.88.0.1 +--------+
func TestWgQuickWithStrictReversePath(t *testing.T) {
	lab.Need(t, "wg-quick", "wg", "curl")
	lab.EachOffload(t, tryWgQuick)
}

func tryWgQuick(t *testing.T, _ string) { wgQuick(t, buildWireguard(t, t.TempDir())) }

// wgQuick is that with a program, where the kernel has no WireGuard.
func wgQuick(t *testing.T, program string) {
	l, client, server := lab.Pair(t)
	server.Run("ip", "addr", "add", "203.0.113.2/32", "dev", "lo")
	server.Run("ip", "route", "add", "10.77.0.2/32", "dev", "s0", "src", "203.0.113.2")
	client.Run("ip", "route", "add", "default", "via", "10.77.0.1")
	client.Sysctl("net.ipv4.conf.all.rp_filter", "1")
	key := func() (private, public string) {
		private = strings.TrimSpace(client.Run("wg", "genkey"))
		return private, strings.TrimSpace(client.Run("sh", "-c", "echo "+private+" | wg pubkey"))
	}
	clientKey, clientPublic := key()
	serverKey, serverPublic := key()
	up := func(h *lab.Host, letter, config string) string {
		name := fmt.Sprintf("wg%d%s", os.Getpid(), letter)
		file := l.File(name+".conf", config)
		// WireGuard keeps the output open, so it must not be the test's.
		if out, err := h.Try(lab.Patience, "sh", "-c", "WG_QUICK_USERSPACE_IMPLEMENTATION="+program+" wg-quick up "+file+" >"+file+".log 2>&1"); err != nil {
			log, _ := os.ReadFile(file + ".log")
			t.Fatalf("wg-quick: %v\n%s%s", err, out, log)
		}
		t.Cleanup(func() { _ = os.Remove("/var/run/wireguard/" + name + ".sock") })
		return name
	}
	up(server, "s", fmt.Sprintf("[Interface]\nPrivateKey = %s\nAddress = 10.88.0.1/24, fd88::1/64\nListenPort = 51820\n[Peer]\nPublicKey = %s\nAllowedIPs = 10.88.0.2/32, fd88::2/128\n",
		serverKey, clientPublic))
	serveBytes(t, server, 8080)
	name := up(client, "c", fmt.Sprintf("[Interface]\nPrivateKey = %s\nAddress = 10.88.0.2/24, fd88::2/64\n[Peer]\nPublicKey = %s\nAllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = 203.0.113.2:51820\n",
		clientKey, serverPublic))
	if rules := client.Run("nft", "list", "ruleset"); !strings.Contains(rules, "wg-quick-"+name) || !strings.Contains(rules, "meta mark set ct mark") {
		t.Fatalf("wg-quick has not done what this test is about:\n%s", rules)
	}
	client.IPFW(l.File("ws.hcl", "policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n}\n"))
	before := reversePathDrops(t, client)
	for _, to := range []string{"10.88.0.1", "fd88::1", "10.77.0.1"} { // the last one is beside the default route
		if err := fetch(client, netip.MustParseAddr(to), 20_000_000); err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
	if n := reversePathDrops(t, client) - before; n > 0 {
		t.Errorf("the reverse path filter has dropped %d packets", n)
	}
}

// reversePathDrops reads the counter IPReversePathFilter of the kernel.
func reversePathDrops(t *testing.T, h *lab.Host) int {
	t.Helper()
	var names []string
	for line := range strings.Lines(h.Run("cat", "/proc/net/netstat")) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "TcpExt:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "IPReversePathFilter" {
				n, err := strconv.Atoi(fields[i])
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
	}
	t.Fatal("the kernel does not count IPReversePathFilter")
	return 0
}
