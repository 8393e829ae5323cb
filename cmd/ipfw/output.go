package main

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/host"
	"github.com/ipfw/ipfw/rules"
)

// output is the standard output. It keeps the first error of a write, so that a
// command need not look at each: execute ends with status 1 when there was one.
// What is written after it is thrown away.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(b []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(b)
	if err != nil {
		var call syscall.Errno // the path in an os.PathError is our name for it, and not the user's
		if errors.As(err, &call) {
			err = call
		}
		o.err = &outputError{err}
		return n, o.err
	}
	return n, nil
}

// outputError says that the standard output takes no more.
type outputError struct{ err error }

// Error gives the sentence.
func (e *outputError) Error() string {
	return "the standard output could not be written to its end: " + e.err.Error()
}

// Unwrap gives the cause.
func (e *outputError) Unwrap() error { return e.err }

// written says whether all that was printed could be written. Commands ask that go
// on for as long as somebody reads.
func (a *app) written() error {
	if o, ok := a.stdout.(*output); ok {
		return o.err
	}
	return nil
}

// failure is what every command prints with --json in place of an answer.
type failure struct {
	Error string `json:"error"`
	// Table is what ipfw's table does where no daemon answers: "none", it is not
	// there, and ipfw filters nothing; "shut", nothing new passes; "open", all does that
	// nobody judges; "other", a daemon with another socket has it. Absent: it is not known.
	Table string `json:"table,omitempty"`
	// Diagnostics are those of a policy that is not good.
	Diagnostics []rules.Diagnostic `json:"diagnostics,omitempty"`
}

// policyError is a policy that is not good.
type policyError struct{ diags rules.Diagnostics }

// Error gives every error, one on a line.
func (e *policyError) Error() string {
	if err := e.diags.Err(); err != nil {
		return err.Error()
	}
	return ""
}

// wantsJSON says whether the command line asks for JSON, whether or not it could
// be read.
func wantsJSON(cmd *cobra.Command, args []string) bool {
	if f := cmd.Flags().Lookup("json"); f != nil {
		if f.Changed {
			return f.Value.String() == "true"
		}
		for _, arg := range args { // the flags may not have been read so far
			switch arg {
			case "--":
				return false
			case "--json", "--json=true":
				return true
			}
		}
	}
	return false
}

// fail prints an error: for programs, or for people.
func (a *app) fail(cmd *cobra.Command, args []string, err error, code int) {
	var policy *policyError
	var api *host.APIError
	isPolicy, text := errors.As(err, &policy), strings.TrimRight(err.Error(), "\n")
	if wantsJSON(cmd, args) && a.written() == nil {
		f := failure{Error: text}
		var none *host.NotRunningError
		if errors.As(err, &none) {
			f.Table = none.Table()
		}
		switch {
		case isPolicy:
			f.Error, f.Diagnostics = "the policy is not good", policy.diags.All()
		case errors.As(err, &api):
			f.Error, f.Diagnostics = api.Message, api.Diagnostics
		case text == "":
			return // the answer itself says it
		}
		if a.printJSON(f) == nil {
			return
		}
	}
	switch {
	case isPolicy:
		a.diagnose(policy.diags)
	case text != "":
		a.warnf("%s", text)
		if code == exitUsage {
			a.warnTry(cmd)
		}
	}
}

// encode writes v as a line of JSON.
func encode(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
