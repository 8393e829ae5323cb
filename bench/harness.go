package main

import (
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

// failure is what Fatalf throws and attempt catches.
type failure struct{ text string }

// attempt does f with a laboratory of its own, and removes all that f made,
// whatever its end.
func attempt(f func(h *harness)) (err error) {
	h := new(harness)
	defer func() {
		r := recover()
		for len(h.cleanups) > 0 {
			last := len(h.cleanups) - 1
			clean := h.cleanups[last]
			h.cleanups = h.cleanups[:last]
			clean()
		}
		switch r := r.(type) {
		case nil:
		case failure:
			err = fmt.Errorf("%s", r.text)
		default:
			panic(r)
		}
	}()
	f(h)
	return nil
}

func (h *harness) Helper()          {}
func (h *harness) Cleanup(f func()) { h.cleanups = append(h.cleanups, f) }

func (h *harness) Fatalf(format string, args ...any) {
	panic(failure{fmt.Sprintf(format, args...)})
}

func (h *harness) Fatal(args ...any)                { h.Fatalf("%s", fmt.Sprint(args...)) }
func (h *harness) Skipf(format string, args ...any) { h.Fatalf(format, args...) }

// check ends the part of the run if there is an error.
func (h *harness) check(err error, what string) {
	if err != nil {
		h.Fatalf("%s: %v", what, err)
	}
}

// TempDir makes a folder that is removed with the laboratory.
func (h *harness) TempDir() string {
	dir, err := os.MkdirTemp("", "ipfw-bench-")
	h.check(err, "temporary folder")
	h.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
