package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/rules"
)

// explanation is what `ipfw explain --json` prints.
type explanation struct {
	Packet  string        `json:"packet"`
	Verdict string        `json:"verdict"` // what policy says of such packets
	Reason  string        `json:"reason"`
	Passes  bool          `json:"passes"` // whether this very packet goes on
	Rule    *ruleRef      `json:"rule"`   // what decided; null: no rule was asked
	Steps   []explainStep `json:"steps"`
	Fate    string        `json:"fate"`
	Reply   string        `json:"reply"`
	// Protection says how the packet is sealed, or has to come; absent
	// unless the verdict is protect.
	Protection *protection `json:"protection,omitempty"`
	// OtherPorts are answers with other ports than explain has put in place of
	// one that was left open.
	OtherPorts []portCase `json:"other_ports,omitempty"`
}

// portCase is the answer for some ports of one end.
type portCase struct {
	End     string   `json:"end"`   // source or destination
	Ports   string   `json:"ports"` // as a policy has them
	Verdict string   `json:"verdict"`
	Rule    *ruleRef `json:"rule"`
}

type explainStep struct {
	ruleRef
	Matched bool   `json:"matched"`
	Why     string `json:"why"`
}

func newExplainCmd(a *app) *cobra.Command {
	var paths []string
	var exitVerdict, asJSON, all, running bool
	var socket string
	var mtu int
	cmd := &cobra.Command{
		Use:   `explain {-c PATH | --running} "PACKET"`,
		Short: "Say what happens to a packet, and why",
		Long: `Explain gives the verdict for one packet, the rule that decides, and why each rule
before it does not; of a packet that is protected also how: mode, addresses and
suites, how long it is when sealed, and what fits the path (--mtu). The SAs of the
policy are taken to be there: explain asks no daemon for SAs, which may have none
yet. With --running the policy is the one that the daemon enforces.

A packet is written in one line:

  DIRECTION PROTOCOL SOURCE -> DESTINATION [words]

DIRECTION is in, out or forward; ports follow a colon, IPv6 stands in brackets
when a port follows; any is a port that is not known, which a source may also leave
out; an ICMP type follows the protocol. Words: established (a later packet of a flow
this host has let through, whichever side has opened it), answer (it answers, from a
neighbour, what this host has just asked a multicast group or everybody on the link),
protected [NAME] (it came out of an SA), related RULE (a helper of the kernel expects
it of a flow that RULE lets pass; only the kernel knows, so explain must be told),
fragment, on IFACE, spi N, dscp N, and the flags of a TCP segment: syn (as without
any), syn,ack, ack, psh,ack, fin, rst and so on. What is on lo passes whatever the
policy says: the kernel lets it pass before the policy is asked.

The exit status is 0 whatever the verdict; with --exit-verdict it is 0 for
bypass, 10 for discard and 11 for protect.`,
		Example: `  ipfw explain -c /etc/ipfw "in tcp 203.0.113.9:40000 -> 198.51.100.10:443"
  ipfw explain -c /etc/ipfw "out udp [2001:db8::1]:5353 -> [ff02::fb]:5353"
  ipfw explain -c /etc/ipfw "in icmp echo-request 192.0.2.1 -> 192.0.2.2 on eth0"`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("explain takes one packet in quotes, as in %q", "in tcp 203.0.113.9:40000 -> 198.51.100.10:443")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			trial, err := engine.ParseTrial(args[0])
			if err != nil {
				return usagef("%w", err)
			}
			if mtu < 68 || mtu > 65535 { // the least that IPv4 knows: RFC 791 section 3.2
				return usagef("--mtu is the longest datagram that the path takes, from 68 to 65535 bytes, not %d", mtu)
			}
			var p *rules.Policy
			switch {
			case running && len(paths) > 0:
				return usagef("-c is for another policy than the one in force: give it, or --running")
			case running:
				p, err = a.running(cmd.Context(), socket)
			case len(paths) == 0:
				return usagef("which policy? -c PATH names one, --running is the one that the daemon enforces")
			default:
				p, err = a.load(paths)
			}
			if err != nil {
				return err
			}
			x, err := trial.Explain(p.DryRun(engine.Options{}))
			if err != nil {
				return err
			}
			others, err := otherPorts(trial, p)
			if err != nil {
				return err
			}
			sealed := protectionOf(p, &x.Outcome, mtu)
			if asJSON {
				out := explainJSON(&p.Engine, args[0], &x)
				out.Protection, out.OtherPorts = sealed, others
				err = a.printJSON(out)
			} else {
				a.explain(&p.Engine, &x, all)
				a.printOtherPorts(&trial, others)
				if sealed != nil {
					a.protection(sealed, all)
				}
			}
			if err != nil || !exitVerdict {
				return err
			}
			return verdictStatus(x.Outcome.Verdict)
		},
	}
	pathsFlag(cmd, &paths)
	cmd.Flags().BoolVar(&running, "running", false, "ask the policy that the daemon enforces")
	socketFlag(cmd, &socket)
	cmd.Flags().BoolVar(&exitVerdict, "exit-verdict", false, "exit with 0 for bypass, 10 for discard, 11 for protect")
	cmd.Flags().BoolVar(&all, "all", false, "show the essential rules one by one, and all suites")
	cmd.Flags().IntVar(&mtu, "mtu", 1500, "the longest datagram, in bytes, that the path of a sealed packet takes")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// verdictStatus is the exit status for --exit-verdict.
