package ike

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"
)

// Config is everything a Core knows. It is not changed once a Core has it.
type Config struct {
	Peers []*Peer // the peer authorisation database, RFC 4301 section 4.4.3; the first that fits is taken

	// Rand is drawn from by jobs as well, at the same time if several run at
	// once. nil fails closed: no SA is ever made.
	Rand io.Reader

	// Jobs is how many jobs may be out at once, which whoever drives the Core
	// runs and brings back. 0: none; the Core does all work within its calls.
	Jobs int

	// Source says which of our addresses faces another; asked for peers
	// without Local. nil, or the zero Addr: not known.
	Source func(remote netip.Addr) netip.Addr

	// Unfit says why an address that a peer at another lends us cannot be taken
	// ("it is this host's own"); empty: it can. nil: nothing is known here.
	Unfit func(lent, peer netip.Addr) string

	// Barred says what of this host keeps it from hearing what is sent from
	// remote to local, as the end of a sentence ("discarded here by ..."); empty:
	// nothing does. nil: nothing is known here.
	Barred func(local, remote netip.AddrPort) string

	// Port and NATPort are our own UDP ports; 0 means 500 and 4500.
	Port, NATPort uint16

	// EAP begins a run of the EAP method that peers with EAP use; it must be
	// set if there are such.
	EAP func(EAPCall) EAP

	Limits     Limits
	Retransmit Retransmit

	// KeyLog gets a row of Wireshark's ikev2_decryption_table for every IKE
	// SA. It is the one way a secret leaves; nil, the default, closes it.
	KeyLog func(row string)

	// Linger is how long a rekeyed child still receives what was under way;
	// 0 means 5 seconds.
	Linger time.Duration
}

// Limits bound what strangers can make a Core hold. Zero values mean the
// defaults in brackets.
type Limits struct {
	CookieAfter     int           // half-open SAs beyond which cookies are asked for [64]
	HalfOpen        int           // half-open SAs in all [4096]
	HalfOpenPerAddr int           // half-open SAs for one IPv4 address or IPv6 /64 [16]
	HalfOpenTime    time.Duration // how long one may take [30 s]; with EAP each message, and all four times as long
	EAP             int           // of those in the middle of EAP [512]
	SAs             int           // IKE SAs in all [100000]
	Children        int           // children of one IKE SA [64]
	FragmentSize    int           // bytes of an IKE message beyond which it is fragmented [1232]
	FragmentBytes   int           // of messages in fragments that half-open IKE SAs keep in all [8 MiB]
}

// Retransmit is the schedule of requests that get no answer (RFC 7296 section
// 2.4): First, then Factor times longer each, Tries datagrams in all, then
// the SA is dead. Zero values: of a Peer, those of the Config; there 1 s, 2, 6, so
// that a dead peer is given up after 63 s.
type Retransmit struct {
	First  time.Duration
	Factor float64
	Tries  int
}

// Peer is one entry of the peer authorisation database, an ike block.
type Peer struct {
	Name string

	// Where we call, and from where. Endpoint is invalid for peers that only
	// call in. A zero port means 500.
	Endpoint netip.AddrPort
	// Named says that Endpoint is where a name leads now, and may lead elsewhere.
	Named bool
	Local netip.Addr // our address, which is also where it has to call; invalid: any
	// From is where it may call from; empty: anywhere.
	From []netip.Prefix

	LocalID  Identity // zero: our address, or what our key implies
	RemoteID string   // pattern, see Identity; "" takes any that authenticates

	// How each side shows who it is; both may differ (RFC 7296 section 2.15).
	PSK          []byte              // for both sides, if nothing else is set
	Key          crypto.Signer       // our key
	Certificates []*x509.Certificate // ours, leaf first; none with Key: raw public key
	CAs          []*x509.Certificate // roots for the peer's chain
	CRLs         []*x509.RevocationList
	PublicKeys   map[string]crypto.PublicKey // raw keys by identity (peers/NAME.pub)
	// EAP has the peer call, and prove itself by EAP with a certificate of the
	// CAs; which names it may have is up to RemoteID (RFC 7296 section 2.16).
	EAP bool

	// Post-quantum pre-shared keys by ID (RFC 8784). PPKID is the one we
	// offer. PPKRequired refuses peers without.
	PPKs        map[string][]byte
	PPKID       string
	PPKRequired bool

	Proposals []Proposal // IKE; nil: DefaultIKEProposals
	Children  []*Child

	// Lifetime is when the IKE SA is rekeyed, less up to a tenth by chance
	// [4 h]. DPD is after how much silence the peer is asked whether it
	// lives [30 s]; negative: never.
	Lifetime, DPD time.Duration

	Retransmit Retransmit

	// MaxSAs is how many IKE SAs one identity may have at a time [8]. Of more, the
	// one that has been silent for longest ends.
	MaxSAs int

	Fragments  Switch // RFC 7383
	MOBIKE     Switch // RFC 4555
	ForceEncap bool   // pretend to be behind a NAT: ESP in UDP always
	// PreferEncap carries ESP in UDP with a peer that prefers it as well,
	// NAT or not: where both ends are ipfw it is faster. All children are ESP.
	PreferEncap bool
	Childless   bool // RFC 6023: as initiator, make the IKE SA without a child

	// FullTranscript says whether both sides authenticate both IKE_SA_INIT
	// messages, so that no one between them can weaken what they agree on.
	FullTranscript Transcript

	// As a gateway: addresses and resolvers for callers (RFC 7296 section 3.15).
	Pools []netip.Prefix
	DNS   []netip.Addr
	// Domains are told to callers along with DNS (RFC 8598).
	Domains []string
	// As a caller: ask for an address of each family.
	RequestIPv4, RequestIPv6 bool

	known map[Identity]crypto.PublicKey // PublicKeys, see roster
}

