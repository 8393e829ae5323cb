package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ipfw/ipfw/host"
)

// defaultPolicy is what the daemon runs unless told otherwise.
const defaultPolicy = "/etc/ipfw/ipfw.hcl"

func newRunCmd(a *app) *cobra.Command {
	o := host.Options{Version: version(), Stdin: a.stdin}
	var logFormat string
	c := &cobra.Command{
		Use:   "run [-c PATH]...",
		Short: "Enforce a policy on this host, in the foreground",
		Long: `Enforce a policy on this host until it is told to stop.

SIGHUP or 'ipfw reload' reads the policy again; if it is not good, the old one
stays. The SIGHUP of a terminal that goes away changes nothing: the daemon goes on
without it, as it does when nobody reads its log any more. SIGINT and SIGTERM stop it and remove its table, so that nothing is
filtered any more, unless --stay-shut is given. A daemon that is killed leaves
its table behind: nothing new gets in until the next one starts, unless the
policy says on_failure = "open".

A policy that is not good changes nothing. Once it is good, a host that has no
table of ipfw is shut for all but loopback until the daemon runs, and stays so
if it cannot start; the error says why, and 'ipfw open' is the way back. With
--confirm, or on_failure = "open", a start that fails shuts nothing.

TCP connections that are there at the start are judged by who has opened them;
the log says how many go on and how many are cut. A policy that would cut the
session that you start it from, over ssh or otherwise, is refused before it
changes anything, unless --confirm or --force is given.

The first time on a host that you reach over the network, keep a way back:

    ipfw run -c PATH --confirm 60s

goes away again after a minute unless you say 'ipfw confirm'. Say it from a
new connection: that proves that you can still get in.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Confirm < 0 {
				return usagef("--confirm wants a time that is not negative, such as 60s")
			}
			log, err := a.logger(logFormat)
			if err != nil {
				return err
			}
			if err := needNetAdmin("it talks to the kernel's packet filter"); err != nil {
				return err
			}
			if a.lockMemory != nil {
				if err := a.lockMemory(); err != nil {
					log.Info("memory is not locked, and keys may be swapped out: that takes CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK", slog.Any("error", err))
				}
			}
			ctx, stop := a.signals(cmd.Context())
			defer stop()
			// Whoever reads the log may go away, as at the other end of ssh. That
			// must not end the daemon.
			signal.Ignore(syscall.SIGPIPE)
			reload, done := hangups(ctx, hasTerminal, log)
			defer done()
			o.Logger, o.Reload, o.SSHConnection = log, reload, host.FindSSH(a.getenv)
			o.OnReady = func(s host.Status) {
				if s.Unconfirmed != nil {
					a.warnf("%s", confirmHint(s.Unconfirmed))
				}
			}
			o.Cores = runtime.GOMAXPROCS(0)
			runtime.GOMAXPROCS(2 * o.Cores)
			o.LimitMemory = a.getenv("GOMEMLIMIT") == ""
			err = host.Run(ctx, o)
			var bad *host.PolicyError
			if errors.As(err, &bad) && bad.Diagnostics.Len() > 0 {
				bad.Diagnostics.WriteText(a.stderr, 0, false)
				return errors.New(bad.Message)
			}
			return err
		},
	}
	f := c.Flags()
	f.StringArrayVarP(&o.Paths, "config", "c", []string{defaultPolicy}, "policy: a file, a folder, - or profile:NAME; may be given again")
	c.RegisterFlagCompletionFunc("config", completePolicy)
	socketFlag(c, &o.Socket)
	f.BoolVar(&o.StayShut, "stay-shut", false, "leave the table when stopping: nothing new gets in")
	f.StringVar(&o.StateDir, "state", host.DefaultStateDir, "folder for what must outlive the daemon; empty: nothing is kept")
	f.DurationVar(&o.Confirm, "confirm", 0, "stop and remove the table unless 'ipfw confirm' comes within this time")
	f.BoolVar(&o.Force, "force", false, "start even if the policy cuts the session you start it from")
	f.StringVar(&logFormat, "log-format", "text", "how to log on the standard error: text or json")
	c.RegisterFlagCompletionFunc("log-format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// hangups gives the SIGHUPs that ask for a reload: all but the one that says
// that the terminal the daemon was started from is gone.
func hangups(ctx context.Context, terminal func() bool, log *slog.Logger) (<-chan os.Signal, func()) {
	in, out := make(chan os.Signal, 1), make(chan os.Signal)
	signal.Notify(in, syscall.SIGHUP)
	had := terminal()
	go func() {
		for {
			select {
			case s := <-in:
				if had && !terminal() {
					had = false
					log.Warn("the terminal is gone: ipfw goes on without it, with the policy in force; SIGHUP asks for a reload from now on")
					continue
				}
				select {
				case out <- s:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, func() { signal.Stop(in) }
}

// hasTerminal says whether this process has a controlling terminal. The kernel
// takes it away before it says so by SIGHUP.
func hasTerminal() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// logger logs to the standard error. The journal keeps the time itself.
func (a *app) logger(format string) (*slog.Logger, error) {
	o := &slog.HandlerOptions{ReplaceAttr: func(groups []string, at slog.Attr) slog.Attr {
		if at.Key == slog.TimeKey && len(groups) == 0 && a.getenv("JOURNAL_STREAM") != "" {
			return slog.Attr{}
		}
		return at
	}}
	switch format {
	case "text":
		if a.stderrTTY {
			return slog.New(newPlainHandler(a.stderr)), nil
		}
		return slog.New(slog.NewTextHandler(a.stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.stderr, o)), nil
	}
	return nil, usagef("--log-format is text or json, not %q", format)
}

// needNetAdmin refuses early and in one sentence what would fail late.
func needNetAdmin(why string) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err == nil && data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0 {
		return nil
	}
	return fmt.Errorf("this needs root (CAP_NET_ADMIN), because %s: start it with sudo", why)
}

func newReloadCmd(a *app) *cobra.Command {
	var socket string
	var confirm time.Duration
	var asJSON, force bool
	c := &cobra.Command{
		Use:   "reload",
		Short: "Make the daemon read its policy again, and tell what has changed",
		Long: `Make the daemon read its policy again, and tell what has changed. If it is not
good, the old one stays and this says why. Flows that the new policy no longer
allows are cut; the others go on.

A policy that would cut the session that you say this from is refused, unless
--confirm or --force is given. The session is what this program and those above
it have open, or what has begun its login: ssh, mosh, a web console, an agent.

With --confirm, the old policy comes back unless 'ipfw confirm' comes in time.

This waits for as long as the daemon is at it. Ctrl-C ends the waiting, not the
reload.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if confirm < 0 {
				return usagef("--confirm wants a time that is not negative, such as 60s")
			}
			client := a.client(socket)
			defer client.Close()
			r, err := client.Reload(cmd.Context(), host.ReloadRequest{
				Confirm: confirm.Seconds(), SSHConnection: host.FindSSH(a.getenv), Force: force})
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(r)
			}
			a.printReload(&r)
			return nil
		},
	}
	socketFlag(c, &socket)
	c.Flags().BoolVar(&force, "force", false, "reload even if it cuts the session you say this from")
	c.Flags().DurationVar(&confirm, "confirm", 0, "bring the old policy back unless 'ipfw confirm' comes within this time")
	jsonFlag(c, &asJSON)
	return c
}

