package esp

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
)

// SA is a security association: one direction of traffic under one key. All
// methods may be called by any number of goroutines at once.
type SA struct {
	cfg     Config // without keys
	crypt   *crypter
	outer   atomic.Pointer[outer]
	closed  atomic.Bool
	win     window
	lastSeq uint64 // the highest sequence number this SA may send
	softSeq uint64 // a number from which it is time for another SA

	keys       sync.Mutex // guards the two
	encryption Key
	integrity  Key

	path path

	_      [64]byte // keep the counters, which every packet writes, apart from what every packet reads
	seq    atomic.Uint64
	start  atomic.Uint64 // the number before the first that this SA sends
	bytes  atomic.Uint64
	count  atomic.Uint64 // packets opened; of an outbound SA seq says it
	used   atomic.Int64
	told   atomic.Bool // the soft lifetime has been signalled
	faults [Faults]atomic.Uint64
}

// New makes an SA. It says in one sentence what is wrong with a Config, and
// never what a key is.
func New(c Config) (*SA, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if c.ReplayWindow == 0 {
		c.ReplayWindow = DefaultWindow
	}
	crypt, err := newCrypter(c.Suite, c.EncryptionKey, c.IntegrityKey, c.ESN)
	if err != nil {
		return nil, err
	}
	sa := &SA{crypt: crypt, encryption: NewKey(c.EncryptionKey.bytes()), integrity: NewKey(c.IntegrityKey.bytes())}
	c.EncryptionKey, c.IntegrityKey = Key{}, Key{}
	sa.cfg = c
	sa.used.Store(c.Created)
	if c.Direction == In {
		sa.win.init(c.ReplayWindow, c.ESN, c.NoReplayCheck, c.Sequence)
	} else {
		sa.seq.Store(c.Sequence)
		sa.start.Store(c.Sequence)
	}
	sa.lastSeq = 1<<32 - 1
	if c.ESN {
		sa.lastSeq = 1<<64 - 1
	}
	// Numbers run out; ask for another SA well before.
	sa.softSeq = sa.lastSeq - sa.lastSeq/16
	if n := c.Soft.Packets; n != 0 {
		sa.softSeq = min(sa.softSeq, c.Sequence+n)
	}
	sa.Move(c.Src, c.Dst, c.Encap)
	return sa, nil
}

// Close ends the SA: it seals and opens nothing more, and its keys are wiped.
// What other goroutines have in work is finished.
func (sa *SA) Close() {
	sa.closed.Store(true)
	sa.keys.Lock()
	defer sa.keys.Unlock()
	sa.encryption.Wipe()
	sa.integrity.Wipe()
}

// TakeOver makes an SA go on where another with the same keys and direction is, so
// that no number is sent or taken twice. An inbound one that is taken over from takes
// nothing more, until it takes over itself.
func (sa *SA) TakeOver(from *SA) {
	if sa.cfg.Direction == In {
		sa.win.resume(from.win.end())
		return
	}
	if seq, at := from.seq.Load(), sa.seq.Load(); seq > at && seq > from.start.Load() {
		sa.start.Add(seq - at) // does not count as sent
		sa.seq.Add(seq - at)
	}
}

// End is Close, and gives the last sequence number: an inbound SA takes none after
// it. Outbound, what other goroutines have in work may still be sent.
func (sa *SA) End() uint64 {
	sa.Close()
	if sa.cfg.Direction == In {
		return sa.win.end()
	}
	return sa.seq.Load()
}

// Closed reports whether Close was called.
func (sa *SA) Closed() bool { return sa.closed.Load() }

// Move changes the addresses and ports, as MOBIKE (RFC 4555) and a NAT that
// forgot its mapping make necessary. Addresses must be of one family, plain,
// and valid for an outbound SA; the caller has checked that.
func (sa *SA) Move(src, dst netip.Addr, e Encap) {
	sa.outer.Store(newOuter(src, dst, e, &sa.cfg))
}

// SPI is the security parameters index.
func (sa *SA) SPI() uint32 { return sa.cfg.SPI }

// Protocol is ESP or AH.
func (sa *SA) Protocol() Protocol { return sa.cfg.Suite.Protocol }

// Mode is transport or tunnel.
func (sa *SA) Mode() Mode { return sa.cfg.Mode }

// Direction is in or out.
func (sa *SA) Direction() Direction { return sa.cfg.Direction }

// Suite is what the SA does to packets.
func (sa *SA) Suite() Suite { return sa.cfg.Suite }

// Owner says what the SA belongs to.
func (sa *SA) Owner() Owner { return sa.cfg.Owner }

// Data is what the SA was made with for its maker.
func (sa *SA) Data() any { return sa.cfg.Data }

// Endpoints are the addresses and ports of the protected packets.
func (sa *SA) Endpoints() (src, dst netip.Addr, e Encap) {
	o := sa.outer.Load()
	return o.src, o.dst, o.encap
}

// Config gives what the SA was made of, with the addresses it has now and
// without its keys.
func (sa *SA) Config() Config {
	c := sa.cfg
	c.Src, c.Dst, c.Encap = sa.Endpoints()
	return c
}

// Counters are what an SA has seen so far.
type Counters struct {
	Packets uint64 // sealed or opened
	Bytes   uint64 // before sealing, after opening
	// Seq is the last sequence number taken outbound, the highest accepted
	// inbound.
	Seq    uint64
	Used   int64 // when it last sealed or opened, on the caller's clock
	Faults [Faults]uint64
}

// Counters reads the counters; not all of one instant.
func (sa *SA) Counters() (c Counters) {
	c.Bytes, c.Used = sa.bytes.Load(), sa.used.Load()
	if sa.cfg.Direction == Out {
		c.Seq = sa.seq.Load()
		c.Packets = c.Seq - sa.start.Load()
	} else {
		c.Seq = sa.win.Top()
		c.Packets = sa.count.Load()
	}
	for i := range c.Faults {
		c.Faults[i] = sa.faults[i].Load()
	}
	return c
}

// fault counts f, and gives it back.
func (sa *SA) fault(f Fault) Fault {
	sa.faults[f].Add(1)
	return f
}

// String names the SA without its keys:
// "esp 0x00001001 out tunnel aes-128-gcm-16 192.0.2.1 -> 192.0.2.2".
func (sa *SA) String() string {
	if sa == nil {
		return "no SA"
	}
	src, dst, _ := sa.Endpoints()
	c := &sa.cfg
	return fmt.Sprintf("%s %#08x %s %s %s %s -> %s", c.Suite.Protocol, c.SPI, c.Direction, c.Mode, c.Suite, endText(src), endText(dst))
}

// endText gives an address of an SA; "any" for one that the SA leaves open.
func endText(a netip.Addr) string {
	if !a.IsValid() || a.IsUnspecified() {
		return "any"
	}
	return a.String()
}

// GoString is String.
func (sa *SA) GoString() string { return sa.String() }

// Format prints what String gives, whatever the verb.
func (sa *SA) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(sa.String())) }

// LogValue is String.
func (sa *SA) LogValue() slog.Value { return slog.StringValue(sa.String()) }
