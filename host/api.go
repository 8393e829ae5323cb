package host

import (
	"net/netip"
	"time"

	"github.com/ipfw/ipfw/rules"
)

// The control socket speaks HTTP with JSON. What stands here is the schema of
// version 1, and what `--json` prints: fields may be added, never renamed.
//
//	GET  /v1/status                  Status
//	GET  /v1/policy                  PolicyText
//	GET  /v1/flows                   Flow, one on a line
//	GET  /v1/sas                     SA, one on a line
//	GET  /v1/ike                     IKESA, one on a line
//	POST /v1/ike/VERB  IKERequest    IKEResult; initiate, rekey or terminate
//	POST /v1/wireshark-keys?for=R    WiresharkKeys; R is 4.0 for Wireshark 4.0
//	GET  /v1/events?back=N&follow=1  Event, one on a line, the last N first
//	POST /v1/reload   ReloadRequest  ReloadResult
//	POST /v1/confirm                 Confirmation
//
// An error is a status of 400 or more with an APIError.

// Status is a running daemon at one moment. Counters start at 0 with the
// daemon; those of a rule that a reload keeps by name go on.
type Status struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	// Uptime is in seconds.
	Uptime float64      `json:"uptime_seconds"`
	Policy PolicyStatus `json:"policy"`
	// StayShut says that the table will stay when the daemon stops.
	StayShut bool `json:"stay_shut"`
	// Unconfirmed is when the way back will be taken unless somebody
	// confirms; absent when there is nothing to confirm.
	Unconfirmed *Unconfirmed `json:"unconfirmed,omitempty"`

	// Reloading is for how many seconds a reload has been under way; absent:
	// there is none. Until it is done, Rules may be those of either policy.
	Reloading float64 `json:"reloading_seconds,omitempty"`

	// Flows is how many flows are known now.
	Flows int `json:"flows"`
	// SAs is how many SAs there are now, of both directions.
	SAs int `json:"sas"`
	// Reasons counts packets by reason; all reasons are there. They add up to
	// Queue.Packets, Carried and JudgedAgain.
	Reasons map[string]uint64 `json:"reasons"`
	// Carried packets are those that the kernel has carried by itself, of flows
	// that were let through or refused.
	Carried uint64 `json:"carried"`
	// JudgedAgain packets had waited for an SA, or are IKE messages on port 4500,
	// which are told from ESP first.
	JudgedAgain uint64 `json:"judged_again"`
	// Rules are in the order of the policy, those of `essentials` included.
	Rules []RuleStatus `json:"rules"`
	// Sources are the addresses of other hosts that most discarded packets had for
	// their source, the most first.
	Sources []SourceStatus `json:"discarded_sources,omitempty"`
	// Defaults counts, for "in", "out" and "forward", what no rule named.
	Defaults map[string]DefaultStatus `json:"defaults"`
	Queue    QueueStatus              `json:"queue"`
	// IKE is the key exchange; absent while the policy needs none.
	IKE    *IKEStatus  `json:"ike,omitempty"`
	Events EventStatus `json:"events"`
}

// PolicyStatus is the policy in force.
type PolicyStatus struct {
	Paths []string `json:"paths"`
	// Generation counts the policies that this daemon has put in force, from 1.
	Generation uint64       `json:"generation"`
	Loaded     time.Time    `json:"loaded"`
	Warnings   []Diagnostic `json:"warnings"`
	// RolledBack is when this policy came back because nobody confirmed another,
	// which the paths may still hold; absent: it is what they held.
	RolledBack *time.Time `json:"rolled_back,omitempty"`
}

// PolicyText is the policy in force, as it was read: the files may have changed
// since.
type PolicyText struct {
	PolicyStatus
	// Text is the whole policy as it is evaluated, with ipfw's own rules, one that
	// can be loaded.
	Text string `json:"text"`
	// Places are those of the rules in the files, by the rules' names.
	Places map[string]string `json:"places"`
	// IPsecPlaces and IKEPlaces are those of the ipsec and ike blocks.
	IPsecPlaces map[string]string `json:"ipsec_places"`
	IKEPlaces   map[string]string `json:"ike_places"`
}

// Unconfirmed is a start or a reload that waits for `ipfw confirm`.
type Unconfirmed struct {
	Until time.Time `json:"until"`
	// Back is what happens then, in words.
	Back string `json:"back"`
}

