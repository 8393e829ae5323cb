package nfq

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// A generation that could not be swept is not in force, neither by the reload
// that failed to sweep it nor when the table is renewed after it.
func TestSweepThatFails(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	server.echo(7)
	o := new(offloader)
	o.generation.Store(1)
	fw := server.start(Config{Offload: 1}, o.judge)
	reload := func() {
		t.Helper()
		if err := fw.Reload(Config{Offload: o.generation.Add(1)}); err != nil {
			t.Fatal(err)
		}
	}
	var flows []net.Conn
	for _, to := range []netip.Addr{addr4(0, 2), addr6(0, 2)} {
		c, err := client.dial("udp", to, 7, patience)
		if err != nil {
			t.Fatal(err)
		}
		askOften(t, "first", c, 3)
		flows = append(flows, c)
	}
	for range generations - 1 {
		reload()
	}
	o.shut.Store(true)
	deaf := func(f func()) { // the kernel does not tell of its connections
		fw.connections.mu.Lock()
		ask := fw.connections.fd
		fw.connections.fd = -1
		fw.connections.mu.Unlock()
		f()
		fw.connections.mu.Lock()
		fw.connections.fd = ask
		fw.connections.mu.Unlock()
	}
	silent := func(when string, offloading bool) {
		t.Helper()
		if fw.Offloading() != offloading {
			t.Errorf("%s: offloading %v", when, !offloading)
		}
		for _, c := range flows {
			o.came()
			if err := ask(c, silence/2); err == nil {
				t.Errorf("%s: %v goes on by a mark of %d reloads ago", when, c.RemoteAddr(), generations)
			}
			for deadline := time.Now().Add(patience); o.up.Load() == 0 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			if o.came() == 0 {
				t.Errorf("%s: nothing of %v came up", when, c.RemoteAddr())
			}
		}
	}
	deaf(func() {
		reload()
		silent("a reload that cannot sweep", false)
		if err := fw.renew(""); err != nil {
			t.Error(err)
		}
		silent("renewed, and still deaf", false)
	})
	if err := fw.renew(""); err != nil {
		t.Error(err)
	}
	silent("renewed", true)
	o.shut.Store(false)
	for _, c := range flows {
		askOften(t, "let in again", c, 1)
		o.came()
		askOften(t, "let in again", c, 10)
		if n := o.came(); n > 1 {
			t.Errorf("%d packets came up after the renewal", n)
		}
	}
}

// Renewed, a table stands for the generation that Decided has told of.
func TestRenewAfterDecided(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	server.echo(7)
	o := new(offloader)
	o.generation.Store(1)
	fw := server.start(Config{Offload: 1}, o.judge)
	o.generation.Store(2)
	fw.Decided(2)
	if err := fw.renew(""); err != nil {
		t.Fatal(err)
	}
	c, err := client.dial("udp", addr4(0, 2), 7, patience)
	if err != nil {
		t.Fatal(err)
	}
	askOften(t, "renewed", c, 5)
	if n := o.came(); n > 2 {
		t.Errorf("%d packets came up", n)
	}
}
