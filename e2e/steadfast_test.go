package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/host"
)

// sealedPair is two hosts that protect everything between them, nginx on one
// of them, and a capture of what is between.
type sealedPair struct {
	*lab.Lab
	t              *testing.T
	client, server *lab.Host
	c, s           *lab.Daemon
	wire           *lab.Capture
	sum            string
}

// newSealedPair starts it; extra are more lines of the ipsec blocks.
func newSealedPair(t *testing.T, size int, extra string) *sealedPair {
	t.Helper()
	l, client, server := lab.Pair(t)
	p := &sealedPair{Lab: l, t: t, client: client, server: server}
	startNginx(t, l, server, 80)
	big(l, "www/big", size)
	p.sum = sum(l, "www/big")
	p.wire = server.Capture("s0", "not ether multicast")
	p.keys(0x1001, extra)
	p.c, p.s = client.IPFW(p.policy("client")), server.IPFW(p.policy("server"))
	return p
}

func (p *sealedPair) policy(name string) string { return filepath.Join(p.Dir, name+".hcl") }

// keys writes the policies of both with new keys and SPIs.
func (p *sealedPair) keys(spi uint32, extra string) {
	p.t.Helper()
	first, second := p.Blocks("pair", lab.Manual{Local: "10.77.0.2", Remote: "10.77.0.1", SPI: spi, Extra: extra})
	p.replace("client.hcl", fmt.Sprintf(protectAll, "10.77.0.1")+first)
	p.replace("server.hcl", fmt.Sprintf(protectAll, "10.77.0.2")+second)
}

// replace writes a file so that whoever reads it meets the old or the new one.
func (p *sealedPair) replace(name, text string) {
	p.t.Helper()
	if err := os.Rename(p.File(name+".new", text), filepath.Join(p.Dir, name)); err != nil {
		p.t.Fatal(err)
	}
}

// fetch gets the file at so many bytes in a second, in the background, and
// says at the end whether it is whole.
func (p *sealedPair) fetch(rate string) <-chan error {
	done := make(chan error, 1)
	go func() {
		// The limit ends what hangs: TCP that has lost much waits two minutes itself.
		out, err := p.client.Try(10*time.Minute, "bash", "-o", "pipefail", "-c", "curl -sS -m 590 --limit-rate "+rate+" http://10.77.0.1/big | sha256sum")
		switch {
		case err != nil:
			err = fmt.Errorf("%w: %s", err, out)
		case out != p.sum:
			err = fmt.Errorf("the file came with another checksum: %s", out)
		}
		done <- err
	}()
	return done
}

// restart kills a daemon with SIGKILL, leaves it dead for a while, and starts
// the next one.
func (p *sealedPair) restart(h *lab.Host, d *lab.Daemon, name string, dead time.Duration) *lab.Daemon {
	p.t.Helper()
	d.Kill()
	time.Sleep(dead)
	return h.IPFW(p.policy(name))
}

// A daemon killed in the middle of a protected transfer, on either side: no
// packet leaves in the clear while it is dead, and the transfer ends well when
// the next one has taken over; with the replay check too.
func TestKillDuringProtectedTransfer(t *testing.T) {
	for _, extra := range []string{"", "  replay_window = 64", "  replay_window = 64\n  esn = true"} {
		t.Run(extra, func(t *testing.T) {
			p := newSealedPair(t, 12<<20, extra)
			done := p.fetch("4M")
			time.Sleep(500 * time.Millisecond)
			p.c = p.restart(p.client, p.c, "client", 300*time.Millisecond)
			time.Sleep(500 * time.Millisecond)
			p.s = p.restart(p.server, p.s, "server", 300*time.Millisecond)
			if err := <-done; err != nil {
				t.Errorf("%v\nclient: %s\nserver: %s", err, p.c.Ask("status"), p.s.Ask("status"))
			}
			// A dead daemon: neither side gets anything through.
			p.s.Kill()
			for _, h := range []*lab.Host{p.client, p.server} {
				if out, err := h.Try(waitLong, "ping", "-c", "2", "-i", "0.2", "-W", "1", map[*lab.Host]string{p.client: "10.77.0.1", p.server: "10.77.0.2"}[h]); err == nil {
					t.Errorf("with a dead daemon: %s", out)
				}
			}
			sealedOnly(t, p.wire, 5000)
		})
	}
}

