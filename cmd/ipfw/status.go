package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/host"
)

func newStatusCmd(a *app) *cobra.Command {
	var socket string
	var asJSON, all bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what the daemon enforces and what it has counted",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := a.client(socket)
			defer client.Close()
			s, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(s)
			}
			a.printStatus(&s, all)
			return nil
		},
	}
	socketFlag(c, &socket)
	jsonFlag(c, &asJSON)
	c.Flags().BoolVarP(&all, "all", "a", false, "show the essential rules too")
	return c
}

func (a *app) printStatus(s *host.Status, all bool) {
	p := &s.Policy
	a.printf("%s, process %d, running for %s\n", a.paint(bold, "ipfw enforces "+strings.Join(p.Paths, " ")), s.PID, age(s.Uptime))
	a.printf("generation %d, loaded %s; %s\n", p.Generation, p.Loaded.Local().Format(time.DateTime), plural(uint64(s.Flows), "flow"))
	if at := p.RolledBack; at != nil {
		a.printf("%s\n", a.paint(yellow, fmt.Sprintf("nobody confirmed the policy after it, so it came back at %s; %s may still hold the other one, which the next reload or start puts in force",
			at.Local().Format(time.TimeOnly), strings.Join(p.Paths, " "))))
	}
	if s.Reloading > 0 {
		a.printf("%s\n", a.paint(yellow, "a reload has been under way for "+age(s.Reloading)))
	}
	if s.StayShut {
		a.printf("when it stops, its table stays and nothing new gets in\n")
	}
	if s.Unconfirmed != nil {
		a.printf("%s\n", a.paint(yellow, confirmHint(s.Unconfirmed)))
	}
	for _, w := range p.Warnings {
		a.printf("%s\n", a.paint(yellow, w.String()))
	}

	t := textTable{head: []string{"RULE", "ACTION", "FLOWS", "PACKETS", "BYTES", "PLACE"}, right: "  111 "}
	for _, r := range s.Rules {
		if r.Essential && !all {
			continue
		}
		action := r.Action
		if r.Audit {
			action = "audit"
		}
		t.add(verdictStyleOf(action), r.Name, action, count(r.Flows), count(r.Packets), size(r.Bytes), r.Place)
	}
	for _, dir := range []string{"in", "out", "forward"} {
		d := s.Defaults[dir]
		t.add(verdictStyleOf(d.Action), engine.DefaultNameOf(dir), d.Action, "", count(d.Packets), size(d.Bytes), "")
	}
	a.printf("\n")
	t.print(a, 1)

	a.printProtected(s)
	a.printf("\nPackets by reason\n")
	t = textTable{right: " 1"}
	for _, name := range slices.Sorted(maps.Keys(s.Reasons)) {
		if n := s.Reasons[name]; n > 0 && !isProtectReason(name) {
			t.add("", "  "+name, count(n))
		}
	}
	if len(t.rows) == 0 {
		t.add("", "  none yet", "")
	}
	t.print(a, -1)
	if len(s.Sources) > 0 {
		var list []string
		for _, x := range s.Sources {
			list = append(list, fmt.Sprintf("%s (%s)", x.Source, count(x.Packets)))
		}
		a.printf("\nMost discarded packets come from: %s\n", strings.Join(list, ", "))
	}
	a.printf("\n%s\n", queueLine(&s.Queue))
	if e := s.Events; e.Lost+e.Suppressed+e.Unlogged > 0 {
		a.printf("events: %d written, %d lost by slow readers, %d malformed packets without one, %d over the log rate\n",
			e.Written, e.Lost, e.Suppressed, e.Unlogged)
	}
}

// verdictStyleOf is the colour of an action's word.
func verdictStyleOf(action string) style {
	for _, v := range []engine.Verdict{engine.Discard, engine.Bypass, engine.Protect} {
		if v.String() == action {
			return verdictStyle(v)
		}
	}
	return yellow
}

// textTable is text in columns. right has a 1 for each column whose numbers stand
// at the right edge.
type textTable struct {
	head   []string
	right  string
	rows   [][]string
	styles []style
}

