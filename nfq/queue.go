package nfq

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// receiver reads one queue. It is open, and its queue ours, from the moment
// it exists; packets wait until receive is called.
type receiver interface {
	// receive gives each packet to the worker and its answer to the kernel,
	// until the context ends (nil) or the socket fails.
	receive(ctx context.Context, w *worker) error
	// setCopyRange says how many bytes of each packet come up from now on.
	setCopyRange(n int) error
	// overruns counts the times the kernel said that it had lost messages.
	overruns() uint64
	// close gives up the queue. A receive that still runs returns.
	close() error
}

// queueConfig is how one queue is set up.
type queueConfig struct {
	queue      uint16
	copyRange  int
	length     int
	readBuffer int
	// whole asks the kernel to cut super-packets up before it queues them.
	whole bool
	awake *awake
}

func (c *queueConfig) flags() int {
	if c.whole {
		return 0
	}
	return flagGSO
}

// openReceiver opens a queue; owned by somebody else, it says by whom.
func openReceiver(kind Receiver, c queueConfig) (receiver, error) {
	var r receiver
	var err error
	switch kind {
	case Batch:
		r, err = openBatch(c)
	case Callback:
		r, err = openCallback(c)
	default:
		return nil, fmt.Errorf("no receiver %v", kind)
	}
	if err == nil {
		return r, nil
	}
	if owner := queueOwner(c.queue); owner != "" {
		return nil, fmt.Errorf("queue %d belongs to %s: stop it, or name another queue in the policy block", c.queue, owner)
	}
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, errNoPrivilege
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return nil, fmt.Errorf("this kernel has no packet queues for programs (CONFIG_NETFILTER_NETLINK_QUEUE): %w", err)
	}
	return nil, fmt.Errorf("queue %d: %w", c.queue, err)
}

// tune sets up a queue's socket. The kernel does not tell a socket without
// ENOBUFS reports that it lost something, but it counts and drops it, and
// reading goes on.
func tune(c *netlink.Conn, readBuffer int) error {
	if err := c.SetReadBuffer(readBuffer); err != nil {
		return fmt.Errorf("receive buffer of %d bytes: %w", readBuffer, err)
	}
	if err := c.SetOption(netlink.NoENOBUFS, true); err != nil {
		return fmt.Errorf("NETLINK_NO_ENOBUFS: %w", err)
	}
	return nil
}

// Configuration attributes, linux/netfilter/nfnetlink_queue.h.
const (
	cfgCmd         = 1
	cfgParams      = 2
	cfgQueueMaxLen = 3
	cfgMask        = 4
	cfgFlags       = 5

	cmdBind    = 1
	copyPacket = 2
	flagGSO    = 1 << 2
)

// appendConfig appends a NFQNL_MSG_CONFIG message's body: struct nfgenmsg and
// the attributes.
func appendConfig(b []byte, queue uint16, attrs ...netlink.Attribute) []byte {
	b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, queue)
	a, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		panic(err) // attributes of a few bytes
	}
	return append(b, a...)
}

// copyParams is struct nfqnl_msg_config_params.
func copyParams(n int) netlink.Attribute {
	return netlink.Attribute{Type: cfgParams, Data: append(big32(n), copyPacket)}
}

// sendCopyRange asks for no acknowledgement: it would come among the packets.
func sendCopyRange(c *netlink.Conn, queue uint16, n int) error {
	_, err := c.Send(netlink.Message{
		Header: netlink.Header{Type: msgConfig, Flags: netlink.Request},
		Data:   appendConfig(nil, queue, copyParams(n)),
	})
	return err
}

func big32(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

// counter is an atomic counter on a cache line of its own.
type counter struct {
	atomic.Uint64
	_ [56]byte
}
