// Package rules reads the policy language: HCL files become an engine.Policy,
// the settings of the daemon, and the ipsec and ike blocks that protect rules
// refer to. It is the only room that knows HCL.
//
// Load reports every mistake at once, each with file, line and source snippet,
// and gives a policy only when there is none. What a policy says beyond doubt
// but hardly on purpose (a rule that no packet can reach) is a warning.
//
// Essential rules stand before the user's own, so that a rule that discards
// everything cannot cut the host off from neighbour discovery; who wants that
// writes `essentials = false`.
//
// Limits: a policy file has at most 64 MiB; expressions nest at most 64 deep;
// there is no `dynamic` block and no way to read other files from a policy.
package rules

import (
	"io"
	"net/netip"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
)

// Policy is one policy, checked and ready to use. It is not changed after Load.
type Policy struct {
	Engine   engine.Policy // the rules that are evaluated, essentials first
	Settings Settings      // the policy block
	IPsec    []IPsec       // in the order of the files
	IKE      []IKE         // in the order of the files
	Tests    []Test        // in the order of the files
	Warnings []Diagnostic  // what Load's Diagnostics hold beside errors

	rules []rule // what Print prints: with the rules that are not evaluated
}

// Settings is what the policy block says beside the defaults, which are in
// Engine.Default.
type Settings struct {
	Essentials bool   // ipfw's own rules are part of Engine.Rules
	FailOpen   bool   // on_failure = "open": without a daemon, new flows pass
	Queue      uint16 // first NFQUEUE number
	Queues     uint16 // how many queues; 0: one for each processor
	MarkMask   uint32 // the bits of packet and connection marks that are ours
	Offload    bool   // offload = "flow": the kernel keeps what was decided
	// LogRate is how many events the daemon writes to its log in a second at
	// most; 0: no limit. Counters and the event stream are not limited.
	LogRate uint32
	// Log says which packets that no rule logs by itself get an event, of many of
	// them a few.
	Log LogWhat
	// Place is "file:line" of the policy block.
	Place string
}

// LogWhat is what the policy block's `log` names.
type LogWhat uint8

// The values of `log`.
const (
	LogNone     LogWhat = iota
	LogDiscards         // packets that are discarded
	LogAll              // and those that open a flow
)

var logNames = []string{"none", "discard", "all"}

// String gives the word that a policy uses.
func (l LogWhat) String() string { return logNames[l] }

// Defaults of the policy block.
const (
	DefaultQueue    = 4301       // the number of the RFC; 0 is what everyone else takes
	DefaultMarkMask = 0xff000000 // what kube-proxy, Tailscale, wg-quick and Docker use lies below
	DefaultLogRate  = 100        // events in a second
)

// LoadOptions says what Load cannot know from the files.
type LoadOptions struct {
	// Stdin is what the path "-" reads; nil makes that path an error.
	Stdin io.Reader
	// CheckFiles makes a missing key or certificate file an error. Without
	// it (a dry run) it is a warning, or nothing for a profile. Key files
	// that others can read are an error always.
	CheckFiles bool
	// Check says what else keeps a policy from being enforced; nil: nothing is
	// known of that. It is asked when nothing else is wrong.
	Check func(*Policy) []Refusal
	// SSHConnection is the value of $SSH_CONNECTION ("client port server
	// port"); when set, Load warns if the policy would cut that session.
	SSHConnection string
	// SSHInterface is the interface that session comes in by; empty: the one
	// that has the server's address.
	SSHInterface string
	// Interfaces are the names of this host's; when set, Load warns of rules
	// that protect and name none of them.
	Interfaces []string
}

// Refusal is a reason not to enforce a policy that others than Load have found.
type Refusal struct {
	Kind, Name string // of the block: "ike" and its name; "policy" has none
	Argument   string // the one that it is about; empty: the block
	Text       string // half a sentence, without a full stop
	Warning    bool   // it does not keep the policy from loading
	Summary    string // a few words; empty: that the policy is refused
}

// IPsec is an ipsec block: how the traffic of a protect rule is sealed.
type IPsec struct {
	Name   string
	Place  string            // "file:line"
	Places map[string]string // the same of each argument that is written

	Tunnel bool  // mode = "tunnel"; else transport
	AH     bool  // protocol = "ah"; else ESP
	Encap  Encap // ESP in UDP (RFC 3948)

	// IKE names the ike block that the keys come from; empty with Manual.
	IKE    string
	Manual *Manual

	// Endpoints of the tunnel, or of the one manual transport SA. Invalid
	// addresses mean "as the route and the peer have it".
	LocalEndpoint, RemoteEndpoint netip.Addr

	// What IKE may negotiate, best first; empty: ipfw's defaults.
	Encryption, Integrity, KeyExchange []string

	ReplayWindow int  // packets, 32 to 8192; 0: replays are not looked for
	ESN          bool // extended sequence numbers (RFC 4303 section 2.2.1)

	Outer esp.Outer // tunnel mode: how the outer header is made
	TFC   int       // tunnel mode: inner packets are padded to this many bytes; 0: not at all
	// Dummies in DummiesPer is how many dummy packets each outbound SA sends
	// beside its traffic (RFC 4303 section 2.6), at most 1,000 in a second; 0: none.
	Dummies    uint32
	DummiesPer time.Duration

	Lifetime        time.Duration // 0: no limit, or IKE's default
	LifetimeBytes   uint64        // 0: no limit
	LifetimePackets uint64        // 0: no limit
}

