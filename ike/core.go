package ike

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"time"
)

// Core is an IKEv2 endpoint without sockets, clock or goroutines: every call
// brings the time and gives back what is to be done. The same calls with the
// same randomness have the same outcome. A Core is not safe for concurrent
// use.
type Core struct {
	cfg   Config
	peers *roster // cfg.Peers
	kex   kexSource

	sas    map[uint64]*ikeSA // by our SPI
	inits  map[initKey]*ikeSA
	spis   map[uint32]*child // by inbound SPI; nil: reserved
	held   map[holder][]*ikeSA
	index  index
	timers timers
	guard  guard
	ghosts ghosts
	going  []lingering
	gone   map[uint32]struct{} // the inbound SPIs of going
	again  []restart
	due    time.Time // when the first of again is; zero: none
	leases leases
	calls  calls
	jobs   jobs
	// partings are to be ended as soon as possible.
	partings []parting
	own      []ownProof // our own certificates
	ownDue   time.Time  // when the first of own is; zero: none

	now    time.Time
	out    Output
	nextID uint64
	stats  Stats
}

// Stats counts what a Core has seen since it was made.
type Stats struct {
	SAs, HalfOpen, Children int // now
	Up                      uint64
	Failures                [Failures]uint64
	Dropped                 uint64 // datagrams that were no use
	Cookies                 uint64 // answered with a cookie
	Retransmits             uint64
}

// New makes a Core. Peers are checked; all that is wrong is in the error.
func New(cfg Config) (*Core, error) {
	if cfg.Rand == nil {
		return nil, errors.New("ike: no source of randomness")
	}
	if err := cfg.check(cfg.Peers); err != nil {
		return nil, err
	}
	return &Core{
		cfg: cfg.withDefaults(), peers: newRoster(cfg.Peers), kex: kexSource{rand: cfg.Rand},
		sas: map[uint64]*ikeSA{}, inits: map[initKey]*ikeSA{}, spis: map[uint32]*child{}, held: map[holder][]*ikeSA{},
		index: newIndex(), gone: map[uint32]struct{}{},
		guard: guard{perAddr: map[netip.Prefix]int{}, eapPerAddr: map[netip.Prefix]int{}, trusted: newBook(maxPages), suspects: newBook(maxPages), stalled: newBook(maxStalled)}, ghosts: ghosts{m: map[uint64]ghost{}},
		leases: newLeases(), jobs: jobs{given: map[uint64]*job{}},
	}, nil
}

// Stats gives the counters.
func (c *Core) Stats() Stats {
	s := c.stats
	s.SAs, s.HalfOpen, s.Children = len(c.sas), c.guard.total, len(c.spis)
	return s
}

func (c *Core) begin(now time.Time) {
	if now.After(c.now) { // a clock that steps back must not undo timers
		c.now = now
	}
}

func (c *Core) end() Output {
	c.give()
	o := c.out
	c.out = Output{}
	return o
}

// Next says when Tick is due; false: nothing waits.
func (c *Core) Next() (time.Time, bool) {
	var t time.Time
	if len(c.partings) > 0 {
		return c.now, true
	}
	if len(c.timers) > 0 {
		t = c.timers[0].at
	}
	if len(c.going) > 0 {
		t = sooner(t, c.going[0].at)
	}
	t = sooner(sooner(t, c.due), c.ownDue)
	return t, !t.IsZero()
}

// Tick does what is due.
func (c *Core) Tick(now time.Time) Output {
	c.begin(now)
	for len(c.timers) > 0 && !c.timers[0].at.After(c.now) {
		sa := c.timers[0]
		c.tickSA(sa)
		c.settle(sa)
	}
	for len(c.going) > 0 && !c.going[0].at.After(c.now) {
		c.act(Action{Kind: Remove, Child: c.going[0].child})
		delete(c.gone, c.going[0].child.SPIIn)
		*c.going[0].of--
		c.going = c.going[1:]
	}
	c.restartDue()
	c.tellOwn()
	c.part()
	c.ghosts.expire(c.now)
	return c.end()
}

// Handle takes one datagram that came in on a port for IKE.
func (c *Core) Handle(now time.Time, d Datagram) Output {
	c.begin(now)
	d.Local = netip.AddrPortFrom(d.Local.Addr().Unmap().WithZone(""), d.Local.Port())
	d.Remote = netip.AddrPortFrom(d.Remote.Addr().Unmap().WithZone(""), d.Remote.Port())
	c.take(d)
	return c.end()
}

func (c *Core) take(d Datagram) {
	h, err := parseHeader(d.Data)
	switch {
	case err != nil:
		c.stats.Dropped++
	case h.version>>4 > 2:
		c.refuseVersion(h, d)
	case h.version>>4 != 2 || h.spiI == 0:
		c.stats.Dropped++
	case h.exchange == exIKESAInit:
		c.handleInit(h, d)
	default:
		c.handleSA(h, d)
	}
}