func verdictStatus(v engine.Verdict) error {
	switch v {
	case engine.Bypass:
		return nil
	case engine.Protect:
		return exitWith(exitProtect)
	}
	return exitWith(exitDiscard)
}

func explainJSON(p *engine.Policy, line string, x *engine.Explanation) explanation {
	o := &x.Outcome
	out := explanation{
		Packet: line, Verdict: o.Verdict.String(), Reason: o.Result.Reason.String(),
		Passes: o.Result.Verdict != engine.Discard,
		Rule:   decider(p, o.Result.Rule, o.Result.Opened()), Steps: []explainStep{}, Fate: x.Fate, Reply: x.Reply,
	}
	for _, s := range x.Steps {
		r := &p.Rules[s.Rule]
		out.Steps = append(out.Steps, explainStep{ruleRef{r.Name, r.Place}, s.Matched, s.Why})
	}
	return out
}

// explain prints the answer for people.
func (a *app) explain(p *engine.Policy, x *engine.Explanation, all bool) {
	o := &x.Outcome
	dir := o.Result.Opened()
	ref := decider(p, o.Result.Rule, dir)
	by := "before any rule is asked"
	switch {
	case o.Rule != nil:
		by = fmt.Sprintf("by rule %q, %s", ref.Name, ref.Place)
		if o.Rule.Essential {
			by = fmt.Sprintf("by the essential rule %q", ref.Name)
		}
	case ref != nil:
		by = fmt.Sprintf("because no rule matches, and the policy block discards %s", ways[dir])
		if o.Verdict == engine.Bypass {
			by = fmt.Sprintf("because no rule matches, and the policy block lets %s pass", ways[dir])
		}
	}
	if o.Result.Established && ref != nil {
		by += ", which let " + openers[dir]
	}
	a.printf("%s %s\n", a.paint(bold, a.verdict(o.Verdict)), by)
	if o.Rule != nil && o.Rule.Description != "" {
		a.printf("  %s\n", o.Rule.Description)
	}
	a.printf("\n")
	a.explainSteps(p, x, all)
	a.printf("This packet: %s.\nThe answer:  %s.\n", x.Fate, x.Reply)
}

// openers say who has opened a flow whose first packet went in a direction.
var openers = [...]string{engine.In: "the other side open the flow", engine.Out: "this host open the flow", engine.Forward: "the flow open"}

// ways name a direction's traffic in a sentence.
var ways = [...]string{engine.In: "inbound traffic", engine.Out: "outbound traffic", engine.Forward: "forwarded traffic"}

// explainSteps lists the rules that were asked. The essential ones that did
// not match are one line, unless all are wanted.
func (a *app) explainSteps(p *engine.Policy, x *engine.Explanation, all bool) {
	if len(x.Steps) == 0 {
		return
	}
	w := a.table()
	hidden := 0
	for _, s := range x.Steps {
		r := &p.Rules[s.Rule]
		switch {
		case !all && r.Essential && !s.Matched:
			hidden++
			continue
		case s.Matched:
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", "=>", r.Name, r.Place, s.Why)
		default:
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", "no", r.Name, r.Place, s.Why)
		}
	}
	if hidden > 0 {
		a.printf("  %s\n", a.paint(dim, plural(uint64(hidden), "essential rule")+" in front: no match (--all shows them)"))
	}
	a.flushTable(w)
	a.printf("\n")
}

// otherPorts says for which ports the answer is another one.
func otherPorts(t engine.Trial, p *rules.Policy) ([]portCase, error) {
	found, err := t.OtherPorts(p.DryRun(engine.Options{}))
	var out []portCase
	for _, c := range found {
		x := portCase{End: "destination", Ports: c.Ports.String(), Verdict: c.Result.Verdict.String(), Rule: decider(&p.Engine, c.Result.Rule, t.Dir)}
		if c.Source {
			x.End = "source"
		}
		out = append(out, x)
	}
	return out, err
}

// printOtherPorts says what stands for a port that was left open, and with which
// the answer is another.
func (a *app) printOtherPorts(t *engine.Trial, others []portCase) {
	for _, end := range []string{"source", "destination"} {
		if end == "source" && !t.AnySource || end == "destination" && !t.AnyDestination {
			continue
		}
		var words []string
		for _, c := range others {
			if c.End == end {
				words = append(words, fmt.Sprintf("with %s it is %s by %s", c.Ports, c.Verdict, c.Rule.Name))
			}
		}
		text := "with every other the answer is the same"
		if words != nil {
			text = strings.Join(words, ", ")
		}
		a.printf("Any %s port: %d stands for it; %s.\n", end, engine.AnyPort, text)
	}
}
