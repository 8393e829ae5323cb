package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/host"
	"github.com/ipfw/ipfw/rules"
)

// fakeDaemon answers on a control socket with what a test wants shown.
type fakeDaemon struct {
	status host.Status
	flows  []host.Flow
	ike    []host.IKESA
	sas    []host.SA
	events []host.Event
	keys   host.WiresharkKeys
	policy host.PolicyText
	reload host.ReloadResult // Generation 0: it is refused
}

// serve listens on ./ipfw.sock in the current folder.
func (f *fakeDaemon) serve(t *testing.T) {
	t.Helper()
	l, err := net.Listen("unix", "ipfw.sock")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(f.status) })
	mux.HandleFunc("GET /v1/flows", lines(f.flows))
	mux.HandleFunc("GET /v1/sas", lines(f.sas))
	mux.HandleFunc("GET /v1/ike", lines(f.ike))
	mux.HandleFunc("POST /v1/ike/rekey", func(w http.ResponseWriter, r *http.Request) {
		var q host.IKERequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Wait != 70 {
			w.WriteHeader(http.StatusBadRequest)
		}
		json.NewEncoder(w).Encode(host.IKEResult{Message: "ike \"" + q.Name + "\" rekeyed", Event: &host.IKEEvent{What: "ike-rekeyed", Peer: q.Name}})
	})
	mux.HandleFunc("POST /v1/ike/initiate", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprint(w, `{"error":"ike \"south\" failed (no-answer): the peer does not answer"}`)
	})
	mux.HandleFunc("POST /v1/reload", func(w http.ResponseWriter, r *http.Request) {
		if f.reload.Generation == 0 {
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"error":"the new policy would cut your own session (in tcp 192.0.2.2:50390 -> 192.0.2.1:22, by (inbound default)), so nothing was changed: say so"}`)
			return
		}
		json.NewEncoder(w).Encode(f.reload)
	})
	mux.HandleFunc("GET /v1/events", lines(f.events))
	mux.HandleFunc("GET /v1/policy", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(f.policy) })
	mux.HandleFunc("POST /v1/confirm", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(host.Confirmation{Generation: 4})
	})
	mux.HandleFunc("POST /v1/wireshark-keys", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(f.keys) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"error":"ipfw has no %s %s"}`, r.Method, r.URL.Path)
	})
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	t.Cleanup(func() { server.Close(); l.Close() })
}

// lines answers with JSON lines.
func lines[T any](list []T) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, v := range list {
			json.NewEncoder(w).Encode(v)
		}
	}
}

func ptr[T any](v T) *T { return &v }

