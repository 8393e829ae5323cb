package nfq

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// intakeReader opens the ESP that comes by the intake. Packets are opened in
// the frames of its ring, and stay there until what was made of them is written.
type intakeReader struct {
	*unsealer
	intake *intake
}

// receive works until the context ends.
func (r *intakeReader) receive(ctx context.Context) {
	select {
	case <-r.intake.made:
	case <-ctx.Done():
		return
	}
	defer context.AfterFunc(ctx, r.intake.stop)()
	for !r.intake.stopped() {
		r.intake.gather()
		now := r.opener.Now()
		if n := r.read(now); n > 0 {
			r.intake.count(n, now)
			r.intake.got(n)
		} else {
			r.intake.wait()
		}
	}
	r.intake.resume()
}

// read deals with what is in the ring, up to a batch, and says how many packets
// that were.
func (r *intakeReader) read(now int64) (n int) {
	r.w.stats.Lock()
	defer r.w.stats.Unlock()
	for n < intakeBatch {
		b, link, ok := r.intake.frame(n)
		if !ok {
			break
		}
		n++
		r.packet(b, link, now)
	}
	if n > 0 {
		r.merge.flush()
		r.intake.release(n)
	}
	return n
}

// packet deals with one packet, an IP datagram.
func (r *intakeReader) packet(b []byte, link uint32, now int64) {
	in := &r.w.in
	*in = engine.Input{Now: now, Arriving: true}
	p := &in.Packet
	f := packet.Parse(p, b, len(b))
	from := r.w.fw.links.link(link)
	in.InIf, in.InMTU = from.name, from.mtu
	if f != packet.OK || p.Protocol != packet.ESP || p.Transport != plainHeader(p.Version) {
		if f == packet.OK {
			r.w.stats.unreadable.Add(1) // not what the program lets through
			return
		}
		r.w.handler.Handle(in, &r.w.out, f)
		r.count(1, false)
		return
	}
	r.datagram(p.Bytes[p.Transport:p.Len], link)
}

// plainHeader is how long an IP header is with neither options nor extension
// headers.
func plainHeader(version uint8) int {
	if version == 4 {
		return 20
	}
	return 40
}

// takeIn gives the descriptor of the program that a rule is to call for native ESP;
// 0 if it comes by a queue, or the program is called from a hook.
func (f *Firewall) takeIn(cfg *Config) int {
	if !cfg.Protect || f.cfg.Receiver != Batch || f.cfg.noIntake {
		return 0
	}
	device, _ := f.links.index(f.tunnel.name)
	noHook, noIntake := f.intake.open(!f.cfg.noHook, device, func(p *ebpf.Program) error {
		if err := f.rules.trial(families(f.can.inet)[0], matchBPF(p.FD())); err != nil {
			return fmt.Errorf("xtables match bpf (CONFIG_NETFILTER_XT_MATCH_BPF with CONFIG_NFT_COMPAT): %w", bare(err))
		}
		return nil
	})
	if noIntake != nil {
		f.cfg.Logger.Info("ESP comes packet by packet, which is slower: this kernel or the rights of the daemon allow no BPF program", slog.Any("error", noIntake))
	} else if noHook != nil {
		f.cfg.Logger.Debug("ESP is taken by a rule of the table, because this kernel takes no BPF program on a hook", slog.Any("error", noHook))
	}
	if f.intake.prog == nil {
		return 0
	}
	return f.intake.prog.FD()
}

// hang has the program called from its hook while the policy protects. The table
// is in force already: what the program does not take meets it.
func (f *Firewall) hang(cfg *Config) error {
	h, by := f.intake.hook, "queue"
	defer func() { f.espBy.Store(&by) }()
	switch {
	case !cfg.Protect:
		by = ""
	case f.intake.prog != nil:
		by = "rule"
	}
	if h == nil {
		return nil
	}
	if !cfg.Protect {
		f.addresses.tell(nil)
		return h.detach()
	}
	if err := h.attach(f.intake.ns); err != nil {
		return err
	}
	by = "hook"
	f.addresses.tell(func(own []netip.Addr) {
		if err := h.knows(own); err != nil {
			f.cfg.Logger.Warn("ESP comes packet by packet, which is slower, to addresses of this host that are new", slog.Any("error", err))
		}
	})
	return nil
}
