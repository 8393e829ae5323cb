package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Remote is a host with a kernel of its own, as a test has hold of it: by an
// agent in it, over a line. See Agent.
//
// One request at a time; when the line is cut, all fail.
type Remote struct {
	tb    testing.TB
	Name  string
	story func() string // why it does not answer, in a sentence, and the console
	ended chan struct{}

	mu     sync.Mutex // one request at a time
	to     io.Writer
	from   chan agentAnswer
	silent bool // has not answered a request, so what comes may be about that
}

// NewRemote is for whoever boots: requests go to one end of the line and answers
// come from the other. Story says what has become of a host that does not answer.
func NewRemote(t testing.TB, name string, from io.Reader, to io.Writer, story func() string) *Remote {
	r := &Remote{tb: t, Name: name, story: story, ended: make(chan struct{}), to: to, from: make(chan agentAnswer)}
	go r.read(from)
	return r
}

// Line is an agent's line: one end for us, one for the program that has the agent
// or is it.
func Line() (ours net.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "agent")
	defer f.Close()
	theirs = os.NewFile(uintptr(fds[1]), "guest")
	if ours, err = net.FileConn(f); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// read takes answers off the line until it ends.
func (r *Remote) read(from io.Reader) {
	defer close(r.ended)
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var a agentAnswer
		if json.Unmarshal(lines.Bytes(), &a) == nil {
			r.from <- a
		}
	}
}

// Await waits for the agent.
func (r *Remote) Await(limit time.Duration) error {
	var hello agentAnswer
	select {
	case hello = <-r.from:
	case <-r.ended:
	case <-time.After(limit):
	}
	if hello.Out != agentHello {
		return fmt.Errorf("%s did not boot: %s", r.Name, r.story())
	}
	return nil
}

// ask has the agent do one thing, and gives what it says within the limit. Parts
// of what it prints go to more.
func (r *Remote) ask(limit time.Duration, q agentRequest, more func(string)) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.silent {
		return "", fmt.Errorf("%s: %s", r.Name, r.story())
	}
	q.Limit = limit
	b, err := json.Marshal(q)
	if err != nil {
		return "", err
	}
	if _, err := r.to.Write(append(b, '\n')); err != nil {
		return "", fmt.Errorf("%s: %w: %s", r.Name, err, r.story())
	}
	late := time.After(limit + 30*time.Second)
	for {
		select {
		case a := <-r.from:
			switch {
			case a.More:
				more(a.Out)
			case a.Error != "":
				return a.Out, errors.New(a.Error)
			default:
				return a.Out, nil
			}
		case <-r.ended:
			return "", fmt.Errorf("%s: %s", r.Name, r.story())
		case <-late:
			r.silent = true
			return "", fmt.Errorf("%s: %s", r.Name, r.story())
		}
	}
}

// Try runs a command in the guest, as Host.Try does.
func (r *Remote) Try(limit time.Duration, args ...string) (string, error) {
	return r.ask(limit, agentRequest{Op: "run", Args: args}, nil)
}

// Run runs a command in the guest that must succeed.
func (r *Remote) Run(args ...string) string {
	r.tb.Helper()
	out, err := r.Try(Patience, args...)
	if err != nil {
		r.tb.Fatalf("%s: %s: %v\n%s", r.Name, strings.Join(args, " "), err, out)
	}
	return out
}

// Pipe runs a command that gets text to read.
func (r *Remote) Pipe(limit time.Duration, input string, args ...string) (string, error) {
	return r.ask(limit, agentRequest{Op: "run", Args: args, Input: input}, nil)
}

// Stream runs a command in a folder of the guest, with variables ("NAME=value")
// beside those of its environment, and hands on what it prints, on both streams,
// as it comes, in parts of any length.
func (r *Remote) Stream(limit time.Duration, dir string, env []string, part func(string), args ...string) error {
	_, err := r.ask(limit, agentRequest{Op: "stream", Dir: dir, Env: env, Args: args}, part)
	return err
}

// Tool runs one of the test's own functions in the guest; see Agent.
func (r *Remote) Tool(args ...string) (string, error) {
	return r.ask(time.Minute, agentRequest{Op: "tool", Args: args}, nil)
}

// Start starts a command in the background; what it prints goes to a file of
// the guest, whose path it gives. The command ends with the guest.
func (r *Remote) Start(args ...string) (output string) {
	r.tb.Helper()
	out, err := r.ask(time.Minute, agentRequest{Op: "start", Args: args}, nil)
	if err != nil {
		r.tb.Fatalf("%s: %s: %v", r.Name, strings.Join(args, " "), err)
	}
	return out
}

// Serve starts an echo server in the guest; see Serve.
func (r *Remote) Serve(port uint16) {
	r.tb.Helper()
	if _, err := r.ask(time.Minute, agentRequest{Op: "serve", Port: port}, nil); err != nil {
		r.tb.Fatalf("%s: echo server: %v", r.Name, err)
	}
}

// Transfer sends from the guest; see Transfer.
func (r *Remote) Transfer(t Transfer) error {
	_, err := r.ask(t.Limit+10*time.Second, agentRequest{Op: "transfer", Transfer: t}, nil)
	return err
}

// Encapsulate opens the guest's sockets for ESP in UDP on a port.
func (r *Remote) Encapsulate(port uint16) error {
	_, err := r.ask(time.Minute, agentRequest{Op: "encapsulate", Port: port}, nil)
	return err
}

// Read gives a file of the guest, of /proc perhaps.
func (r *Remote) Read(path string) (string, error) {
	return r.ask(time.Minute, agentRequest{Op: "read", Args: []string{path}}, nil)
}
