package nfq

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// Receiver names a way of reading the queue.
type Receiver uint8

// The receivers.
const (
	// Batch reads and answers many packets in one system call.
	Batch Receiver = iota
	// Callback is go-nfqueue's own loop, a call back and a verdict for each
	// packet: the plain reference that Batch is held against.
	Callback
)

// String gives the receiver's name.
func (r Receiver) String() string {
	switch r {
	case Batch:
		return "batch"
	case Callback:
		return "callback"
	}
	return fmt.Sprintf("receiver(%d)", uint8(r))
}

// The defaults of a Config.
const (
	DefaultTable       = "ipfw"
	DefaultQueue       = 4301
	DefaultQueueLength = 8192
	DefaultReadBuffer  = 32 << 20
	DefaultRejectRate  = 1000

	// CopyAll as Config.CopyRange brings packets up whole.
	CopyAll = 0xffff
	// CopyHeaders as Config.CopyRange brings up what packet.Parse needs of
	// any packet that is not built to be a nuisance.
	CopyHeaders = 512
)

// Config says how the kernel is to be set up. The zero value of each field
// takes the default.
type Config struct {
	// Older are the TCP connections that were there before Hold; nil: Hold did
	// nothing, or was not asked.
	Older []Connection
	// Table is the name of the nftables table. Whatever stands in a table of
	// this name is replaced.
	Table string
	// Queue is the first queue number, Queues how many there are from there
	// on for each class of packets (default 1): those of connections that
	// were let through; those of them that must not come up as
	// super-packets (Protect); those of other connections; one more is for
	// key exchange and neighbour discovery. The kernel spreads packets over
	// the queues of a class by address, both directions of a flow to the
	// same one.
	Queue  uint16
	Queues int
	// Mask is the range of mark bits; DefaultMask says how it was chosen.
	Mask uint32
	// FailOpen lets packets pass when nobody reads the queue; otherwise the
	// kernel drops them.
	FailOpen bool
	// CopyRange is how many bytes of each packet come up: CopyHeaders for a
	// policy that only accepts and drops (default), CopyAll for one that
	// changes packets.
	CopyRange int
	// Protect says that the Handler seals and opens packets: they come up
	// whole, whatever CopyRange says, and what arrives sealed comes up before
	// connection tracking. A second range of as many queues stands behind the
	// first for it. It cannot go with FailOpen.
	Protect bool
	// Offload lets the kernel answer for flows that a policy of this
	// engine.Generation has let through; 0 sends every packet up. Each
	// Reload with it begins anew: every flow comes up again.
	Offload uint32
	// Interfaces says that the policy names interfaces (engine.Policy's
	// NamesInterfaces): then the kernel answers for a flow only as long as it
	// uses those that the Handler was asked about.
	Interfaces bool
	// Related says that the policy asks whether a helper of connection tracking
	// expects a flow (engine.Policy's Relates).
	Related bool
	// Encapsulated says that some of what is protected goes in UDP (RFC 3948):
	// the Firewall takes UDP port 4500 for it, on every address of the host. It
	// needs Protect.
	Encapsulated bool
	// KeyExchange says that IKE speaks by this Firewall: it takes UDP port 500
	// as well. It needs Encapsulated.
	KeyExchange bool
	// IKE hears each IKE message that has come to port 500 or 4500 and that
	// policy lets in, if they are taken; without it they are discarded. It is
	// called between packets, by several goroutines, and must not wait; the
	// Datagram is valid until it returns. It cannot be changed by Reload.
	IKE func(*Datagram)
	// QueueLength is how many packets may wait for a verdict in each queue;
	// more are dropped and counted.
	QueueLength int
	// ReadBuffer is the size in bytes of each queue's socket buffer.
	ReadBuffer int
	// Awake is how many readers that have run out of packets may wait awake
	// for more at the same time, for tens of microseconds, before they sleep:
	// as many as there are processors is enough. Go's scheduler takes one that
	// does for one at work, so GOMAXPROCS should be greater by that number.
	// It cannot be changed by Reload.
	Awake int
	// RejectRate is how many rejected packets are answered in one second
	// (RFC 4443 section 2.4(f), RFC 1812 section 4.3.2.8).
	RejectRate int
	// Receiver is how the queues are read.
	Receiver Receiver
	// Logger hears what an administrator should know; default none.
	Logger *slog.Logger

	// For tests: native ESP comes by a queue, leaves by raw sockets alone; the
	// kernel is taken for one whose tables have no owners.
	noIntake, noHook, noShortcut, noOwner bool
}