func (t *textTable) add(s style, cells ...string) {
	t.rows, t.styles = append(t.rows, cells), append(t.styles, s)
}

// print writes the table, with the colour of each row in the column painted.
func (t *textTable) print(a *app, painted int) {
	var widths []int
	for _, row := range append(t.rows[:len(t.rows):len(t.rows)], t.head) {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	line := func(row []string, paint func(i int, cell string) string) {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-len([]rune(cell)))
			if i > 0 {
				b.WriteString("  ")
			}
			if i < len(t.right) && t.right[i] == '1' {
				b.WriteString(pad + paint(i, cell))
			} else {
				b.WriteString(paint(i, cell) + pad)
			}
		}
		a.printf("%s\n", strings.TrimRight(b.String(), " "))
	}
	if t.head != nil {
		line(t.head, func(_ int, cell string) string { return a.paint(bold, cell) })
	}
	for r, row := range t.rows {
		line(row, func(i int, cell string) string {
			if i == painted && t.styles[r] != "" && cell != "" {
				return a.paint(t.styles[r], cell)
			}
			return cell
		})
	}
}

// count gives a number with its thousands apart.
func count(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size gives bytes with at most four digits and a binary unit.
func size(n uint64) string {
	if n < 10000 {
		return fmt.Sprintf("%d B", n)
	}
	f, units := float64(n)/1024, "KMGTPE"
	for f >= 9999.5/10 && len(units) > 1 {
		f, units = f/1024, units[1:]
	}
	return fmt.Sprintf("%.1f %ciB", f, units[0])
}

// age gives seconds in the two largest units that matter.
func age(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm %ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh %dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd %dh", int(d.Hours())/24, int(d.Hours())%24)
}

// kernelLine says which kernel this is, and which of its ways ipfw uses.
func kernelLine(q *host.QueueStatus) string {
	s := "Linux " + q.Kernel + ": packets come up by the nftables queue expression"
	if q.UpBy == "NFQUEUE" {
		s = "Linux " + q.Kernel + ": packets come up by the xtables target NFQUEUE"
	}
	switch q.ESPBy {
	case "hook":
		s += ", native ESP by a BPF program on a netfilter hook"
	case "rule":
		s += ", native ESP by a BPF program that a rule calls"
	case "queue":
		s += ", native ESP packet by packet"
	}
	if q.TableOwned {
		return s + "; the table is ipfw's own"
	}
	return s + "; the table is put back when somebody changes it"
}

// queueLine says how the kernel's side does.
func queueLine(q *host.QueueStatus) string {
	s := fmt.Sprintf("queue %d", q.First)
	if q.Queues > 1 {
		s = fmt.Sprintf("queues %d-%d", q.First, int(q.First)+q.Queues-1)
	}
	s = fmt.Sprintf("%s: %s packets judged, %s dropped because the queue was full; without a daemon: %s",
		s, count(q.Packets), count(q.QueueDropped+q.SocketDropped), q.OnFailure)
	if q.Kernel != "" {
		s += "\n" + kernelLine(q)
	}
	if q.PortTaken != "" {
		s += "\nESP in UDP and IKE go packet by packet: " + q.PortTaken
	}
	if len(q.Flowtables) > 0 {
		switch list := strings.Join(q.Flowtables, ", "); {
		case q.NotApart != "":
			s += "\nPROTECTED TRAFFIC MAY LEAVE IN THE CLEAR by flowtables of others: " + list + "; remove them, or what they add (flow add): " + q.NotApart
		case q.Apart:
			s += "\nFlowtables of others carry flows past this policy that were in them before it protected: " + list + "; they get no new ones"
		default:
			s += "\nFlowtables of others carry flows past this policy: " + list
		}
	}
	if q.TableRenewed+q.TableNotRenewed > 0 {
		by := ""
		if q.TableChangedBy != "" {
			by = " (last: " + q.TableChangedBy + ")"
		}
		s += fmt.Sprintf("\nSomebody else has changed the nftables table%s: it was put back %s, and %s that failed", by,
			plural(q.TableRenewed, "time"), plural(q.TableNotRenewed, "time"))
	}
	return s
}
