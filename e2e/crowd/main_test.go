// Package crowd holds the key exchange of a real daemon against many: thousands
// of callers with addresses of their own, floods of spoofed messages, and what
// the daemon does meanwhile. make test plays a short of each; make ike-figures
// prints the figures, beside strongSwan's in the same run.
package crowd

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/ike"
)

func TestMain(m *testing.M) {
	var err error
	if message, err = firstMessage(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if what := os.Getenv(floodVariable); what != "" {
		if err := sendFlood(what); err != nil {
			fmt.Fprintln(os.Stderr, "flood:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(lab.Main(m))
}

// secret is the pre-shared key of all.
const secret = "the crowd's own secret, and long"

var serverAddr = netip.MustParseAddr("10.77.0.1")

// site is where it happens.
//
//	attacker          server           crowd
//	f0 10.78.0.2 --- s1 | s0 --- c0 10.77.0.2 and all of 10.80.0.0/12
//	and all of 10.96.0.0/16
//
// What the server sends to strangers goes to the attacker, who counts it.
type site struct {
	*lab.Lab
	server, crowd, attacker *lab.Host
	ipsec                   string // more of the server's ipsec block
	rules                   string // in front of the server's
}

func newSite(t testing.TB) *site {
	t.Helper()
	l, crowd, server := lab.Pair(t)
	s := &site{Lab: l, server: server, crowd: crowd, attacker: l.Host("attacker")}
	l.Join(s.attacker, "f0", []string{"10.78.0.2/24"}, server, "s1", []string{"10.78.0.1/24"})
	crowd.Run("ip", "route", "add", "local", "10.80.0.0/12", "dev", "lo")
	server.Run("ip", "route", "add", "10.80.0.0/12", "via", "10.77.0.2")
	server.Run("ip", "route", "add", "default", "via", "10.78.0.2")
	for _, dev := range []string{"all", "s0", "s1"} {
		server.Sysctl("net.ipv4.conf."+dev+".rp_filter", "0")
	}
	// Nobody else is asked for the way, and the attacker says nothing.
	mac := strings.TrimSpace(s.attacker.Run("cat", "/sys/class/net/f0/address"))
	server.Run("ip", "neigh", "replace", "10.78.0.2", "lladdr", mac, "dev", "s1")
	s.attacker.Sysctl("net.ipv4.ip_forward", "0")
	s.attacker.Run("ip", "route", "add", "local", "10.96.0.0/16", "dev", "lo")
	s.attacker.Run("ip", "route", "add", "10.77.0.0/24", "via", "10.78.0.1")
	return s
}

// policy is the server's, with pre-shared keys.
func (s *site) policy(more string) string {
	s.File("server/psk", secret+"\n")
	return s.policyWith("  psk_file = \"psk\"\n" + more)
}

// policyWith is a policy with more in its ike block.
func (s *site) policyWith(more string) string {
	return s.File("server/policy.hcl", `
policy {
  inbound  = "discard"
  outbound = "bypass"
}
`+s.rules+`
rule "crowd" {
  action         = "protect"
  with           = "crowd"
  direction      = "both"
  remote_address = "10.80.0.0/12"
}
ipsec "crowd" {
  mode = "transport"
  ike  = "crowd"
`+s.ipsec+`}
ike "crowd" {
  local_id = "server.example"
`+more+`}
`)
}

// signed is a policy of raw public keys for n callers, and what makes them such.
func (s *site) signed(n int) (policy string, change func(int, *ike.Peer)) {
	s.Helper()
	s.RawKeys(true, "server", "callers")
	own, err := os.ReadFile(filepath.Join(s.Dir, "callers", "own.key"))
	if err != nil {
		s.Fatal(err)
	}
	block, _ := pem.Decode(own)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		s.Fatal(err)
	}
	public := func(name string) (string, crypto.PublicKey) {
		text, err := os.ReadFile(filepath.Join(s.Dir, "server", "peers", name+".pub"))
		if err != nil {
			s.Fatal(err)
		}
		block, _ := pem.Decode(text)
		k, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			s.Fatal(err)
		}
		return string(text), k
	}
	text, _ := public("callers")
	_, server := public("server")
	for i := range n {
		s.File("server/peers/"+callerName(i)+".pub", text)
	}
	return s.policyWith("  public_keys = \"peers/\"\n  private_key = \"own.key\"\n"), func(_ int, p *ike.Peer) {
		p.PSK, p.Key, p.PublicKeys = nil, key.(crypto.Signer), keyring(server)
	}
}

// keyring is what callers know of the server.
func keyring(k crypto.PublicKey) map[string]crypto.PublicKey {
	return map[string]crypto.PublicKey{"server.example": k}
}

// sent is how many bytes have left by a device, with their headers.
func sent(h *lab.Host, dev string) int {
	n, _ := strconv.Atoi(strings.TrimSpace(h.Run("cat", "/sys/class/net/"+dev+"/statistics/tx_bytes")))
	return n
}

// arrived is what has come in by a device: packets and bytes with their
// Ethernet headers.
func arrived(h *lab.Host, dev string) (packets, bytes int) {
	read := func(name string) int {
		n, _ := strconv.Atoi(strings.TrimSpace(h.Run("cat", "/sys/class/net/"+dev+"/statistics/"+name)))
		return n
	}
	return read("rx_packets"), read("rx_bytes")
}

// resident is the memory of a process in MB.
func resident(t testing.TB, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			var kb float64
			fmt.Sscan(v, &kb)
			return kb / 1024
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// status is what is asked for of `ipfw status --json`.
type status struct {
	IKE *struct {
		SAs      int               `json:"sas"`
		HalfOpen int               `json:"half_open"`
		Children int               `json:"children"`
		Up       uint64            `json:"up"`
		Failures map[string]uint64 `json:"failures"`
		Cookies  uint64            `json:"cookies"`
		Dropped  uint64            `json:"dropped"`
		Lost     uint64            `json:"lost"`
		Unsent   uint64            `json:"unsent"`
	} `json:"ike"`
	Queues []struct {
		Class   string `json:"class"`
		Packets uint64 `json:"packets"`
		Full    uint64 `json:"dropped_full"`
	} `json:"queues"`
}

func ask(t testing.TB, d *lab.Daemon) (s status) {
	t.Helper()
	text := d.Ask("status", "--json")
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return s
}
