package main

import (
	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/host"
	"github.com/ipfw/ipfw/rules"
)

// load reads the policy that the paths name. When it is broken, the error is a
// *policyError.
func (a *app) load(paths []string) (*rules.Policy, error) {
	p, diags := rules.Load(paths, rules.LoadOptions{Stdin: a.stdin, Check: host.Check})
	if diags.HasErrors() {
		return nil, &policyError{diags}
	}
	return p, nil
}

// diagnose prints errors and warnings for people.
func (a *app) diagnose(d rules.Diagnostics) {
	const width = 100 // columns; the lines of the policy are never broken
	color := a.stderrTTY && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
	d.WriteText(a.stderr, width, color)
}

// policyFlag gives a command its -c; it may stand several times.
func policyFlag(cmd *cobra.Command, paths *[]string) {
	pathsFlag(cmd, paths)
	cmd.Flag("config").Usage += " (required)"
	cmd.MarkFlagRequired("config")
}

// pathsFlag is policyFlag for a command that can do without.
func pathsFlag(cmd *cobra.Command, paths *[]string) {
	cmd.Flags().StringArrayVarP(paths, "config", "c", nil, `policy: file, folder, "-" or profile:NAME`)
	cmd.RegisterFlagCompletionFunc("config", completePolicy)
}

// ruleNames tells rules and defaults to people and programs.
type ruleRef struct {
	Name  string `json:"name"`
	Place string `json:"place,omitempty"`
}

// decider names what decided: a rule, or the default for a direction, or nil
// when no rule was asked.
func decider(p *engine.Policy, rule int32, d engine.Direction) *ruleRef {
	switch {
	case rule >= 0:
		return &ruleRef{p.Rules[rule].Name, p.Rules[rule].Place}
	case rule == engine.DefaultRule:
		return &ruleRef{Name: engine.DefaultName(d)}
	}
	return nil
}
