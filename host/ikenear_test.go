package host

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/rules"
)

// A call that no ike block is for names the nearest, and where they stand.
func TestNearest(t *testing.T) {
	x := &exchange{d: &daemon{keeper: newKeeper(nil, newRing(1)), ring: newRing(1)}}
	x.endpoints.Store(&map[string]whereabouts{})
	x.d.engine = engine.New(&engine.Policy{}, engine.Options{})
	single := func(a string) []rules.Endpoint {
		return []rules.Endpoint{{Range: engine.AddrRange{First: netip.MustParseAddr(a), Last: netip.MustParseAddr(a)}}}
	}
	here := []*rules.IKE{
		{Name: "a", Place: "p:10", Places: map[string]string{"remote_id": "p:12", "remote_endpoint": "p:11"}, RemoteID: "alfa", Remote: single("192.0.2.1")},
		{Name: "b", Place: "p:20", Places: map[string]string{"remote_id": "p:22"}, RemoteID: "*.example.org", Remote: single("192.0.2.2")},
		{Name: "c", Place: "p:30", Places: map[string]string{"remote_id": "p:32"}, RemoteID: "beta", Remote: single("192.0.2.2")},
		{Name: "d", Place: "p:40", Places: map[string]string{"remote_id": "p:42"}, RemoteID: "gamma", Remote: single("192.0.2.2")},
		{Name: "e", Place: "p:50", Places: map[string]string{"remote_id": "p:52"}, RemoteID: "delta", Remote: single("192.0.2.2")},
		{Name: "f", Place: "p:60", Places: map[string]string{"local_endpoint": "p:61", "remote_endpoint": "p:62"}, LocalEndpoint: netip.MustParseAddr("198.51.100.1"), Remote: single("2001:db8:1::1")},
		{Name: "g", Place: "p:70", Places: map[string]string{"remote_endpoint": "p:71"}, Remote: single("2001:db8:2::1")},
		{Name: "h", Place: "p:80", Remote: single("192.0.2.1")}, // anybody's there
	}
	b := blocks{}
	for _, k := range here {
		b["of "+k.Name] = &block{IPsec: &rules.IPsec{Name: "of " + k.Name}, ike: k}
	}
	x.d.keeper.blocks.Store(&b)
	for _, row := range []struct{ setting, from, id, want string }{
		{"remote_id", "192.0.2.1", "other", `ike "a" with 192.0.2.1:4500 (other) failed (unknown-peer): the policy does not know the peer; nearest: ike "a", whose remote_id is alfa; look at remote_id in p:12`},
		{"remote_id", "192.0.2.2", "gama", `ike with 192.0.2.2:4500 (gama) failed (unknown-peer): the policy does not know the peer; nearest: ike "d", whose remote_id is gamma; ike "b" (p:22), whose remote_id is *.example.org; ike "c" (p:32), whose remote_id is beta; and 1 more; look at remote_id in p:42`},
		{"remote_id", "192.0.2.2", "zeta9", `nearest: ike "b", whose remote_id is *.example.org; ike "c" (p:32), whose remote_id is beta; ike "d" (p:42), whose remote_id is gamma; and 1 more; look at remote_id in p:22`},
		{"remote_id", "192.0.2.7", "beta", `ike with 192.0.2.7:4500 (beta) failed (unknown-peer): the policy does not know the peer; look at remote_id`},
		{"remote_endpoint", "192.0.2.0", "", `nearest: ike "a", whose remote_endpoint is 192.0.2.1; ike "h" (p:80), whose remote_endpoint is 192.0.2.1; ike "b" (p:20), whose remote_endpoint is 192.0.2.2; and 5 more; look at remote_endpoint in p:11`},
		{"remote_endpoint", "2001:db8:2::7", "", `nearest: ike "g", whose remote_endpoint is 2001:db8:2::1; ike "f" (p:62), whose remote_endpoint is 2001:db8:1::1; ike "a" (p:11), `},
		{"remote_endpoint", "2001:db8:1::1", "", `nearest: ike "f", whose local_endpoint is 198.51.100.1; look at local_endpoint in p:61`},
		{"public_keys", "192.0.2.1", "other", `the policy does not know the peer; look at public_keys`},
	} {
		e := ike.Event{Kind: ike.Failed, Failure: ike.UnknownPeer, Setting: row.setting, Remote: netip.AddrPortFrom(netip.MustParseAddr(row.from), 4500),
			Local: netip.MustParseAddrPort("198.51.100.2:4500")}
		if row.id != "" {
			var err error
			if e.RemoteID, err = ike.ParseIdentity(row.id); err != nil {
				t.Fatal(err)
			}
		}
		x.event(e)
		last := make([]Event, 1)
		x.d.ring.reader(1).read(last)
		got := last[0].Message
		if !strings.Contains(got, row.want) {
			t.Errorf("%s from %s:\n%s, want\n%s", row.setting, row.from, got, row.want)
		}
	}
}

