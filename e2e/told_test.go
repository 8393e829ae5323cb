package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
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
	endpoint      string              // remote_endpoint of the ike block
	text          func(string) string // puts addresses into a family
}

// file writes the policy of a host.
func (x *toldSide) file(l *lab.Lab, name, addr, peer, peerAddr string) string {
	return l.File(name+"/policy.hcl", x.text(fmt.Sprintf(`policy {
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
`, x.policy, x.rules, cmp.Or(x.rule, fmt.Sprintf("remote_address = %q", peerAddr)), cmp.Or(x.mode, "transport"), peer, x.ipsec, peer, cmp.Or(x.endpoint, peerAddr), cmp.Or(x.id, name), x.ike)))
}

// toldEvent is what the test reads of an event.
type toldEvent struct {
	Time    time.Time
	Kind    string
	Message string
	IKE     *struct{ What, Failure, Setting, Place, Rule string }
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

// shutUDP has packets with a port in a direction be lost as they come in by a device,
// as at a firewall on the way.
func shutUDP(h *lab.Host, dev, which string) {
	for _, words := range []string{"add table netdev way", "add chain netdev way in { type filter hook ingress device " + dev + " priority -500 ; }", "add rule netdev way in udp " + which + " drop"} {
		h.Run("nft", words)
	}
}

func certified(l *lab.Lab, name, ca string) string {
	return fmt.Sprintf("certificate = %q\n  private_key = %q\n  ca = %q\n", l.Dir+"/ca/"+name+".pem", l.Dir+"/ca/"+name+".key", l.Dir+"/"+ca+"/ca.pem")
}

// Each way in which a key exchange fails is told to both sides, truly, and with what to
// do. The test prints who is told what, and when the first word came.
func TestToldWhatFails(t *testing.T) {
	lab.Need(t, "ping", "nft")
	const psk = "correct horse battery staple"
	type row struct {
		name           string
		set            func(l *lab.Lab, client, server *toldSide)                           // raw keys, unless it says otherwise
		client, server []string                                                             // each, or one of those with bars between, in one of the events of that side
		never          []string                                                             // in none of either side
		run            func(client, server *lab.Host, text func(string) string) (to string) // before the call; what it gives is pinged
		alone          bool                                                                 // no daemon on the server
		early          bool                                                                 // said while the call goes on
		sas            string                                                               // in what `ipfw sas` prints on the server
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
	basics := "rule \"lo\" {\n  action = \"bypass\"\n  direction = \"both\"\n  interface = \"lo\"\n}\n" +
		"rule \"neighbours\" {\n  action = \"bypass\"\n  direction = \"both\"\n  protocol = \"icmpv6\"\n}\n"
	only500 := basics + "rule \"ike500\" {\n  action = \"bypass\"\n  direction = \"in\"\n  protocol = \"udp\"\n  local_port = 500\n}"
	dated := func(of string, from, until int) func(*lab.Lab, *toldSide, *toldSide) { // in months from now
		return func(l *lab.Lab, c, s *toldSide) {
			l.DatedPKI(of, time.Now().AddDate(0, from, 0), time.Now().AddDate(0, until, 0))
			c.ike, s.ike = certified(l, "client", "ca"), certified(l, "server", "ca")
		}
	}
	otherCA := func(client, server string) func(*lab.Lab, *toldSide, *toldSide) { // each trusts the CA in a folder
		return func(l *lab.Lab, c, s *toldSide) {
			l.DatedPKI("client", time.Now().AddDate(0, 0, -1), time.Now().AddDate(1, 0, 0))
			other, err := os.ReadFile(filepath.Join(l.Dir, "ca/ca.pem"))
			if err != nil {
				l.Fatal(err)
			}
			l.File("other/ca.pem", string(other))
			l.DatedPKI("client", time.Now().AddDate(0, 0, -1), time.Now().AddDate(1, 0, 0))
			c.ike, s.ike = certified(l, "client", client), certified(l, "server", server)
		}
	}
	revoked := func(who string) func(*lab.Lab, *toldSide, *toldSide) {
		return func(l *lab.Lab, c, s *toldSide) {
			for _, args := range [][]string{{"init"}, {"issue", "client"}, {"issue", "server"}, {"revoke", who}} {
				if out, err := exec.Command(lab.Binary(l), append(append([]string{"pki"}, args...), "--dir", l.Dir+"/ca")...).CombinedOutput(); err != nil {
					l.Fatalf("%v: %s", err, out)
				}
			}
			c.ike, s.ike = certified(l, "client", "ca"), certified(l, "server", "ca")
			crl := fmt.Sprintf("  crl = %q\n", l.Dir+"/ca/ca.crl")
			if who == "client" {
				s.ike += crl
			} else {
				c.ike += crl
			}
		}
	}
	shut := func(at, dev, which string) func(client, server *lab.Host, text func(string) string) string {
		return func(client, server *lab.Host, _ func(string) string) string {
			shutUDP(map[string]*lab.Host{"client": client, "server": server}[at], dev, which)
			return ""
		}
	}
	// Of a caller that is slow to ask again, as on a busy machine, less is known in time.
	notHeard4500 := []string{" times for IKE_INTERMEDIATE, and does not hear the answers by UDP 4500: a firewall between, or its own policy|does not go on after IKE_INTERMEDIATE: a firewall between"}
	notHeard500 := []string{" times for IKE_SA_INIT, and does not hear the answers by UDP 500: a firewall between, or its own policy|nothing has come by UDP 4500, the port of its next message; a firewall between keeps it from us, or our answer from it"}
	rows := []row{
		{name: "the pre-shared keys differ", set: proofs(psk, psk+"!"),
			client: []string{"authentication-refused-by-peer", there, "psk_file in "}, server: []string{"the pre-shared keys differ; look at psk_file in "}},
		{name: "the caller's remote_id is wrong", set: func(_ *lab.Lab, c, _ *toldSide) { c.ike += "\n  remote_id = \"alfa\"" },
			client: []string{"we are client, and have asked for alfa", "look at remote_id", there}, server: []string{"the peer asks for alfa, we are server"}},
		{name: "the callee's remote_id is wrong", set: func(_ *lab.Lab, _, s *toldSide) { s.ike += "\n  remote_id = \"alfa\"" },
			client: []string{"look at local_id", there}, server: []string{"ike \"client\" with 10.77.0.2:4500 (client) failed (unknown-peer): ",
				"no ike block is for client calling from 10.77.0.2; nearest: ike \"client\", whose remote_id is alfa; look at remote_id in ", "/server/policy.hcl:"},
			sas: "whose remote_id is alfa; look at remote_id in "},
		{name: "the callee's remote_ids are wrong", set: func(_ *lab.Lab, _, s *toldSide) {
			s.rules = "rule \"more\" {\n  action = \"protect\"\n  with = \"more\"\n  direction = \"both\"\n  remote_address = \"10.77.0.2\"\n  protocol = \"tcp\"\n}\n" +
				"ipsec \"more\" {\n  mode = \"transport\"\n  ike = \"more\"\n}\n" +
				"ike \"more\" {\n  remote_endpoint = \"10.77.0.2\"\n  local_id = \"server\"\n  remote_id = \"clint\"\n  " + s.ike + "\n}\n"
			s.ike += "\n  remote_id = \"alfa\""
		}, client: []string{"look at local_id", there},
			server: []string{"ike with 10.77.0.2:4500 (client) failed", "nearest: ike \"more\", whose remote_id is clint; ike \"client\" (", "), whose remote_id is alfa; look at remote_id in "}},
		{name: "the callee's remote_endpoint is wrong", set: func(_ *lab.Lab, _, s *toldSide) {
			s.endpoint = "10.77.0.7" // and yet the firewall lets such calls in
			s.rules = "rule \"ike\" {\n  action = \"bypass\"\n  direction = \"in\"\n  protocol = \"udp\"\n  local_port = [500, 4500]\n}"
		},
			client: []string{"no-proposal-in-common", "or the peer takes no calls from here", there},
			server: []string{"no ike block takes calls from this address; nearest: ike \"client\", whose remote_endpoint is 10.77.0.7; look at remote_endpoint in ", "/server/policy.hcl:"}},
		{name: "the callee has another public key", set: func(l *lab.Lab, _, _ *toldSide) { swap(l, "server", "client") },
			client: []string{"private_key", there}, server: []string{"the signature does not fit the key; look at public_keys in ", "peers/client.pub"}},
		{name: "the caller has another public key", set: func(l *lab.Lab, _, _ *toldSide) { swap(l, "client", "server") },
			client: []string{"the signature does not fit the key; look at public_keys in ", "peers/server.pub"}, server: []string{"authentication-refused-by-peer", "has given the IKE SA up at once: it was told of as up, because", here}},
		{name: "a pre-shared key with a public key", set: func(l *lab.Lab, c, s *toldSide) {
			raw := s.ike
			proofs(psk, psk)(l, c, s)
			s.ike = raw
		}, client: []string{"psk_file", there}, server: []string{"the peer uses a pre-shared key, the policy does not; look at public_keys in "}},
		{name: "a public key with a pre-shared key", set: func(l *lab.Lab, c, s *toldSide) {
			raw := c.ike
			proofs(psk, psk)(l, c, s)
			c.ike = raw
		}, client: []string{"private_key", there}, server: []string{"look at psk_file in "}},
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
		{name: "ports of the caller", set: func(_ *lab.Lab, c, s *toldSide) {
			c.rule = "remote_address = \"10.77.0.1\"\n  protocol = \"tcp\"\n  local_port = 446"
			s.rule = "remote_address = \"10.77.0.2\"\n  protocol = \"tcp\"\n  remote_port = 445"
		}, client: []string{"ours: 10.77.0.2 tcp port 446 <-> 10.77.0.1 tcp", "TS_UNACCEPTABLE; look at remote_address, protocol, local_port of rule \"told\" in ", there},
			server: []string{"ours: 10.77.0.1 tcp <-> 10.77.0.2 tcp port 445; theirs: 10.77.0.1 tcp <-> 10.77.0.2 tcp port 446; look at remote_port of rule \"told\" in "}},
		{name: "a rule that is not for the caller", set: func(_ *lab.Lab, _, s *toldSide) {
			s.rule = "remote_address = \"10.77.0.7\""
		}, client: []string{"TS_UNACCEPTABLE", there}, server: []string{"ours: 10.77.0.1 <-> 10.77.0.7; theirs: 10.77.0.1 <-> 10.77.0.2; look at remote_address of rule \"told\" in "}},
		{name: "a narrower net on the peer", set: func(_ *lab.Lab, c, s *toldSide) {
			c.mode, s.mode = "tunnel", "tunnel"
			c.rule = "local_address = \"10.77.0.2\"\n  remote_address = \"10.9.0.0/16\""
			s.rule = "local_address = \"10.9.1.0/24\"\n  remote_address = \"10.77.0.2\""
		}, run: func(client, _ *lab.Host, text func(string) string) string {
			client.Run("ip", "route", "add", text("10.9.0.0/16"), "via", text("10.77.0.1"))
			return text("10.9.0.5")
		}, client: []string{"the peer has left out what asked for the SA", "10.9.0.5", "theirs: 10.77.0.2 <-> 10.9.1.0/24; look at remote_address of rule \"told\" in "}},
		{name: "mode", set: func(_ *lab.Lab, _, s *toldSide) {
			s.mode, s.rule = "tunnel", "local_address = \"10.77.0.1\"\n  remote_address = \"10.77.0.2\""
		}, client: []string{"wrong-mode", "ours: transport; theirs: tunnel; look at mode in "}, server: []string{"given the SAs up at once, unused: perhaps mode differs", "look at mode in ", here}},
		{name: "mode, a tunnel of the caller", set: func(_ *lab.Lab, c, _ *toldSide) {
			c.mode, c.rule = "tunnel", "local_address = \"10.77.0.2\"\n  remote_address = \"10.77.0.1\""
		}, client: []string{"or the peer wants transport mode, not a tunnel; ", "look at mode in ", there}, server: []string{"wrong-mode", "ours: transport; theirs: tunnel; look at mode in "}},
		{name: "the caller's certificate has ended", set: dated("client", -12, -1), client: []string{"our own certificate has ended on ", "look at certificate in "}, server: []string{"expired", "it is the peer's to renew"}, never: []string{"look at ca", "local_id, private_key"}},
		{name: "the callee's certificate has ended", set: dated("server", -12, -1),
			client: []string{"expired", "it is the peer's to renew"}, server: []string{"our own certificate has ended on ", "look at certificate in "}, never: []string{"look at ca", "local_id, private_key"}},
		{name: "the caller's certificate has not begun", set: dated("client", 12, 24), client: []string{"our own certificate does not begin before ", "look at certificate in "}, server: []string{"not yet valid", "a clock is wrong"}, never: []string{"look at ca"}},
		{name: "the callee's certificate has not begun", set: dated("server", 12, 24),
			client: []string{"not yet valid", "a clock is wrong"}, server: []string{"our own certificate does not begin before ", "look at certificate in "}, never: []string{"look at ca"}},
		{name: "the caller trusts another CA", set: otherCA("other", "ca"),
			client: []string{"it is signed by CN=", ", and we trust CN=", "look at ca in ", ", and at "}, server: []string{"authentication-refused-by-peer", here}},
		{name: "the callee trusts another CA", set: otherCA("ca", "other"),
			client: []string{"certificate in ", there}, server: []string{"it is signed by CN=", ", and we trust CN=", "look at ca in ", ", and at "}},
		{name: "the caller is revoked", set: revoked("client"), client: []string{"certificate in ", there}, server: []string{"revoked on 20", "look at crl in "}},
		{name: "the callee is revoked", set: revoked("server"), client: []string{"revoked on 20", "look at crl in "}, server: []string{"certificate in ", here}},
		{name: "no daemon on the peer", alone: true, client: []string{"says by ICMP: UDP 500 of 10.77.0.1: port unreachable, so no IKE daemon runs there"}},
		{name: "the peer drops all", alone: true, run: func(_, server *lab.Host, text func(string) string) string {
			server.Run("ip", "route", "add", "blackhole", text("10.77.0.2/32"))
			return ""
		}, client: []string{"no answer yet, asked "}},
		{name: "no host there", alone: true, run: func(_, server *lab.Host, _ func(string) string) string {
			server.Run("ip", "link", "set", "s0", "down")
			return ""
		}, client: []string{"with 10.77.0.1:500: "}},
		{name: "the peer takes no UDP 4500", set: func(_ *lab.Lab, _, s *toldSide) {
			s.policy, s.rules = "essentials = false", only500
		}, early: true, client: []string{"UDP 500 answers, UDP 4500 does not: a firewall between, or the peer's own policy"},
			server: []string{"ike \"client\" with 10.77.0.2:500: 10.77.0.2 has begun a key exchange by UDP 500 and does not go on: nothing has come by UDP 4500, the port of its next message; " +
				"what comes there is discarded here by rule \"told\" (", "/server/policy.hcl:", ": let a rule before that bypass UDP to local_port 500 and 4500"}},
		{name: "the caller takes no UDP 4500", set: func(_ *lab.Lab, c, _ *toldSide) {
			c.policy, c.rules = "essentials = false", only500
		}, early: true, client: []string{"UDP 500 answers, UDP 4500 does not: what comes from there is discarded here by rule \"told\" (", "/client/policy.hcl:", ": let a rule before that bypass UDP to local_port 500 and 4500; asked "},
			server: notHeard4500},
		{name: "the caller takes no UDP", set: func(_ *lab.Lab, c, _ *toldSide) { c.policy, c.rules = "essentials = false", basics },
			early: true, client: []string{"no answer yet, asked ", "; what comes from there is discarded here by rule \"told\" ("},
			server: notHeard500},
		{name: "UDP 4500 blocked on the way there", run: shut("server", "s0", "dport 4500"), early: true,
			client: []string{"UDP 500 answers, UDP 4500 does not: a firewall between, or the peer's own policy"},
			server: []string{"nothing has come by UDP 4500, the port of its next message; a firewall between keeps it from us, or our answer from it, or it has given up"}},
		{name: "UDP 4500 blocked on the way back", run: shut("client", "c0", "sport 4500"), early: true,
			client: []string{"UDP 500 answers, UDP 4500 does not: a firewall between, or the peer's own policy"},
			server: notHeard4500},
	}
	var mu sync.Mutex
	var table []string
	one := func(t *testing.T, number string, r row, text func(string) string) {
		l, client, server := lab.Pair(t)
		l.RawKeys(false, "client", "server")
		c, s := toldSide{text: text}, toldSide{text: text}
		c.ike, s.ike = strings.TrimSpace(rawKeys), strings.TrimSpace(rawKeys)
		if r.set != nil {
			r.set(l, &c, &s)
		}
		files := [2]string{c.file(l, "client", "10.77.0.2", "server", "10.77.0.1"), s.file(l, "server", "10.77.0.1", "client", "10.77.0.2")}
		var events [2]*lab.Process
		var daemons [2]*lab.Daemon
		for n, h := range []*lab.Host{client, server} {
			if n == 1 && r.alone {
				continue
			}
			daemons[n] = h.IPFW(files[n])
			events[n] = h.Start(lab.Binary(t), "events", "--json", "-f", "-n", "100", "--socket", daemons[n].Socket)
		}
		t.Cleanup(func() {
			for n := range events {
				for _, e := range toldBy(events[n]) {
					if t.Failed() {
						t.Logf("%s is told: %s", [...]string{"the client", "the server"}[n], e.Message)
					}
				}
			}
		})
		to := ""
		if r.run != nil {
			to = r.run(client, server, text)
		}
		began := time.Now()
		var call *lab.Process
		if to != "" {
			call = client.Start("ping", "-c", "200", "-i", "0.2", to)
		} else {
			call = client.Start(lab.Binary(t), "ike", "initiate", "server", "--socket", daemons[0].Socket)
		}
		for n, want := range [][]string{r.client, r.server} {
			side := []string{"client", "server"}[n]
			l.Eventually(waitLong, side+" is told "+strings.Join(want, " and "), func() bool {
				all := ""
				for _, e := range toldBy(events[n]) {
					if !r.early || e.IKE.What == "silent" {
						all += e.Message + "\n"
					}
				}
				return !slices.ContainsFunc(want, func(w string) bool {
					return !slices.ContainsFunc(strings.Split(text(w), "|"), func(w string) bool { return strings.Contains(all, w) })
				})
			})
			if len(want) > 0 {
				l.Eventually(waitLong, "the log of the "+side+" warns", func() bool { return strings.Contains(daemons[n].Output(), "level=WARN msg=ike ") })
			}
		}
		if r.early && strings.HasPrefix(r.name, "UDP 4500") {
			l.Eventually(waitLong, "`ipfw ike initiate` says what it waits for", func() bool { return strings.Contains(call.Output(), "UDP 4500 does not") })
		}
		if r.sas != "" {
			if out := server.Run(lab.Binary(t), "sas", "--socket", daemons[1].Socket); !strings.Contains(out, r.sas) {
				t.Errorf("ipfw sas says %s, want %q", out, r.sas)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		said := fmt.Sprintf("%s  %s\n", number, r.name)
		first := ""
		for n, side := range []string{"caller", "callee"} {
			for k, e := range toldBy(events[n]) {
				after := fmt.Sprintf("after %.1f s", e.Time.Sub(began).Seconds())
				if k == 0 {
					first += fmt.Sprintf(" %s %s", side, after)
				}
				if k < 3 {
					said += fmt.Sprintf("    %s, %s: %s\n", side, after, strings.ReplaceAll(e.Message, l.Dir, "/etc/ipfw"))
				}
				for _, bad := range r.never {
					if strings.Contains(e.Message, bad) {
						t.Errorf("%s is told %q in: %s", side, bad, e.Message)
					}
				}
				if why := misplaced(t, files[n], &e); why != "" {
					t.Errorf("%s is told %s: %s", side, e.Message, why)
				}
			}
		}
		table = append(table, said+"    first word:"+first+"\n")
	}
	t.Run("rows", func(t *testing.T) {
		families := []string{"IPv4", "IPv6"}
		for i, r := range rows {
			for k, family := range families {
				if !r.early && !r.alone && i%2 != k {
					continue // nothing but the addresses in the text is another
				}
				text := func(s string) string { return s }
				if family == "IPv6" {
					text = inIPv6.Replace
				}
				t.Run(r.name+"/"+family, func(t *testing.T) {
					t.Parallel()
					one(t, fmt.Sprintf("%02d %s", i+1, family), r, text)
				})
			}
		}
	})
	slices.Sort(table)
	t.Logf("Who is told what:\n%s", strings.Join(table, ""))
}

// inIPv6 puts what a row says into the other family.
var inIPv6 = strings.NewReplacer("10.77.0.1:500", "[fd77::1]:500", "10.77.0.2:500", "[fd77::2]:500", "10.77.0.2:4500", "[fd77::2]:4500", "10.77.0.2/32", "fd77::2/128",
	"10.77.0.", "fd77::", "10.9.0.0/16", "fd09::/32", "10.9.1.0/24", "fd09:0:1::/48", "10.9.0.5", "fd09::5")

// misplaced says what is wrong with the line that an event says to look at: it must have
// the argument, or begin the rule, or, where the policy has no such argument, a block.
func misplaced(t *testing.T, file string, e *toldEvent) string {
	setting, place := e.IKE.Setting, e.IKE.Place
	if place == "" {
		return ""
	}
	policy, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	setting, _, _ = strings.Cut(setting, ",")
	name, number, _ := strings.Cut(place, ".hcl:")
	n, err := strconv.Atoi(number)
	lines := strings.Split(string(policy), "\n")
	if name+".hcl" != file || err != nil || n < 1 || n > len(lines) {
		return fmt.Sprintf("there is no line %q in %s", place, file)
	}
	line, has := strings.TrimSpace(lines[n-1]), func(l string) bool { return strings.HasPrefix(strings.TrimSpace(l), setting+" ") }
	if e.IKE.Rule != "" {
		has = func(l string) bool { return strings.HasPrefix(l, fmt.Sprintf("rule %q {", e.IKE.Rule)) }
	}
	if !has(line) && (slices.ContainsFunc(lines, has) || !strings.HasSuffix(line, "{")) {
		return fmt.Sprintf("line %d is %q, and has no %s", n, line, setting)
	}
	return ""
}