// busy is a daemon with a bit of everything.
func busy() *fakeDaemon {
	addr := netip.MustParseAddr
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	lan := host.Packet{Direction: "in", Protocol: 6, Source: addr("10.0.0.7"), Destination: addr("10.0.0.5"), SourcePort: 50000, DestinationPort: 445, Length: 60}
	sealed := host.Packet{Direction: "in", Protocol: 50, Source: addr("203.0.113.7"), Destination: addr("198.51.100.1"), SPI: 0x1001, Sequence: 7, Length: 120}
	return &fakeDaemon{
		ike: []host.IKESA{
			{Peer: "south", State: "up", Initiator: true, Local: netip.MustParseAddrPort("198.51.100.1:4500"), Remote: netip.MustParseAddrPort("203.0.113.7:4500"),
				LocalID: "north.example.org", RemoteID: "south.example.org", SPIi: "0102030405060708", SPIr: "1112131415161718",
				Suite: "aes-256-gcm-16,prf-hmac-sha2-256,x25519+ml-kem-768", Age: 7384, Rekey: 7000, MOBIKE: true, FullTranscript: true,
				Children: []host.IKEChild{{Name: "branch", State: "up", SPIIn: 0x1001, SPIOut: 0x1002, Mode: "tunnel", Using: true,
					Local: []string{"10.1.0.0/16"}, Remote: []string{"10.2.0.0/16"}, Rekey: 1800}}},
			{State: "connecting", Local: netip.MustParseAddrPort("198.51.100.1:500"), Remote: netip.MustParseAddrPort("192.0.2.66:500"), Suite: "aes-256-gcm-16", Age: 12, Children: []host.IKEChild{}},
		},
		sas: []host.SA{
			{Name: "branch", Direction: "in", Protocol: "esp", Mode: "tunnel", SPI: 0x1001, Suite: "aes-256-cbc/hmac-sha2-256-128",
				Source: addr("203.0.113.7"), Destination: addr("198.51.100.1"), Keys: "manual", Rules: []string{"offices", "gateway-to-office"},
				ReplayWindow: 1024, Age: 7384, Idle: 3.2, Packets: 12345, Bytes: 15 << 20, Sequence: 12360, Replays: 2, AuthFailures: 1,
				Faults: map[string]uint64{"replay": 1, "too-old": 1, "unauthentic": 1, "dummy": 4}},
			{Name: "branch", Direction: "out", Protocol: "esp", Mode: "tunnel", SPI: 0x1002, Suite: "aes-256-cbc/hmac-sha2-256-128",
				Source: addr("198.51.100.1"), Destination: addr("203.0.113.7"), Keys: "manual", Rules: []string{"offices", "gateway-to-office"},
				Age: 7384, Idle: 0.1, Packets: 9876, Bytes: 123456, Sequence: 9876, Expires: 3600, PacketsLeft: ptr(uint64(124)), BytesLeft: ptr(uint64(1 << 30)), PathMTU: 1400},
			{Name: "lan", Direction: "in", Protocol: "esp", Mode: "transport", SPI: 0xc0ffee42, Suite: "aes-256-gcm-16",
				Source: addr("2001:db8::7"), Keys: "ike", Peer: "clients", RemoteID: "alice.example.org",
				Local: []string{"2001:db8::5 tcp port 445"}, Remote: []string{"2001:db8::7 tcp"}, Rules: []string{}, Replaced: true, ESN: true, SourcePort: 4500, DestinationPort: 4500, ReplayWindow: 64, Age: 59},
			{Name: "lan", Direction: "out", Protocol: "ah", Mode: "transport", SPI: 0x3002, Suite: "hmac-sha2-256-128",
				Destination: addr("10.0.0.7"), Keys: "manual", Rules: []string{"files"}, Age: 1, Packets: 1, Bytes: 28, Sequence: 1, Faults: map[string]uint64{"too-big": 3}},
		},
		policy: host.PolicyText{PolicyStatus: host.PolicyStatus{Paths: []string{"/etc/ipfw"}, Generation: 3, Loaded: at, Warnings: []host.Diagnostic{}},
			Text: runningText, Places: map[string]string{"web": "office.hcl:7", "smb": "office.hcl:14"},
			IPsecPlaces: map[string]string{"lan": "office.hcl:30"}, IKEPlaces: map[string]string{"peers": "office.hcl:40"}},
		keys: host.WiresharkKeys{Rows: []string{`"IPv4","203.0.113.7","198.51.100.1","0x00001001","AES-CBC [RFC3602]","0x1a1a","HMAC-SHA-256-128 [RFC4868]","0x2b2b"`},
			Left: []string{"ah 0x00003002 out transport hmac-sha2-256-128 10.0.0.5 -> 10.0.0.7: ah does not encrypt: there is nothing to read it by"}},
		flows: []host.Flow{{Direction: "in", Protocol: 6, Source: netip.MustParseAddrPort("10.0.0.7:50000"), Destination: netip.MustParseAddrPort("10.0.0.5:445"),
			Verdict: "protect", Rule: "files", Place: "office.hcl:35", State: "established", PacketsOut: 10, PacketsIn: 8, BytesOut: 1000, BytesIn: 20000, Age: 12, Idle: 1, Expires: 3600}},
		events: []host.Event{
			{Seq: 1, Time: at, Kind: host.KindSA, Message: "esp 0x00001001 in tunnel aes-256-cbc/hmac-sha2-256-128 203.0.113.7 -> 198.51.100.1 of ipsec \"branch\" is up"},
			{Seq: 2, Time: at.Add(1e9), Kind: host.KindIPsec, Verdict: "discard", Reason: "clear-text", Rule: "files", Place: "office.hcl:35", Packet: lan},
			{Seq: 3, Time: at.Add(2e9), Kind: host.KindIPsec, Verdict: "discard", Reason: "ipsec-replay", Packet: sealed},
			{Seq: 4, Time: at.Add(3e9), Kind: host.KindPacket, Verdict: "protect", Reason: "rule", Rule: "files", Place: "office.hcl:35", Packet: lan},
			{Seq: 5, Time: at.Add(4e9), Kind: host.KindKeys, Count: 2, Message: "the keys of 2 SAs were asked for over the control socket, and given"},
			{Seq: 6, Time: at.Add(5e9), Kind: host.KindSuppressed, Count: 90, Message: "90 more malformed packets were counted but not logged"},
		},
		reload: host.ReloadResult{Generation: 4, Paths: []string{"/etc/ipfw"}, Rules: 2, Essential: 14, Took: 0.25,
			Warnings: []rules.Diagnostic{{Severity: "warning", Summary: "Rule never reached", Detail: "No packet can reach it.", File: "office.hcl", Line: 50, Column: 1}},
			Changes:  rules.Changes{Added: []string{"files"}, Removed: []string{"ssh"}, Moved: []string{"watch"}, Others: []string{`ipsec "lan"`}},
			Flows: host.FlowChanges{Cut: 12, Sealed: 1, List: slices.Repeat([]host.FlowChange{
				{Direction: "in", Protocol: 6, Source: netip.MustParseAddrPort("192.0.2.2:50390"), Destination: netip.MustParseAddrPort("192.0.2.1:22"), Verdict: "discard"},
				{Direction: "in", Protocol: 1, Source: netip.MustParseAddrPort("192.0.2.2:0"), Destination: netip.MustParseAddrPort("192.0.2.1:0"), Verdict: "discard", Rule: "watch", Place: "office.hcl:50"}}, 6)},
			OwnSessions: []string{"in tcp 192.0.2.2:50390 -> 192.0.2.1:22, by (inbound default)"},
			Unconfirmed: &host.Unconfirmed{Until: at, Back: "the policy loaded at 2026-03-04 05:00:00 comes back"}},
		status: host.Status{
			Version: "ipfw test", PID: 4711, Started: at, Uptime: 90061, Flows: 1, SAs: 4,
			Policy: host.PolicyStatus{Paths: []string{"/etc/ipfw"}, Generation: 3, Loaded: at},
			Reasons: map[string]uint64{"rule": 10, "flow": 1234, "default": 7, "clear-text": 4, "no-sa": 2, "wrong-sa": 0, "too-big": 1,
				"ipsec-replay": 1, "ipsec-unauthentic": 1, "ipsec-unknown-spi": 5, "ipsec-dummy": 4, "ike": 6, "nat-keepalive": 3, "bad-length": 1},
			Rules: []host.RuleStatus{
				{Name: "essential-loopback", Action: "bypass", Essential: true, Packets: 10},
				{Name: "files", Place: "office.hcl:35", Action: "protect", Packets: 1200, Bytes: 1 << 20, Flows: 3},
				{Name: "watch", Place: "office.hcl:50", Action: "discard", Audit: true, Packets: 1, Bytes: 60},
			},
			Defaults: map[string]host.DefaultStatus{"in": {Action: "discard", Packets: 7, Bytes: 420}, "out": {Action: "bypass"}, "forward": {Action: "discard"}},
			Queue: host.QueueStatus{First: 4301, Queues: 2, Kernel: "6.12.117", UpBy: "queue", ESPBy: "hook", OnFailure: "shut", Packets: 1279, Accepted: 1255, Dropped: 24, Sealed: 9876, Direct: 9000, Opened: 12345, Unsent: 2, TableRenewed: 3, TableNotRenewed: 1,
				Flowtables: []string{"ft of table fast (eth0, eth1)"}},
			Sources: []host.SourceStatus{{Source: addr("203.0.113.66"), Packets: 12345}, {Source: addr("2001:db8::66"), Packets: 7}},
			Events:  host.EventStatus{Written: 6},
			IKE: &host.IKEStatus{SAs: 2, HalfOpen: 1, Children: 1, Up: 1, Failures: map[string]uint64{"no-answer": 0, "wrong-key": 3},
				Failed: []host.IKEFailure{{Ago: 12, Message: "ike \"beta\" with 192.0.2.2:4500 (beta) failed (wrong-key): the peer has not proved who it is: it has another key; the pre-shared keys differ; look at psk_file in /etc/ipfw/ipfw.hcl:40",
					IKEEvent: host.IKEEvent{What: "failed", Failure: "wrong-key", Peer: "beta", Remote: netip.MustParseAddrPort("192.0.2.2:4500"), RemoteID: "beta", Setting: "psk_file", Place: "/etc/ipfw/ipfw.hcl:40"}},
					{Ago: 4, Message: "ike \"gamma\" with 192.0.2.3:4500: UDP 500 answers, UDP 4500 does not: a firewall between, or the peer's own policy; asked 3 times for IKE_AUTH",
						IKEEvent: host.IKEEvent{What: "silent", Peer: "gamma", Remote: netip.MustParseAddrPort("192.0.2.3:4500")}}},
				Held: 2, HeldSent: 1, HeldLost: 4},
		},
	}
}

