package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// Everything shut but 80 and 443; ssh from the admins' range only, in which
// the client of this lab is not.
func TestWebServerProfile(t *testing.T) {
	t.Parallel()
	lab.EachOffload(t, tryWebServerProfile)
}

func tryWebServerProfile(t *testing.T, _ string) {
	l, client, server := lab.Pair(t)
	lab.Need(t, "nginx", "curl")
	startNginx(t, l, server, 80, 443, 22, 5432)
	for _, host := range both {
		for _, port := range []int{80, 443, 22, 5432} {
			if !opens(client, host, port) {
				t.Fatalf("without a firewall %s:%d does not answer; the test would prove nothing", host, port)
			}
		}
	}
	d := server.IPFW("profile:web-server")
	for _, host := range both {
		for _, port := range []int{80, 443} {
			if !opens(client, host, port) {
				t.Errorf("%s:%d is shut", host, port)
			}
		}
		for _, port := range []int{22, 5432} {
			if web(client, host, port) {
				t.Errorf("%s:%d is open", host, port)
			}
		}
		if out, err := client.Try(5*time.Second, "ping", "-c", "1", "-W", "1", bare(host)); err == nil {
			t.Logf("the profile lets ping in: %s", lastLine(out))
		}
	}
	status := d.Ask("status")
	if !strings.Contains(status, "web") {
		t.Errorf("status names no web rule:\n%s", status)
	}
}

func TestNmapFindsTheWebAndNothingElse(t *testing.T) {
	t.Parallel()
	l, client, server := lab.Pair(t)
	lab.Need(t, "nginx", "curl", "nmap")
	startNginx(t, l, server, 80, 443, 22, 5432, 8080)
	server.IPFW("profile:web-server")
	for _, scan := range [][]string{
		{"-sS", "-p1-10000", "10.77.0.1"}, {"-sS", "-6", "-p1-1000,5432,8080", "fd77::1"}, {"-sU", "-p53,67,123,161,443,500,4500,5353", "10.77.0.1"},
		{"-sF", "-p1-500", "10.77.0.1"}, {"-sX", "-p1-500", "10.77.0.1"}, {"-sN", "-p1-500", "10.77.0.1"},
	} {
		args := append([]string{"nmap", "-n", "-Pn", "-T5", "--max-retries", "1", "--min-rate", "2000", "-oG", "-"}, scan...)
		out, err := client.Try(90*time.Second, args...)
		if err != nil {
			t.Fatalf("nmap %v: %v\n%s", scan, err, out)
		}
		open := openPorts(out)
		want := "80/open/tcp 443/open/tcp"
		if scan[0] != "-sS" {
			want = ""
		}
		if got := strings.Join(open, " "); got != want {
			t.Errorf("nmap %v finds %q, want %q", scan, got, want)
		}
	}
}

// openPorts reads nmap's greppable output: 80/open/tcp//http///.
func openPorts(out string) (open []string) {
	for _, w := range strings.FieldsFunc(out, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' || r == '\t' }) {
		if f := strings.Split(w, "/"); len(f) > 3 && (f[1] == "open" || f[1] == "unfiltered") {
			open = append(open, strings.Join(f[:3], "/"))
		}
	}
	return open
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