// What a stranger asks costs little, however long the policy and whatever it calls
// itself.
func TestNearestOfMany(t *testing.T) {
	x := &exchange{d: &daemon{keeper: newKeeper(nil, newRing(1))}}
	x.endpoints.Store(&map[string]whereabouts{})
	b := blocks{}
	for i := range 10000 {
		name := fmt.Sprintf("peer-%05d", i)
		b[name] = &block{IPsec: &rules.IPsec{Name: name}, ike: &rules.IKE{Name: name, RemoteID: name + ".example.org"}}
	}
	id, err := ike.ParseIdentity(strings.Repeat("x", 200) + ".example.org")
	if err != nil {
		t.Fatal(err)
	}
	out := &IKEEvent{}
	e := &ike.Event{Failure: ike.UnknownPeer, Setting: "remote_id", Remote: netip.MustParseAddrPort("192.0.2.7:4500"), RemoteID: id}
	if !x.nearest(b, e, out) || len(out.Nearest) > 1<<10 || !strings.HasSuffix(out.Nearest, "; and 9997 more") {
		t.Errorf("%d bytes: %s", len(out.Nearest), out.Nearest)
	}
}

// What strangers cause is held to the log's rate for others, also when it is no failure
// yet, and ends no command that waits for a call of this host.
func TestWhatStrangersCause(t *testing.T) {
	d := start(t, fmt.Sprintf(`policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "all" {
  action         = "protect"
  with           = "all"
  direction      = "out"
  remote_address = "203.0.113.9"
}
ipsec "all" {
  mode = "transport"
  ike  = "peer"
}
ike "peer" {
  local_endpoint  = "198.51.100.10"
  remote_endpoint = "203.0.113.9"
  psk_file        = %q
}
`, pskFile(t)))
	x := d.kernel.h.(*daemon).exchange
	ended := make(chan error, 1)
	go func() {
		_, err := d.IKE(t.Context(), "initiate", IKERequest{Name: "peer", Wait: 600})
		ended <- err
	}()
	for called := false; !called; { // until it waits
		if err := d.IKESAs(t.Context(), func(IKESA) error { called = true; return nil }); err != nil {
			t.Fatal(err)
		}
		if len(ended) > 0 {
			t.Fatal(<-ended)
		}
	}
	for _, e := range []ike.Event{
		{Kind: ike.Failed, Failure: ike.WrongKey, Peer: "peer", Detail: "somebody's", Stranger: true},
		{Kind: ike.Silent, Peer: "peer", Detail: "somebody's", Stranger: true},
		{Kind: ike.Failed, Failure: ike.NoAnswer, Peer: "peer", Detail: "our own"},
	} {
		x.event(e)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "our own") {
		t.Errorf("the command ended with %v", err)
	}
	n := 0
	for _, e := range d.kernel.h.(*daemon).ring.buf {
		if e.IKE != nil && e.IKE.Detail == "somebody's" {
			n++
			if !e.byOthers() || e.byPeers() || !e.warns() {
				t.Errorf("%s: by others %t, by peers %t, warns %t", e.IKE, e.byOthers(), e.byPeers(), e.warns())
			}
		}
	}
	if n != 2 {
		t.Errorf("%d events of strangers", n)
	}
}
