package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The agent is the test binary once more, started by a guest's first program:
// it reads one request a line from the serial line and answers each in a line.

const (
	// AgentVariable is an environment variable that makes a test binary an agent
	// and names its device, or is the number of an open file; it is set for the
	// agent only.
	AgentVariable = "IPFW_LAB_AGENT"
	agentHello    = "agent"
)

// agentRequest is one thing to do.
type agentRequest struct {
	Op       string // run, stream, start, tool, read, serve, transfer, encapsulate
	Args     []string
	Dir      string   // where a command runs; "": where the agent does
	Env      []string // is added to a command's environment
	Input    string
	Port     uint16
	Transfer Transfer
	Limit    time.Duration
}

// agentAnswer is what became of it; with More, a part of what it prints, to be
// followed by others.
type agentAnswer struct {
	Out   string
	More  bool   `json:",omitempty"`
	Error string `json:",omitempty"`
}

// Tools are functions of the test that Guest.Tool runs in the guest, by name.
type Tools map[string]func(args []string) (string, error)

// Agent makes this process a guest's agent if it was started as one: it returns
// true when the line is cut, and why. A TestMain calls it first.
func Agent(tools Tools) (was bool, err error) {
	device := os.Getenv(AgentVariable)
	if device == "" {
		return false, nil
	}
	return true, serveAgent(device, tools)
}

// serveAgent answers requests until the line is cut.
func serveAgent(device string, tools Tools) error {
	var line *os.File
	fd, err := strconv.Atoi(device)
	if err == nil {
		unix.CloseOnExec(fd) // or what the agent starts would keep the line open
		line = os.NewFile(uintptr(fd), "line")
	} else if line, err = os.OpenFile(device, os.O_RDWR, 0); err != nil {
		return err
	}
	answer := func(a agentAnswer) error {
		b, err := json.Marshal(a)
		if err != nil {
			return err
		}
		_, err = line.Write(append(b, '\n'))
		return err
	}
	if err := answer(agentAnswer{Out: agentHello}); err != nil {
		return err
	}
	requests := bufio.NewReaderSize(line, 1<<20)
	for {
		b, err := requests.ReadBytes('\n')
		if err != nil {
			return err
		}
		var q agentRequest
		if err := json.Unmarshal(b, &q); err != nil {
			return fmt.Errorf("%w: %q", err, b)
		}
		out, err := q.do(tools, func(part string) error { return answer(agentAnswer{Out: part, More: true}) })
		a := agentAnswer{Out: out}
		if err != nil {
			a.Error = err.Error()
		}
		if err := answer(a); err != nil {
			return err
		}
	}
}

// do gives what a request prints; a stream's goes to more, part by part.
func (q *agentRequest) do(tools Tools, more partWriter) (string, error) {
	switch q.Op {
	case "run":
		var out bytes.Buffer
		err := q.run(&out)
		return out.String(), err
	case "stream":
		return "", q.run(more)
	case "start":
		return q.start()
	case "tool":
		f := tools[q.Args[0]]
		if f == nil {
			return "", fmt.Errorf("no tool %q", q.Args[0])
		}
		return f(q.Args[1:])
	case "read":
		b, err := os.ReadFile(q.Args[0])
		return string(b), err
	case "serve":
		return "", Serve(q.Port)
	case "transfer":
		return "", q.Transfer.Do()
	case "encapsulate":
		return "", encapsulate(q.Port)
	}
	return "", fmt.Errorf("unknown request %q", q.Op)
}

// partWriter takes parts of a text.
type partWriter func(string) error

func (w partWriter) Write(p []byte) (int, error) { return len(p), w(string(p)) }

func (q *agentRequest) run(out io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), q.Limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, q.Args[0], q.Args[1:]...)
	if q.Input != "" {
		cmd.Stdin = bytes.NewReader([]byte(q.Input))
	}
	cmd.WaitDelay = time.Second
	cmd.Dir, cmd.Env = q.Dir, q.environ()
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if ctx.Err() != nil {
		err = errors.Join(err, fmt.Errorf("took longer than %v", q.Limit))
	}
	return err
}

// environ is the agent's own environment, less what makes it one.
func (q *agentRequest) environ() []string {
	var env []string
	for _, v := range os.Environ() {
		if len(v) < len(AgentVariable) || v[:len(AgentVariable)] != AgentVariable {
			env = append(env, v)
		}
	}
	return append(env, q.Env...)
}

func (q *agentRequest) start() (string, error) {
	f, err := os.CreateTemp("/run", "output-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command(q.Args[0], q.Args[1:]...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.Env = q.environ()
	if err := cmd.Start(); err != nil {
		return "", err
	}
	go func() { _ = cmd.Wait() }()
	return f.Name(), nil
}

// Socket options of linux/udp.h and linux/in.h, linux/in6.h.
const (
	udpEncap         = 100 // UDP_ENCAP
	udpEncapESPinUDP = 2   // UDP_ENCAP_ESPINUDP
	ipXfrmPolicy     = 17  // IP_XFRM_POLICY
	ipv6XfrmPolicy   = 35  // IPV6_XFRM_POLICY
	policyIn         = 0
	policyOut        = 1
)

// encapsulate opens UDP sockets of both families whose packets the kernel
// takes for ESP. They stay open as long as the agent runs. As an IKE daemon
// does, it lets them pass the kernel's own policies.
func encapsulate(port uint16) error {
	for _, family := range []int{syscall.AF_INET, syscall.AF_INET6} {
		fd, err := syscall.Socket(family, syscall.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		var at syscall.Sockaddr = &syscall.SockaddrInet4{Port: int(port)}
		level, option := syscall.IPPROTO_IP, ipXfrmPolicy
		if family == syscall.AF_INET6 {
			at = &syscall.SockaddrInet6{Port: int(port)}
			level, option = syscall.IPPROTO_IPV6, ipv6XfrmPolicy
			if err := syscall.SetsockoptInt(fd, level, syscall.IPV6_V6ONLY, 1); err != nil {
				return err
			}
		}
		for _, dir := range []byte{policyIn, policyOut} {
			// struct xfrm_userpolicy_info of 168 bytes: family of the
			// selector at 40, direction at 160; action 0 allows.
			policy := make([]byte, 168)
			policy[40] = byte(family)
			policy[160] = dir
			if err := syscall.SetsockoptString(fd, level, option, string(policy)); err != nil {
				return fmt.Errorf("xfrm policy of the socket: %w", err)
			}
		}
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_UDP, udpEncap, udpEncapESPinUDP); err != nil {
			return fmt.Errorf("UDP_ENCAP, family %d: %w", family, err)
		}
		if err := syscall.Bind(fd, at); err != nil {
			return err
		}
	}
	return nil
}
