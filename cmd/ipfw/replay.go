package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/capture"
	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// replayOptions are the flags of `ipfw replay`.
type replayOptions struct {
	policy         []string
	local, forward []string
	onLink         []string
	iface          string
	top            int
	packets        bool
	json           bool
}

func newReplayCmd(a *app) *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay -c PATH --local ADDR[,ADDR...] CAPTURE",
		Short: "Judge the packets of a capture file",
		Long: `Replay runs a pcap or pcapng file (also compressed with gzip; "-" is the standard
input) through the evaluator that the daemon uses, in the capture's own time, and
reports the verdict of each flow, the hits of each rule, and the rules that
nothing hit.

A capture seldom says which packets came in: --local names the addresses of the
host whose policy is tried. Without it, ipfw takes what the capture says, or the
address that is in nine packets of ten, and tells which.

Answers to what the host has asked a multicast group come in by rules with
answers_multicast if they are from its neighbours; --on-link names the networks that
the host has addresses in, which no capture says.

A packet that opens a flow and is refused takes the rest of its flow with it: the
answers in the capture would never have been sent, whatever the rules for their
direction say. They count as its verdict, with the reason never-opened. A later SYN
opens anew; of other protocols, an answer that comes after the time in which the
daemon would take it for one.

A TCP flow that was open before the capture began is judged as if its first
packet in the file had opened it. Sealed packets are not opened: a dry run has no
keys, so what policy protects is counted as protect. A packet without a length in
its header, captured before it was cut into segments (TSO), is as long as it was
captured.`,
		Example: `  tcpdump -i eth0 -w day.pcap
  ipfw replay -c profile:web-server --local 198.51.100.10,2001:db8::10 day.pcap
  ipfw replay -c /etc/ipfw --local 192.0.2.1 --forward 10.0.0.0/8 gateway.pcapng.gz
  ssh host tcpdump -w - | ipfw replay -c new.hcl --packets -`,
		Args: wants(1, 1, `one capture file, or "-"`),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.json && !cmd.Flags().Changed("top") {
				o.top = 0
			}
			ctx, stop := a.signals(cmd.Context())
			defer stop()
			return a.replay(ctx, &o, args[0])
		},
	}
	f := cmd.Flags()
	policyFlag(cmd, &o.policy)
	f.StringSliceVar(&o.local, "local", nil, "addresses or networks that are this host")
	f.StringSliceVar(&o.forward, "forward", nil, "networks whose traffic this host forwards")
	f.StringSliceVar(&o.onLink, "on-link", nil, "networks that this host is in: who is in them is a neighbour (answers_multicast)")
	f.StringVar(&o.iface, "interface", "", "interface of all packets, where the capture does not name it")
	f.IntVar(&o.top, "top", 20, "flows shown for each verdict, the busiest first; 0: all")
	f.BoolVar(&o.packets, "packets", false, "print each packet's verdict as well")
	f.BoolVar(&o.json, "json", false, "print JSON: the report, after one line for each packet with --packets")
	return cmd
}

