package vm

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// blocked are the modules that hosts forbid since CVE-2026-43284, and what would
// bring them in.
var blocked = []string{"esp4", "esp6", "esp4_offload", "esp6_offload", "ah4", "ah6", "xfrm_interface"}

// TestWithoutKernelESP: where a modprobe rule keeps the kernel from ESP and AH of
// its own, ipfw protects all the same: both protocols, both modes, both families,
// native and in UDP, with keys by hand and by IKE.
func TestWithoutKernelESP(t *testing.T) {
	inside(t, true, func(t *testing.T) {
		l, client, server := lab.Pair(t)
		noKernelESP(t, client)
		protections(t, l, client, server)
		noKernelESP(t, client)
	}, Config{Without: blocked})
}

// noKernelESP holds the guest to what the test is about: no module is loaded, and
// the kernel takes no SA, because it has not what the SA is of.
func noKernelESP(t *testing.T, h *lab.Host) {
	t.Helper()
	modules, err := os.ReadFile("/proc/modules")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(modules)) {
		for _, m := range blocked {
			if strings.HasPrefix(l, m+" ") {
				t.Errorf("the guest has the module %s", l)
			}
		}
	}
	for _, ends := range [][2]string{{"10.77.0.2", "10.77.0.1"}, {"fd77::2", "fd77::1"}} {
		for protocol, algorithm := range map[string]string{
			"esp": "aead rfc4106(gcm(aes)) 0x" + strings.Repeat("17", 20) + " 128",
			"ah":  "auth-trunc hmac(sha256) 0x" + strings.Repeat("17", 32) + " 128",
		} {
			out, err := h.Try(lab.Patience, strings.Fields(fmt.Sprintf("ip xfrm state add src %s dst %s proto %s spi 0x4301 mode transport %s", ends[0], ends[1], protocol, algorithm))...)
			if err == nil || !strings.Contains(out, "type not found") && !strings.Contains(out, "Protocol not supported") { // since 6.2, before
				t.Errorf("the kernel is to have no %s for %s: %v\n%s", protocol, ends[0], err, out)
			}
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// protection is one way to protect what goes to a port.
type protection struct {
	lab.Manual
	sealed string // how tcpdump calls what is on the wire
}

// allProtections are those of both protocols, modes and families, ESP also in UDP.
func allProtections() (all []protection) {
	for i, family := range []string{"ip", "ip6"} {
		for _, mode := range []string{"transport", "tunnel"} {
			for _, kind := range []string{"esp", "udp", "ah"} {
				p := protection{Manual: lab.Manual{Name: fmt.Sprintf("%s-%s-%s", family, mode, kind), Mode: mode, Protocol: "esp", SPI: uint32(0x1000 + 2*len(all))}}
				p.Local, p.Remote = []string{"10.77.0.2", "fd77::2"}[i], []string{"10.77.0.1", "fd77::1"}[i]
				head := []int{20, 40}[i]
				switch kind {
				case "esp":
					p.sealed = fmt.Sprintf("%s proto 50 and %[1]s[%d:4] == %#x", family, head, p.SPI)
				case "udp":
					p.sealed = fmt.Sprintf("%s proto 17 and %[1]s[%[2]d:2] == 4500 and %[1]s[%[3]d:4] == %#[4]x", family, head, head+8, p.SPI)
					p.Extra = `  encapsulation = "udp"`
				case "ah":
					p.Protocol = "ah"
					p.sealed = fmt.Sprintf("%s proto 51 and %[1]s[%d:4] == %#x", family, head+4, p.SPI)
				}
				all = append(all, p)
			}
		}
	}
	return all
}

// firstPort is that of the first protection.
const firstPort = 7000

// protections sends TCP and datagrams in every way of protection between two
// daemons, and looks at the wire.
func protections(t *testing.T, l *lab.Lab, client, server *lab.Host) {
	all := allProtections()
	var rules, blocks [2]strings.Builder
	const head = "policy {\n  inbound  = \"discard\"\n  outbound = \"discard\"\n}\n"
	for i, p := range all {
		first, second := l.Blocks(p.Name, p.Manual)
		blocks[0].WriteString(first)
		blocks[1].WriteString(second)
		for end, port := range []string{"remote_port", "local_port"} {
			remote := []string{p.Remote, p.Local}[end]
			fmt.Fprintf(&rules[end], "rule %q {\n  action = \"protect\"\n  with = %[1]q\n  direction = %q\n  protocol = [\"tcp\", \"udp\"]\n  remote_address = %q\n  %s = %d\n}\n",
				p.Name, []string{"out", "in"}[end], remote, port, firstPort+i)
		}
	}
	l.RawKeys(false, "client", "server")
	hosts := []*lab.Host{client, server}
	daemons := [2]*lab.Daemon{}
	for end, h := range hosts {
		name, peer := []string{"client", "server"}[end], []string{"server", "client"}[end]
		remote := []string{"10.77.0.1", "10.77.0.2"}[end]
		ike := fmt.Sprintf(`
rule "keys-by-ike" {
  action         = "protect"
  with           = "by-ike"
  direction      = %q
  protocol       = ["tcp", "udp"]
  remote_address = %q
  %s = %d
}
ipsec "by-ike" {
  mode          = "transport"
  ike           = %[5]q
  encapsulation = "none"
}
ike %[5]q {
  remote_endpoint = %[2]q
  local_id        = %[6]q
  public_keys     = "peers/"
  private_key     = "own.key"
}
`, []string{"out", "in"}[end], remote, []string{"remote_port", "local_port"}[end], firstPort+len(all), peer, name)
		daemons[end] = h.IPFW(l.File(name+"/policy.hcl", head+rules[end].String()+ike+blocks[end].String()))
	}
	all = append(all, protection{Manual: lab.Manual{Name: "keys-by-ike", Remote: "10.77.0.1"}})
	wire := server.Capture("s0", "not ether multicast and not arp and not icmp6")
	for i, p := range all {
		t.Run(p.Name, func(t *testing.T) {
			port := uint16(firstPort + i)
			if err := server.Do(func() error { return lab.Serve(port) }); err != nil {
				t.Fatal(err)
			}
			for _, network := range []string{"tcp", "udp"} {
				tr := lab.Transfer{Network: network, To: netip.AddrPortFrom(netip.MustParseAddr(p.Remote), port), Size: 1000, Limit: lab.Patience}
				if network == "tcp" {
					tr.Size = 256 << 10
				}
				if err := client.Do(tr.Do); err != nil {
					t.Errorf("%v: %v\n%s\n%s", tr, err, daemons[0].Ask("status"), daemons[1].Ask("status"))
				}
			}
		})
	}
	clear := fmt.Sprintf("portrange %d-%d", firstPort, firstPort+len(all))
	if n := wire.Count(clear); n > 0 {
		t.Errorf("%d packets in the clear:\n%s", n, wire.Text(clear))
	}
	for _, p := range all {
		// What the client receives by the block's first SPI.
		if n := wire.Count(p.sealed); p.sealed != "" && n < 8 {
			t.Errorf("%s: %d sealed packets of %q on the wire:\n%s", p.Name, n, p.sealed, wire.Text(""))
		}
	}
}
