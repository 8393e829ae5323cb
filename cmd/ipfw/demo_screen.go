package main

import (
	"fmt"
	"strings"

	"github.com/ipfw/ipfw/host"
)

// screen shows the demo as it goes, or as JSON lines: one for each probe.
type screen struct {
	*app
	json          bool
	who           string // whose rows these are
	through, shut int
	wrong         int
}

func newScreen(a *app, asJSON bool) *screen { return &screen{app: a, json: asJSON} }

// begin draws the two hosts.
func (s *screen) begin(l *lab, st host.Status) {
	if s.json {
		return
	}
	s.printf("\n  %s\n\n", s.paint(bold, "ipfw demo: "+strings.Join(st.Policy.Paths, " ")+" on real packets"))
	s.printf("   client, a network namespace               server, a network namespace\n")
	box := func(left, cable, right string) { s.printf("  | %-30s %-10s %-30s |\n", left, cable, right) }
	s.printf("  +--------------------------------+        +--------------------------------+\n")
	box("a stranger    "+strangerAddrs[0].String(), "|        |", serverAddrs[0].String())
	box("              "+strangerAddrs[1].String(), "|  veth  |", serverAddrs[1].String())
	box("and administrators", "+--------+", "HTTP on 80, 443, 22 and 5432")
	box("an HTTP client", "|        |", fmt.Sprintf("ipfw run, process %d", st.PID))
	s.printf("  +--------------------------------+        +--------------------------------+\n\n")
	s.printf("  %s.\n\n", kernelLine(&st.Queue))
	if l.noIPv6 != nil {
		s.printf("  %s\n\n", s.paint(yellow, fmt.Sprintf("IPv6 is switched off on this machine (%v): IPv4 only.", l.noIPv6)))
	}
	s.printf("%s", s.paint(bold, fmt.Sprintf(demoRow, "CONNECTION TO", "DRY RUN", "NETWORK", "RULE", "DAEMON")))
}

// demoRow is the columns of a row.
const demoRow = "  %-24s %-9s %-23s %-13s %s\n"

// row shows one probe.
func (s *screen) row(p *probe) {
	if p.Through {
		s.through++
	} else {
		s.shut++
	}
	if len(p.Disagree) > 0 {
		s.wrong++
	}
	if s.json {
		s.printJSON(p)
		return
	}
	if who := fmt.Sprintf("  from %s, %s", p.Who, p.From); who != s.who {
		s.who = who
		s.printf("%s\n", who)
	}
	color := red
	if p.Through {
		color = green
	}
	counted := plural(p.Packets, "packet")
	if p.Flows > 0 {
		counted = plural(p.Flows, "flow") + ", " + counted
	}
	s.printf("%s", fmt.Sprintf(demoRow, "  "+p.To,
		s.paint(verdictStyleOf(p.Expected), p.Expected)+pad(p.Expected, 9),
		s.paint(color, p.Answer)+pad(p.Answer, 14)+fmt.Sprintf("%9s", brief(p.Took)), p.decider(), counted))
	for _, d := range p.Disagree {
		s.printf("    %s\n", s.paint(red, "NO AGREEMENT: "+d))
	}
}

// endWeb sums up the first half.
func (s *screen) endWeb(st host.Status) {
	if s.json {
		return
	}
	s.printf("\n  %s, %s.", s.paint(green, fmt.Sprintf("%d connections got through", s.through)), s.paint(red, fmt.Sprintf("%d did not", s.shut)))
	if s.wrong == 0 {
		s.printf(" Dry run, network and daemon agree on every one.\n")
	} else {
		s.printf(" %s\n", s.paint(red, fmt.Sprintf("They do not agree on %d.", s.wrong)))
	}
	more := ""
	if n := st.Carried; n > 0 {
		more = fmt.Sprintf(", the kernel carried %s more of what it let through", count(n))
	}
	s.printf("  The daemon judged %s packets%s. Each has one reason, none was lost.\n\n", count(st.Queue.Packets), more)
}

// end says how to go on.
func (s *screen) end() {
	if s.json {
		return
	}
	s.printf("  Ask the same policies without root:\n")
	s.printf("    ipfw explain -c %s \"in tcp %s:40000 -> %s:22\"\n", demoPolicy, strangerAddrs[0], serverAddrs[0])
	s.printf("    ipfw explain -c profile:file-server \"in tcp %s:40000 -> %s:%d\"\n\n", keyedAddr, filesAddr, filesPort)
}

// pad gives the blanks that fill text up to a width; colours have none.
func pad(text string, width int) string {
	return strings.Repeat(" ", max(0, width-len([]rune(text))))
}

// brief gives a short time, of so many seconds, in the unit people think in.
func brief(seconds float64) string {
	if seconds < 0.1 {
		return fmt.Sprintf("%.1f ms", seconds*1e3)
	}
	return fmt.Sprintf("%.1f s", seconds)
}

// plural gives "1 packet" or "2 packets".
func plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return count(n) + " " + what + "s"
}
