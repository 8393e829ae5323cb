package nfq

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
)

// Policies that let a port in and policies that shut it follow each other while
// flows open all the time, new ones and old ones. A datagram that was sent
// after a policy had shut the port never arrives, whatever was decided, marked
// or queued before.
func TestOffloadNeverOutlivesItsPolicy(t *testing.T) {
	t.Parallel()
	eachReceiver(t, func(t *testing.T, cfg Config) {
		client, server := pair(t)
		type policy struct {
			generation uint32
			shut       bool
		}
		var now atomic.Pointer[policy]
		now.Store(&policy{generation: 1})
		cfg.Offload = 1
		fw := server.start(cfg, func(in *engine.Input) engine.Result {
			p := now.Load()
			if !in.Packet.HasPorts || in.Packet.DstPort != 7 {
				return pass(in)
			}
			if in.Packet.SrcPort%4 == 0 {
				runtime.Gosched() // some take longer to decide
			}
			if p.shut {
				return engine.Result{}
			}
			r := engine.Result{Verdict: engine.Bypass, NewFlow: true}
			if in.Offloadable {
				r.Offload = p.generation
			}
			return r
		})

		var arrived, leaked atomic.Int64
		var sink net.PacketConn
		server.try(func() (err error) {
			sink, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 7})
			return err
		})
		defer sink.Close()
		go func() {
			b := make([]byte, 16)
			for {
				n, _, err := sink.ReadFrom(b)
				if err != nil {
					return
				}
				arrived.Add(1)
				if n == 4 && binary.BigEndian.Uint32(b)%2 == 1 {
					leaked.Add(1)
				}
			}
		}()

		// Odd: the port is shut. Who sends holds sending, so that nothing sent
		// while it was shut is still under way when it opens.
		var phase atomic.Uint32
		var sending sync.RWMutex
		settle := func() {
			for was := ^uint64(0); ; {
				s := fw.Stats()
				if s.Waiting == 0 && s.Packets == was {
					return
				}
				was = s.Packets
				time.Sleep(3 * time.Millisecond)
			}
		}
		ctx, stop := context.WithCancel(context.Background())
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				var conns []net.Conn
				client.do(func() {
					for i := 0; ctx.Err() == nil; i++ {
						if len(conns) < 40 { // and then the old ones again
							if c, err := net.Dial("udp4", netip.AddrPortFrom(addr4(0, 2), 7).String()); err == nil {
								conns = append(conns, c)
							}
						} else if i%200 == 0 {
							conns[0].Close()
							conns = conns[1:]
						}
						if len(conns) > 0 {
							sending.RLock()
							conns[i%len(conns)].Write(binary.BigEndian.AppendUint32(nil, phase.Load()))
							sending.RUnlock()
						}
						if i%20 == 0 {
							time.Sleep(100 * time.Microsecond)
						}
					}
				})
				for _, c := range conns {
					c.Close()
				}
			})
		}
		for i := uint32(1); i <= 40; i++ {
			next := &policy{generation: i + 1, shut: i%2 == 1}
			if !next.shut {
				sending.Lock()
				settle()
				phase.Store(i)
				sending.Unlock()
			}
			now.Store(next) // the engine first
			cfg.Offload = next.generation
			if err := fw.Reload(cfg); err != nil {
				t.Fatal(err)
			}
			if next.shut {
				phase.Store(i)
			}
			before := arrived.Load()
			for deadline := time.Now().Add(patience); !next.shut && arrived.Load() < before+50 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(5 * time.Millisecond)
		}
		stop()
		all.Wait()
		time.Sleep(silence)
		if n := leaked.Load(); n > 0 {
			t.Errorf("%d datagrams came through a shut port", n)
		}
		if arrived.Load() < 20*50 {
			t.Errorf("only %d datagrams arrived through the open port", arrived.Load())
		}
	})
}
