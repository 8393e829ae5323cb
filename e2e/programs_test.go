package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// startNginx runs nginx in the host on the given ports, both families, serving
// its test's folder.
func startNginx(t *testing.T, l *lab.Lab, h *lab.Host, ports ...int) {
	t.Helper()
	lab.Need(t, "nginx")
	var listen strings.Builder
	for _, p := range ports {
		fmt.Fprintf(&listen, "    listen %d; listen [::]:%d;\n", p, p)
	}
	l.File("www/index.html", "hello from nginx\n")
	conf := l.File("nginx.conf", fmt.Sprintf(`user root; daemon off; master_process off; pid %[1]s/nginx.pid; error_log %[1]s/nginx.err;
events { worker_connections 4096; }
http {
  send_timeout 10m; client_header_timeout 10m; # a minute ends transfers on a busy machine
  access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
  server {
%[2]s    root %[1]s/www;
  }
}
`, l.Dir, listen.String()))
	p := h.Start("nginx", "-c", conf)
	l.Eventually(waitLong, "nginx serves", func() bool {
		out, _ := h.Try(2*time.Second, "curl", "-s", "-m", "1", fmt.Sprintf("http://127.0.0.1:%d/", ports[0]))
		return strings.Contains(out, "hello") || p.Wait(0) == nil
	})
}

// opens fetches a page that can be had, however long it takes.
func opens(h *lab.Host, host string, port int) bool {
	for end := time.Now().Add(waitLong); !web(h, host, port); {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// web fetches a page and says whether it came.
func web(h *lab.Host, host string, port int) bool {
	out, err := h.Try(waitLong, "curl", "-s", "-g", "-m", "2", fmt.Sprintf("http://%s:%d/", host, port))
	return err == nil && strings.Contains(out, "hello")
}

// both are the server's addresses as a URL has them.
var both = []string{"10.77.0.1", "[fd77::1]"}

func bare(host string) string { return strings.Trim(host, "[]") }

// waitLong is how long a test waits for what must come.
const waitLong = lab.Patience

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// big writes a file of n random bytes for nginx to serve.
func big(l *lab.Lab, name string, n int) {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand
	l.File(name, string(b))
}

// sum gives the SHA-256 of a file of the test as sha256sum prints it of its
// standard input.
func sum(l *lab.Lab, name string) string {
	b, err := os.ReadFile(filepath.Join(l.Dir, name))
	if err != nil {
		l.Fatal(err)
	}
	return fmt.Sprintf("%x  -\n", sha256.Sum256(b))
}

// counted gives how many packets a daemon has counted for a reason.
func counted(t *testing.T, d *lab.Daemon, reason string) uint64 {
	t.Helper()
	var status struct{ Reasons map[string]uint64 }
	if err := json.Unmarshal([]byte(d.Ask("status", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	return status.Reasons[reason]
}
