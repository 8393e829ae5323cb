package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// toldSide is what a policy of two hosts that protect what is between them says.
type toldSide struct {
	policy, rules string // in the policy block, before the rule
	rule          string // whose packets
	mode          string
	ipsec, ike    string // in the blocks
	id            string
}

// file writes the policy of a host.
func (x *toldSide) file(l *lab.Lab, name, addr, peer, peerAddr string) string {
	return l.File(name+"/policy.hcl", fmt.Sprintf(`policy {
  inbound  = "discard"
  outbound = "discard"
  %s
}
%s
rule "told" {
  action    = "protect"
  with      = "sa"
  direction = "both"
  %s
}
ipsec "sa" {
  mode = %q
  ike  = %q
  %s
}
ike %q {
  remote_endpoint = %q
  local_id        = %q
  %s
}
`, x.policy, x.rules, cmp.Or(x.rule, fmt.Sprintf("remote_address = %q", peerAddr)), cmp.Or(x.mode, "transport"), peer, x.ipsec, peer, peerAddr, cmp.Or(x.id, name), x.ike))
}

// toldEvent is what the test reads of an event.
type toldEvent struct {
	Time    time.Time
	Kind    string
	Message string
	IKE     *struct{ What, Failure string }
}

// bad says that the event tells of something that does not work.
func (e *toldEvent) bad() bool {
	return e.Kind == "ike" && e.IKE != nil && (e.IKE.Failure != "" || e.IKE.What == "silent")
}

// toldBy reads the events that `ipfw events -f --json` has printed.
func toldBy(p *lab.Process) (list []toldEvent) {
	if p == nil {
		return nil
	}
	for line := range strings.Lines(p.Output()) {
		var e toldEvent
		if strings.HasSuffix(line, "\n") && json.Unmarshal([]byte(line), &e) == nil && e.bad() {
			list = append(list, e)
		}
	}
	return list
}

func certified(l *lab.Lab, name, ca string) string {
	return fmt.Sprintf("certificate = %q\n  private_key = %q\n  ca = %q\n", l.Dir+"/ca/"+name+".pem", l.Dir+"/ca/"+name+".key", l.Dir+"/"+ca+"/ca.pem")
}

