package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// copyProfile gives the text of a profile.
func copyProfile(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command(lab.Binary(t), "profile", "show", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// makeKeys runs in dir the commands that the comment at the head of a policy
// gives for making keys.
func makeKeys(l *lab.Lab, h *lab.Host, dir, policy string) {
	l.Helper()
	n := 0
	for line := range strings.Lines(policy) {
		if command, ok := strings.CutPrefix(line, "#   ipfw "); ok {
			h.Run("sh", "-ec", lab.Binary(l)+" "+strings.TrimSpace(command)+" --dir "+dir)
			n++
		}
	}
	if n == 0 {
		l.Fatal("the policy does not say how its keys are made")
	}
}

// The profiles that protect say which keys they want before they start, and
// how these are made; with them they start.
func TestProfilesWithKeys(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ profile, peers, peer string }{
		{"file-server", "peers", "client.example.org"},
		{"two-offices", "peers", "south.example.org"},
		{"vpn-gateway", "users", "alice@example.org"},
		{"file-client", "peers", "files.example.org"},
		{"vpn-client", "peers", "vpn.example.org"},
	} {
		t.Run(row.profile, func(t *testing.T) {
			l := lab.New(t)
			h := l.Host("host")
			text := copyProfile(t, row.profile)
			path := l.File("own/policy.hcl", text)
			dir := filepath.Dir(path)
			out, err := h.Try(waitLong, lab.Binary(t), "run", "-c", path, "--socket", filepath.Join(l.Dir, "none.sock"))
			if err == nil || strings.Count(out, "does not exist: make") != 2 || !strings.Contains(out, filepath.Join(dir, row.peers)) {
				t.Errorf("without keys: %v\n%s", err, out)
			}
			makeKeys(l, h, dir, text)
			h.Run("sh", "-ec", "cd "+dir+"; mkdir -p "+row.peers+"; mv *.pub "+row.peers+"/"+row.peer+".pub")
			d := h.IPFW(path)
			if status := d.Ask("status"); !strings.Contains(status, "Protected traffic: 0 SAs") {
				t.Error(status)
			}
		})
	}
}

// Two offices under the profile as it is, and what its comment says to change:
// keys are agreed on, hosts behind the gateways meet, and nothing is in the
// clear between them.
//
//	n 10.1.0.5 -- north 198.51.100.1 -- 203.0.113.7 south -- s 10.2.0.9
func TestTwoOfficesProfile(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	n, north, south, s := l.Host("n"), l.Host("north"), l.Host("south"), l.Host("s")
	l.Join(n, "n0", []string{"10.1.0.5/16", "fd00:1::5/64"}, north, "lan0", []string{"10.1.0.1/16", "fd00:1::1/64"})
	l.Join(north, "wan0", []string{"198.51.100.1/24"}, south, "wan0", []string{"203.0.113.7/24"})
	l.Join(south, "lan0", []string{"10.2.0.1/16", "fd00:2::1/64"}, s, "s0", []string{"10.2.0.9/16", "fd00:2::9/64"})
	for _, h := range []*lab.Host{north, south} {
		h.Sysctl("net.ipv4.ip_forward", "1")
		h.Sysctl("net.ipv6.conf.all.forwarding", "1")
		h.Run("ip", "route", "add", "default", "dev", "wan0")
		h.Run("ip", "-6", "route", "add", "default", "dev", "wan0")
	}
	n.Run("ip", "route", "add", "default", "via", "10.1.0.1")
	n.Run("ip", "-6", "route", "add", "default", "via", "fd00:1::1")
	s.Run("ip", "route", "add", "default", "via", "10.2.0.1")
	s.Run("ip", "-6", "route", "add", "default", "via", "fd00:2::1")

	text := copyProfile(t, "two-offices")
	turned := strings.NewReplacer("north", "south", "south", "north", "198.51.100.1", "203.0.113.7", "203.0.113.7", "198.51.100.1",
		"10.1.", "10.2.", "10.2.", "10.1.", "fd00:1:", "fd00:2:", "fd00:2:", "fd00:1:").Replace(text)
	paths := map[*lab.Host]string{north: l.File("north/policy.hcl", text), south: l.File("south/policy.hcl", turned)}
	makeKeys(l, north, filepath.Join(l.Dir, "north"), text)
	makeKeys(l, south, filepath.Join(l.Dir, "south"), turned)
	north.Run("sh", "-ec", "cd "+l.Dir+"; mkdir -p north/peers south/peers; mv north/*.pub south/peers/; mv south/*.pub north/peers/")

	wire := north.Capture("wan0", "not ether multicast")
	a := north.IPFW(paths[north])
	b := south.IPFW(paths[south])
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("north:\n%s\nsouth:\n%s", a.Output(), b.Output())
		}
	})
	for _, to := range []string{"10.2.0.9", "fd00:2::9"} {
		n.Run("ping", "-c", "3", "-i", "0.2", "-W", "5", to)
	}
	s.Run("ping", "-c", "3", "-i", "0.2", "-W", "5", "10.1.0.5")
	// From the gateway itself Linux takes the address outside, for which there is no tunnel.
	if out, err := north.Try(waitLong, "ping", "-c", "1", "-W", "1", "10.2.0.9"); err == nil {
		t.Errorf("the gateway's own ping by its address outside is answered:\n%s", out)
	}
	sas := a.Ask("sas", "-v")
	for _, want := range []string{"esp/udp tunnel", "aes-256-gcm-16", "198.51.100.1 -> 203.0.113.7", `keys from ike "south"`, "south.example.org",
		"10.1.0.0/16", " <-> ", "10.2.0.0/16", "offices, gateway-to-office"} {
		if !strings.Contains(sas, want) {
			t.Errorf("sas does not say %q:\n%s", want, sas)
		}
	}
	const inside = "(ip or ip6) and (net 10.0.0.0/8 or net fd00::/16)"
	if k := wire.Count(inside); k > 0 {
		t.Errorf("%d packets crossed in the clear:\n%s", k, wire.Text(inside))
	}
	if k := wire.Count("esp or udp port 4500"); k < 18 {
		t.Errorf("only %d sealed packets", k)
	}
}
