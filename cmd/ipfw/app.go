package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ipfw/ipfw/host"
)

// app is everything a command may touch of the process around it. Tests fill
// one with buffers; no command reaches for os.Stdout, os.Getenv or os.Exit.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	now            func() time.Time
	euid           int // the effective user

	// shelter and lockMemory keep keys in the memory of this process: see
	// secrets.go. Nil: they may go anywhere.
	shelter, lockMemory func() error

	// left looks for the table where no daemon answers; nil: as host.Client does.
	left func() (host.Left, error)

	// stdoutTTY and stderrTTY say that a person is looking: colour on the
	// first, a progress bar on the second.
	stdoutTTY, stderrTTY bool

	// started says that a command's own code runs; an error before that is
	// an error of usage. Set by root, which wraps every RunE.
	started bool
}

func newApp() *app {
	return &app{
		stdin:  os.Stdin,
		stdout: os.Stdout,
		stderr: os.Stderr,
		getenv: os.Getenv,
		now:    time.Now,
		euid:   os.Geteuid(),

		shelter: shelter, lockMemory: lockMemory,

		stdoutTTY: term.IsTerminal(int(os.Stdout.Fd())),
		stderrTTY: term.IsTerminal(int(os.Stderr.Fd())),
	}
}

// Exit statuses. People's scripts depend on them.
const (
	exitOK      = 0
	exitError   = 1
	exitUsage   = 2
	exitChanges = 2 // a command that compares found a difference
	exitDiscard = 10
	exitProtect = 11
)

// exitStatus is an error that ends the program with a status of its own.
type exitStatus struct {
	code int
	err  error // nil: everything has been said already
}

// Error gives the sentence for the user, or "" when it was printed before.
func (e exitStatus) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

// Unwrap gives the cause.
func (e exitStatus) Unwrap() error { return e.err }

// usagef is an error in how the command was written.
func usagef(format string, args ...any) error {
	return exitStatus{exitUsage, fmt.Errorf(format, args...)}
}

// exitWith ends with a status after the command has said all there is to say.
func exitWith(code int) error { return exitStatus{code: code} }

// secretly has a command take shelter before its own code runs.
func (a *app) secretly(c *cobra.Command) *cobra.Command {
	for _, sub := range c.Commands() {
		a.secretly(sub)
	}
	if run := c.RunE; run != nil {
		c.RunE = func(cmd *cobra.Command, args []string) error {
			if a.shelter != nil {
				if err := a.shelter(); err != nil {
					return err
				}
			}
			return run(cmd, args)
		}
	}
	return c
}

// execute runs one command line and returns the exit status.
func (a *app) execute(args []string) int {
	return a.executeContext(context.Background(), args)
}

func (a *app) executeContext(ctx context.Context, args []string) int {
	a.started = false
	if _, wrapped := a.stdout.(*output); !wrapped {
		a.stdout = &output{w: a.stdout}
	}
	root := newRoot(a)
	root.SetArgs(oneDash(args))
	cmd, err := root.ExecuteContextC(ctx)
	code := exitOK
	var status exitStatus
	switch {
	case a.written() != nil: // whatever else there was to say
		err, code = a.written(), exitError
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		code = status.code
	case a.started:
		code = exitError
	default:
		err, code = unknownCommand(cmd, err), exitUsage
	}
	a.fail(cmd, args, err, code)
	return code
}

// oneDash lets people write `ipfw fmt -check` as they write `gofmt -l`: pflag
// would read it as the five short flags c, h, e, c and k.
func oneDash(args []string) []string {
	if len(args) == 0 || args[0] != "fmt" {
		return args
	}
	out := append([]string(nil), args...)
	for i, arg := range out {
		switch arg {
		case "--":
			return out
		case "-check", "-diff":
			out[i] = "-" + arg
		}
	}
	return out
}

// signals gives a context that ends with SIGINT or SIGTERM, for commands that
// have something to clean up; a second signal then kills in the usual way.
// Commands that own nothing leave the signals alone.
func (a *app) signals(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// printJSON writes v as one line of JSON: a whole answer, or one of a stream.
func (a *app) printJSON(v any) error {
	return encode(a.stdout, v)
}

// client talks to the daemon on a socket, and says when that takes its time.
func (a *app) client(socket string) *host.Client {
	c := host.NewClient(socket)
	c.Slow = func(text string) { a.warnf("%s", text) }
	if a.left != nil {
		c.Left = a.left
	}
	return c
}

// printf writes to the standard output; execute looks whether that went well.
func (a *app) printf(format string, args ...any) {
	fmt.Fprintf(a.stdout, format, args...)
}

// warnf writes one line to the standard error, where scripts do not read.
func (a *app) warnf(format string, args ...any) {
	fmt.Fprintf(a.stderr, "ipfw: "+format+"\n", args...)
}

// warnTry says where the usage of a command stands.
func (a *app) warnTry(cmd *cobra.Command) {
	fmt.Fprintf(a.stderr, "Try '%s --help'.\n", cmd.CommandPath())
}
