package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// TestShow: show and explain --running tell the policy in force, whatever has
// become of its file, and flows none that a reload has cut; events -f goes on with
// the daemon that comes after.
func TestShow(t *testing.T) {
	t.Parallel()
	l, client, server := lab.Pair(t)
	const head = "policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n}\n"
	rule := func(name, port string) string {
		return "rule \"" + name + "\" {\n  action     = \"bypass\"\n  direction  = \"in\"\n  protocol   = \"tcp\"\n  local_port = " + port + "\n}\n"
	}
	file := l.File("policy.hcl", head+rule("echo", "7100"))
	program := lab.Binary(t)
	d := server.IPFW(file)
	if got, want := d.Ask("show"), server.Run(program, "validate", "--print", file); !strings.HasPrefix(got, want) || !strings.Contains(got, "generation 1") {
		t.Errorf("show prints\n%s\nwant\n%s", got, want)
	}
	const packet = "in tcp 10.77.0.2 -> 10.77.0.1:7100"
	if got := d.Ask("explain", "--running", packet); !strings.Contains(got, `bypass by rule "echo", `+file+":5") {
		t.Error(got)
	}
	follower := server.Start(program, "events", "-f", "--socket", d.Socket)
	l.Eventually(waitLong, "the follower has met the daemon", func() bool { return strings.Contains(follower.Output(), "start") })

	heard := talkServer(t, server, 7100)
	talkTo(t, client, "10.77.0.1:7100")
	l.Eventually(waitLong, "the server hears the client", func() bool { return heard.hear() > 0 })
	if got := d.Ask("flows"); !strings.Contains(got, ":7100") {
		t.Fatalf("flows:\n%s", got)
	}
	if err := os.WriteFile(file, []byte(head+rule("other", "7101")), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := d.Ask("show"); !strings.Contains(got, `rule "echo"`) || strings.Contains(got, `rule "other"`) {
		t.Errorf("show tells the file, not the policy in force:\n%s", got)
	}
	d.Ask("reload")
	if got := d.Ask("show"); !strings.Contains(got, `rule "other"`) || strings.Contains(got, `rule "echo"`) {
		t.Errorf("after the reload:\n%s", got)
	}
	if got := d.Ask("flows"); strings.Contains(got, ":7100") {
		t.Errorf("the flow that the reload cut is listed:\n%s", got)
	}
	if got := d.Ask("explain", "--running", packet); !strings.Contains(got, "discard because no rule matches") {
		t.Error(got)
	}

	d.Signal(syscall.SIGTERM)
	if err := d.Wait(waitLong); err != nil {
		t.Fatalf("SIGTERM: %v\n%s", err, d.Output())
	}
	l.Eventually(waitLong, "the follower says that the daemon has stopped", func() bool {
		return strings.Contains(follower.Output(), "the daemon has stopped; waiting for the next one")
	})
	server.IPFW(file)
	l.Eventually(waitLong, "the follower goes on", func() bool { return strings.Contains(follower.Output(), "a daemon runs again") })
}
