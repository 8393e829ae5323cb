package nfq

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// This file finds out whose expectation a packet fulfils. That it fulfils one the
// kernel says by the mark expected, which the table writes from connection tracking.
// By whom it was expected is not in the packet's message: its connection is not
// confirmed, so that nobody can ask for it, and the expectation is used up. But the
// kernel has told of the expectation when a helper made it, before any packet could
// fulfil it:
//
//	helper --> expectation --event--> known --+
//	packet --> expected ----------------------+--> master's tuple --> its connection
//
// Two expectations that one packet fits cannot live at the same time, for the
// kernel refuses the second. So the newest that fits is the one.
//
// Limits: of masters in a conntrack zone the kernel does not tell the zone; they are
// not found. Of a connection that began while nobody listened to connection tracking
// there are no events. In both cases the rules that ask match nothing.

// expectations are the latest ones. All its methods may be called concurrently.
type expectations struct {
	mu     sync.Mutex
	events int // of new expectations; never waited for
	ask    ctSocket
	buf    []byte
	err    error // why there are none
	begun  bool
	known  []expectation // the newest last
}

// expectation is what a helper expects.
type expectation struct {
	tuple, mask tuple      // of the first packet, before its destination is translated
	master      []byte     // attributes of the tuple that opened the connection which expects it
	opener      netip.Addr // of that connection
	nat         bool
	fromReply   bool  // of translation: the packet comes from whom the master was opened to
	saved       tuple // of translation: source and its port are where the packet goes
}

const (
	subsysExpect = unix.NFNL_SUBSYS_CTNETLINK_EXP << 8

	msgExpectNew = subsysExpect
	msgExpectGet = subsysExpect | 1

	// linux/netfilter/nfnetlink_conntrack.h: enum ctattr_expect, ctattr_expect_nat.
	expectMaster   = 1
	expectTuple    = 2
	expectMask     = 3
	expectNAT      = 10
	expectNATDir   = 1
	expectNATTuple = 2

	// mostExpected is how many are remembered: what the kernel has at most by
	// default (nf_conntrack_expect_max) is less on most machines.
	mostExpected = 4096

	expectEventBuffer = 4 << 20
	expectReadBuffer  = 1 << 16
	expectReadEvery   = time.Second
)

// openExpectations opens its sockets in the network namespace of the thread.
func openExpectations() *expectations {
	x := &expectations{events: -1, ask: noCtSocket(expectReadBuffer), buf: make([]byte, expectReadBuffer)}
	if x.err = x.ask.open(); x.err == nil {
		x.events, x.err = netfilterSocket()
	}
	return x
}

// begin makes the kernel tell of expectations from now on; false, which it has
// logged: it does not.
func (x *expectations) begin(log *slog.Logger) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.begun {
		return true
	}
	err := x.err
	if err == nil {
		err = os.NewSyscallError("setsockopt", errors.Join(unix.SetsockoptInt(x.events, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, expectEventBuffer),
			unix.SetsockoptInt(x.events, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_CONNTRACK_EXP_NEW)))
	}
	if err == nil {
		err = x.learn()
	}
	if err != nil {
		log.Warn("this kernel does not tell what its connection tracking expects (CONFIG_NF_CT_NETLINK, CONFIG_NF_CONNTRACK_EVENTS): rules with related_to match nothing", "error", err)
		return false
	}
	x.begun = true
	return true
}

// learn asks for all expectations that there are.
func (x *expectations) learn() error {
	x.known = x.known[:0]
	return x.ask.request(appendCt(nil, msgExpectGet, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, x.ask.next()), x.add)
}

// add takes one in.
func (x *expectations) add(typ uint16, body []byte) {
	var e expectation
	if typ != msgExpectNew || !e.parse(body) {
		return
	}
	if len(x.known) >= mostExpected {
		x.known = append(x.known[:0], x.known[mostExpected/4:]...)
	}
	x.known = append(x.known, e)
}

// read takes in what the kernel has to tell before its buffer is full.
func (x *expectations) read(ctx context.Context) {
	t := time.NewTicker(expectReadEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			x.mu.Lock()
			x.drain()
			x.mu.Unlock()
		}
	}
}

