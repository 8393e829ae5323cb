package e2e

import (
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// Without a daemon, status says what is in force all the same, and the way back:
// after a daemon was killed, after `ipfw shut`, and while another has the table.
func TestStatusWithoutADaemon(t *testing.T) {
	l, _, server := lab.Pair(t)
	policy := l.File("policy.hcl", twoPorts(true, ""))
	status := func(socket string, want ...string) {
		t.Helper()
		out, err := server.Try(waitLong, lab.Binary(t), "status", "--socket", socket)
		if err == nil {
			t.Errorf("status succeeds:\n%s", out)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("status does not say %q:\n%s", w, out)
			}
		}
	}
	none := l.Dir + "/none.sock"
	if out, err := server.Try(waitLong, lab.Binary(t), "status", "--socket", none); err == nil || !strings.Contains(out, "ipfw filters nothing") {
		t.Errorf("without a table: %v\n%s", err, out)
	}
	d := server.IPFW(policy)
	status(none, "has its table", "--socket")
	d.Kill()
	shut := []string{"its table is still in force: nothing new passes", "`ipfw run`", "`ipfw open` removes it"}
	status(d.Socket, shut...)
	if out := server.Run(lab.Binary(t), "open", "--socket", d.Socket); !strings.Contains(out, "ipfw filters nothing") {
		t.Errorf("open says %q", out)
	}
	status(d.Socket, "its table is not there: ipfw filters nothing", "`ipfw run`")
	server.Run(lab.Binary(t), "shut", "--force", "-c", policy, "--socket", d.Socket)
	status(d.Socket, shut...)
	server.Run(lab.Binary(t), "open", "--socket", d.Socket)

	open := server.IPFW(l.File("open.hcl", twoPorts(true, `on_failure = "open"`)))
	open.Kill()
	status(open.Socket, "its table is still there", `on_failure = "open" has it let pass`, "`ipfw open` removes it")
}