// Reloads in the middle of a protected transfer, and a table that somebody
// flushes: not one packet in the clear, and the transfer ends well.
func TestReloadDuringProtectedTransfer(t *testing.T) {
	p := newSealedPair(t, 16<<20, "")
	done := p.fetch("6M")
	reloads := 0
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			if reloads < 10 && err == nil { // the machine is busy: another file
				done = p.fetch("6M")
				continue
			}
			sealedOnly(t, p.wire, 5000)
			return
		default:
			p.c.Ask("reload")
			p.s.Ask("reload")
			if reloads%5 == 4 {
				// Where the kernel gives the table to the daemon, nobody can.
				out, err := p.client.Try(waitLong, "nft", "flush", "table", "inet", "ipfw")
				if err != nil && !strings.Contains(out, "Operation not permitted") {
					t.Errorf("%v\n%s", err, out)
				}
			}
			reloads++
		}
	}
}

// replacements is how many times TestReplaceSAs gives both hosts new keys.
const replacements = 1000

// New keys on both hosts, a thousand times, while files are fetched: a capture
// shows no clear packet, and every file comes whole.
func TestReplaceSAs(t *testing.T) {
	t.Parallel()
	p := newSealedPair(t, 4<<20, "")
	var files atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			if err := <-p.fetch("8M"); err != nil {
				t.Error(err)
			}
			files.Add(1)
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	a, b := host.NewClient(p.c.Socket), host.NewClient(p.s.Socket)
	defer a.Close()
	defer b.Close()
	begin := time.Now()
	for i := range replacements {
		p.keys(0x1001+uint32(i%1000)*2+2, "")
		for _, c := range []*host.Client{a, b} {
			if _, err := c.Reload(ctx, host.ReloadRequest{}); err != nil {
				t.Fatalf("replacement %d: %v", i, err)
			}
		}
	}
	took := time.Since(begin)
	close(stop)
	<-stopped
	t.Logf("%d replacements in %v, %d files", replacements, took, files.Load())
	if files.Load() < 2 {
		t.Errorf("only %d files came meanwhile", files.Load())
	}
	sealedOnly(t, p.wire, 2000)
}

// A machine that starts: shut before its network is up, it leaks nothing until
// the daemon runs, with a bad policy too; and there is a way back without one.
func TestShut(t *testing.T) {
	t.Parallel()
	p := newSealedPair(t, 1<<20, "")
	p.s.Signal(syscall.SIGTERM)
	if err := p.s.Wait(waitLong); err != nil {
		t.Fatal(err)
	}
	shut := func(policy string) (string, error) {
		return p.server.Try(waitLong, lab.Binary(t), "shut", "--force", "-c", policy, "--socket", p.s.Socket)
	}
	silent := func(when string) {
		t.Helper()
		if out, err := p.server.Try(waitLong, "ping", "-c", "2", "-i", "0.2", "-W", "1", "10.77.0.2"); err == nil {
			t.Errorf("%s: %s", when, out)
		}
	}
	if out, err := shut(p.policy("server")); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	silent("shut")
	p.s = p.server.IPFW(p.policy("server"))
	if err := <-p.fetch("8M"); err != nil {
		t.Error(err)
	}
	if out, err := shut(p.policy("server")); err == nil || !strings.Contains(out, "process") && !strings.Contains(out, "pid") {
		t.Errorf("beside a running daemon: %v\n%s", err, out)
	}
	p.s.Kill()
	if out, err := shut(p.File("bad.hcl", "policy {\n")); err == nil {
		t.Errorf("a bad policy is no error:\n%s", out)
	}
	silent("shut by a bad policy")
	sealedOnly(t, p.wire, 100)
	p.server.Run(lab.Binary(t), "open", "--socket", p.s.Socket)
	if out := p.server.Run("nft", "list", "tables"); strings.Contains(out, "ipfw") {
		t.Errorf("the table is still there:\n%s", out)
	}
}
