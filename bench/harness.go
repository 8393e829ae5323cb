package main

import (
	"errors"
	"fmt"
	"os"
	"testing"
)

// harness is what e2e/lab takes for a test: the laboratory of the end-to-end
// tests serves the benchmark as well. What would fail the test ends the part
// of the run that it belongs to, with a sentence.
type harness struct {
	testing.TB // nil: only what stands below is ever called
	cleanups   []func()
}

// failure is what Fatalf throws and caught catches.
type failure struct{ error }

// errMissing is why a part of the run is skipped: something is not installed.
var errMissing = errors.New("not here")

// caught does f and gives the failure that ended it, if one did.
func caught(f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = r.error
		default:
			panic(r)
		}
	}()
	f()
	return nil
}

// attempt does f with a laboratory of its own, and removes all that f made,
// whatever its end.
func attempt(f func(h *harness)) error {
	h := new(harness)
	defer h.close()
	return caught(func() { f(h) })
}

// close removes what was made, the last first.
func (h *harness) close() {
	for len(h.cleanups) > 0 {
		last := len(h.cleanups) - 1
		clean := h.cleanups[last]
		h.cleanups = h.cleanups[:last]
		clean()
	}
}

func (h *harness) Helper()          {}
func (h *harness) Cleanup(f func()) { h.cleanups = append(h.cleanups, f) }

func (h *harness) Fatalf(format string, args ...any) {
	panic(failure{fmt.Errorf(format, args...)})
}

func (h *harness) Fatal(args ...any) { h.Fatalf("%s", fmt.Sprint(args...)) }
func (h *harness) Skipf(format string, args ...any) {
	h.Fatalf("%w: "+format, append([]any{errMissing}, args...)...)
}

// check ends the part of the run if there is an error.
func (h *harness) check(err error, what string) {
	if err != nil {
		h.Fatalf("%s: %w", what, err)
	}
}

// TempDir makes a folder that is removed with the laboratory.
func (h *harness) TempDir() string {
	dir, err := os.MkdirTemp("", fmt.Sprintf(tempName, os.Getpid()))
	h.check(err, "temporary folder")
	h.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