// RuleStatus is one rule with its counters. The packets of a flow count for
// the rule that let it open.
type RuleStatus struct {
	Name      string `json:"name"`
	Place     string `json:"place"`
	Action    string `json:"action"`
	Audit     bool   `json:"audit,omitempty"`
	Essential bool   `json:"essential,omitempty"`
	Packets   uint64 `json:"packets"`
	Bytes     uint64 `json:"bytes"`
	Flows     uint64 `json:"flows"` // opened
}

// DefaultStatus is what the policy block says for one direction.
type DefaultStatus struct {
	Action  string `json:"action"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// SourceStatus is a source of discarded packets. Packets is an estimate: it is
// low where very many come in a second, and high for who came after others that
// have been forgotten. Anybody can write any source on a packet.
type SourceStatus struct {
	Source  netip.Addr `json:"source"`
	Packets uint64     `json:"packets"`
}

// EventStatus counts events.
type EventStatus struct {
	Written    uint64 `json:"written"`
	Suppressed uint64 `json:"suppressed"` // malformed packets over the rate: counted, not written
	Unlogged   uint64 `json:"unlogged"`   // written, but over the policy's log_rate
	Lost       uint64 `json:"lost"`       // overtaken before a slow reader, the log among them, took them
}

// Flow is one live flow. Source is the side that opened it.
type Flow struct {
	Direction   string         `json:"direction"`
	Protocol    Protocol       `json:"protocol"`
	Source      netip.AddrPort `json:"source"` // port 0 where there is none; the identifier for ICMP echo
	Destination netip.AddrPort `json:"destination"`
	Verdict     string         `json:"verdict"`
	Rule        string         `json:"rule,omitempty"` // empty: the default
	Place       string         `json:"place,omitempty"`
	State       string         `json:"state"`
	// Offloaded says that the kernel answers for the flow.
	Offloaded bool `json:"offloaded,omitempty"`
	// By the opener and by the other side, what the kernel has carried by
	// itself included.
	PacketsOut uint64 `json:"packets_out"`
	PacketsIn  uint64 `json:"packets_in"`
	BytesOut   uint64 `json:"bytes_out"`
	BytesIn    uint64 `json:"bytes_in"`
	// In seconds.
	Age     float64 `json:"age_seconds"`
	Idle    float64 `json:"idle_seconds"`
	Expires float64 `json:"expires_seconds"`
}

// ReloadRequest asks the daemon to read its policy again.
type ReloadRequest struct {
	// Confirm, in seconds, brings the previous policy back unless somebody
	// confirms in that time; 0 means for good.
	Confirm float64 `json:"confirm_seconds,omitempty"`
	// SSHConnection is the ssh connection of whoever asks (FindSSH), to
	// warn of a lock-out.
	SSHConnection string `json:"ssh_connection,omitempty"`
	// Force asks for it even if it cuts the session of whoever asks, which is
	// refused otherwise, unless Confirm asks for a way back.
	Force bool `json:"force,omitempty"`
}

// ReloadResult is a policy that is in force now.
type ReloadResult struct {
	Generation  uint64       `json:"generation"`
	Warnings    []Diagnostic `json:"warnings"`
	Unconfirmed *Unconfirmed `json:"unconfirmed,omitempty"`
	// Paths are what was read, Rules and Essential how many rules there are.
	Paths     []string `json:"paths"`
	Rules     int      `json:"rules"`
	Essential int      `json:"essential"`
	// Changes are the differences from the policy before, Flows what becomes of
	// the flows that were there.
	Changes rules.Changes `json:"changes"`
	Flows   FlowChanges   `json:"flows"`
	// OwnSessions are those of whoever has asked that are cut.
	OwnSessions []string `json:"own_sessions,omitempty"`
	Took        float64  `json:"took_seconds"`
}

// Confirmation says what was confirmed.
type Confirmation struct {
	Generation uint64 `json:"generation"`
}

// APIError is the answer to a request that failed. It is an error.
type APIError struct {
	Status      int          `json:"-"`
	Message     string       `json:"error"`
	Diagnostics []Diagnostic `json:"diagnostics,omitempty"`
}

// Error gives the sentence, and each diagnostic on a line of its own.
func (e *APIError) Error() string {
	s := e.Message
	for _, d := range e.Diagnostics {
		s += "\n  " + d.String()
	}
	return s
}

// QueueStatus is the kernel's side, in packets.
type QueueStatus struct {
	// First and Queues are the NFQUEUE numbers in use.
	First  uint16 `json:"first"`
	Queues int    `json:"queues"`
	// OnFailure is what happens to new flows while no daemon runs: "shut"
	// or "open".
	OnFailure string `json:"on_failure"`
	// Offload says whether the kernel answers for flows that were let
	// through: "flow" or "none".
	Offload string `json:"offload"`

	// Kernel is its release; UpBy how packets come up there: "queue", the nftables
	// expression, or "NFQUEUE", the xtables target. ESPBy is how native ESP comes in:
	// "hook", by a BPF program on a netfilter hook, "rule", by one that a rule calls, or
	// "queue", packet by packet; absent while the policy protects nothing.
	Kernel string `json:"kernel"`
	UpBy   string `json:"up_by"`
	ESPBy  string `json:"esp_by,omitempty"`

	Packets  uint64 `json:"packets"` // that came up and were judged
	Accepted uint64 `json:"accepted"`
	Dropped  uint64 `json:"dropped"`  // by verdict, rejected ones included
	Rejected uint64 `json:"rejected"` // answered
	// RejectsSuppressed were not answered, because they were too many.
	RejectsSuppressed uint64 `json:"rejects_suppressed"`
	Unreadable        uint64 `json:"unreadable"`  // messages of the kernel that made no sense; dropped
	SendErrors        uint64 `json:"send_errors"` // verdicts or answers that the kernel would not take
	Waiting           uint64 `json:"waiting"`     // now
	Sealed            uint64 `json:"sealed"`      // datagrams that left under an SA
	Direct            uint64 `json:"direct"`      // of those, the ones that took the shortcut (NotDirect)
	Opened            uint64 `json:"opened"`      // packets that came out of an SA and went on
	Unsent            uint64 `json:"unsent"`      // sealed or opened, and the kernel would not take them; lost
	// NotDirect says why sealed datagrams in bulk do not take the shortcut past
	// what the kernel has in their way; empty if they do, or if there were none.
	NotDirect string `json:"not_direct,omitempty"`
	// QueueDropped packets found the queue full, SocketDropped ones the
	// daemon's receive buffer. Both are lost. Overruns is how often the
	// kernel told of lost messages.
	QueueDropped  uint64 `json:"queue_dropped"`
	SocketDropped uint64 `json:"socket_dropped"`
	// NewDropped are those of both that belonged to no flow that had been
	// let through: a flood of new flows loses these, and no others.
	NewDropped uint64 `json:"new_dropped"`
	Overruns   uint64 `json:"overruns"`

	// PortTaken says why ESP in UDP and IKE go by the queue, packet by packet:
	// who has UDP port 4500. Empty if they go by sockets, or there are none.
	PortTaken string `json:"port_taken,omitempty"`

	// TableOwned says that the nftables table belongs to the daemon: nobody
	// else can change it (Linux 6.9 and later). Elsewhere it is put back when
	// somebody has changed it, TableRenewed times until now; TableNotRenewed
	// is how often that failed, and then the host may have been open.
	TableOwned      bool   `json:"table_owned"`
	TableRenewed    uint64 `json:"table_renewed"`
	TableNotRenewed uint64 `json:"table_not_renewed"`
	// TableChangedBy is who has changed it last, and how, in words; absent if the
	// kernel has not told, or nobody has.
	TableChangedBy string `json:"table_changed_by,omitempty"`

	// Flowtables are those of other programs, in words. What one of them carries
	// between its devices passes by ipfw: it is not counted, and goes on when
	// a new policy would discard it.
	Flowtables []string `json:"flowtables,omitempty"`
	// Apart says that the policy protects, and that what is forwarded is therefore
	// kept out of flowtables; NotApart why it cannot be, so that protected traffic
	// may leave in the clear by the flowtables that are named.
	Apart    bool   `json:"apart,omitempty"`
	NotApart string `json:"not_apart,omitempty"`
}

// drops is how many packets were lost because the daemon was too slow.
func (q QueueStatus) drops() uint64 { return q.QueueDropped + q.SocketDropped }
