// Command bench measures ipfw against what a user would pick instead: no
// firewall, nftables, other programs on an NFQUEUE, other encrypting tunnels.
// It makes two hosts in network namespaces, puts one contestant after the
// other between them, again and again in turn, and prints one table of medians
// and ratios; the same as JSON stands in bench/out.
//
//	client ---- contestant ---- server       both on this machine, so that the
//	            (on the server,              processors are shared, and only
//	             or on both)                 ratios mean something
//
// Limits: root and Linux; IPv4; both ends on one machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "role" {
		if err := runRole(context.Background(), os.Args[2:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench role:", err)
			os.Exit(1)
		}
		return
	}
	// SIGPIPE: a table that nobody reads any more must not leave hosts behind.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	o, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err == nil:
		err = run(ctx, o, os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	workloads   []string
	contestants []string
	turns       int
	length      time.Duration
	rules       []int
	out         string
	profile     bool
	before      string // path of another build of ipfw; "": none
	congestion  string // of the TCP streams; "": the machine's own
}

func parse(args []string) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	var only, who, rules string
	var seconds float64
	var quick bool
	f.StringVar(&only, "only", "", "workloads, with commas between (default all: "+strings.Join(workloadNames(), ",")+")")
	f.StringVar(&who, "contestants", "", "contestants, with commas between (default all: "+strings.Join(contestantNames(), ",")+")")
	f.IntVar(&o.turns, "turns", 5, "how often each contestant is measured")
	f.Float64Var(&seconds, "seconds", 3, "length of one measurement")
	f.StringVar(&rules, "rules", "", "numbers of rules in the policy (default 10, or 10000, or both, by workload)")
	f.StringVar(&o.out, "out", "bench/out", "folder for JSON, and for what is downloaded and built")
	f.StringVar(&o.congestion, "congestion", "cubic", "congestion control of the TCP streams: what Linux has unless told otherwise (empty: what this machine has)")
	f.StringVar(&o.before, "before", "", "another build of ipfw: each ipfw contestant is measured with it as well, in the same turns, and set beside this tree's")
	f.BoolVar(&o.profile, "profile", false, "write what the processors were doing to the out folder, by perf")
	f.BoolVar(&quick, "quick", false, "less than three minutes: fewer and shorter turns, and what no bar needs left out")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%q is no option", f.Arg(0))
	}
	set := map[string]bool{}
	f.Visit(func(f *flag.Flag) { set[f.Name] = true })
	if quick && !set["turns"] {
		o.turns = 2
	}
	if quick && !set["seconds"] {
		seconds = 0.6 // iperf3 counts in whole ones, so at least one there
	}
	if quick && only == "" {
		only = strings.Join(slices.DeleteFunc(workloadNames(), func(n string) bool { return n == tcpMany }), ",")
	}
	if quick && who == "" {
		who = strings.Join(slices.DeleteFunc(contestantNames(), func(n string) bool { return n == ipfwChaCha }), ",")
	}
	if o.turns < 1 || seconds < 0.1 || seconds > 600 {
		return o, fmt.Errorf("%d turns of %v seconds: need at least one, of 0.1 to 600 seconds", o.turns, seconds)
	}
	o.length = time.Duration(seconds * float64(time.Second))
	if o.workloads, err = choose("workload", only, workloadNames()); err != nil {
		return o, err
	}
	if o.contestants, err = choose("contestant", who, contestantNames()); err != nil {
		return o, err
	}
	if o.before != "" {
		if err := runs(o.before); err != nil {
			return o, err
		}
		o.contestants = alsoBefore(o.contestants)
	}
	for _, r := range split(rules) {
		n, err := strconv.Atoi(r)
		if err != nil || n < opening || n > 1_000_000 {
			return o, fmt.Errorf("%s rules: need a number from %d to 1000000", r, opening)
		}
		o.rules = append(o.rules, n)
	}
	return o, nil
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// choose gives the named ones in the order of all; all, if none is named.
func choose(what, list string, all []string) ([]string, error) {
	names := split(list)
	if len(names) == 0 {
		return all, nil
	}
	for _, n := range names {
		if !slices.Contains(all, n) {
			return nil, fmt.Errorf("no %s is called %q; there are %s", what, n, strings.Join(all, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(n string) bool { return !slices.Contains(names, n) }), nil
}

func workloadNames() (names []string) {
	for _, w := range workloads {
		names = append(names, w.name)
	}
	return append(names, latency, lookup)
}

// contestantNames are those of all but the builds of -before.
func contestantNames() (names []string) {
	for i := range contestants {
		if !contestants[i].before {
			names = append(names, contestants[i].name)
		}
	}
	return names
}