// Switch is a setting that is on unless said otherwise.
type Switch uint8

// The states of a Switch.
const (
	On Switch = iota
	Off
)

// Transcript says what a peer is asked for of IKE_SA_INIT_FULL_TRANSCRIPT_AUTH
// (draft-ietf-ipsecme-ikev2-downgrade-prevention).
type Transcript uint8

// The zero value uses it with every peer that has it. TranscriptRequired refuses
// peers without. TranscriptNever does not offer it: for peers whose own is broken.
const (
	TranscriptAuto Transcript = iota
	TranscriptRequired
	TranscriptNever
)

// Child is what a peer may hold, an ipsec block bound to the ike block.
type Child struct {
	Name      string
	Protocol  uint8 // ProtoESP when 0
	Mode      Mode
	Proposals []Proposal // nil: DefaultChildProposals

	// LocalTS and RemoteTS are the most that may be agreed (RFC 7296 section
	// 2.9). Empty means the endpoint itself. In transport mode, and where
	// addresses are leased, they are narrowed to those.
	LocalTS, RemoteTS []TrafficSelector

	// Endpoint is the one address of the peer with which this child may be,
	// Local the one of ours; invalid: any.
	Endpoint, Local netip.Addr

	// When the child is rekeyed, less up to a tenth by chance [1 h].
	// Bytes and Packets: 0 means no limit.
	Lifetime time.Duration
	Bytes    uint64
	Packets  uint64

	// Start makes the child at once and again whenever it is lost.
	Start bool
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// withDefaults gives a copy with every zero value filled in.
func (c Config) withDefaults() Config {
	c.Port, c.NATPort = or(c.Port, 500), or(c.NATPort, 4500)
	l := &c.Limits
	l.CookieAfter, l.HalfOpen, l.HalfOpenPerAddr = or(l.CookieAfter, 64), or(l.HalfOpen, 4096), or(l.HalfOpenPerAddr, 16)
	l.HalfOpenTime, l.SAs, l.Children = or(l.HalfOpenTime, 30*time.Second), or(l.SAs, 100000), or(l.Children, 64)
	l.EAP = or(l.EAP, 512)
	l.FragmentSize, l.FragmentBytes = or(l.FragmentSize, 1232), or(l.FragmentBytes, 8<<20)
	c.Retransmit.First = or(c.Retransmit.First, time.Second)
	c.Retransmit.Factor = or(c.Retransmit.Factor, 2)
	c.Retransmit.Tries = or(c.Retransmit.Tries, 6)
	c.Linger = or(c.Linger, 5*time.Second)
	return c
}

// check says what is wrong with a list of peers, all of it.
func (c *Config) check(peers []*Peer) error {
	var errs []error
	for _, p := range peers {
		errs = append(errs, p.Check())
		if p.EAP && c.EAP == nil {
			errs = append(errs, fmt.Errorf("ike %q: there is no EAP method", p.Name))
		}
	}
	return errors.Join(errs...)
}

// Check says what is wrong with a peer, all of it.
func (p *Peer) Check() error {
	errs := p.Faults()
	for i, err := range errs {
		errs[i] = fmt.Errorf("ike %q: %w", p.Name, err)
	}
	return errors.Join(errs...)
}

// Fault is what is wrong with a peer.
type Fault struct {
	// Argument is that of the policy's ike block which is wrong; "": more than one,
	// or none.
	Argument string
	text     string
}

// Error says what is wrong.
func (f *Fault) Error() string { return f.text }

// Faults is Check without the peer's name, one after the other. Most are a *Fault.
func (p *Peer) Faults() (errs []error) {
	bad := func(arg, format string, a ...any) { errs = append(errs, &Fault{arg, fmt.Sprintf(format, a...)}) }
	if p.Key == nil && len(p.PSK) == 0 {
		bad("", "has neither a private key nor a pre-shared key to show who we are")
	}
	if p.Key != nil {
		if err := checkKey(p.Key.Public()); err != nil {
			bad("private_key", "private key: %v", err)
		}
		if len(p.Certificates) > 0 && !samePublic(p.Key.Public(), p.Certificates[0].PublicKey) {
			bad("private_key", "the private key does not belong to the certificate")
		}
		if p.LocalID.IsZero() && len(p.Certificates) == 0 {
			bad("private_key", "with a raw public key, local_id must be set")
		}
	}
	if err := CheckPattern(p.RemoteID); err != nil {
		bad("remote_id", "remote_id: %v", err)
	}
	if id, _ := p.certifiedID(); len(p.Certificates) > 0 && !p.LocalID.IsZero() && id.IsZero() {
		bad("local_id", "local_id %s is not in the certificate, which speaks for %s", p.LocalID, identitiesOf(p.Certificates[0]))
	}
	if len(p.PSK) == 0 && len(p.CAs) == 0 && len(p.PublicKeys) == 0 {
		bad("", "has no way to verify the peer: no ca, no public_keys, no psk_file")
	}
	if p.EAP && (p.Key == nil || len(p.Certificates) == 0 || len(p.CAs) == 0 || len(p.PublicKeys) > 0 || len(p.PPKs) > 0) {
		bad("remote_auth", "with EAP there must be a certificate, its key and a ca, and no public_keys and no ppk_file")
	}
	for _, k := range p.PublicKeys {
		if err := checkKey(k); err != nil {
			bad("public_keys", "public key: %v", err)
		}
	}
	// Peers would refuse ours as we refuse theirs; by those of a CA every
	// stranger's chain is verified.
	for _, c := range p.Certificates {
		if err := tooLong(c.PublicKey); err != nil {
			bad("certificate", "certificate of %s: %v: make one with an ECDSA key, or a shorter RSA key", c.Subject, err)
		}
	}
	for _, c := range p.CAs {
		if err := tooLong(c.PublicKey); err != nil {
			bad("ca", "ca %s: %v: make a CA with an ECDSA key, or a shorter RSA key", c.Subject, err)
		}
	}
	if r := p.Retransmit; r.First < 0 || r.Tries < 0 || r.Factor != 0 && !(r.Factor >= 1 && r.Factor <= 100) {
		bad("retransmit_base", "retransmissions must take longer each time, not less: %+v", r)
	}
	if p.PPKID != "" && len(p.PPKs[p.PPKID]) == 0 || p.PPKRequired && len(p.PPKs) == 0 {
		bad("ppk_file", "the post-quantum pre-shared key is missing")
	}
	if p.Childless && p.RequestIPv4 {
		bad("request_address", "asking for an address needs a child")
	}
	lists := [][]Proposal{p.Proposals}
	for _, c := range p.Children {
		lists = append(lists, c.Proposals)
		for _, t := range slices.Concat(c.LocalTS, c.RemoteTS) {
			if !t.valid() {
				bad("", "child %q: selector %s is not valid", c.Name, t)
			}
		}
	}
	for i, l := range lists {
		for _, q := range l {
			if (i == 0) != (q.Protocol == ProtoIKE) {
				bad("encryption", "proposal %s is of the wrong protocol", q)
			}
			if err := q.check(); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errs
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

func (p *Peer) proposals() []Proposal {
	if p.Proposals == nil {
		return DefaultIKEProposals()
	}
	return p.Proposals
}

func (c *Child) proto() uint8 { return or(c.Protocol, ProtoESP) }

func (c *Child) proposals() []Proposal {
	if c.Proposals == nil {
		return DefaultChildProposals(c.proto())
	}
	return c.Proposals
}

// takes says that a call from remote to an address of ours is one for this entry.
func (p *Peer) takes(local, remote netip.Addr) bool {
	return (!p.Local.IsValid() || p.Local == local) && p.mayCallFrom(remote)
}

// mayCallFrom says that an address is one the peer may use.
func (p *Peer) mayCallFrom(a netip.Addr) bool {
	if len(p.From) == 0 {
		return !p.Endpoint.IsValid() || p.Endpoint.Addr() == a
	}
	return slices.ContainsFunc(p.From, func(x netip.Prefix) bool { return x.Contains(a) })
}

func (p *Peer) child(name string) *Child {
	for _, c := range p.Children {
		if c.Name == name {
			return c
		}
	}
	return nil
}