// refuseVersion is RFC 7296 section 2.5: a request of a later major version
// is told ours. The answer is shorter than any request we would look at.
func (c *Core) refuseVersion(h header, d Datagram) {
	if h.response() || h.flags&flagInitiator == 0 {
		c.stats.Dropped++
		return
	}
	c.reply(d, encodePlain(header{spiI: h.spiI, spiR: h.spiR, exchange: h.exchange, flags: flagResponse, id: h.id},
		[]payload{note(nInvalidMajorVersion)}))
}

// handleSA finds the IKE SA of a message by our own SPI.
func (c *Core) handleSA(h header, d Datagram) {
	mine, theirs := h.spiI, h.spiR
	if h.flags&flagInitiator != 0 {
		mine, theirs = h.spiR, h.spiI
	}
	if g, ok := c.ghosts.answer(mine, h, d.Remote.Addr(), d.Data); ok {
		for _, m := range g {
			c.reply(d, m)
		}
		return
	}
	sa := c.sas[mine]
	if sa == nil || sa.theirs() != theirs || sa.initiator == (h.flags&flagInitiator != 0) || sa.state == stInitSent {
		c.stats.Dropped++
		return
	}
	if sa.job != nil {
		c.hold(sa, h, d)
		return
	}
	if h.response() {
		c.handleResponse(sa, h, d)
	} else {
		c.handleRequest(sa, h, d)
	}
	c.settle(sa)
}

func (c *Core) reply(d Datagram, msg []byte) {
	c.out.Send = append(c.out.Send, Datagram{Local: d.Local, Remote: d.Remote, Data: msg})
}

func (c *Core) act(a Action) { c.out.Actions = append(c.out.Actions, a) }

// random fills n bytes; a source that fails ends whatever asked.
func (c *Core) random(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(c.cfg.Rand, b)
	return b, err
}

// newSPI draws an unused SPI for an IKE SA.
func (c *Core) newSPI() (uint64, error) {
	for {
		b, err := c.random(8)
		if err != nil {
			return 0, err
		}
		s := binary.BigEndian.Uint64(b)
		if _, used := c.sas[s]; s != 0 && !used && !c.ghosts.has(s) {
			return s, nil
		}
	}
}

// newChildSPI draws an unused SPI for a child SA; 1 to 255 are reserved
// (RFC 4303 section 2.1).
func (c *Core) newChildSPI() (uint32, error) {
	for {
		b, err := c.random(4)
		if err != nil {
			return 0, err
		}
		s := binary.BigEndian.Uint32(b)
		_, used := c.spis[s]
		_, lingers := c.gone[s]
		if s > 255 && !used && !lingers {
			return s, nil
		}
	}
}

// jitter takes up to a tenth off a duration, so that peers that started
// together do not rekey together.
func (c *Core) jitter(d time.Duration) time.Duration {
	b, err := c.random(2)
	if err != nil || d <= 0 {
		return d
	}
	return d - time.Duration(uint64(d/10)*uint64(binary.BigEndian.Uint16(b))>>16)
}

// retryDelay is how long a TEMPORARY_FAILURE is waited out: one to three
// seconds by chance, so that two sides do not meet again and again.
func (c *Core) retryDelay() time.Time {
	b, _ := c.random(2)
	return c.now.Add(time.Second + 2*time.Second*time.Duration(binary.BigEndian.Uint16(b))>>16)
}

// lingering is a child that still receives for a moment after its time.
type lingering struct {
	at    time.Time
	child ChildSA
	of    *int // ikeSA.lingers
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// timers is a heap of IKE SAs by when they are due.
type timers []*ikeSA

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push is for container/heap.
func (t *timers) Push(x any) {
	x.(*ikeSA).index = len(*t)
	*t = append(*t, x.(*ikeSA))
}

// Pop is for container/heap.
func (t *timers) Pop() any {
	old := *t
	sa := old[len(old)-1]
	*t, sa.index = old[:len(old)-1], -1
	return sa
}

// settle sends what an IKE SA has to send and sets its timer. It comes after
// everything that changes one.
func (c *Core) settle(sa *ikeSA) {
	if sa.state != stDead {
		c.pump(sa)
	}
	c.index.place(sa)
	if sa.state == stDead {
		if sa.index >= 0 {
			heap.Remove(&c.timers, sa.index)
		}
		return
	}
	sa.at = c.deadline(sa)
	if sa.index < 0 {
		heap.Push(&c.timers, sa)
	} else {
		heap.Fix(&c.timers, sa.index)
	}
}
