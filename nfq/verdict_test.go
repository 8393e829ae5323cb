package nfq

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
)

var reject = engine.Result{Verdict: engine.Discard, Reject: true}

// What the far side sees of each verdict, in each direction and family.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	eachReceiver(t, func(t *testing.T, cfg Config) {
		client, server := pair(t)
		client.echo(7)
		server.echo(7)
		fw := server.start(cfg, pass)
		from := map[string]*testHost{"in": client, "out": server}
		for _, tc := range []struct {
			network, dir string
			judge        judgeFunc
			want         string
		}{
			{"tcp", "in", pass, "open"},
			{"udp", "in", pass, "open"},
			{"tcp", "in", port(7, engine.Result{}), "silence"},
			{"udp", "in", port(7, engine.Result{}), "silence"},
			{"tcp", "in", port(7, reject), "refused"},
			{"udp", "in", port(7, reject), "prohibited"},
			{"tcp", "in", port(7, engine.Result{Verdict: engine.Protect}), "silence"},
			{"tcp", "out", pass, "open"},
			{"udp", "out", pass, "open"},
			{"tcp", "out", port(7, engine.Result{}), "silence"},
			{"udp", "out", port(7, engine.Result{}), "silence"},
			{"tcp", "out", port(7, reject), "refused"},
			{"udp", "out", port(7, reject), "prohibited"},
			{"udp", "out", port(7, engine.Result{Verdict: 99}), "silence"},
		} {
			far := map[string]int{"in": 2, "out": 1}[tc.dir]
			for _, to := range []netip.Addr{addr4(0, far), addr6(0, far)} {
				fw.set(tc.judge)
				wait := patience
				if tc.want == "silence" {
					wait = silence
				}
				if got := from[tc.dir].reach(tc.network, to, 7, wait); got != tc.want {
					t.Errorf("%s %s to %v: %s, want %s", tc.dir, tc.network, to, got, tc.want)
				}
			}
		}
		s := fw.Stats()
		if s.Packets == 0 || s.Packets != s.Accepted+s.Dropped || s.Rejected == 0 || s.SendErrors != 0 {
			t.Errorf("stats do not add up: %+v", s)
		}
	})
}

// A router answers rejected packets by itself, to whichever side sent them.
func TestForward(t *testing.T) {
	t.Parallel()
	eachReceiver(t, func(t *testing.T, cfg Config) {
		client, router, server := newHost(t), newHost(t), newHost(t)
		wire(client, router, 0)
		wire(router, server, 1)
		route(client, 1, 0, 2)
		route(server, 0, 1, 1)
		router.do(func() {
			for _, s := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
				sysctl(t, s, "1")
			}
		})
		server.echo(7)
		var seen []string
		fw := router.start(cfg, func(in *engine.Input) engine.Result {
			seen = append(seen, fmt.Sprintf("%v %s>%s", in.Dir, in.InIf, in.OutIf))
			return pass(in)
		})
		for _, to := range []netip.Addr{addr4(1, 2), addr6(1, 2)} {
			fw.set(*fw.f.Load())
			if got := client.reach("udp", to, 7, patience); got != "open" {
				t.Errorf("udp to %v: %s, want open", to, got)
			}
		}
		for _, to := range []netip.Addr{addr4(1, 2), addr6(1, 2)} {
			fw.set(port(7, reject))
			if got := client.reach("udp", to, 7, patience); got != "prohibited" {
				t.Errorf("rejected udp to %v: %s, want prohibited", to, got)
			}
			if got := client.reach("tcp", to, 7, patience); got != "refused" {
				t.Errorf("rejected tcp to %v: %s, want refused", to, got)
			}
		}
		fw.stop()
		for _, want := range []string{"forward eth0>eth1", "forward eth1>eth0"} {
			if !slices.Contains(seen, want) {
				t.Errorf("not seen: %s", want)
			}
		}
	})
}

// Names of interfaces follow them, as soon as the kernel's news is read.
func TestLinkNames(t *testing.T) {
	t.Parallel()
	eachReceiver(t, func(t *testing.T, cfg Config) {
		client, server := pair(t)
		client.echo(7)
		var mu sync.Mutex
		seen := make(map[string]bool)
		server.start(cfg, func(in *engine.Input) engine.Result {
			if in.Packet.HasPorts {
				mu.Lock()
				defer mu.Unlock()
				seen[fmt.Sprintf("%v %s>%s", in.Dir, in.InIf, in.OutIf)] = true
			}
			return pass(in)
		})
		for _, name := range []string{"eth0", "wan0"} {
			server.rename("eth0", name)
			all := func() bool {
				mu.Lock()
				defer mu.Unlock()
				return seen["out >"+name] && seen["in "+name+">"]
			}
			for deadline := time.Now().Add(patience); !all(); {
				if time.Now().After(deadline) {
					t.Fatalf("no packets by %s, but %v", name, seen)
				}
				if got := server.reach("udp", addr4(0, 1), 7, patience); got != "open" {
					t.Fatal(got)
				}
			}
		}
	})
}

// A kernel without inet tables gets one table for each family, with the same
// effect; the change from one kind to the other is one transaction too.
func TestTablePerFamily(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	server.echo(7)
	fw := server.start(Config{}, pass)
	for _, inet := range []bool{false, true} {
		fw.can.inet = inet
		if err := fw.Reload(Config{}); err != nil {
			t.Fatal(err)
		}
		for _, fam := range everyFamily {
			if got := server.listing("ipfw", fam) != ""; got != slices.Contains(families(inet), fam) {
				t.Errorf("inet %v: table in family %d: %v", inet, fam, got)
			}
		}
		for _, to := range []netip.Addr{addr4(0, 2), addr6(0, 2)} {
			fw.set(pass)
			if got := client.reach("tcp", to, 7, patience); got != "open" {
				t.Errorf("inet %v, %v: %s, want open", inet, to, got)
			}
			fw.set(port(7, reject))
			if got := client.reach("tcp", to, 7, patience); got != "refused" {
				t.Errorf("inet %v, rejected %v: %s, want refused", inet, to, got)
			}
		}
	}
}
