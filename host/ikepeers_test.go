package host

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/rules"
)

// loadPeers makes the peers of a policy whose files stand in a folder of the
// test.
func loadPeers(t *testing.T, policy string, files map[string]string) ([]*ike.Peer, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "policy.hcl")
	if err := os.WriteFile(path, []byte("policy {\n  inbound = \"discard\"\n  outbound = \"bypass\"\n}\n"+policy), 0o600); err != nil {
		t.Fatal(err)
	}
	p, diags := rules.Load([]string{path}, rules.LoadOptions{CheckFiles: true})
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	peers, err := peersOf(p)
	if err != nil {
		return nil, err
	}
	n := newNames(func(string) {})
	n.want(peers)
	for _, x := range n.known {
		x.addr = netip.MustParseAddr("203.0.113.99")
	}
	list, _ := n.place(peers)
	return list, nil
}

const goodPSK = "correct horse battery staple\n"

// pskFile is a file with goodPSK.
func pskFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "psk")
	if err := os.WriteFile(path, []byte(goodPSK), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What a policy says becomes what the key exchange may agree to.
func TestPeersOf(t *testing.T) {
	list, err := loadPeers(t, `
rule "smb" {
  action         = "protect"
  with           = "lan"
  direction      = "in"
  protocol       = "tcp"
  remote_address = ["10.0.0.0/24", "fd00::/64"]
  local_port     = 445
}
rule "ping" {
  action    = "protect"
  with      = "lan"
  direction = "in"
  protocol  = "icmp"
  icmp_type = "echo-request"
}
ipsec "lan" {
  mode = "transport"
  ike  = "clients"
  encryption = ["aes-256-gcm-16", "aes-128-cbc"]
  integrity  = "hmac-sha2-256-128"
  key_exchange = "x25519"
  lifetime_bytes = "1GiB"
}
ike "clients" {
  remote_endpoint = ["10.0.0.0/24", "10.0.1.5-10.0.1.8"]
  psk_file        = "psk"
  local_id        = "files.example.org"
  key_exchange    = ["x25519+ml-kem-768", "p-256"]
}
rule "far" {
  action         = "protect"
  with           = "far"
  direction      = "both"
  local_address  = "10.1.0.0/16"
  remote_address = "10.2.0.0/16"
}
ipsec "far" {
  mode = "tunnel"
  ike  = "far"
}
ike "far" {
  remote_endpoint = "far.example.org"
  psk_file        = "psk"
  initiate        = "start"
  mobike          = false
  full_transcript_auth = "require"
}
ipsec "unused" {
  mode = "tunnel"
  ike  = "unused"
}
ike "unused" {
  psk_file = "psk"
}
`, map[string]string{"psk": goodPSK})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, p := range list {
		fmt.Fprintf(&got, "%s endpoint %s from %v id %s mobike %v transcript %d\n", p.Name, p.Endpoint, p.From, p.LocalID, p.MOBIKE == ike.On, p.FullTranscript)
		for _, q := range p.Proposals {
			fmt.Fprintf(&got, "  %s\n", q)
		}
		for _, c := range p.Children {
			fmt.Fprintf(&got, "  %s %s start %v bytes %d\n    local %v\n    remote %v\n", c.Name, c.Mode, c.Start, c.Bytes, c.LocalTS, c.RemoteTS)
			for _, q := range c.Proposals {
				fmt.Fprintf(&got, "    %s\n", q)
			}
		}
	}
	want := `clients endpoint invalid AddrPort from [10.0.0.0/24 10.0.1.5/32 10.0.1.6/31 10.0.1.8/32] id files.example.org mobike true transcript 0
  aes-256-gcm-16|aes-128-gcm-16|chacha20-poly1305,prf-hmac-sha2-256|prf-hmac-sha2-384|prf-hmac-sha2-512,x25519+ml-kem-768
  aes-256-cbc|aes-128-cbc,prf-hmac-sha2-256|prf-hmac-sha2-384|prf-hmac-sha2-512,hmac-sha2-256-128|hmac-sha2-384-192|hmac-sha2-512-256,x25519+ml-kem-768
  aes-256-gcm-16|aes-128-gcm-16|chacha20-poly1305,prf-hmac-sha2-256|prf-hmac-sha2-384|prf-hmac-sha2-512,p-256
  aes-256-cbc|aes-128-cbc,prf-hmac-sha2-256|prf-hmac-sha2-384|prf-hmac-sha2-512,hmac-sha2-256-128|hmac-sha2-384-192|hmac-sha2-512-256,p-256
  lan transport start false bytes 1073741824
    local [0.0.0.0/0 tcp port 445 ::/0 tcp port 445 0.0.0.0/0 icmp]
    remote [10.0.0.0/24 tcp fd00::/64 tcp 0.0.0.0/0 icmp]
    aes-256-gcm-16,x25519,esn|no-esn
    aes-128-cbc,hmac-sha2-256-128,x25519,esn|no-esn
far endpoint 203.0.113.99:0 from [] id none mobike false transcript 1
  far tunnel start true bytes 0
    local [10.1.0.0/16]
    remote [10.2.0.0/16]
`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

// A key that is no use is an error with a sentence, and without the key.
func TestPeersOfBadFiles(t *testing.T) {
	for _, row := range []struct{ name, more, file, text, want string }{
		{"short psk", `psk_file = "k"`, "k", "swordfish", "a key of 9 bytes can be guessed"},
		{"two keys", `psk_file = "k"`, "k", goodPSK + goodPSK, "more than one line"},
		{"bad hex", `psk_file = "k"`, "k", "0xswordfishswordfishswordfish", "hexadecimal"},
		{"no key", "private_key = \"k\"\npublic_keys = \"p\"\nlocal_id = \"a\"", "k", "swordfish", "no private key"},
		{"garbage key", "private_key = \"k\"\npublic_keys = \"p\"\nlocal_id = \"a\"", "k",
			"-----BEGIN PRIVATE KEY-----\nc3dvcmRmaXNo\n-----END PRIVATE KEY-----\n", "no private key that ipfw can read"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := loadPeers(t, protectedBy("", row.more), map[string]string{row.file: row.text, "p/b.pub": "x"})
			if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "swordfish") {
				t.Errorf("error %v, want one with %q and without the key", err, row.want)
			}
		})
	}
}

