package host

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
	"github.com/ipfw/ipfw/rules"
)

// lockedText is a log that a test reads while it is written.
type lockedText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// An ICMP error about a call is told at once, as a warning, whatever the policy does
// with the error itself; one about anything else is not.
func TestUnreachablePeer(t *testing.T) {
	psk := pskFile(t)
	log := &lockedText{}
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
  remote_endpoint = "203.0.113.9"
  psk_file        = %q
}
`, psk), func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	if r, _ := d.kernel.packet(t, engine.Out, toPeer("203.0.113.9")); r.Reason != engine.ReasonHeld {
		t.Fatalf("%v: nobody is called", r.Reason)
	}
	us, peer := netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("203.0.113.9")
	for _, row := range []struct {
		from, to netip.Addr
		port     uint16
		code     uint8
	}{
		{us, peer, 53, 3}, // nothing of ours
		{us, netip.MustParseAddr("203.0.113.10"), 500, 3}, // nobody that is called
		{us, peer, 500, 4}, // about the size of a packet
		{us, peer, 500, 3}, // this
	} {
		quoted, err := packet.Build(packet.Spec{Src: row.from, Dst: row.to, Protocol: packet.UDP, SrcPort: row.port, DstPort: row.port, Payload: make([]byte, 64)})
		if err != nil {
			t.Fatal(err)
		}
		r, _ := d.kernel.packet(t, engine.In, packet.Spec{Src: peer, Dst: us, Protocol: packet.ICMP, ICMPType: 3, ICMPCode: row.code, Payload: quoted})
		if r.Verdict == engine.Bypass && row.code != 4 {
			t.Errorf("the error is let in: %v", r.Reason)
		}
	}
	d.waitForMessage(t, KindIKE, "203.0.113.9 says by ICMP: UDP 500 of 203.0.113.9: port unreachable, so no IKE daemon runs there")
	n := 0
	for _, e := range d.events(t) {
		if e.IKE != nil && e.IKE.What == "silent" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("told %d times", n)
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(log.String(), "level=WARN msg=ike"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no warning in the log:\n%s", log)
		}
	}
}

// What has failed of the key exchange warns; what has come up does not.
func TestIKEWarnings(t *testing.T) {
	for _, row := range []struct {
		e    Event
		want bool
	}{
		{Event{Kind: KindIKE, IKE: &IKEEvent{What: "failed", Failure: "wrong-key"}}, true},
		{Event{Kind: KindIKE, IKE: &IKEEvent{What: "silent"}}, true},
		{Event{Kind: KindIKE, IKE: &IKEEvent{What: "expires"}}, true},
		{Event{Kind: KindIKE, caused: true}, true},
		{Event{Kind: KindIKE, IKE: &IKEEvent{What: "child-up"}}, false},
		{Event{Kind: KindIKE}, false},
	} {
		if got := row.e.warns(); got != row.want {
			t.Errorf("%+v warns: %t", row.e, got)
		}
	}
}

// The last failure of each peer is remembered until something comes up with it, or
// the policy has it no more.
func TestLastFailures(t *testing.T) {
	var l lastFailures
	at := time.Unix(1e9, 0)
	fail := func(peer, child, why string) {
		at = at.Add(time.Second)
		l.note(at, &IKEEvent{What: "failed", Failure: why, Peer: peer, Child: child})
	}
	up := func(peer, child string) { l.note(at, &IKEEvent{What: "child-up", Peer: peer, Child: child}) }
	b := blocks{"x": {IPsec: &rules.IPsec{Name: "x"}, ike: &rules.IKE{Name: "a"}}, "y": {IPsec: &rules.IPsec{Name: "y"}, ike: &rules.IKE{Name: "b"}}}
	want := func(text string) {
		t.Helper()
		var got []string
		for _, f := range l.list(at, b) {
			got = append(got, fmt.Sprintf("%s:%s:%v", f.Peer, f.Failure, f.Ago))
		}
		if s := strings.Join(got, " "); s != text {
			t.Errorf("%q, want %q", s, text)
		}
	}
	want("")
	fail("a", "", "no-answer")
	fail("a", "", "wrong-key")
	fail("b", "y", "selectors-do-not-overlap")
	fail("gone", "", "wrong-key")
	fail("", "", "unknown-peer")
	want(":unknown-peer:0 a:wrong-key:3 b:selectors-do-not-overlap:2")
	l.note(at, &IKEEvent{What: "silent", Peer: "a", Detail: "UDP 500 answers, UDP 4500 does not"})
	want(":unknown-peer:0 a::0 b:selectors-do-not-overlap:2")
	up("b", "other") // another child
	up("a", "x")
	want(":unknown-peer:0 b:selectors-do-not-overlap:2")
	up("b", "y")
	want(":unknown-peer:0")
	// A stranger is shown for a while, or until its address is a peer's.
	at = at.Add(strangerFor)
	want(":unknown-peer:600")
	at = at.Add(time.Second)
	want("")
	here, there := netip.MustParseAddrPort("192.0.2.66:500"), netip.MustParseAddrPort("192.0.2.67:500")
	l.note(at, &IKEEvent{What: "failed", Failure: "unknown-peer", Remote: here})
	l.note(at, &IKEEvent{What: "child-up", Peer: "a", Child: "x", Remote: there})
	want(":unknown-peer:0")
	l.note(at, &IKEEvent{What: "ike-up", Peer: "a", Remote: netip.AddrPortFrom(here.Addr(), 4500)})
	want("")
}

// A failure about selectors names the rule and its arguments, not the ipsec block
// that has none of them; one about a public key, the file.
func TestBlame(t *testing.T) {
	x := &exchange{d: &daemon{keeper: newKeeper(nil, newRing(1))}}
	x.d.keeper.blocks.Store(&blocks{"lan": {IPsec: &rules.IPsec{Name: "lan", Place: "p:20"}, ike: &rules.IKE{Name: "peer", Place: "p:30",
		Places: map[string]string{"public_keys": "p:32"}, PublicKeys: "/etc/ipfw/peers"}}})
	port := []engine.PortRange{{First: 445, Last: 445}}
	x.d.engine = engine.New(&engine.Policy{Rules: []engine.Rule{
		{Name: "other", Place: "p:1", Action: engine.Protect, With: "wan", Selector: engine.Selector{LocalPorts: port}},
		{Name: "ping", Place: "p:5", Action: engine.Protect, With: "lan", Selector: engine.Selector{Protocols: []uint8{1}}},
		{Name: "smb", Place: "p:9", Action: engine.Protect, With: "lan", Selector: engine.Selector{Protocols: []uint8{6}, LocalPorts: port}},
	}}, engine.Options{})
	id, err := ike.ParseIdentity("beta")
	if err != nil {
		t.Fatal(err)
	}
	for want, e := range map[string]ike.Event{
		`look at local_port of rule "smb" in p:9`:                      {Failure: ike.NoSelectors, Peer: "peer", Child: "lan", Setting: "local_address, local_port"},
		`look at protocol of rule "ping" in p:5`:                       {Failure: ike.NoSelectors, Peer: "peer", Child: "lan", Setting: "local_address, protocol"},
		`look at rule "ping" in p:5`:                                   {Failure: ike.NoSelectors, Peer: "peer", Child: "lan", Setting: "local_address"},
		`look at public_keys in p:32, and at /etc/ipfw/peers/beta.pub`: {Failure: ike.WrongKey, Peer: "peer", Setting: "public_keys"},
	} {
		out := &IKEEvent{What: "failed", Failure: e.Failure.String(), RemoteID: id.String()}
		x.blame(&e, out)
		if got := out.String(); !strings.HasSuffix(got, "; "+want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
