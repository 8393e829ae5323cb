package host

import (
	"crypto/rand"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
	"github.com/ipfw/ipfw/rules"
)

// Every algorithm that a policy may name for an ipsec block can be agreed on,
// and what was agreed on makes SAs that open what the other side seals.
func TestEveryAlgorithm(t *testing.T) {
	type row struct {
		name string
		b    rules.IPsec
	}
	var list []row
	for _, a := range esp.Algorithms() {
		r := row{a.Name, rules.IPsec{Name: "x", ESN: true, ReplayWindow: 64}}
		switch {
		case a.Type == esp.Integrity:
			r.name = "ah " + a.Name
			r.b.AH, r.b.Integrity = true, []string{a.Name}
		case a.Combined():
			r.b.Encryption = []string{a.Name}
		default:
			r.b.Encryption, r.b.Integrity = []string{a.Name}, []string{"hmac-sha2-256-128"}
		}
		list = append(list, r)
	}
	for _, r := range list {
		t.Run(r.name, func(t *testing.T) {
			a, b := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("198.51.100.10")
			left, right := agree(t, &r.b, a, b)
			p := testPacket(t, packet.UDP, a, b, 1, 2)
			clear := append([]byte(nil), p.Bytes[:p.Len]...)
			sealed, _, f := left.out.Seal(nil, clear, 1)
			if f != esp.OK {
				t.Fatal(f)
			}
			got, _, f := right.in.Open(sealed, 1)
			if f != esp.OK || string(got[12:]) != string(p.Bytes[12:p.Len]) { // AH gives IPv4 an identification of its own
				t.Errorf("%v: %s opens % x", f, right.in, got)
			}
		})
	}
}

// agree has two cores agree on an ipsec block in transport mode, and gives what
// each installs.
func agree(t *testing.T, b *rules.IPsec, left, right netip.Addr) (l, r *pair) {
	t.Helper()
	props, err := childProposals(b)
	if err != nil {
		t.Fatal(err)
	}
	id := func(s string) ike.Identity {
		i, err := ike.ParseIdentity(s)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	proto := uint8(ike.ProtoESP)
	if b.AH {
		proto = ike.ProtoAH
	}
	core := func(self string, to netip.Addr) *ike.Core {
		c, err := ike.New(ike.Config{Rand: rand.Reader, Peers: []*ike.Peer{{
			Name: "p", Endpoint: netip.AddrPortFrom(to, 0), LocalID: id(self), PSK: []byte("a pre-shared key of some length"),
			Children: []*ike.Child{{Name: "x", Mode: ike.Transport, Protocol: proto, Proposals: props}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	cores := map[netip.Addr]*ike.Core{left: core("left", right), right: core("right", left)}
	got := map[netip.Addr]*pair{}
	now := time.Now()
	var take func(at netip.Addr, o ike.Output)
	take = func(at netip.Addr, o ike.Output) {
		for _, x := range o.Actions {
			if x.Kind != ike.Install {
				continue
			}
			p, err := newPairs(esp.NewSAD()).install(&x.Child, b, x.Use, 1)
			if err != nil {
				t.Fatal(err)
			}
			got[at] = p
		}
		for _, e := range o.Events {
			if e.Failure != ike.NoFailure {
				t.Error(e)
			}
		}
		for _, d := range o.Send {
			to := d.Remote.Addr()
			take(to, cores[to].Handle(now, ike.Datagram{Local: d.Remote, Remote: d.Local, Data: d.Data}))
		}
	}
	o, err := cores[left].Initiate(now, ike.Call{Peer: "p", Child: "x", Local: netip.AddrPortFrom(left, 0)})
	if err != nil {
		t.Fatal(err)
	}
	take(left, o)
	if got[left] == nil || got[right] == nil {
		t.Fatal("no child")
	}
	return got[left], got[right]
}

// Whatever name of an algorithm a policy may have, the key exchange knows.
func TestEveryNameIsKnown(t *testing.T) {
	for _, arg := range []string{"encryption", "integrity", "prf", "key_exchange"} {
		for _, kind := range []string{"ike", "ipsec"} {
			if arg == "prf" && kind == "ipsec" {
				continue
			}
			for _, name := range namesOf(t, kind, arg) {
				var err error
				words := map[string][]string{arg: {name}, "encryption": {"aes-256-cbc"}}
				words[arg] = []string{name}
				if kind == "ike" {
					_, err = ikeProposals(&rules.IKE{Encryption: words["encryption"], Integrity: words["integrity"], PRF: words["prf"], KeyExchange: words["key_exchange"]})
				} else {
					_, err = childProposals(&rules.IPsec{Encryption: words["encryption"], Integrity: words["integrity"], KeyExchange: words["key_exchange"], ESN: true})
				}
				if err != nil {
					t.Errorf("%s of an %s block: %v", arg, kind, err)
				}
			}
		}
	}
}

// namesOf has the policy language say which names it takes.
func namesOf(t *testing.T, kind, arg string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.hcl")
	text := "policy {\n  inbound = \"discard\"\n  outbound = \"bypass\"\n}\n" + kind + " \"x\" {\n  " + arg + " = \"zzzzzzzzzzzz\"\n" +
		map[string]string{"ike": "", "ipsec": "  mode = \"tunnel\"\n  ike = \"y\"\n"}[kind] + "}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, diags := rules.Load([]string{path}, rules.LoadOptions{})
	if err := diags.Err(); err != nil {
		if _, list, ok := strings.Cut(err.Error(), ": there are "); ok {
			list, _, _ = strings.Cut(list, ".")
			return strings.Split(list, ", ")
		}
	}
	t.Fatalf("%s of %s: no list of names in %v", arg, kind, diags)
	return nil
}