// Check says why a Config cannot be opened on any host; nil: it may be.
func (c Config) Check() error {
	_, err := c.withDefaults()
	return err
}

// withDefaults fills what is left open and refuses what cannot be.
func (c Config) withDefaults() (Config, error) {
	c.Table = cmp.Or(c.Table, DefaultTable)
	c.Queue = cmp.Or(c.Queue, DefaultQueue)
	c.Queues = cmp.Or(c.Queues, 1)
	c.Mask = cmp.Or(c.Mask, DefaultMask)
	c.CopyRange = cmp.Or(c.CopyRange, CopyHeaders)
	c.QueueLength = cmp.Or(c.QueueLength, DefaultQueueLength)
	c.ReadBuffer = cmp.Or(c.ReadBuffer, DefaultReadBuffer)
	c.RejectRate = cmp.Or(c.RejectRate, DefaultRejectRate)
	if c.Protect {
		c.CopyRange = CopyAll
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case len(c.Table) > 31 || strings.ContainsAny(c.Table, " \t\n\x00"):
		return c, fmt.Errorf("table name %q: at most 31 characters, no spaces", c.Table)
	case c.Queues < 1 || c.Queues > 256 || int(c.Queue)+c.Numbers()-1 > 0xffff:
		return c, fmt.Errorf("%d queues of each class from number %d on: need 1 to 256 of them, and %d numbers up to 65535", c.Queues, c.Queue, c.Numbers())
	case c.CopyRange < 128 || c.CopyRange > CopyAll:
		return c, fmt.Errorf("copy range of %d bytes: must be 128 to %d", c.CopyRange, CopyAll)
	case c.Protect && c.FailOpen:
		return c, errors.New("a host that opens when ipfw fails would let what must be protected leave in the clear")
	case c.Encapsulated && !c.Protect, c.KeyExchange && !c.Encapsulated:
		return c, errors.New("ESP in UDP without protection makes no sense, nor does IKE without ESP in UDP")
	case c.QueueLength < 1 || c.ReadBuffer < 1<<16 || c.RejectRate < 0:
		return c, fmt.Errorf("queue length %d, read buffer %d, reject rate %d: must be at least 1, 65536 and 0",
			c.QueueLength, c.ReadBuffer, c.RejectRate)
	case c.Receiver > Callback:
		return c, fmt.Errorf("unknown %v", c.Receiver)
	}
	return c, marks(c.Mask).check()
}

// needsRestart names the first setting that a Reload cannot change.
func (c *Config) needsRestart(n *Config) error {
	for _, s := range []struct {
		name     string
		was, now any
	}{
		{"table", c.Table, n.Table},
		{"queue number", c.Queue, n.Queue},
		{"number of queues", c.Queues, n.Queues},
		{"mark mask", c.Mask, n.Mask},
		{"queue length", c.QueueLength, n.QueueLength},
		{"read buffer", c.ReadBuffer, n.ReadBuffer},
		{"rate of rejects", c.RejectRate, n.RejectRate},
		{"receiver", c.Receiver, n.Receiver},
		{"number of readers awake", c.Awake, n.Awake},
	} {
		if s.was != s.now {
			return fmt.Errorf("%s changed from %v to %v: that takes a restart", s.name, s.was, s.now)
		}
	}
	return nil
}
