package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/host"
)

// The demo:
//
//	     network namespace "client"           network namespace "server"
//	+---------------------------------+   +---------------------------------+
//	| a stranger        203.0.113.9   |   |  198.51.100.10                  |
//	|                   2001:db8:2::9 +---+  2001:db8:1::10                 |
//	| an administrator  from the      |   |  HTTP on 22, 80, 443 (TLS), 5432|
//	|                   profile       |   |  ipfw run -c profile:web-server |
//	+---------------------------------+   +---------------------------------+
//	                        veth net0 --- net0
//
// Both namespaces have no name: they live in threads of this process, and the
// kernel removes them and the veth pair with the process, however it ends. The
// daemon is a child that dies with its parent. The network of the machine is
// not touched.
const demoPolicy = "profile:web-server"

func newDemoCmd(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "Watch ipfw at work between two private network namespaces",
		Long: `Make two private network namespaces joined by a cable, start HTTP servers on the
ports 22, 80, 443 and 5432 and the real daemon with profile:web-server in one,
connect from the other, over IPv4 and IPv6, and show what got through.

Then two more, with a daemon on either side and keys made for this one run, and a
request to a port that both policies protect: what the client wrote is shown
beside what passed on the cable, and what became of packets that imitate it.

Three parties must agree on every connection: the dry run that 'ipfw explain'
uses, the network, and the daemons' counters; and nothing that is protected may
be read on the cable. If not, the exit status is 1. The machine's own network is
not touched, and nothing is left behind.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needNetAdmin("it makes network namespaces of its own"); err != nil {
				return err
			}
			ctx, stop := a.signals(cmd.Context())
			defer stop()
			err := a.demo(ctx, asJSON)
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				return errors.New("interrupted; everything the demo made is gone")
			}
			return err
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

// demo runs the whole show.
func (a *app) demo(ctx context.Context, asJSON bool) error {
	dir, err := demoFolder()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	show := newScreen(a, asJSON)
	if err := demoWeb(ctx, dir, show); err != nil {
		return err
	}
	sealed, err := demoSealed(ctx, dir, show)
	if err != nil {
		return err
	}
	show.end()
	switch {
	case show.wrong > 0:
		return fmt.Errorf("%d connections on which the dry run, the network and the daemon's counters do not agree", show.wrong)
	case len(sealed.Disagree) > 0:
		return fmt.Errorf("the protected flow is not as it should be: %s", sealed.Disagree[0])
	}
	return nil
}

// demoWeb runs the first half: who gets through to a web server.
func demoWeb(ctx context.Context, dir string, show *screen) error {
	dry, err := newDryRun()
	if err != nil {
		return err
	}
	lab, err := newLab(append(strangerAddrs[:2:2], dry.admins...), serverAddrs)
	if err != nil {
		return err
	}
	defer lab.close()
	servers, err := startServers(lab.server, demoPorts...)
	if err != nil {
		return err
	}
	defer servers.close()
	daemon, err := startDaemon(ctx, lab.server, demoPolicy, filepath.Join(dir, "ipfw.sock"))
	if err != nil {
		return err
	}
	defer daemon.stop()

	show.begin(lab, daemon.status)
	counters, err := settled(ctx, daemon.client)
	if err != nil {
		return err
	}
	for _, p := range lab.probes(dry.admins) {
		if counters, err = p.run(ctx, lab, servers, daemon.client, dry, counters); err != nil {
			return err
		}
		show.row(p)
	}
	if err := reasonsAddUp(&counters); err != nil {
		return err
	}
	show.endWeb(counters)
	return nil
}

// probe is one connection of the demo and what everybody says about it.
type probe struct {
	Who    string `json:"who"`
	From   string `json:"from"` // address
	To     string `json:"to"`   // address and port
	Packet string `json:"packet"`

	// Expected is the dry run's verdict, Rule and Place by which rule; empty: the
	// default.
	Expected string `json:"expected"`
	Rule     string `json:"rule,omitempty"`
	Place    string `json:"place,omitempty"`

	// Through and Answer are what the network says, Took after how long.
	Through bool    `json:"through"`
	Answer  string  `json:"answer"`
	Took    float64 `json:"took_seconds"`

	// Flows and Packets are what the daemon counted while the connection was tried.
	Flows   uint64 `json:"flows"`
	Packets uint64 `json:"packets"`

	// Disagree says where the three differ; empty: they agree.
	Disagree []string `json:"disagree,omitempty"`

	port uint16
	path string                  // of the URL; "" is "/"
	wrap func(net.Conn) net.Conn // if not nil, the connection is used through it
}

// silence is how long the demo waits for an answer that is not to come: less
// than the second after which TCP repeats its SYN (RFC 6298 section 2), so that a
// connection that is dropped counts one packet.
const silence = 700 * time.Millisecond

// run asks the dry run, then the network, then the daemon, whose counters so
// far are before. It gives the counters afterwards.
func (p *probe) run(ctx context.Context, lab *lab, servers *servers, client *host.Client, dry *dryRun, before host.Status) (host.Status, error) {
	if err := dry.expect(p); err != nil {
		return before, err
	}
	begin := time.Now()
	answer, err := servers.get(ctx, lab.client, p)
	p.Took, p.Through, p.Answer = time.Since(begin).Seconds(), err == nil, answer
	if ctx.Err() != nil {
		return before, ctx.Err()
	}
	if err != nil {
		p.Answer = shortReason(err)
	}
	after, err := settled(ctx, client)
	if err == nil {
		p.compare(&before, &after)
	}
	return after, err
}

// settled gives the counters once they stand still: a connection that is over
// for the program still has its last packets under way. TCP may hold back an
// acknowledgment for 40 ms and more (RFC 9293 section 3.8.6.3).
func settled(ctx context.Context, client *host.Client) (host.Status, error) {
	const step, enough, most = 20 * time.Millisecond, 5, 200
	var last host.Status
	for i, still := 0, 0; i < most; i++ {
		now, err := client.Status(ctx)
		if err != nil {
			return now, err
		}
		if still++; now.Queue.Waiting > 0 || now.Queue.Packets != last.Queue.Packets || reasonsOf(&now) != reasonsOf(&last) {
			still = 0
		}
		if still == enough {
			return now, nil
		}
		last = now
		select {
		case <-ctx.Done():
			return now, ctx.Err()
		case <-time.After(step):
		}
	}
	return last, errors.New("the daemon's counters do not come to rest: something else sends packets in the demo's namespaces")
}

// reasonsOf sums up all packets that a daemon has counted: those that came up,
// and those of flows that the kernel carries.
func reasonsOf(s *host.Status) (sum uint64) {
	for _, n := range s.Reasons {
		sum += n
	}
	return sum
}

// reasonsAddUp checks that every packet that the kernel sent up was judged, once,
// and that of all others that have a reason it is known why.
func reasonsAddUp(s *host.Status) error {
	sum := reasonsOf(s)
	if q := &s.Queue; q.QueueDropped+q.SocketDropped+q.Unreadable > 0 {
		return fmt.Errorf("the kernel lost packets on the way to the daemon: %d queue full, %d buffer full, %d unreadable",
			q.QueueDropped, q.SocketDropped, q.Unreadable)
	}
	if q := &s.Queue; sum != q.Packets+s.Carried+s.JudgedAgain || q.Accepted+q.Dropped != q.Packets {
		return fmt.Errorf("the counters do not add up: %d packets came up, the kernel carried %d, %d were judged again, %d have a reason, %d were accepted and %d dropped",
			q.Packets, s.Carried, s.JudgedAgain, sum, q.Accepted, q.Dropped)
	}
	return nil
}

// compare holds the three against each other.
func (p *probe) compare(before, after *host.Status) {
	differ := func(format string, args ...any) { p.Disagree = append(p.Disagree, fmt.Sprintf(format, args...)) }
	if p.Through != (p.Expected == "bypass") {
		differ("the dry run says %s, the network says %s", p.Expected, p.Answer)
	}
	if len(before.Rules) != len(after.Rules) {
		differ("the daemon changed its policy meanwhile")
		return
	}
	for i, now := range after.Rules {
		was := before.Rules[i]
		flows, packets := now.Flows-was.Flows, now.Packets-was.Packets
		switch {
		case now.Name == p.Rule:
			p.Flows, p.Packets = flows, packets
			if p.Place == "" {
				p.Place = now.Place
			}
		case !now.Essential && !now.Audit && flows+packets > 0:
			differ("the daemon counted %d packets for rule %q", packets, now.Name)
		}
	}
	if p.Rule == "" {
		p.Packets = after.Defaults["in"].Packets - before.Defaults["in"].Packets
	}
	if p.Expected == "bypass" && p.Rule != "" && p.Flows != 1 {
		differ("the daemon counted %d flows for rule %q, want 1", p.Flows, p.Rule)
	}
	if p.Expected != "bypass" && p.Flows != 0 {
		differ("the daemon counted %d flows, want none", p.Flows)
	}
	if p.Packets == 0 {
		differ("the daemon counted no packet for %s", p.decider())
	}
}

// decider names the rule, or the default.
func (p *probe) decider() string {
	if p.Rule == "" {
		return engine.DefaultName(engine.In)
	}
	return p.Rule
}

// shortReason says of a failed connection what a person would.
func shortReason(err error) string {
	var timeout interface{ Timeout() bool }
	switch text := err.Error(); {
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer"
	case strings.Contains(text, "connection refused"):
		return "refused"
	default:
		return text
	}
}
