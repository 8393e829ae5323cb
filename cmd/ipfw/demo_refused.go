package main

import (
	"bytes"
	"context"
	"net/netip"
	"time"

	"github.com/ipfw/ipfw/host"
)

// refuse tries what must not get through: clear text to the protected port, the
// very packet of the request once more, and altered. It shows each when it is
// done.
func (f *sealedFlow) refuse(ctx context.Context, lab *lab, servers *servers, cable *wire, client *host.Client, show func(*refusal)) error {
	attacker, err := openWire(lab.client)
	if err != nil {
		return err
	}
	defer attacker.close()
	for _, r := range []*refusal{
		{What: "clear text from " + barredAddr.String(), Reason: "clear-text"},
		{What: "its sealed packet, sent again", Reason: "ipsec-replay"},
		{What: "the same, altered on the way", Reason: "ipsec-unauthentic"},
	} {
		before, err := client.Status(ctx)
		if err != nil {
			return err
		}
		switch r.Reason {
		case "clear-text":
			err = r.ask(ctx, lab, servers, f.To)
		default:
			if f.frame == nil {
				continue // it was said
			}
			again := bytes.Clone(f.frame)
			if r.Reason == "ipsec-unauthentic" {
				// Its number is made a new one, so that it is the integrity
				// value that must catch it.
				at := len(again) - len(f.Wire)
				again[at+len(f.Wire)/2] ^= 1
				again[at+6]++
			}
			r.Answer, r.Packets = "no answer", 1
			err = attacker.send(again)
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		after, err := settled(ctx, client)
		if err != nil {
			return err
		}
		frames, err := cable.frames()
		if err != nil {
			return err
		}
		f.check(r, &before, &after, frames)
		f.Refused = append(f.Refused, r)
		show(r)
	}
	return nil
}

// ask makes a connection in the clear.
func (r *refusal) ask(ctx context.Context, lab *lab, servers *servers, to string) error {
	begin := time.Now()
	answer, err := servers.get(ctx, lab.client, &probe{From: barredAddr.String(), To: to, port: filesPort, path: "/"})
	r.Took, r.Through, r.Answer = time.Since(begin).Seconds(), err == nil, answer
	if err != nil {
		r.Answer = shortReason(err)
	}
	return ctx.Err()
}

// check holds a refusal against the daemon's counters and the cable.
func (f *sealedFlow) check(r *refusal, before, after *host.Status, frames []frame) {
	server := netip.AddrPortFrom(filesAddr, filesPort)
	for _, fr := range frames {
		p, ok := fr.packet()
		switch {
		case !ok:
		case p.Src == barredAddr && netip.AddrPortFrom(p.Dst, p.DstPort) == server:
			r.Packets++
		case p.Src == filesAddr:
			f.differ("the server answered to %s", r.What)
		}
	}
	r.Counted = after.Reasons[r.Reason] - before.Reasons[r.Reason]
	switch {
	case r.Through:
		f.differ("%s got through: %s", r.What, r.Answer)
	case r.Counted != r.Packets || r.Packets == 0:
		f.differ("%s: %d packets came, the daemon counted %d as %s", r.What, r.Packets, r.Counted, r.Reason)
	case after.Queue.Opened != before.Queue.Opened || flowsOf(after, f.Rule) != flowsOf(before, f.Rule):
		f.differ("%s was opened", r.What)
	}
}
