package nfq

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must happen, also in a guest of
// e2e/vm on a busy machine, silence for what must not.
const (
	patience = 3 * time.Minute
	silence  = 300 * time.Millisecond
)

// handler is a Handler whose function can be changed while it runs.
type handler struct{ f atomic.Pointer[judgeFunc] }

type judgeFunc func(in *engine.Input) engine.Result

func (h *handler) Handle(in *engine.Input, _ *engine.Output, f packet.Fault) engine.Result {
	if f != packet.OK {
		return engine.Result{Reason: engine.ReasonOf(f)}
	}
	return (*h.f.Load())(in)
}

// Unseal makes it an Opener that opens nothing.
func (h *handler) Unseal(*engine.Input, []byte, *engine.Unsealed) engine.Result {
	return engine.Result{}
}

func (h *handler) set(f judgeFunc) { h.f.Store(&f) }

func pass(*engine.Input) engine.Result {
	return engine.Result{Verdict: engine.Bypass, Established: true}
}
func drop(*engine.Input) engine.Result { return engine.Result{} }

// port gives the verdict for one destination port, and passes all else.
func port(n uint16, r engine.Result) judgeFunc {
	return func(in *engine.Input) engine.Result {
		if in.Packet.HasPorts && in.Packet.DstPort == n {
			return r
		}
		return pass(in)
	}
}

// running is a Firewall with its Run.
type running struct {
	*Firewall
	*handler
	stop func()
}

// start opens a firewall on the host and runs it until the test ends.
func (h *testHost) start(cfg Config, f judgeFunc) *running {
	h.t.Helper()
	r, err := h.tryStart(cfg, f)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

func (h *testHost) tryStart(cfg Config, f judgeFunc) (*running, error) {
	h.t.Helper()
	r := &running{handler: new(handler)}
	r.set(f)
	var err error
	r.Firewall, r.stop, err = h.run(cfg, r)
	return r, err
}

// tryHandler is tryStart for a handler of any kind.
func (h *testHost) tryHandler(cfg Config, hd Handler) (*Firewall, error) {
	h.t.Helper()
	fw, _, err := h.run(cfg, hd)
	return fw, err
}

func (h *testHost) run(cfg Config, hd Handler) (fw *Firewall, stop func(), err error) {
	h.t.Helper()
	h.do(func() { fw, err = Open(cfg) })
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- fw.Run(ctx, hd) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				h.t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			h.t.Error("Run does not end")
		}
	})
	h.t.Cleanup(func() {
		stop()
		if err := fw.Close(false); err != nil {
			h.t.Errorf("Close: %v", err)
		}
	})
	return fw, stop, nil
}

// echo runs a TCP and a UDP echo server on all addresses of the host.
func (h *testHost) echo(port uint16) {
	h.t.Helper()
	var l net.Listener
	var u net.PacketConn
	h.try(func() (err error) {
		l, err = net.ListenTCP("tcp", &net.TCPAddr{Port: int(port)})
		return err
	})
	h.try(func() (err error) {
		u, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		return err
	})
	h.t.Cleanup(func() { l.Close(); u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := u.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				u.WriteTo(b[:n], from)
			}
		}
	}()
}

// dial opens a connection from the host.
func (h *testHost) dial(network string, to netip.Addr, port uint16, wait time.Duration) (c net.Conn, err error) {
	h.do(func() {
		d := net.Dialer{Timeout: wait}
		c, err = d.Dial(network, netip.AddrPortFrom(to, port).String())
	})
	if c != nil {
		h.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// ask sends a word on a connection and waits for it to come back.
func ask(c net.Conn, wait time.Duration) error {
	word := []byte("the quick brown fox")
	if _, err := c.Write(word); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(wait))
	b := make([]byte, len(word))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != string(word) {
		return errors.New("another word came back")
	}
	return nil
}

// reach says what becomes of a new flow: "open", "refused", "prohibited"
// or "silence".
func (h *testHost) reach(network string, to netip.Addr, port uint16, wait time.Duration) string {
	h.t.Helper()
	c, err := h.dial(network, to, port, wait)
	if err == nil {
		err = ask(c, wait)
	}
	switch {
	case err == nil:
		return "open"
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET):
		return "refused"
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES):
		return "prohibited"
	}
	if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
		return "silence"
	}
	return err.Error()
}

// eachReceiver runs a test once with each way of reading the queue.
func eachReceiver(t *testing.T, f func(t *testing.T, cfg Config)) {
	for _, r := range []Receiver{Batch, Callback} {
		t.Run(r.String(), func(t *testing.T) {
			t.Parallel()
			f(t, Config{Receiver: r})
		})
	}
}

func addrOf(s string) netip.Addr { return netip.MustParseAddr(s) }
