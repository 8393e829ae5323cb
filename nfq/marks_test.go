package nfq

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/ipfw/ipfw/engine"
	"golang.org/x/sys/unix"
)

// theirs are bits of another program outside our mask, ours what it should
// not have set.
const (
	theirs     = 0x00a5c3f1
	theirCt    = 0x005a3c1e
	oursStolen = 0xff000000
)

// otherMarks is a table of a program that marks packets before ipfw sees them
// and connections too, and counts afterwards what is left of its marks.
func (h *testHost) otherMarks() (counts func() map[string]uint64) {
	h.t.Helper()
	table := &nftables.Table{Name: "marker", Family: nftables.TableFamilyINet}
	accept := nftables.ChainPolicyAccept
	h.try(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.AddTable(table)
		chain := func(name string, hook *nftables.ChainHook, prio nftables.ChainPriority, rules ...[]expr.Any) {
			ch := c.AddChain(&nftables.Chain{
				Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: &prio, Policy: &accept,
			})
			for _, r := range rules {
				c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: r})
			}
		}
		set := setMeta(nil, 0xffffffff, theirs|oursStolen)
		setCt := []expr.Any{
			&expr.Ct{Key: expr.CtKeyMARK, Register: 1}, replace(0x00ffffff, theirCt),
			&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true},
		}
		udp := []expr.Any{meta(expr.MetaKeyL4PROTO), equal([]byte{unix.IPPROTO_UDP})}
		counted := func(key expr.Any, want uint32) []expr.Any {
			return []expr.Any{udp[0], udp[1], key, equal(native32(want)), &expr.Counter{}}
		}
		wrong := func(key expr.Any, want uint32) []expr.Any {
			return []expr.Any{udp[0], udp[1], key, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native32(want)}, &expr.Counter{}}
		}
		ct := &expr.Ct{Key: expr.CtKeyMARK, Register: 1}
		admitted := uint32(theirCt) | marks(DefaultMask).admitted()
		after := [][]expr.Any{
			counted(meta(expr.MetaKeyMARK), theirs), wrong(meta(expr.MetaKeyMARK), theirs),
			counted(ct, admitted), wrong(ct, admitted),
		}
		chain("pre", nftables.ChainHookPrerouting, -150, set, setCt)
		chain("out", nftables.ChainHookOutput, -150, set, setCt)
		chain("in_after", nftables.ChainHookInput, 10, after...)
		chain("out_after", nftables.ChainHookOutput, 10, after...)
		return c.Flush()
	})
	return func() map[string]uint64 {
		names := []string{"mark right", "mark wrong", "ct right", "ct wrong"}
		got := make(map[string]uint64)
		h.try(func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			for _, name := range []string{"in_after", "out_after"} {
				rules, err := c.GetRules(table, &nftables.Chain{Name: name})
				if err != nil {
					return err
				}
				for i, r := range rules {
					for _, e := range r.Exprs {
						if n, ok := e.(*expr.Counter); ok {
							got[names[i]] += n.Packets
						}
					}
				}
			}
			return nil
		})
		return got
	}
}

// Another program's mark bits survive, on packets and on connections; ours are
// cleared before and after, whoever set them; and connections remember only
// flows that were let through.
func TestMarks(t *testing.T) {
	t.Parallel()
	eachReceiver(t, func(t *testing.T, cfg Config) {
		client, server := pair(t)
		server.echo(7)
		server.echo(9)
		counts := server.otherMarks()
		type seen struct{ first, tracked, reply, wrongFirst atomic.Int64 }
		var s7, s9 seen
		server.start(cfg, func(in *engine.Input) engine.Result {
			p := &in.Packet
			for _, w := range []struct {
				port uint16
				s    *seen
			}{{7, &s7}, {9, &s9}} {
				if !p.HasPorts || p.Protocol != 17 || (p.SrcPort != w.port && p.DstPort != w.port) {
					continue
				}
				switch {
				case !in.Tracked && !in.Reply:
					w.s.first.Add(1)
				case in.Tracked && !in.Reply:
					w.s.tracked.Add(1)
				case in.Reply:
					w.s.reply.Add(1)
				}
				if in.Reply != (in.Dir == engine.Out) {
					w.s.wrongFirst.Add(1)
				}
			}
			if p.DstPort == 9 || p.SrcPort == 9 { // passes, and is not a flow
				return engine.Result{Verdict: engine.Bypass}
			}
			return pass(in)
		})
		for _, port := range []uint16{7, 9} {
			c, err := client.dial("udp", addr4(0, 2), port, patience)
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				if err := ask(c, patience); err != nil {
					t.Fatal(err)
				}
			}
			if port == 7 {
				if n := counts(); n["mark right"] == 0 || n["ct right"] == 0 || n["mark wrong"]+n["ct wrong"] > 0 {
					t.Errorf("another program's marks: %v", n)
				}
			}
		}
		if n := counts(); n["mark wrong"] > 0 {
			t.Errorf("another program's packet marks, without a flow: %v", n)
		}
		check := func(name string, s *seen, first, tracked, reply int64) {
			if s.first.Load() != first || s.tracked.Load() != tracked || s.reply.Load() != reply || s.wrongFirst.Load() != 0 {
				t.Errorf("%s: %d first, %d tracked, %d replies, %d wrong; want %d, %d, %d, 0", name,
					s.first.Load(), s.tracked.Load(), s.reply.Load(), s.wrongFirst.Load(), first, tracked, reply)
			}
		}
		check("flow", &s7, 1, 4, 5)
		check("no flow", &s9, 5, 0, 5)
	})
}

// Large packets go up as they are and arrive whole, in both directions.
func TestBulk(t *testing.T) {
	t.Parallel()
	eachReceiver(t, func(t *testing.T, cfg Config) {
		client, server := pair(t)
		for _, copyRange := range []int{CopyHeaders, CopyAll} {
			cfg.CopyRange = copyRange
			data := make([]byte, 4<<20)
			rand.Read(data)
			var longest [3]atomic.Int64
			fw := server.start(cfg, func(in *engine.Input) engine.Result {
				if n := int64(in.Packet.Len); n > longest[in.Dir].Load() {
					longest[in.Dir].Store(n)
				}
				return pass(in)
			})
			var l net.Listener
			server.try(func() (err error) {
				l, err = net.Listen("tcp", "[::]:0")
				return err
			})
			go func() { // sends back what it gets, when it has all of it
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				b, _ := io.ReadAll(c)
				c.Write(b)
			}()
			c, err := client.dial("tcp", addr6(0, 2), uint16(l.Addr().(*net.TCPAddr).Port), patience)
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(patience))
			if _, err := c.Write(data); err != nil {
				t.Fatal(err)
			}
			c.(*net.TCPConn).CloseWrite()
			back, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(back, data) {
				t.Errorf("copy range %d: %d bytes came back, the same: %v, error %v", copyRange, len(back), bytes.Equal(back, data), err)
			}
			l.Close()
			for _, d := range []engine.Direction{engine.In, engine.Out} {
				if longest[d].Load() <= 1500 {
					t.Errorf("copy range %d: longest packet %v had %d bytes: no GSO", copyRange, d, longest[d].Load())
				}
			}
			fw.stop()
			if err := fw.Close(false); err != nil {
				t.Error(err)
			}
		}
	})
}
