//go:build soak

package e2e

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/host"
)

// soakPolicy lets the web in through the kernel and protects port 445; the
// comment makes each one another.
const soakPolicy = `# %d
policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "protected" {
  action         = "protect"
  with           = "peer"
  direction      = %q
  protocol       = "tcp"
  remote_address = %q
  %s = [445, 446]
}
rule "clear" {
  action         = "bypass"
  direction      = %q
  protocol       = "tcp"
  remote_address = %q
  %s = [80, 81, %d]
}
`

// TestSoak holds two daemons under load, in the clear and protected, while both
// are reloaded every few seconds: their memory stays flat, no file comes broken,
// no session ends, and no packet of what is protected is seen in the clear.
// SOAK says for how long, as "30m"; `make soak` runs it.
func TestSoak(t *testing.T) {
	long, err := time.ParseDuration(os.Getenv("SOAK"))
	if err != nil {
		t.Fatal("SOAK wants a time such as 30m")
	}
	l, client, server := lab.Pair(t)
	startNginx(t, l, server, 80, 445)
	echoServer(t, server, 81)
	echoServer(t, server, 446)
	big(l, "www/big", 32<<20)
	want := sum(l, "www/big")
	first, second := l.Blocks("soak", lab.Manual{Local: "10.77.0.2", Remote: "10.77.0.1", Extra: "  replay_window = 1024"})
	p := &sealedPair{Lab: l, t: t, client: client, server: server}
	write := func(n int) {
		p.replace("client.hcl", fmt.Sprintf(soakPolicy, n, "out", "10.77.0.1", "remote_port", "out", "10.77.0.1", "remote_port", 8000+n%100)+first)
		p.replace("server.hcl", fmt.Sprintf(soakPolicy, n, "in", "10.77.0.2", "local_port", "in", "10.77.0.2", "local_port", 8000+n%100)+second)
	}
	write(0)
	daemons := []*lab.Daemon{client.IPFW(p.policy("client")), server.IPFW(p.policy("server"))}
	wire := server.Capture("s0", "tcp port 445 or tcp port 446")
	clearSession, sealedSession := mustOpen(t, client, "10.77.0.1:81"), mustOpen(t, client, "10.77.0.1:446")

	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	var files, reloads atomic.Int64
	done := make(chan struct{})
	load := func(port int) {
		defer func() { done <- struct{}{} }()
		for ctx.Err() == nil {
			out, err := client.Try(2*time.Minute, "sh", "-c", fmt.Sprintf("curl -s -m 100 http://10.77.0.1:%d/big | sha256sum", port))
			if err != nil || out != want {
				t.Errorf("port %d: %v %s", port, err, out)
				return
			}
			files.Add(1)
		}
	}
	go load(80)
	go load(445)

	clients := []*host.Client{host.NewClient(daemons[0].Socket), host.NewClient(daemons[1].Socket)}
	var settled [2]int
	begin := time.Now()
	for i := 1; ctx.Err() == nil; i++ {
		select {
		case <-ctx.Done():
			continue
		case <-time.After(3 * time.Second):
		}
		write(i)
		for _, c := range clients {
			if _, err := c.Reload(t.Context(), host.ReloadRequest{}); err != nil {
				t.Fatal(err)
			}
			reloads.Add(1)
		}
		for j, s := range []*session{clearSession, sealedSession} {
			if !s.moves(waitLong) {
				t.Fatalf("session %d stands still after %v: %v", j, time.Since(begin), s.failed.Load())
			}
		}
		var now [2]int
		for j, d := range daemons {
			now[j] = memory(t, d)
		}
		if i%20 == 1 {
			t.Logf("%v: %d files, %d reloads, %d and %d KiB", time.Since(begin).Round(time.Second), files.Load(), reloads.Load(), now[0], now[1])
		}
		if settled[0] == 0 && time.Since(begin) > long/5 {
			settled = now
		}
		for j := range now {
			if settled[j] > 0 && now[j] > settled[j]*5/4+16<<10 {
				t.Fatalf("the memory of daemon %d grew from %d to %d KiB", j, settled[j], now[j])
			}
		}
	}
	<-done
	<-done
	if n := wire.Count(""); n > 0 {
		t.Errorf("%d packets of what is protected crossed in the clear:\n%s", n, wire.Text(""))
	}
	for _, d := range daemons {
		t.Log(d.Ask("status"))
	}
	t.Logf("%v: %d files of 32 MiB, %d reloads", time.Since(begin), files.Load(), reloads.Load())
}

// memory is what the daemon has resident, in KiB.
func memory(t *testing.T, d *lab.Daemon) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
