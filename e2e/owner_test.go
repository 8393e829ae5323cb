package e2e

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// prober sends datagrams from one host to a port of another without a pause,
// and counts those that get in.
type prober struct{ sent, in atomic.Int64 }

// probesPerSecond is how often it sends.
const probesPerSecond = 4000

func probe(t *testing.T, from, to *lab.Host, addresses ...string) *prober {
	t.Helper()
	p := new(prober)
	var l net.PacketConn
	if err := within(t, to, func() (err error) {
		l, err = net.ListenPacket("udp", ":7777")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		b := make([]byte, 100)
		for {
			if _, _, err := l.ReadFrom(b); err != nil {
				return
			}
			p.in.Add(1)
		}
	}()
	for _, a := range addresses {
		var c net.Conn
		if err := within(t, from, func() (err error) {
			c, err = net.Dial("udp", net.JoinHostPort(a, "7777"))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			// A connected socket hears of errors, and is a flow of its own.
			tick := time.NewTicker(time.Second / probesPerSecond * time.Duration(len(addresses)))
			defer tick.Stop()
			for range tick.C {
				if _, err := c.Write([]byte("let me in")); err != nil && strings.Contains(err.Error(), "closed") {
					return
				}
				p.sent.Add(1)
			}
		}()
	}
	return p
}

// sends waits until a number more have been sent.
func (p *prober) sends(l *lab.Lab, n int64) {
	l.Helper()
	until := p.sent.Load() + n
	l.Eventually(time.Minute, "the prober sends", func() bool { return p.sent.Load() >= until })
}

// The table is there from the first start to the last `ipfw open`, whatever
// others do to it: not one of thousands of datagrams gets in.
func TestTableIsOwned(t *testing.T) {
	t.Parallel()
	lab.EachOffload(t, tryTableIsOwned)
}

func tryTableIsOwned(t *testing.T, _ string) {
	l, client, server := lab.Pair(t)
	lab.Need(t, "nft")
	if out, err := server.Try(time.Minute, "nft", "add table inet trial { flags owner, persist; }"); err != nil && !strings.Contains(out, "syntax") {
		lab.Skip(t, "this kernel has no tables with flags owner and persist: "+out)
	}
	policy := l.File("policy.hcl", "policy {\n  inbound = \"discard\"\n  outbound = \"bypass\"\n}\n")
	p := probe(t, client, server, "10.77.0.1", "fd77::1")
	l.Eventually(time.Minute, "datagrams get in without a firewall", func() bool { return p.in.Load() > 100 })
	d := server.IPFW(policy)
	p.sends(l, 100)
	was := p.in.Load()
	none := func(when string) {
		t.Helper()
		p.sends(l, probesPerSecond/10)
		if got := p.in.Load(); got != was {
			t.Errorf("%s: %d got in", when, got-was)
			was = got
		}
	}
	none("the daemon is running")
	for range 10 {
		server.Run("nft", "add table inet others")
		server.Run("nft", "flush ruleset")
		if out := server.Run("nft", "list tables"); strings.Contains(out, "others") || !strings.Contains(out, "ipfw") {
			t.Fatalf("after nft flush ruleset:\n%s", out)
		}
		for _, harm := range []string{"delete table inet ipfw", "flush table inet ipfw", "delete table inet ipfw; flush ruleset"} {
			if out, err := server.Try(time.Minute, "nft", harm); err == nil {
				t.Errorf("nft %s: %s", harm, out)
			}
		}
		d.Signal(syscall.SIGHUP)
	}
	none("others have flushed and deleted")
	for range 3 {
		d.Kill()
		none("killed")
		d = server.IPFW(policy)
		none("taken over")
	}
	d.Kill()
	server.Run(lab.Binary(t), "shut", "--force", "-c", policy, "--socket", d.Socket)
	none("shut")
	d = server.IPFW(policy)
	none("taken over from ipfw shut")
	if out, err := server.Try(time.Minute, lab.Binary(t), "open", "--socket", d.Socket+".other"); err == nil || !strings.Contains(out, "belongs to process") {
		t.Errorf("ipfw open beside a daemon with another socket: %v\n%s", err, out)
	}
	none("ipfw open was refused")
	d.Kill()
	server.Run(lab.Binary(t), "open", "--socket", d.Socket)
	l.Eventually(time.Minute, fmt.Sprintf("more than %d get in after ipfw open", was), func() bool { return p.in.Load() > was })
}