// TestLiveGolden compares what the commands that talk to a daemon print, as
// TestGolden does for the others.
func TestLiveGolden(t *testing.T) {
	golden, err := filepath.Abs("testdata/golden")
	if err != nil {
		t.Fatal(err)
	}
	was := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = was })
	t.Chdir(t.TempDir())
	for _, row := range []struct {
		name string
		from *fakeDaemon // nil: no daemon
		run  run
	}{
		{"live-sas", busy(), run{args: []string{"sas"}}},
		{"live-sas-color", busy(), run{args: []string{"sas"}, tty: true}},
		{"live-sas-verbose", busy(), run{args: []string{"sas", "-v"}}},
		{"live-sas-json", busy(), run{args: []string{"sas", "--json"}}},
		{"live-sas-none", &fakeDaemon{}, run{args: []string{"sas"}}},
		{"live-sas-keys", busy(), run{args: []string{"sas", "--wireshark-keys"}}},
		{"live-sas-keys-json", busy(), run{args: []string{"sas", "--wireshark-keys", "--json"}}},
		{"live-sas-keys-not-root", busy(), run{args: []string{"sas", "--wireshark-keys"}, user: 1000}},
		{"live-ike-list", busy(), run{args: []string{"ike", "list"}}},
		{"live-ike-list-json", busy(), run{args: []string{"ike", "list", "--json"}}},
		{"live-ike-list-none", &fakeDaemon{}, run{args: []string{"ike", "list"}}},
		{"live-ike-rekey", busy(), run{args: []string{"ike", "rekey", "south"}}},
		{"live-ike-rekey-json", busy(), run{args: []string{"ike", "rekey", "south", "--json"}}},
		{"live-ike-initiate-failed", busy(), run{args: []string{"ike", "initiate", "south"}}},
		{"live-ike-help", nil, run{args: []string{"ike", "--help"}}},
		{"live-sas-no-daemon", nil, run{args: []string{"sas"}}},
		{"live-status-no-daemon", nil, run{args: []string{"status"}}},
		{"live-status-no-daemon-json", nil, run{args: []string{"status", "--json"}}},
		{"live-status-left-json", nil, run{args: []string{"status", "--json"}, left: host.Left{There: true}}},
		{"live-show", busy(), run{args: []string{"show"}}},
		{"live-show-no-daemon", nil, run{args: []string{"show"}}},
		{"live-explain-running", busy(), run{args: []string{"explain", "--running", web}}},
		{"live-explain-running-ipsec", busy(), run{args: []string{"explain", "--running", "in tcp 10.0.0.7:40000 -> 10.0.0.5:445"}}},
		{"live-explain-running-default", busy(), run{args: []string{"explain", "--running", "--json", db}}},
		{"live-explain-running-no-daemon", nil, run{args: []string{"explain", "--running", web}}},
		{"live-complete-ike", busy(), run{args: []string{"__complete", "ike", "rekey", ""}}},
		{"live-sas-keys-bad", busy(), run{args: []string{"sas", "--wireshark-keys=3.6"}}},
		{"live-flows", busy(), run{args: []string{"flows"}}},
		{"live-status", busy(), run{args: []string{"status"}}},
		{"live-status-all", busy(), run{args: []string{"status", "--all"}}},
		{"live-status-plain", plain(), run{args: []string{"status"}}},
		{"live-events", busy(), run{args: []string{"events"}}},
		{"live-events-color", busy(), run{args: []string{"events"}, tty: true}},
		{"live-events-json", busy(), run{args: []string{"events", "--json"}}},
		{"live-reload", busy(), run{args: []string{"reload", "--force"}}},
		{"live-reload-json", busy(), run{args: []string{"reload", "--force", "--json"}}},
		{"live-reload-refused", &fakeDaemon{}, run{args: []string{"reload"}}},
		{"live-reload-nothing", &fakeDaemon{reload: host.ReloadResult{Generation: 2, Paths: []string{"/etc/ipfw/ipfw.hcl"}, Rules: 1, Essential: 14}}, run{args: []string{"reload"}}},
		{"live-reload-help", nil, run{args: []string{"reload", "--help"}}},
		{"live-sas-help", nil, run{args: []string{"sas", "--help"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.from != nil {
				row.from.serve(t)
			}
			switch at := row.run.args; {
			case at[0] == "__complete": // the word that is completed comes last
				row.run.args = append(slices.Clone(at[:len(at)-1]), "--socket", "ipfw.sock", at[len(at)-1])
			case len(at) < 2 || at[1] != "--help":
				row.run.args = append(at, "--socket", "ipfw.sock")
			}
			row.run.do().compare(t, filepath.Join(golden, row.name+".txt"))
		})
	}
}