func (a *app) replay(ctx context.Context, o *replayOptions, path string) error {
	r := &replayer{iface: o.iface, flows: newFlowRows()}
	var err error
	if r.side.local, err = parsePrefixes("local", o.local); err != nil {
		return err
	}
	if r.side.forward, err = parsePrefixes("forward", o.forward); err != nil {
		return err
	}
	onLink, err := parsePrefixes("on-link", o.onLink)
	if err != nil {
		return err
	}
	policy, err := a.load(o.policy)
	if err != nil {
		return err
	}
	in, bar, err := a.openCapture(path)
	if err != nil {
		return err
	}
	defer in.Close()
	var input io.Reader = bar.reader(untilDone(ctx, in))
	note := ""
	if len(r.side.local) == 0 {
		if r.side.local, note, input, err = guessLocal(input); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	c, err := capture.NewReader(input)
	if err != nil && ctx.Err() != nil {
		a.warnf("interrupted before anything was read")
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w; want pcap or pcapng, as tcpdump and Wireshark write them", path, err)
	}
	if note != "" {
		a.warnf("%s", note)
	}
	if len(onLink) == 0 && slices.ContainsFunc(policy.Engine.Rules, func(r engine.Rule) bool { return r.AnswersMulticast > 0 }) {
		a.warnf("no --on-link given: of the answers that answers_multicast lets in, only those from link-local addresses (fe80::/10) are taken to be from neighbours")
	}
	onLink = append(onLink, netip.MustParsePrefix("fe80::/10")) // on every link, RFC 4291 section 2.5.6
	r.engine = policy.DryRun(engine.Options{MaxFlows: maxFlowRows, Networks: func(string) []netip.Prefix { return onLink }})
	r.hits = make([]engine.RuleStats, len(policy.Engine.Rules))
	r.tick = bar.show
	if o.packets {
		r.each = a.packetPrinter(&policy.Engine, o.json)
	}
	err = r.run(c)
	if n := r.skipped[otherLink]; err == nil && n > 0 && n == r.frames {
		err = fmt.Errorf("none of its packets can be read, they are of %s: capture on an interface that has Ethernet or plain IP (tcpdump -D lists them), or by \"any\"", linkTypes(r.links))
	}
	bar.clear()
	if ctx.Err() != nil { // Ctrl-C is how one ends a capture that goes on
		a.warnf("interrupted: this is what was read until then")
		err = nil
	}
	if err == nil || r.frames > r.skipped[otherLink] {
		report := r.report()
		if perr := a.printReport(report, o); perr != nil {
			return perr
		}
		spent := a.now().Sub(bar.start)
		if bar.out != nil {
			a.warnf("%d packets in %s, %.0f in a second", r.frames, spent.Round(time.Millisecond), float64(r.frames)/spent.Seconds())
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// openCapture opens the file, or the standard input for "-".
func (a *app) openCapture(path string) (io.ReadCloser, *progress, error) {
	bar := &progress{now: a.now, start: a.now()}
	if a.stderrTTY {
		bar.out = a.stderr
	}
	if path == "-" {
		return io.NopCloser(a.stdin), bar, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("capture: %w", fileTrouble(path, err))
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		f.Close()
		return nil, nil, err
	case info.IsDir():
		f.Close()
		return nil, nil, fmt.Errorf("%s is a folder; name one capture file", path)
	}
	bar.total = info.Size()
	return f, bar, nil
}

// untilDone gives a reader that ends when ctx does, though nothing comes: what is
// read from a pipe may wait for ever.
func untilDone(ctx context.Context, in io.Reader) io.Reader {
	r := &endingReader{ctx: ctx, chunks: make(chan chunk)}
	go func() {
		var two [2][]byte // one is read into while the other is used
		for i := 0; ; i = 1 - i {
			if two[i] == nil {
				two[i] = make([]byte, 256<<10)
			}
			b := two[i]
			n, err := in.Read(b)
			select {
			case r.chunks <- chunk{b[:n], err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return r
}

type chunk struct {
	bytes []byte
	err   error
}

type endingReader struct {
	ctx    context.Context
	chunks chan chunk
	now    chunk
}

// Read gives what has been read ahead; io.EOF when the context has ended.
func (r *endingReader) Read(b []byte) (int, error) {
	for len(r.now.bytes) == 0 {
		if r.now.err != nil {
			return 0, r.now.err
		}
		select {
		case r.now = <-r.chunks:
		case <-r.ctx.Done():
			r.now.err = io.EOF
		}
	}
	n := copy(b, r.now.bytes)
	r.now.bytes = r.now.bytes[n:]
	return n, nil
}

// fileTrouble says in one clause what is wrong with a file.
func fileTrouble(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no file %s", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be read by this user; change its mode, or run as its owner", path)
	}
	return err
}

// guessBytes is how much of a capture is read ahead to guess the host.
const guessBytes = 4 << 20

// guessLocal reads ahead, guesses which address is the host, and gives a
// reader that starts from the beginning again.
func guessLocal(in io.Reader) (local []netip.Prefix, note string, again io.Reader, err error) {
	head, err := io.ReadAll(io.LimitReader(in, guessBytes))
	if err != nil {
		return nil, "", nil, err
	}
	again = io.MultiReader(bytes.NewReader(head), in)
	c, err := capture.NewReader(bytes.NewReader(head))
	if err != nil {
		return nil, "", again, nil // the real reader will say it
	}
	var g guesser
	var f capture.Frame
	var p packet.Packet
	for c.Next(&f) == nil {
		d, err := f.Datagram()
		if err == nil && packet.ParseCaptured(&p, d.Bytes, d.Len) == packet.OK {
			g.add(&p, d.Way)
		}
	}
	local, note, err = g.guess()
	return local, note, again, err
}