// drain takes in what the kernel has told. Where some is lost, all is forgotten but
// what the kernel still has: the newest that is known would not be the newest.
func (x *expectations) drain() {
	if !x.begun {
		return
	}
	for lost := false; ; {
		n, _, err := unix.Recvfrom(x.events, x.buf, unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			if lost && x.learn() != nil {
				x.known = x.known[:0]
			}
			return
		case err == unix.ENOBUFS:
			lost = true
			continue
		case err != nil:
			x.known = x.known[:0]
			return
		}
		for b := x.buf[:n]; len(b) > 0; {
			typ, body, rest, ok := splitMessage(b)
			if !ok {
				break
			}
			b = rest
			x.add(typ, body)
		}
	}
}

// master gives the connection that expects a packet which the kernel says to be
// expected; false: it is not known, or over.
func (x *expectations) master(p *packet.Packet) (engine.Ends, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.drain()
	for i := len(x.known) - 1; i >= 0; i-- {
		if e := &x.known[i]; e.fits(p) {
			return x.masterOf(e, p)
		}
	}
	return engine.Ends{}, false
}

// masterOf asks the kernel for the connection that expects a packet.
func (x *expectations) masterOf(e *expectation, p *packet.Packet) (ends engine.Ends, known bool) {
	name, family := ctName(e.master, e.opener)
	err := x.ask.get(name, family, func(c *connection) {
		t := c.carried(false)
		ends = engine.Ends{Protocol: t.Protocol, Source: t.Source, Dest: t.Dest}
		known = e.leadsTo(c, p)
	})
	return ends, known && err == nil
}

// fits says whether the packet can be the one that is expected, as far as the
// expectation tells.
func (e *expectation) fits(p *packet.Packet) bool {
	t := tupleOf(p)
	if t.proto != e.tuple.proto || t.src.BitLen() != e.tuple.src.BitLen() ||
		!underMask(t.src, e.tuple.src, e.mask.src) || (t.srcPort^e.tuple.srcPort)&e.mask.srcPort != 0 && p.HasPorts {
		return false
	}
	if t.dst == e.tuple.dst && (t.dstPort == e.tuple.dstPort || !p.HasPorts) {
		return true
	}
	return e.nat && (t.dstPort == e.saved.srcPort || !p.HasPorts)
}

// leadsTo says whether an expected packet goes where its master has it go, c. Where
// the master is translated, the packet's destination has become another: the one
// that the helper has noted, or the end of the master that it is for
// (nf_nat_follow_master).
func (e *expectation) leadsTo(c *connection, p *packet.Packet) bool {
	to := e.saved.src
	switch {
	case p.Dst == e.tuple.dst:
		return true
	case !e.nat:
		return false
	case to.IsValid() && !to.IsUnspecified():
	case e.fromReply:
		to = c.orig.src
	default:
		to = c.reply.src
	}
	return p.Dst == to
}

// underMask compares two addresses of one family.
func underMask(a, b, mask netip.Addr) bool {
	x, y, m := a.As16(), b.As16(), mask.As16()
	for i := range m {
		if (x[i]^y[i])&m[i] != 0 {
			return false
		}
	}
	return true
}

// parse reads the body of an expectation's message; false if it is not whole.
func (e *expectation) parse(b []byte) bool {
	*e = expectation{}
	if len(b) < sizeofNfgenmsg {
		return false
	}
	whole := true
	var master tuple
	ok := attributes(b[sizeofNfgenmsg:], func(typ uint16, v []byte) {
		switch typ {
		case expectMaster:
			whole = master.parse(v) && whole
			e.master, e.opener = bytes.Clone(v), master.src
		case expectTuple:
			whole = e.tuple.parse(v) && whole
		case expectMask:
			whole = e.mask.parse(v) && whole
		case expectNAT:
			e.nat = true
			whole = attributes(v, func(typ uint16, v []byte) {
				switch typ {
				case expectNATDir:
					e.fromReply = be32(v) == 1 // IP_CT_DIR_REPLY
				case expectNATTuple:
					whole = e.saved.parse(v) && whole
				}
			}) && whole
		}
	})
	return ok && whole && master.src.IsValid() && e.tuple.src.IsValid() && e.tuple.dst.IsValid() && e.mask.src.IsValid()
}

func (x *expectations) close() error {
	var errs []error
	for _, fd := range []int{x.ask.fd, x.events} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}
