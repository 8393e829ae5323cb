package ike

import (
	"net/netip"
	"time"
)

// Datagram is one UDP datagram. Over the port for NAT traversal the driver
// adds and strips the non-ESP marker (RFC 7296 section 3.1); Data is without.
type Datagram struct {
	Local, Remote netip.AddrPort
	Data          []byte
	// Keepalive marks a NAT keepalive (RFC 3948 section 4): one byte 0xff
	// that goes out without a marker.
	Keepalive bool
}

// Keys is the keying material of one direction of a child SA. The salt of an
// AEAD follows the key in Encryption (RFC 4106 section 8.1).
type Keys struct {
	Encryption, Integrity []byte
}

// Wipe overwrites the keys; whoever has installed them calls it.
func (k Keys) Wipe() { wipe(k.Encryption, k.Integrity) }

// Mode is how a child SA carries packets.
type Mode uint8

// The modes of RFC 4301 section 3.2.
const (
	Tunnel Mode = iota
	Transport
)

// String gives the word a policy uses.
func (m Mode) String() string {
	if m == Transport {
		return "transport"
	}
	return "tunnel"
}

// ChildSA is a pair of SAs to install: one that receives and one that sends.
type ChildSA struct {
	ID       uint64 // never used twice by one Core
	IKE      uint64 // ID of the IKE SA it belongs to
	Peer     string // Peer.Name
	Name     string // Child.Name
	Replaces uint64 // ID of the child that this one rekeys, or 0

	Protocol      uint8 // ProtoESP or ProtoAH
	Mode          Mode
	SPIIn, SPIOut uint32
	In, Out       Keys
	Encryption    string // as package esp names it; empty for AH
	Integrity     string // the same; empty with a combined cipher
	ESN           bool
	NoTFC         bool // the peer does not take TFC padding (RFC 7296 section 1.3.1)

	Local, Remote     netip.Addr // endpoints of the SA
	LocalTS, RemoteTS []TrafficSelector

	// UDPEncap says that ESP travels in UDP between these ports (RFC 3948).
	UDPEncap              bool
	LocalPort, RemotePort uint16

	RemoteID Identity // who holds the other end

	// Assigned are the addresses that the peer has lent us (RFC 7296 section
	// 2.19): they are ours as long as there is a child with them.
	Assigned []netip.Addr
	// DNS are the servers that the peer has named along with them.
	DNS []netip.Addr
	// Domains are those that these servers know, in lower case, without a dot at
	// the end (RFC 8598); empty: the peer does not say. Each is a name of letters,
	// digits, hyphens and underscores, at most 32 of them.
	Domains []string
}

// ActionKind says what an Action does.
type ActionKind uint8

// What a Core asks of the SAD.
const (
	// Install adds both SAs of Child. The inbound one works at once; the
	// outbound one takes over only if Use is set, else it waits for UseSA.
	Install ActionKind = iota
	// UseSA makes the child's outbound SA the one that packets leave by; its
	// predecessor (Child.Replaces, or any other of that name and peer) stays
	// for what is still arriving.
	UseSA
	// Remove takes both SAs away.
	Remove
	// Move changes the endpoints and ports to those in Child (RFC 4555).
	Move
	// Expect says that the peer is being offered Child.SPIIn, and may send by
	// it before its answer, which brings the keys, is here: what comes may wait
	// for Install or Forget. Of Child only SPIIn, Protocol, Peer and Name are
	// set.
	Expect
	// Forget takes Expect back: nothing will come of that SPI.
	Forget
)

var actionNames = [...]string{"install", "use", "remove", "move", "expect", "forget"}

// String gives a word for logs.
func (k ActionKind) String() string { return actionNames[k] }

// Action is one step for whoever holds the SAD. Actions are to be done in
// order, and before the datagrams of the same Output are sent.
type Action struct {
	Kind  ActionKind
	Use   bool // with Install
	Child ChildSA
	// Failed says, with Remove, that nobody has agreed to it: the peer was
	// silent. It may still be sending into this SA.
	Failed bool
}

// Output is what a call into the Core gives back.
type Output struct {
	Actions []Action
	Send    []Datagram
	Events  []Event
	Jobs    []Job // see Config.Jobs
}

// EventKind says what an Event reports.
type EventKind uint8

// The events.
const (
	IKEUp EventKind = iota
	IKEDown
	IKERekeyed
	ChildUp
	ChildDown
	ChildRekeyed
	Failed  // an exchange failed; Failure says why
	Moved   // addresses changed
	Address // a lease from our pool was given, or one was given to us
	Expires // a certificate, of the peer or our own, or a revocation list is about to end
	Silent  // a call has no answer yet, or one of a peer does not go on, and it is not over; Detail says what is known
)

var eventNames = [...]string{"ike-up", "ike-down", "ike-rekeyed", "child-up", "child-down", "child-rekeyed", "failed", "moved", "address", "expires", "silent"}

// String gives the event's name as logs print it.
func (k EventKind) String() string { return eventNames[k] }

// Failure is why an exchange failed. The list is closed: each has a counter.
type Failure uint8

// The failures, by what an administrator has to look at.
const (
	NoFailure Failure = iota
	NoAnswer
	NoProposal
	NoSelectors
	WrongMode
	UnknownPeer     // no ike block for that address or identity
	WrongIdentity   // the peer is not who the policy expects
	WrongKey        // AUTH does not verify
	BadCertificate  // does not chain, has expired, is revoked, or names someone else
	WrongMethod     // authenticates in a way the policy does not have for it
	NoPPK           // post-quantum pre-shared key missing or unknown
	NoTranscript    // does not authenticate both IKE_SA_INIT messages, and the policy requires it
	NoAddress       // no lease to be had
	RefusedByPeer   // an error notification that says no more
	Malformed       // a message that breaks RFC 7296
	TooMany         // over a limit
	BadRandomness   // our own source failed
	UnexpectedNAT   // a NAT where the policy's mode cannot work
	WrongKeyByPeer  // the peer answered AUTHENTICATION_FAILED
	InternalFailure // our own key or configuration does not work
	failureCount
)

var failureNames = [failureCount]string{
	"none", "no-answer", "no-proposal-in-common", "selectors-do-not-overlap", "wrong-mode", "unknown-peer",
	"wrong-identity", "wrong-key", "bad-certificate", "wrong-auth-method", "no-ppk", "no-full-transcript-auth", "no-address",
	"refused-by-peer", "malformed", "too-many", "bad-randomness", "unexpected-nat", "authentication-refused-by-peer",
	"internal-failure",
}

// String gives the failure's name as events and counters print it.
func (f Failure) String() string { return failureNames[f] }

// Failures is how many failures there are, NoFailure included.
const Failures = int(failureCount)

// Event is one line for people.
type Event struct {
	Time     time.Time
	Kind     EventKind
	Failure  Failure
	Peer     string // Peer.Name; empty when none was found
	Child    string // Child.Name, where the event is about one
	IKE      uint64
	SPIIn    uint32 // of the child
	SPIOut   uint32
	Local    netip.AddrPort
	Remote   netip.AddrPort
	RemoteID Identity
	Suite    string
	// What we had and what the peer had, where they did not fit, and the
	// nearest match, in words. Never a secret.
	Ours, Theirs, Nearest string
	Detail                string
	// Setting names the policy attribute to look at.
	Setting string
	// Stranger says that it is about a call of somebody who has not authenticated:
	// anybody can cause it.
	Stranger bool
}
