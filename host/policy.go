package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/ipfw/ipfw/nfq"
	"github.com/ipfw/ipfw/rules"
)

// loaded is one policy that was read whole and found good.
type loaded struct {
	*rules.Policy
	at         time.Time
	generation uint64 // 0 until it is in force
	// decides is the engine.Generation under which the engine has it.
	decides uint32
	// older are the TCP connections from before a start.
	older []nfq.Connection
}

// PolicyError says that a policy is not good, and why.
type PolicyError struct {
	Message     string
	Diagnostics rules.Diagnostics
}

// Error gives the sentence, and each error on a line of its own.
func (e *PolicyError) Error() string {
	if err := e.Diagnostics.Err(); err != nil {
		return e.Message + ":\n" + err.Error()
	}
	return e.Message
}

// loader reads the policy that the options name, again and again.
type loader struct {
	paths []string
	stdin func() ([]byte, error) // reads once, answers always
}

func newLoader(o Options) *loader {
	return &loader{paths: o.Paths, stdin: sync.OnceValues(func() ([]byte, error) {
		if o.Stdin == nil {
			return nil, errors.New("no standard input")
		}
		return io.ReadAll(io.LimitReader(o.Stdin, rules.MaxPolicy+1)) // rules.Load refuses more
	})}
}

// load reads the policy; on error nothing of it is used.
func (l *loader) load(ssh string) (*loaded, *PolicyError) {
	o := rules.LoadOptions{CheckFiles: true, SSHConnection: ssh, Check: Check}
	if list, err := net.Interfaces(); err == nil {
		for _, i := range list {
			o.Interfaces = append(o.Interfaces, i.Name)
		}
	}
	if slices.Contains(l.paths, "-") {
		text, err := l.stdin()
		if err != nil {
			return nil, &PolicyError{Message: fmt.Sprintf("cannot read the policy from standard input: %v", err)}
		}
		o.Stdin = bytes.NewReader(text)
	}
	p, diags := rules.Load(l.paths, o)
	if p == nil || diags.HasErrors() {
		return nil, &PolicyError{Message: "the policy is not good", Diagnostics: diags}
	}
	return &loaded{Policy: p, at: time.Now()}, nil
}
