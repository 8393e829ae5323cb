package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/host"
	"github.com/ipfw/ipfw/rules"
)

const demoFolderPrefix = "ipfw-demo-"

// demoFolder makes the folder for the daemon's socket, and removes those of
// demos whose process is gone.
func demoFolder() (string, error) {
	old, _ := filepath.Glob(filepath.Join(os.TempDir(), demoFolderPrefix+"*"))
	for _, dir := range old {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), demoFolderPrefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && n > 0 && errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
			os.RemoveAll(dir)
		}
	}
	return os.MkdirTemp("", fmt.Sprintf("%s%d-", demoFolderPrefix, os.Getpid()))
}

// demoDaemon is the real daemon: this binary once more, in a namespace.
type demoDaemon struct {
	cmd    *exec.Cmd
	client *host.Client
	output bytes.Buffer // what it wrote; read it only after exited
	exited chan error
	status host.Status // when it was ready
	ns     *namespace
}

// startDaemon starts the daemon with a policy and waits until it judges packets.
func startDaemon(ctx context.Context, n *namespace, policy, socket string) (*demoDaemon, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	d := &demoDaemon{client: host.NewClient(socket), exited: make(chan error, 1), ns: n}
	d.cmd = exec.Command(self, "run", "--force", "-c", policy, "--socket", socket, "--state", "")
	d.cmd.Stdout, d.cmd.Stderr = &d.output, &d.output
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET=")
	d.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,            // Ctrl-C is for the demo, which stops it in its turn
		Pdeathsig: syscall.SIGKILL, // it must not outlive a demo that is killed
	}
	// A child gets the namespace of the thread that starts it.
	if err := n.do(d.cmd.Start); err != nil {
		return nil, fmt.Errorf("cannot start the daemon: %w", err)
	}
	go func() { d.exited <- d.cmd.Wait() }()

	ready, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	for {
		if d.status, err = d.client.Status(ready); err == nil {
			return d, nil
		}
		select {
		case <-d.exited:
			return nil, fmt.Errorf("the daemon did not start: %s", lastLine(d.output.String()))
		case <-ready.Done():
			d.stop()
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("the daemon was not ready after %v: %s", demoPatience, lastLine(d.output.String()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop stops the daemon as an administrator would, or else kills it.
func (d *demoDaemon) stop() {
	d.client.Close()
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(5 * time.Second):
		d.cmd.Process.Kill()
		<-d.exited
	}
}

// lastLine gives what a program that failed said last.
func lastLine(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return strings.TrimPrefix(lines[len(lines)-1], "ipfw: ")
}

// dryRun is what `ipfw explain` would say: the same policy, no kernel.
type dryRun struct {
	engine *engine.Engine
	// admins are addresses that the policy lets in by ssh and a stranger's
	// is not among: one of each family, if there are.
	admins []netip.Addr
}

func newDryRun() (*dryRun, error) {
	p, diags := rules.Load([]string{demoPolicy}, rules.LoadOptions{})
	if p == nil || diags.HasErrors() {
		return nil, fmt.Errorf("%s: %w", demoPolicy, diags.Err())
	}
	d := &dryRun{engine: p.DryRun(engine.Options{})}
	for _, v6 := range []bool{false, true} {
		if a := sshAdmin(&p.Engine, v6); a.IsValid() {
			d.admins = append(d.admins, a)
		}
	}
	return d, nil
}

// sshAdmin finds an address that a rule for ssh names, the zero Addr if none.
func sshAdmin(p *engine.Policy, v6 bool) netip.Addr {
	for i := range p.Rules {
		r := &p.Rules[i]
		if !r.In || r.Action != engine.Bypass || r.Audit || len(r.LocalPorts) != 1 || r.LocalPorts[0] != (engine.PortRange{First: 22, Last: 22}) {
			continue
		}
		for _, a := range r.Remote {
			if a.First.Is6() != v6 {
				continue
			}
			if next := a.First.Next(); next.IsValid() && next.Compare(a.Last) < 0 {
				return next // the first of a network is nobody's
			}
			return a.First
		}
	}
	return netip.Addr{}
}

// expect fills in what the dry run says of a probe.
func (d *dryRun) expect(p *probe) error {
	t, err := engine.ParseTrial(p.Packet)
	if err != nil {
		return err
	}
	o, err := t.Run(d.engine)
	if err != nil {
		return err
	}
	p.Expected = o.Verdict.String()
	if o.Rule != nil {
		p.Rule, p.Place = o.Rule.Name, o.Rule.Place
	}
	return nil
}
