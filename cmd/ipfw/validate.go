package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/host"
	"github.com/ipfw/ipfw/rules"
)

// validation is what `ipfw validate --json` prints.
type validation struct {
	OK          bool               `json:"ok"`
	Diagnostics []rules.Diagnostic `json:"diagnostics"`
	Rules       int                `json:"rules"`     // evaluated, essentials included
	Essential   int                `json:"essential"` // of them
	IPsec       int                `json:"ipsec"`
	IKE         int                `json:"ike"`
	Tests       int                `json:"tests"`
	Policy      string             `json:"policy,omitempty"` // with --print
}

func newValidateCmd(a *app) *cobra.Command {
	var show, asJSON bool
	cmd := &cobra.Command{
		Use:   "validate PATH...",
		Short: "Check a policy, and print it as it will be evaluated",
		Long: `Validate reads all PATHs as one policy and reports every error and warning at
once. Warnings (a rule that no packet can reach, an ssh session that would be
cut) do not change the exit status.`,
		Example: `  ipfw validate /etc/ipfw
  ipfw validate --print profile:web-server`,
		Args:              wants(1, 0, `a PATH: a file, a folder, "-" or profile:NAME`),
		ValidArgsFunction: completePolicy,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.validate(args, show, asJSON)
		},
	}
	cmd.Flags().BoolVar(&show, "print", false, "print the whole policy, essential rules included")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) validate(paths []string, show, asJSON bool) error {
	p, diags := rules.Load(paths, rules.LoadOptions{
		Stdin:         a.stdin,
		Check:         host.CheckAll,
		SSHConnection: host.FindSSH(a.getenv),
	})
	var v validation
	v.Diagnostics = diags.All()
	if p != nil {
		v.OK = true
		v.Rules, v.IPsec, v.IKE, v.Tests = len(p.Engine.Rules), len(p.IPsec), len(p.IKE), len(p.Tests)
		for i := range p.Engine.Rules {
			if p.Engine.Rules[i].Essential {
				v.Essential++
			}
		}
		if show {
			v.Policy = string(p.Print())
		}
	}
	if asJSON {
		if err := a.printJSON(v); err != nil {
			return err
		}
	} else {
		a.diagnose(diags)
	}
	switch {
	case !v.OK:
		return exitWith(exitError)
	case asJSON:
	case show:
		a.printf("%s", v.Policy)
	default:
		parts := []string{plural(uint64(v.Rules), "rule") + " (" + plural(uint64(v.Essential), "essential one") + ")"}
		for _, c := range []struct {
			n    int
			noun string
		}{{v.IPsec, "ipsec block"}, {v.IKE, "ike block"}, {v.Tests, "test"}} {
			if c.n > 0 {
				parts = append(parts, plural(uint64(c.n), c.noun))
			}
		}
		a.printf("%s %s: %s\n", a.paint(green, "ok"), strings.Join(paths, " "), strings.Join(parts, ", "))
	}
	return nil
}
