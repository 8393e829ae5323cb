package peers

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	nfqueue "github.com/florianl/go-nfqueue/v2"
	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/packet"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// disorder is a bad line in front of a host: of the UDP datagrams that come and go it
// loses every twentieth, and those that come within a few milliseconds go on in random
// order. Kernels without netem have it too.
type disorder struct {
	mu    sync.Mutex
	held  []datagram
	count int
	// What has gone on since begin, of each sender's IKE messages in fragments.
	lost int
	of   map[netip.Addr]*disordered
}

// datagram is one that waits for its verdict.
type datagram struct {
	id       uint32 // the kernel's
	from     netip.Addr
	message  uint32 // of a fragment, RFC 7383 section 2.5
	num, all int
}

// disordered is what one sender's fragments have met with.
type disordered struct {
	most   int // fragments of one message
	behind int // came first after a later one
	seen   map[uint32]map[int]bool
}

// disorderQueue is its NFQUEUE.
const disorderQueue = 7

// badLine puts a bad line in front of a host, at one of its devices.
func badLine(t *testing.T, h *lab.Host, dev string) *disorder {
	lab.Need(t, "iptables-nft", "ip6tables-nft")
	d := &disorder{}
	d.begin()
	var nf *nfqueue.Nfqueue
	if err := h.Do(func() (err error) {
		nf, err = nfqueue.Open(&nfqueue.Config{NfQueue: disorderQueue, MaxPacketLen: 0xffff, MaxQueueLen: 4096, Copymode: nfqueue.NfQnlCopyPacket, AfFamily: unix.AF_UNSPEC})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { stop(); <-done; _ = nf.Close() })
	if err := nf.SetOption(netlink.NoENOBUFS, true); err != nil {
		t.Fatal(err)
	}
	if err := nf.RegisterWithErrorFunc(ctx, func(a nfqueue.Attribute) int { d.take(a); return 0 }, func(err error) int {
		var op *netlink.OpError
		if ctx.Err() == nil && !(errors.As(err, &op) && (op.Timeout() || op.Temporary())) {
			t.Errorf("NFQUEUE: %v", err)
			return 1
		}
		return 0
	}); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(done)
		for tick := time.NewTicker(5 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			d.goOn(nf)
		}
	}()
	for _, family := range []string{"iptables-nft", "ip6tables-nft"} {
		for chain, at := range map[string]string{"PREROUTING": "-i", "POSTROUTING": "-o"} {
			h.Run(family, "-t", "mangle", "-A", chain, at, dev, "-p", "udp", "-j", "NFQUEUE", "--queue-num", "7")
		}
	}
	return d
}

// begin forgets what has gone on.
func (d *disorder) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lost, d.of = 0, map[netip.Addr]*disordered{}
}

// take keeps a datagram.
func (d *disorder) take(a nfqueue.Attribute) {
	if a.PacketID == nil || a.Payload == nil {
		return
	}
	x := datagram{id: *a.PacketID}
	var p packet.Packet
	if b := *a.Payload; packet.Parse(&p, b, len(b)) == packet.OK && p.Protocol == packet.UDP {
		x.from = p.Src
		b = b[p.Transport+8:]
		const marker, header, general, encrypted = 4, 28, 4, 53 // RFC 3948 section 2.2, RFC 7296 section 3.1, RFC 7383 section 2.5
		if p.DstPort == 4500 && len(b) > marker+header+general+4 && binary.BigEndian.Uint32(b) == 0 && b[marker+16] == encrypted {
			b = b[marker:]
			x.message = binary.BigEndian.Uint32(b[20:])
			x.num, x.all = int(binary.BigEndian.Uint16(b[header+general:])), int(binary.BigEndian.Uint16(b[header+general+2:]))
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = append(d.held, x)
}

// goOn lets go on what is held.
func (d *disorder) goOn(nf *nfqueue.Nfqueue) {
	d.mu.Lock()
	list := d.held
	d.held = nil
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	verdicts := make([]int, len(list))
	for i, x := range list {
		verdicts[i] = nfqueue.NfAccept
		if d.count++; d.count%20 == 0 {
			verdicts[i] = nfqueue.NfDrop
			d.lost++
		} else if x.all > 0 {
			d.note(x)
		}
	}
	d.mu.Unlock()
	for i, x := range list {
		_ = nf.SetVerdict(x.id, verdicts[i])
	}
}

// note counts a fragment that goes on.
func (d *disorder) note(x datagram) {
	o := d.of[x.from]
	if o == nil {
		o = &disordered{seen: map[uint32]map[int]bool{}}
		d.of[x.from] = o
	}
	seen := o.seen[x.message]
	if seen == nil {
		seen = map[int]bool{}
		o.seen[x.message] = seen
	}
	if seen[x.num] {
		return
	}
	seen[x.num] = true
	for n := range seen {
		if n > x.num {
			o.behind++
			break
		}
	}
	o.most = max(o.most, x.all)
}

// check looks at what both sides' messages have met with: some of them were cut into as
// many fragments as this, and came in another order.
func (d *disorder) check(p *play, least int) {
	p.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	f := p.site.family(p.row.v6)
	for _, a := range []netip.Addr{p.site.ours[f], p.site.theirs[f]} {
		switch o := d.of[a]; {
		case o == nil:
			p.Errorf("%s has sent no fragments", a)
		case o.most < least || o.behind == 0:
			p.Errorf("%s: %d fragments of a message, %d of all behind later ones; want %d", a, o.most, o.behind, least)
		default:
			p.Logf("%s: %d fragments of a message, %d of all came behind later ones", a, o.most, o.behind)
		}
	}
	if d.lost == 0 {
		p.Error("no datagram was lost")
	}
}
