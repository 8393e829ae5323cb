package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/rules"
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
	root.AddCommand(newVersionCmd(a))
	root.SetHelpCommand(newHelpCmd())
	root.InitDefaultCompletionCmd()
	root.DisableSuggestions = true // see unknownCommand
	markStart(a, root)
	return root
}

func newVersionCmd(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print what this binary is",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return a.printJSON(versionReport{moduleVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH})
			}
			a.printf("%s\n", version())
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

// versionReport is what `ipfw version --json` prints.
type versionReport struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// newHelpCmd is cobra's help, but for a command that is not there it is an error.
func newHelpCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show how a command is used",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, _, err := cmd.Root().Find(args)
			if err != nil {
				return usagef("%w", unknownCommand(cmd.Root(), err))
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			about, _, err := cmd.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, c := range about.Commands() {
				if c.IsAvailableCommand() {
					names = append(names, c.Name()+"\t"+c.Short)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// others are the words of other firewalls and programs for our commands.
func others() map[string]string {
	return map[string]string{
		"list": "show", "ls": "show", "print": "show", "rules": "show", "dump": "show", "start": "run", "up": "run", "daemon": "run", "enable": "run",
		"restart": "reload", "refresh": "reload", "commit": "confirm", "log": "events", "logs": "events", "monitor": "events",
		"connections": "flows", "conntrack": "flows", "states": "flows", "sa": "sas", "check": "validate", "lint": "validate",
		"format": "fmt", "info": "status", "stats": "status", "trace": "explain", "keys": "pki", "profiles": "profile",
	}
}

// unknownCommand says of a command that cmd has not which one was meant, if that
// is plain. It is never shut or open: whoever follows a hint should not be cut
// off by it, nor open a host.
func unknownCommand(cmd *cobra.Command, err error) error {
	var name string
	if _, scanErr := fmt.Sscanf(err.Error(), "unknown command %q for", &name); scanErr != nil {
		return err
	}
	names := commandNames(cmd)
	if cmd.HasParent() {
		return fmt.Errorf("%s has no command %q: it has %s", cmd.CommandPath(), name, strings.Join(names, ", "))
	}
	meant := others()[name]
	if meant == "" {
		meant = rules.Nearest(name, slices.DeleteFunc(names, func(n string) bool { return n == "shut" || n == "open" }))
	}
	if meant == "" {
		return fmt.Errorf("there is no command %q", name)
	}
	return fmt.Errorf("there is no command %q; did you mean %q?", name, meant)
}

// commandNames are the commands that cmd has.
func commandNames(cmd *cobra.Command) (names []string) {
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return names
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
		a.secretly(newRunCmd(a)), newStatusCmd(a), newShowCmd(a), newFlowsCmd(a), a.secretly(newSAsCmd(a)), newIKECmd(a), newEventsCmd(a), newReloadCmd(a), newConfirmCmd(a), newShutCmd(a), newOpenCmd(a), newDemoCmd(a),
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
			names := strings.Join(commandNames(cmd), ", ")
			if len(args) > 0 {
				return usagef("%s has no command %q: it has %s", cmd.CommandPath(), args[0], names)
			}
			return usagef("%s needs a command: %s", cmd.CommandPath(), names)
		}
	}
}

// version describes this binary: the module version that `go install` or
// `go build` stamped on it.
func version() string {
	return fmt.Sprintf("ipfw %s %s %s/%s", moduleVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func moduleVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// wants says how many arguments a command takes, and what they are. It takes
// least at least, and most at most; most 0: as many as there are.
func wants(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most > 0 && len(args) > most {
			return usagef("%s wants %s, and got %s", cmd.CommandPath(), what, plural(uint64(len(args)), "argument"))
		}
		return nil
	}
}