// reloadFlows is how many flows a reload shows one by one.
const reloadFlows = 10

func (a *app) printReload(r *host.ReloadResult) {
	for _, w := range r.Warnings {
		a.warnf("%s", w)
	}
	a.printf("The policy of %s is in force (generation %d): %s and %s.\n", strings.Join(r.Paths, " "), r.Generation,
		plural(uint64(r.Rules), "rule"), plural(uint64(r.Essential), "essential one"))
	a.printf("%s.\n", upperFirst(r.Changes.String()))
	a.printf("%s\n", upperFirst(r.Flows.String())+endOf(r.Flows.List))
	for i, f := range r.Flows.List {
		if left := r.Flows.Cut + r.Flows.Sealed + r.Flows.Cleared - i; i == reloadFlows && left > 1 {
			a.printf("  and %s more\n", count(uint64(left)))
			break
		}
		a.printf("  %s\n", f)
	}
	for _, s := range r.OwnSessions {
		a.warnf("your own session is cut: %s", s)
	}
	if r.Unconfirmed != nil {
		a.printf("%s\n", confirmHint(r.Unconfirmed))
	}
}

// endOf is what a sentence ends with before a list.
func endOf[T any](list []T) string {
	if len(list) == 0 {
		return "."
	}
	return ":"
}

// upperFirst makes the start of a sentence.
func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func newConfirmCmd(a *app) *cobra.Command {
	var socket string
	var asJSON bool
	c := &cobra.Command{
		Use:   "confirm",
		Short: "Keep the policy that 'run' or 'reload' --confirm put in force",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := a.client(socket)
			defer client.Close()
			r, err := client.Confirm(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(r)
			}
			a.printf("Confirmed: the policy stays (generation %d).\n", r.Generation)
			return nil
		},
	}
	socketFlag(c, &socket)
	jsonFlag(c, &asJSON)
	return c
}

// confirmHint says what has to be done, until when, and what happens else.
func confirmHint(u *host.Unconfirmed) string {
	return fmt.Sprintf("Say 'ipfw confirm' before %s, best from a new connection; else %s.",
		u.Until.Local().Format(time.TimeOnly), u.Back)
}

func socketFlag(c *cobra.Command, socket *string) {
	c.Flags().StringVar(socket, "socket", host.DefaultSocket, "the daemon's control socket")
}

func jsonFlag(c *cobra.Command, asJSON *bool) {
	c.Flags().BoolVar(asJSON, "json", false, "print JSON, one stable schema")
}
