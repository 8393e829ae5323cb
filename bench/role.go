package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	nfqueue "github.com/florianl/go-nfqueue/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// roles are what the benchmark's own program does inside a namespace, each
// with the arguments that follow its name.
var roles = map[string]func(ctx context.Context, args []string, out io.Writer) error{
	"go-nfqueue": roleCallback,
	"connect":    roleConnect,
	"request":    roleRequest,
}

// runRole does one role.
func runRole(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 || roles[args[0]] == nil {
		return fmt.Errorf("no such role: %q", args)
	}
	return roles[args[0]](ctx, args[1:], out)
}

// numbers reads arguments that are all numbers.
func numbers(args []string, into ...*int) error {
	if len(args) != len(into) {
		return fmt.Errorf("%d arguments, need %d", len(args), len(into))
	}
	for i, p := range into {
		n, err := strconv.Atoi(args[i])
		if err != nil {
			return err
		}
		*p = n
	}
	return nil
}

// roleCallback (QUEUE) is go-nfqueue as its own documentation shows it: a
// function that is called back for each packet, and a verdict for each. Super-
// packets are taken whole, which is the best that can be done for it.
func roleCallback(ctx context.Context, args []string, out io.Writer) error {
	var queue int
	if err := numbers(args, &queue); err != nil {
		return err
	}
	nf, err := nfqueue.Open(&nfqueue.Config{
		NfQueue:      uint16(queue),
		MaxPacketLen: 0xffff,
		MaxQueueLen:  8192,
		Copymode:     nfqueue.NfQnlCopyPacket,
		Flags:        nfqueue.NfQaCfgFlagGSO,
		AfFamily:     unix.AF_UNSPEC,
	})
	if err != nil {
		return err
	}
	defer nf.Close()
	if err := nf.SetOption(netlink.NoENOBUFS, true); err != nil {
		return err
	}
	failed := make(chan error, 1)
	err = nf.RegisterWithErrorFunc(ctx, func(a nfqueue.Attribute) int {
		if a.PacketID != nil {
			_ = nf.SetVerdict(*a.PacketID, nfqueue.NfAccept)
		}
		return 0
	}, func(err error) int {
		var op *netlink.OpError
		if errors.As(err, &op) && (op.Timeout() || op.Temporary()) {
			return 0
		}
		failed <- err
		return 1
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "ready")
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// requests is what a role that asks a web server tells.
type requests struct {
	Done    int     `json:"done"`
	Failed  int     `json:"failed"`
	Seconds float64 `json:"seconds"`
	// In milliseconds, from the writing of a request, or from when it was due
	// if the one before it was late, to the end of its answer.
	Latencies []float64 `json:"latencies,omitempty"`
}

func (r *requests) print(out io.Writer) error { return json.NewEncoder(out).Encode(r) }

// roleConnect (ADDRESS:PORT MILLISECONDS WORKERS) makes a new connection for
// each request, one after the other in each worker, and one at least.
func roleConnect(ctx context.Context, args []string, out io.Writer) error {
	var ms, workers int
	if len(args) != 3 {
		return errors.New("need ADDRESS:PORT MILLISECONDS WORKERS")
	}
	if err := numbers(args[1:], &ms, &workers); err != nil {
		return err
	}
	to, err := sockaddr(args[0])
	if err != nil {
		return err
	}
	var done, failed atomic.Int64
	start := time.Now()
	end := start.Add(time.Duration(ms) * time.Millisecond)
	ended := make(chan struct{})
	for range workers {
		go func() {
			defer func() { ended <- struct{}{} }()
			buf := make([]byte, 4096)
			for first := true; (first || time.Now().Before(end)) && ctx.Err() == nil; first = false {
				if oneRequest(to, buf) == nil {
					done.Add(1)
				} else {
					failed.Add(1)
				}
			}
		}()
	}
	for range workers {
		<-ended
	}
	r := requests{Done: int(done.Load()), Failed: int(failed.Load()), Seconds: time.Since(start).Seconds()}
	return r.print(out)
}

// roleRequest (ADDRESS:PORT MILLISECONDS CONNECTIONS RATE) sends requests over
// connections that stay, RATE in a second altogether, evenly spread; 0: the
// next one as soon as there is an answer.
func roleRequest(ctx context.Context, args []string, out io.Writer) error {
	var ms, conns, rate int
	if len(args) != 4 {
		return errors.New("need ADDRESS:PORT MILLISECONDS CONNECTIONS RATE")
	}
	if err := numbers(args[1:], &ms, &conns, &rate); err != nil {
		return err
	}
	type result struct {
		latencies []float64
		err       error
	}
	results := make(chan result)
	start := time.Now().Add(10 * time.Millisecond)
	end := start.Add(time.Duration(ms) * time.Millisecond)
	for i := range conns {
		go func() {
			s := schedule{start: start}
			if rate > 0 {
				s.every = time.Second * time.Duration(conns) / time.Duration(rate)
				s.start = start.Add(s.every * time.Duration(i) / time.Duration(conns))
			}
			ls, err := s.run(ctx, args[0], end)
			results <- result{ls, err}
		}()
	}
	var all requests
	for range conns {
		r := <-results
		if r.err != nil {
			fmt.Fprintln(os.Stderr, r.err)
			all.Failed++
		}
		all.Done += len(r.latencies)
		all.Latencies = append(all.Latencies, r.latencies...)
	}
	all.Seconds = time.Since(start).Seconds()
	return all.print(out)
}
