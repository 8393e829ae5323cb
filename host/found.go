package host

import (
	"fmt"
	"sort"
	"strings"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/nfq"
)

// tellFound says what becomes of the TCP connections that were there at the start.
func (d *daemon) tellFound() {
	list := d.firewall.Found()
	found := findDevices()
	defer found.close()
	if m := d.fates(list, found, d.o.SSHConnection); m != "" {
		d.ring.add(&Event{Kind: KindConnections, Message: m})
	}
}

// fates counts what becomes of connections: what goes on, what does so under an SA
// alone, and what is cut, by what decides it. ssh is $SSH_CONNECTION. Nothing is
// said if there are none.
func (d *daemon) fates(list []nfq.Connection, found *devices, ssh string) string {
	p := d.engine.Policy()
	all, goOn, unknown := 0, 0, 0
	sealed, cut := map[string]int{}, map[string]int{}
	own := ""
	for _, c := range list {
		if found.loopback(c) {
			continue
		}
		all++
		if c.Opener == engine.OpenedByEither {
			unknown++
			continue
		}
		in := opening(c, found.of(c)[0])
		r := d.engine.Ask(&in)
		by := "by " + engine.DefaultName(in.Dir)
		if rule := ruleAt(p, r.Rule); rule != nil {
			by = fmt.Sprintf("by rule %q", rule.Name)
		}
		switch r.Verdict {
		case engine.Bypass:
			goOn++
			continue
		case engine.Protect:
			sealed[by]++
		default:
			cut[by]++
		}
		if isSSH(ssh, c) {
			own = "; your own ssh session does not go on as it is"
		}
	}
	if all == 0 {
		return ""
	}
	m := fmt.Sprintf("found %s: %s", counted(all, "connection"), verbs(goOn, "goes on", "go on"))
	m += parts(sealed, "goes on under its SA alone", "go on under their SAs alone")
	m += parts(cut, "is cut", "are cut")
	if unknown > 0 {
		m += fmt.Sprintf(", of %d the kernel does not tell who opened it", unknown)
	}
	return m + own
}

// parts counts connections by what decides, most first.
func parts(by map[string]int, one, many string) string {
	names := make([]string, 0, len(by))
	total := 0
	for name, n := range by {
		names = append(names, name)
		total += n
	}
	if total == 0 {
		return ""
	}
	sort.Slice(names, func(i, j int) bool {
		if by[names[i]] != by[names[j]] {
			return by[names[i]] > by[names[j]]
		}
		return names[i] < names[j]
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%d %s", by[name], name)
	}
	return fmt.Sprintf(", %s (%s)", verbs(total, one, many), strings.Join(names, ", "))
}

func verbs(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func counted(n int, what string) string { return verbs(n, what, what+"s") }

// isSSH says whether a connection is the one that $SSH_CONNECTION tells of.
func isSSH(ssh string, c nfq.Connection) bool {
	own, ok := sshConnection(ssh)
	return ok && own.Remote == c.Remote && own.Local == c.Local
}
