package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// The groups in which `ipfw help` shows the commands.
const (
	groupDry  = "dry"
	groupHost = "host"
)

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "ipfw",
		Short: "A host firewall and IPsec gateway with one policy and three verdicts",
		Long: `ipfw gives every packet of this host the verdict of one policy, written in HCL:
bypass, discard, or protect (ESP or AH). Try a policy before you trust it: all
commands but demo and run work without root and touch nothing.

A PATH is a file, a folder of *.hcl files, "-" (standard input) or profile:NAME.
Exit status: 0 fine, 1 an error or a failed test, 2 wrong usage (and "there are
changes" where a command compares).`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetVersionTemplate("{{.Version}}\n")
	root.AddGroup(
		&cobra.Group{ID: groupDry, Title: "Write and try a policy (no root needed):"},
		&cobra.Group{ID: groupHost, Title: "On a host:"},
	)
	for _, c := range dryCommands(a) {
		c.GroupID = groupDry
		root.AddCommand(c)
	}
	for _, c := range hostCommands(a) {
		c.GroupID = groupHost
		root.AddCommand(c)
	}
	markStart(a, root)
	return root
}

// dryCommands need neither root nor a daemon. Those that read a policy read the
// key files in it.
func dryCommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		a.secretly(newValidateCmd(a)), newFmtCmd(a), a.secretly(newTestCmd(a)), a.secretly(newExplainCmd(a)), a.secretly(newReplayCmd(a)),
		newProfileCmd(a), a.secretly(newPKICmd(a)),
	}
}

// hostCommands are the daemon and those that talk to it.
func hostCommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		a.secretly(newRunCmd(a)), newStatusCmd(a), newFlowsCmd(a), a.secretly(newSAsCmd(a)), newIKECmd(a), newEventsCmd(a), newReloadCmd(a), newConfirmCmd(a), newShutCmd(a), newOpenCmd(a), newDemoCmd(a),
	}
}

// markStart makes every command under c note that its own code has begun, and
// makes a bare group of commands (`ipfw profile`) an error of usage.
func markStart(a *app, c *cobra.Command) {
	for _, sub := range c.Commands() {
		markStart(a, sub)
	}
	switch run := c.RunE; {
	case run != nil:
		c.RunE = func(cmd *cobra.Command, args []string) error {
			a.started = true
			return run(cmd, args)
		}
	case c.HasParent() && c.HasSubCommands() && c.Run == nil:
		c.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("%s has no command %q", cmd.CommandPath(), args[0])
			}
			return usagef("%s needs a command", cmd.CommandPath())
		}
	}
}

// version describes this binary: the module version that `go install` or
// `go build` stamped on it.
func version() string {
	v := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v = info.Main.Version
	}
	return fmt.Sprintf("ipfw %s %s %s/%s", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