// prefixesOf covers a range and nothing else.
func TestPrefixesOf(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		a, b := rng.IntN(1<<12), rng.IntN(1<<12)
		addr := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{255, 255, byte(0xf0 + n>>8), byte(n)}) }
		first, last := addr(min(a, b)), addr(max(a, b))
		list := prefixesOf(engine.AddrRange{First: first, Last: last})
		for n := range 1 << 12 {
			in := 0
			for _, p := range list {
				if p.Contains(addr(n)) {
					in++
				}
			}
			want := 0
			if n >= min(a, b) && n <= max(a, b) {
				want = 1
			}
			if in != want {
				t.Fatalf("%s-%s: %s is in %d of %v", first, last, addr(n), in, list)
			}
		}
	}
	if got := prefixesOf(engine.Everywhere()[1]); len(got) != 1 || got[0].Bits() != 0 {
		t.Errorf("all of IPv6 is %v", got)
	}
}

// A list of addresses that no IKE peer takes is refused before its entries are
// compared with each other.
func TestTooManySelectors(t *testing.T) {
	list := make([]engine.AddrRange, 1000000)
	for i := range list {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		list[i] = engine.AddrRange{First: a, Last: a}
	}
	p := &rules.Policy{Engine: engine.Policy{Rules: []engine.Rule{{Action: engine.Protect, With: "lan", Out: true, Selector: engine.Selector{Remote: list}}}}}
	if _, err := childOf(p, &rules.IPsec{Name: "lan"}, &rules.IKE{}); err == nil || !strings.Contains(err.Error(), "name 1000000 ranges of addresses, and IKE peers take 255 at most") {
		t.Fatal(err)
	}
}
