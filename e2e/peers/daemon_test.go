package peers

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// daemonRow is one line of the matrix of ipfw's daemon with strongSwan and the
// kernel's ESP and AH.
type daemonRow struct {
	name, call  string
	proto, mode string
	v6          bool
	ours        string // more lines of the ipsec block
	theirs      string // the peer's proposals
}

// ahSuites are what AH protects with, by our names and strongSwan's. HMAC-SHA1
// is weak, so it is there by name only.
var ahSuites = [][2]string{{"hmac-sha2-256-128", "sha256"}, {"hmac-sha2-384-192", "sha384"}, {"hmac-sha2-512-256", "sha512"}, {"hmac-sha1-96", "sha1"}}

func daemonRows() (rows []daemonRow) {
	add := func(r daemonRow, short func(r daemonRow) bool) {
		for _, r.mode = range []string{"transport", "tunnel"} {
			for _, r.v6 = range outerTwo {
				for _, r.call = range sides {
					if full() || short(r) {
						more := r
						more.name = fmt.Sprintf("%s, %s, outer %s", r.name, r.mode, version(r.v6))
						rows = append(rows, more)
					}
				}
			}
		}
	}
	add(daemonRow{name: "esp", proto: "esp", theirs: "aes256gcm16"}, func(daemonRow) bool { return false })
	for i, s := range ahSuites {
		r := daemonRow{name: "ah with " + s[0], proto: "ah", theirs: s[1], ours: fmt.Sprintf("  integrity = [%q]\n", s[0])}
		add(r, func(r daemonRow) bool { // in short, two that share no word
			return i == 0 && r.mode == "transport" && !r.v6 && r.call == "us" || i == 2 && r.mode == "tunnel" && r.v6 && r.call == "peer"
		})
	}
	// What our side proposes when the policy names nothing.
	add(daemonRow{name: "ah by default", proto: "ah", theirs: "sha256"}, func(daemonRow) bool { return false })
	return rows
}

// TestStrongSwanDaemon holds the daemon against strongSwan in a guest, with the
// kernel's ESP and AH: who calls, modes, rekeys from both sides, and no packet
// lost or in the clear.
func TestStrongSwanDaemon(t *testing.T) {
	t.Parallel()
	m := new(matrix)
	n := -1
	var rows []daemonRow
	for _, r := range daemonRows() {
		if n++; chosen(t, n, line("daemon", r.call, r.name)) {
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 {
		return
	}
	s := kernelSite(t, "")
	for _, a := range innerOurs {
		s.host.Run("ip", "addr", "add", a.String()+"/"+fmt.Sprint(a.BitLen()), "dev", "lo", "nodad")
	}
	s.host.Run("ip", "route", "add", "10.2.0.0/16", "via", "10.77.0.1", "src", "10.1.0.1")
	s.host.Run("ip", "-6", "route", "add", "fd02::/64", "via", "fd77::1", "src", "fd01::1")
	for _, r := range rows {
		t.Run(strings.ReplaceAll(r.name+", "+r.call+" calls", "/", "-"), func(t *testing.T) {
			start := time.Now()
			defer func() { m.add(t, "daemon", row{name: r.name, call: r.call}, time.Since(start)) }()
			r.run(t, s)
		})
	}
	for _, call := range sides {
		m.lacks("daemon", call, "ah with aes-128-gmac", "AES-GMAC in AH (Linux)")
	}
	m.print(t)
}

func (r daemonRow) run(t *testing.T, s *site) {
	l := s.peer.Lab()
	f := s.family(r.v6)
	here, there := s.ours[f], s.theirs[f]
	ts, local := "mode = transport", ""
	if r.mode == "tunnel" {
		here, there = innerOurs[f], innerTheirs[f]
		ts = fmt.Sprintf("local_ts = %s\n        remote_ts = %s", there, here)
		local = fmt.Sprintf("  local_address  = %q\n", here)
	}
	s.peer.Load(strings.Replace((&row{call: r.call, v6: r.v6, ts: ts, theirsChild: r.theirs}).swanctl(s), "esp_proposals", r.proto+"_proposals", 1))
	psk := l.File("psk", secret+"\n")
	if err := os.Chmod(psk, 0o600); err != nil {
		t.Fatal(err)
	}
	d := s.host.IPFW(l.File("policy.hcl", fmt.Sprintf(`policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "all" {
  action         = "protect"
  with           = "net"
  direction      = "both"
  remote_address = %q
%s}
ipsec "net" {
  mode     = %q
  protocol = %q
  ike      = "peer"
%s%s}
ike "peer" {
  remote_endpoint = %q
  local_id        = "us.example"
  remote_id       = "peer.example"
  psk_file        = "psk"
}
`, there, local, r.mode, r.proto, either(r.proto == "esp", "  encapsulation = \"none\"\n", ""), r.ours, s.theirs[f])))
	defer func() {
		if t.Failed() {
			t.Logf("%s\n%s", d.Output(), s.peer.Log())
		}
		_, _ = s.peer.Try("--terminate", "--ike", "row", "--force", "--timeout", "1")
		d.Kill()
	}()
	wire := s.host.Capture("c0", fmt.Sprintf("host %s or host %s", here, s.ours[f]))
	if r.call == "us" {
		s.host.Run("ping", "-c", "1", "-W", "5", "-I", here.String(), there.String())
	} else {
		s.peer.Do("--initiate", "--child", "net", "--timeout", "20")
	}
	lost := s.peer.PingFlood(there, here, 150, 5)
	ours := s.host.Start("ping", "-n", "-c", "155", "-i", "0.01", "-W", "5", "-I", here.String(), there.String())
	for _, again := range []func(){
		func() { d.Ask("ike", "rekey", "net") }, func() { s.peer.Do("--rekey", "--child", "net") },
		func() { d.Ask("ike", "rekey", "peer") }, func() { s.peer.Do("--rekey", "--ike", "row") }, func() { s.peer.Do("--rekey", "--child", "net") },
	} {
		again()
		time.Sleep(200 * time.Millisecond)
	}
	if err := ours.Wait(time.Minute); err != nil {
		t.Errorf("our pings: %v", err)
	}
	if gone := lab.Unanswered(ours.Output(), 150); len(gone) > 0 {
		t.Errorf("of our 150 packets these were lost: %v\n%s", gone, ours.Output())
	}
	if gone := lost(); len(gone) > 0 {
		t.Errorf("of the peer's 150 packets these were lost: %v", gone)
	}
	clear := "(icmp or icmp6 and (ip6[40] == 128 or ip6[40] == 129))"
	if n := wire.Count(clear); n > 0 {
		t.Errorf("%d packets crossed the wire in the clear:\n%s", n, wire.Text(clear))
	}
	if n := wire.Count(r.proto); n < 500 {
		t.Errorf("%d packets of %s on the wire, want some 600", n, r.proto)
	}
}