// runningText is a policy as a daemon shows it.
const runningText = `policy {
  inbound    = "discard"
  outbound   = "bypass"
  essentials = false
}

rule "web" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = 443
}

rule "smb" {
  action         = "protect"
  with           = "lan"
  direction      = "both"
  remote_address = "10.0.0.0/24"
  protocol       = "tcp"
  local_port     = 445
}

ipsec "lan" {
  mode = "transport"
  ike  = "peers"
}

ike "peers" {
  remote_endpoint = "10.0.0.0/24"
  psk_file        = "/etc/ipfw/peers.psk"
}
`

// plain is a daemon whose policy protects nothing.
func plain() *fakeDaemon {
	f := busy()
	s := &f.status
	s.SAs, s.Queue.Sealed, s.Queue.Direct, s.Queue.Opened, s.Queue.Unsent = 0, 0, 0, 0, 0
	s.Rules = s.Rules[:1]
	s.Reasons = map[string]uint64{"rule": 10, "default": 7}
	return f
}

// TestReasonsAreExplained: docs/policy.md says what each reason means that status has
// no words for.
func TestReasonsAreExplained(t *testing.T) {
	text, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "\n## Reasons\n")
	list, _, _ = strings.Cut(list, "\n## ")
	for r := engine.ReasonRule; int(r) < engine.Reasons; r++ {
		if name := r.String(); !isProtectReason(name) && !strings.HasPrefix(name, "ipsec-") && !strings.Contains(list, "`"+name+"`") {
			t.Errorf("docs/policy.md does not explain the reason %s", name)
		}
	}
}

// TestProtectReasons: every reason for which IPsec discards has words for it.
func TestProtectReasons(t *testing.T) {
	known := map[string]bool{}
	for r := range engine.Reasons {
		name := engine.Reason(r).String()
		known[name] = true
		if engine.Reason(r).Auditable() && !isProtectReason(name) {
			t.Errorf("status has no words for %s", name)
		}
	}
	for _, r := range protectReasons {
		if !known[r.name] {
			t.Errorf("status has words for %s, which the engine does not know", r.name)
		}
	}
}
