package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/rules"
)

func newTestCmd(a *app) *cobra.Command {
	var verbose, asJSON bool
	cmd := &cobra.Command{
		Use:   "test PATH...",
		Short: "Run a policy's own test blocks",
		Long: `Test runs the packets of the policy's test blocks through the evaluator that the
daemon uses, and says for each that went wrong what was expected, what came, and
by which rule. The exit status is 1 when one failed.`,
		Example: `  ipfw test /etc/ipfw
  ipfw test -v profile:web-server`,
		Args:              wants(1, 0, `a PATH: a file, a folder, "-" or profile:NAME`),
		ValidArgsFunction: completePolicy,
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := a.load(args)
			if err != nil {
				return err
			}
			return a.test(p.RunTests(), verbose, asJSON)
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "print what passed as well")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one line for each packet")
	return cmd
}

// testLine is one line of `ipfw test --json`.
type testLine struct {
	rules.TestResult
	Want string `json:"want"`
	Got  string `json:"got"`
}

func (a *app) test(results []rules.TestResult, verbose, asJSON bool) error {
	failed, tests := 0, map[string]bool{}
	for _, r := range results {
		tests[r.Test] = true
		if !r.Pass {
			failed++
		}
		switch {
		case asJSON:
			if err := a.printJSON(testLine{r, r.Want.String(), r.Got.String()}); err != nil {
				return err
			}
		case !r.Pass:
			a.printf("%s  %s: %q: %s: %s\n", a.paint(red, "FAIL"), r.Place, r.Test, r.Packet, r.Why)
		case verbose:
			a.printf("%s    %s: %q: %s: %s\n", a.paint(green, "ok"), r.Place, r.Test, r.Packet, r.Want)
		}
	}
	sum := fmt.Sprintf("%s in %s", plural(uint64(len(results)), "packet"), plural(uint64(len(tests)), "test"))
	switch {
	case failed > 0 && asJSON:
		return exitWith(exitError)
	case failed > 0:
		a.printf("%s  %d of %s failed\n", a.paint(red, "FAIL"), failed, sum)
		return exitWith(exitError)
	case asJSON:
	case len(results) == 0:
		a.printf("%s    no test blocks in this policy\n", a.paint(yellow, "ok"))
	default:
		a.printf("%s    %s\n", a.paint(green, "ok"), sum)
	}
	return nil
}

// wasWere is plural with its verb.
func wasWere(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " was"
	}
	return plural(uint64(n), noun) + " were"
}