// Each way in which a key exchange fails is told to both sides, truly, and with what to
// do. The test prints who is told what, and when the first word came.
func TestToldWhatFails(t *testing.T) {
	lab.Need(t, "ping")
	const psk = "correct horse battery staple"
	type row struct {
		name           string
		set            func(l *lab.Lab, client, server *toldSide) // raw keys, unless it says otherwise
		client, server []string                                   // each in one of the events of that side
		never          []string                                   // in none of either side
		run            func(client, server *lab.Host) (to string) // before the call; what it gives is pinged
		alone          bool                                       // no daemon on the server
	}
	there, here := "the reason is in the events of 10.77.0.1", "the reason is in the events of 10.77.0.2"
	proofs := func(client, server string) func(*lab.Lab, *toldSide, *toldSide) {
		return func(l *lab.Lab, c, s *toldSide) {
			c.ike = fmt.Sprintf("psk_file = %q", l.File("one.psk", client))
			s.ike = fmt.Sprintf("psk_file = %q", l.File("two.psk", server))
		}
	}
	swap := func(l *lab.Lab, at, name string) { // the public key of a peer with another one
		dir := filepath.Join(l.Dir, at, "peers")
		if err := os.Rename(filepath.Join(dir, at+".pub"), filepath.Join(dir, name+".pub")); err != nil {
			l.Fatal(err)
		}
	}
	rows := []row{
		{name: "the pre-shared keys differ", set: proofs(psk, psk+"!"),
			client: []string{"authentication-refused-by-peer", there, "psk_file in "}, server: []string{"the pre-shared keys differ; look at psk_file in "}},
		{name: "the caller's remote_id is wrong", set: func(_ *lab.Lab, c, _ *toldSide) { c.ike += "\n  remote_id = \"alfa\"" },
			client: []string{"we are client, and have asked for alfa", "look at remote_id", there}, server: []string{"the peer asks for alfa, we are server"}},
		{name: "the callee's remote_id is wrong", set: func(_ *lab.Lab, _, s *toldSide) { s.ike += "\n  remote_id = \"alfa\"" },
			client: []string{"look at local_id", there}, server: []string{"no ike block is for client calling from 10.77.0.2; look at remote_id"}},
		{name: "the callee has another public key", set: func(l *lab.Lab, _, _ *toldSide) { swap(l, "server", "client") },
			client: []string{"private_key", there}, server: []string{"the signature does not fit the key; look at public_keys in ", "peers/client.pub"}},
		{name: "the caller has another public key", set: func(l *lab.Lab, _, _ *toldSide) { swap(l, "client", "server") },
			client: []string{"the signature does not fit the key; look at public_keys in ", "peers/server.pub"}, server: []string{"authentication-refused-by-peer", here}},
		{name: "a pre-shared key with a public key", set: func(l *lab.Lab, c, s *toldSide) {
			raw := s.ike
			proofs(psk, psk)(l, c, s)
			s.ike = raw
		}, client: []string{"psk_file", there}, server: []string{"the peer uses a pre-shared key, the policy does not; look at public_keys in "}},
		{name: "suites of the IKE SA", set: func(_ *lab.Lab, c, s *toldSide) {
			c.ike += "\n  encryption = \"aes-256-gcm-16\""
			s.ike += "\n  encryption = \"chacha20-poly1305\""
		}, client: []string{"NO_PROPOSAL_CHOSEN; look at encryption in ", there}, server: []string{"nearest: they agree up to encryption: ours chacha20-poly1305, theirs aes-256-gcm-16; look at encryption in "}},
		{name: "suites of the child", set: func(_ *lab.Lab, c, s *toldSide) {
			c.ipsec, s.ipsec = "encryption = \"aes-256-gcm-16\"", "encryption = \"chacha20-poly1305\""
		}, client: []string{"ipsec \"sa\"", "NO_PROPOSAL_CHOSEN; look at encryption in ", there}, server: []string{"nearest: they agree up to encryption: ours chacha20-poly1305, theirs aes-256-gcm-16; look at encryption in "}},
		{name: "ports", set: func(_ *lab.Lab, c, s *toldSide) {
			c.rule = "remote_address = \"10.77.0.1\"\n  protocol = \"tcp\"\n  remote_port = 445"
			s.rule = "remote_address = \"10.77.0.2\"\n  protocol = \"tcp\"\n  local_port = 446"
		}, client: []string{"ours: 10.77.0.2 tcp <-> 10.77.0.1 tcp port 445", "TS_UNACCEPTABLE; look at remote_address, protocol, remote_port of rule \"told\" in ", there},
			server: []string{"ours: 10.77.0.1 tcp port 446 <-> 10.77.0.2 tcp; theirs: 10.77.0.1 tcp port 445 <-> 10.77.0.2 tcp; look at local_port of rule \"told\" in "},
			never:  []string{"445-445", "proto 6", "aes-256"}},
		{name: "a rule that is not for the caller", set: func(_ *lab.Lab, _, s *toldSide) {
			s.rule = "remote_address = \"10.77.0.7\""
		}, client: []string{"TS_UNACCEPTABLE", there}, server: []string{"ours: 10.77.0.1 <-> 10.77.0.7; theirs: 10.77.0.1 <-> 10.77.0.2; look at remote_address of rule \"told\" in "}},
		{name: "a narrower net on the peer", set: func(_ *lab.Lab, c, s *toldSide) {
			c.mode, s.mode = "tunnel", "tunnel"
			c.rule = "local_address = \"10.77.0.2\"\n  remote_address = \"10.9.0.0/16\""
			s.rule = "local_address = \"10.9.1.0/24\"\n  remote_address = \"10.77.0.2\""
		}, run: func(client, _ *lab.Host) string {
			client.Run("ip", "route", "add", "10.9.0.0/16", "via", "10.77.0.1")
			return "10.9.0.5"
		}, client: []string{"the peer has left out what asked for the SA", "10.9.0.5", "theirs: 10.77.0.2 <-> 10.9.1.0/24; look at remote_address of rule \"told\" in "}},
		{name: "mode", set: func(_ *lab.Lab, _, s *toldSide) {
			s.mode, s.rule = "tunnel", "local_address = \"10.77.0.1\"\n  remote_address = \"10.77.0.2\""
		}, client: []string{"wrong-mode", "ours: transport; theirs: tunnel; look at mode in "}, server: []string{"given the SAs up at once, unused: perhaps mode differs", "look at mode in ", here}},
		{name: "the caller's certificate has ended", set: func(l *lab.Lab, c, s *toldSide) {
			l.DatedPKI(time.Now().AddDate(-1, 0, 0), time.Now().AddDate(0, -1, 0))
			c.ike, s.ike = certified(l, "client", "ca"), certified(l, "server", "ca")
		}, client: []string{"our own certificate has ended on ", "look at certificate in "}, server: []string{"expired", "it is the peer's to renew"}, never: []string{"look at ca", "local_id, private_key"}},
		{name: "the caller's certificate has not begun", set: func(l *lab.Lab, c, s *toldSide) {
			l.DatedPKI(time.Now().AddDate(1, 0, 0), time.Now().AddDate(2, 0, 0))
			c.ike, s.ike = certified(l, "client", "ca"), certified(l, "server", "ca")
		}, client: []string{"our own certificate does not begin before ", "look at certificate in "}, server: []string{"not yet valid", "a clock is wrong"}, never: []string{"look at ca"}},
		{name: "the caller trusts another CA", set: func(l *lab.Lab, c, s *toldSide) {
			l.DatedPKI(time.Now().AddDate(0, 0, -1), time.Now().AddDate(1, 0, 0))
			old := filepath.Join(l.Dir, "ca")
			if err := os.Rename(old, filepath.Join(l.Dir, "real")); err != nil {
				l.Fatal(err)
			}
			l.DatedPKI(time.Now().AddDate(0, 0, -1), time.Now().AddDate(1, 0, 0))
			other, err := os.ReadFile(filepath.Join(old, "ca.pem"))
			if err == nil {
				err = os.RemoveAll(old)
			}
			if err == nil {
				err = os.Rename(filepath.Join(l.Dir, "real"), old)
			}
			if err != nil {
				l.Fatal(err)
			}
			l.File("other/ca.pem", string(other))
			c.ike, s.ike = certified(l, "client", "other"), certified(l, "server", "ca")
		}, client: []string{"signed by unknown authority", "look at ca in "}, server: []string{"authentication-refused-by-peer", here}},
		{name: "revoked", set: func(l *lab.Lab, c, s *toldSide) {
			for _, args := range [][]string{{"init"}, {"issue", "client"}, {"issue", "server"}, {"revoke", "client"}} {
				if out, err := exec.Command(lab.Binary(l), append(append([]string{"pki"}, args...), "--dir", l.Dir+"/ca")...).CombinedOutput(); err != nil {
					l.Fatalf("%v: %s", err, out)
				}
			}
			c.ike, s.ike = certified(l, "client", "ca"), certified(l, "server", "ca")+fmt.Sprintf("  crl = %q\n", l.Dir+"/ca/ca.crl")
		}, client: []string{"certificate in ", there}, server: []string{"revoked on 20", "look at crl in "}},
		{name: "no daemon on the peer", alone: true, client: []string{"says by ICMP: UDP 500 of 10.77.0.1: port unreachable, so no IKE daemon runs there"}},
		{name: "the peer drops all", alone: true, run: func(_, server *lab.Host) string {
			server.Run("ip", "route", "add", "blackhole", "10.77.0.2/32")
			return ""
		}, client: []string{"no answer yet, asked 3 times"}},
		{name: "no host there", alone: true, run: func(_, server *lab.Host) string {
			server.Run("ip", "link", "set", "s0", "down")
			return ""
		}, client: []string{"with 10.77.0.1:500: "}},
		{name: "the peer takes no UDP 4500", set: func(_ *lab.Lab, _, s *toldSide) {
			s.policy = "essentials = false"
			s.rules = "rule \"lo\" {\n  action = \"bypass\"\n  direction = \"both\"\n  interface = \"lo\"\n}\n" +
				"rule \"ike500\" {\n  action = \"bypass\"\n  direction = \"in\"\n  protocol = \"udp\"\n  local_port = 500\n}"
		}, client: []string{"UDP 500 answers, UDP 4500 does not: a firewall between, or the peer's own policy"}, server: []string{"nothing has come by UDP 4500"}},
	}
	var mu sync.Mutex
	var table []string
	t.Run("rows", func(t *testing.T) {
		for i, r := range rows {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				l, client, server := lab.Pair(t)
				l.RawKeys(false, "client", "server")
				var c, s toldSide
				c.ike, s.ike = strings.TrimSpace(rawKeys), strings.TrimSpace(rawKeys)
				if r.set != nil {
					r.set(l, &c, &s)
				}
				var events [2]*lab.Process
				var caller *lab.Daemon
				for n, h := range []struct {
					*lab.Host
					policy string
				}{{client, c.file(l, "client", "10.77.0.2", "server", "10.77.0.1")}, {server, s.file(l, "server", "10.77.0.1", "client", "10.77.0.2")}} {
					if n == 1 && r.alone {
						continue
					}
					d := h.IPFW(h.policy)
					if n == 0 {
						caller = d
					}
					events[n] = h.Start(lab.Binary(t), "events", "--json", "-f", "-n", "100", "--socket", d.Socket)
				}
				to := ""
				if r.run != nil {
					to = r.run(client, server)
				}
				began := time.Now()
				var call *lab.Process
				if to != "" {
					call = client.Start("ping", "-c", "200", "-i", "0.2", to)
				} else {
					call = client.Start(lab.Binary(t), "ike", "initiate", "server", "--socket", caller.Socket)
				}
				for n, want := range [][]string{r.client, r.server} {
					side := []string{"client", "server"}[n]
					l.Eventually(waitLong, side+" is told "+strings.Join(want, " and "), func() bool {
						all := ""
						for _, e := range toldBy(events[n]) {
							all += e.Message + "\n"
						}
						return !slices.ContainsFunc(want, func(text string) bool { return !strings.Contains(all, text) })
					})
				}
				l.Eventually(waitLong, "the caller's log warns", func() bool { return strings.Contains(caller.Output(), "level=WARN msg=ike ") })
				if strings.Contains(r.name, "4500") {
					l.Eventually(waitLong, "`ipfw ike initiate` says what it waits for", func() bool { return strings.Contains(call.Output(), "UDP 4500 does not") })
				}
				mu.Lock()
				defer mu.Unlock()
				first := time.Time{}
				text := fmt.Sprintf("%02d  %s\n", i+1, r.name)
				for n, side := range []string{"caller", "callee"} {
					for k, e := range toldBy(events[n]) {
						if first.IsZero() || e.Time.Before(first) {
							first = e.Time
						}
						if k < 3 {
							text += fmt.Sprintf("    %s, after %.1f s: %s\n", side, e.Time.Sub(began).Seconds(), strings.ReplaceAll(e.Message, l.Dir, "/etc/ipfw"))
						}
						for _, bad := range r.never {
							if strings.Contains(e.Message, bad) {
								t.Errorf("%s is told %q in: %s", side, bad, e.Message)
							}
						}
					}
				}
				table = append(table, text+fmt.Sprintf("    first word after %.1f s\n", first.Sub(began).Seconds()))
			})
		}
	})
	slices.Sort(table)
	t.Logf("Who is told what:\n%s", strings.Join(table, ""))
}
