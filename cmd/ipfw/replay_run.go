package main

import (
	"errors"
	"io"
	"slices"

	"github.com/ipfw/ipfw/capture"
	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// replayer runs a capture through an engine in the capture's own time.
type replayer struct {
	engine *engine.Engine
	side   side
	iface  string // stands in for an interface that the capture does not name
	flows  *flowRows
	// each is called for every frame that was judged, with its number in the
	// file from 1; nil: nobody asks.
	each func(*judgement) error
	tick func(frames uint64) // called now and then

	in      engine.Input
	expire  int64 // when the engine is next told the time
	frames  uint64
	bytes   uint64 // on the wire
	first   int64
	skipped [skipReasons]uint64
	links   []uint16 // link types that cannot be read
	faults  [packet.Faults]uint64
	judged  [3]uint64 // packets by what policy says of them

	// What the engine was not asked about: see judge.
	refusals refusals
	reasons  [engine.Reasons]uint64
	hits     []engine.RuleStats // by rule
}

// judgement is one packet and what became of it.
type judgement struct {
	number uint64 // in the file, from 1
	in     *engine.Input
	result engine.Result
}

// second is how often the engine forgets old flows, as in the daemon.
const second = int64(1e9)

// run judges every packet up to the end of the capture. Whatever was judged
// before an error counts.
func (r *replayer) run(c *capture.Reader) error {
	const ticks = 1 << 12 // frames between two ticks
	var f capture.Frame
	for {
		switch err := c.Next(&f); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if err := r.frame(&f); err != nil {
			return err
		}
		if r.frames%ticks == 0 && r.tick != nil {
			r.tick(r.frames)
		}
	}
}

func (r *replayer) frame(f *capture.Frame) error {
	in := &r.in
	r.frames++
	r.bytes += uint64(f.Len)
	if r.frames == 1 {
		r.first, in.Now = f.Time, f.Time
	}
	// The engine's clock never goes back; frames of several interfaces may.
	in.Now = max(in.Now, f.Time)
	if in.Now >= r.expire {
		r.engine.Expire(in.Now)
		r.expire = in.Now + second
	}

	d, err := f.Datagram()
	switch {
	case errors.Is(err, capture.ErrLinkType):
		r.skipped[otherLink]++
		if !slices.Contains(r.links, f.Link) {
			r.links = append(r.links, f.Link)
		}
		return nil
	case errors.Is(err, capture.ErrHeaderCut):
		r.skipped[cutHeader]++
		return nil
	case err != nil:
		r.skipped[notIP]++
		return nil
	}
	j := judgement{number: r.frames, in: in}
	fault := packet.ParseCaptured(&in.Packet, d.Bytes, d.Len)
	switch {
	case fault == packet.Truncated && len(d.Bytes) < d.Len:
		r.skipped[cutHeader]++
		return nil
	case fault != packet.OK:
		r.faults[fault]++
		j.result = r.engine.Malformed(fault)
	default:
		var why skip
		in.Dir, why = r.side.direction(in.Packet.Src, in.Packet.Dst, d.Way)
		if why != judged {
			r.skipped[why]++
			return nil
		}
		name := f.Interface
		if name == "" {
			name = r.iface
		}
		in.InIf, in.OutIf = name, ""
		if in.Dir == engine.Out {
			in.InIf, in.OutIf = "", name
		}
		r.judge(in, &j.result)
	}
	r.judged[policyVerdict(&j.result)]++
	if r.each != nil {
		return r.each(&j)
	}
	return nil
}
