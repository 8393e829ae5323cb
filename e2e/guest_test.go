package e2e

import (
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// A guest boots, does what it is told, says what fails, and is on the wire.
func TestGuest(t *testing.T) {
	l := lab.New(t)
	g, host := l.Guest("guest"), l.Host("host")
	g.Join(host, "eth0", []string{"10.88.0.1/24", "fd88::1/64"}, []string{"10.88.0.2/24", "fd88::2/64"})
	if out := g.Run("uname", "-r"); !strings.HasPrefix(out, "6.") {
		t.Errorf("the guest's kernel is %q", out)
	}
	if out, err := g.Try(waitLong, "sh", "-c", "echo no; exit 3"); err == nil || err.Error() != "exit status 3" || out != "no\n" {
		t.Errorf("%q, %v", out, err)
	}
	for _, to := range []string{"10.88.0.2", "fd88::2"} {
		host.Run("ping", "-c", "1", "-W", "5", to)
	}
}