// Encap says when ESP is carried in UDP.
type Encap uint8

// The values of `encapsulation`.
const (
	EncapAuto Encap = iota // when there is a NAT in the way, or it is faster
	EncapUDP               // always
	EncapNone              // never
)

var encapNames = []string{"auto", "udp", "none"}

// String gives the word that a policy uses.
func (e Encap) String() string { return encapNames[e] }

// Manual is a manual block: an SA pair set by hand. The keys themselves are
// in KeyFile (ReadKeys) and never in a Policy.
type Manual struct {
	SPIIn, SPIOut uint32 // 256 and up (RFC 4303 section 2.1)
	Encryption    string // empty for AH
	Integrity     string
	KeyFile       string // absolute
}

// IKE is an ike block: who may be talked to, and how each side proves itself.
type IKE struct {
	Name   string
	Place  string            // "file:line"
	Places map[string]string // the same of each argument that is written

	LocalEndpoint netip.Addr // invalid: as the route has it
	Remote        []Endpoint // empty: anybody may call, nobody is called

	LocalID  string
	RemoteID string // "*" stands for any run of characters; empty: whatever the key proves

	// Paths, absolute; empty when not given.
	Certificate, PrivateKey, CA, CRL string
	PublicKeys                       string // a folder of NAME.pub files
	PSKFile, PPKFile                 string
	EAP                              bool   // callers prove themselves by EAP-TLS (RFC 7296 section 2.16)
	PPKID                            string // which key of PPKFile is offered
	PPKRequired                      bool   // peers without one are refused (RFC 8784)

	RequestAddress bool // as a caller: ask for an address (RFC 7296 section 3.15)
	MOBIKE         bool // survive a change of address (RFC 4555)
	FullTranscript Transcript
	// MaxSAsPerIdentity is how many IKE SAs one identity may have at a time; of
	// more, the one that has been silent for longest ends.
	MaxSAsPerIdentity int

	Pool []netip.Prefix // addresses for callers
	DNS  []netip.Addr   // resolvers for callers
	// DNSDomains are what callers ask these for, if not for everything (RFC 8598).
	DNSDomains []string

	// What is proposed and accepted, best first; empty: ipfw's defaults.
	Encryption, Integrity, PRF, KeyExchange []string

	Lifetime          time.Duration // of the IKE SA; 0: ipfw's default
	DeadPeerDetection time.Duration // silence after which the peer is asked; 0: ipfw's default
	Initiate          Initiate

	// When a request that gets no answer is sent again: after RetransmitTimeout,
	// then RetransmitBase times as long each, RetransmitTries times, and then the
	// peer is given up. 0: ipfw's defaults.
	RetransmitTimeout time.Duration
	RetransmitBase    float64
	RetransmitTries   int
}

// Initiate says when this side opens the exchange.
type Initiate uint8

// The values of `initiate`.
const (
	InitiateTraffic Initiate = iota // when a packet needs an SA
	InitiateStart                   // at once, and again whenever it is lost
	InitiateNever                   // wait to be called
)

var initiateNames = []string{"traffic", "start", "never"}

// String gives the word that a policy uses.
func (i Initiate) String() string { return initiateNames[i] }

// Transcript says whether both sides authenticate both IKE_SA_INIT messages
// (draft-ietf-ipsecme-ikev2-downgrade-prevention).
type Transcript uint8

// The values of `full_transcript_auth`.
const (
	TranscriptAuto    Transcript = iota // with every peer that has it
	TranscriptRequire                   // peers without it are refused
	TranscriptNever                     // not offered
)

var transcriptNames = []string{"auto", "require", "never"}

// String gives the word that a policy uses.
func (t Transcript) String() string { return transcriptNames[t] }

// Endpoint is where an IKE peer may be: a range of addresses or a DNS name.
type Endpoint struct {
	Range engine.AddrRange
	Name  string // when not empty, Range is the zero value
}

// Test is a test block.
type Test struct {
	Name    string
	Place   string // "file:line"
	Expects []Expect
}

// Expect is an expect block: the verdict that each of its packets has to get.
type Expect struct {
	Place   string // "file:line"
	Verdict engine.Verdict
	Packets []string // in the one-line form of engine.ParseTrial
	Rule    string   // the rule that has to decide; empty: any
}

// rule is a rule block as Print needs it.
type rule struct {
	engine.Rule
	disabled bool
	empty    []string // selectors that are an empty list: the rule matches nothing
	// addresses says how the address selectors were written; nil: as they are.
	addresses map[string]*addressArgument
}

// FindIPsec gives the ipsec block of that name.
func (p *Policy) FindIPsec(name string) (*IPsec, bool) {
	for i := range p.IPsec {
		if p.IPsec[i].Name == name {
			return &p.IPsec[i], true
		}
	}
	return nil, false
}

// FindIKE gives the ike block of that name.
func (p *Policy) FindIKE(name string) (*IKE, bool) {
	for i := range p.IKE {
		if p.IKE[i].Name == name {
			return &p.IKE[i], true
		}
	}
	return nil, false
}
