package host

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/rules"
)

// IKEEvent is the part of an Event that speaks of the key exchange.
type IKEEvent struct {
	// What is "ike-up", "ike-down", "ike-rekeyed", "child-up", "child-down",
	// "child-rekeyed", "failed", "moved", "address", "expires" or "silent".
	What string `json:"what"`
	// Failure is why an exchange failed, from the closed list of
	// ike.Failure; empty: it has not.
	Failure string `json:"failure,omitempty"`
	// Peer is the ike block, Child the ipsec block; empty where none was
	// found, or none is meant.
	Peer     string         `json:"peer,omitempty"`
	Child    string         `json:"child,omitempty"`
	Local    netip.AddrPort `json:"local,omitzero"`
	Remote   netip.AddrPort `json:"remote,omitzero"`
	RemoteID string         `json:"remote_id,omitempty"`
	SPIIn    uint32         `json:"spi_in,omitempty"`
	SPIOut   uint32         `json:"spi_out,omitempty"`
	Suite    string         `json:"suite,omitempty"`
	// Ours and Theirs are what did not fit, Nearest where the two come
	// closest, Detail the circumstances.
	Ours    string `json:"ours,omitempty"`
	Theirs  string `json:"theirs,omitempty"`
	Nearest string `json:"nearest,omitempty"`
	Detail  string `json:"detail,omitempty"`
	// Setting is the argument of the policy to look at, Place where it
	// stands, or its block where it is left out. Rule is the rule that it is
	// of; empty: it is of the ike or ipsec block. File is a file to look at.
	Setting string `json:"setting,omitempty"`
	Place   string `json:"place,omitempty"`
	Rule    string `json:"rule,omitempty"`
	File    string `json:"file,omitempty"`

	stranger bool // it is about a call of somebody who has not proved who it is
}

// event hears the events of the key exchange, in the Server's goroutine.
func (x *exchange) event(e ike.Event) {
	out := &IKEEvent{
		What: e.Kind.String(), Peer: e.Peer, Child: e.Child, Local: e.Local, Remote: e.Remote,
		SPIIn: e.SPIIn, SPIOut: e.SPIOut, Suite: e.Suite,
		Ours: e.Ours, Theirs: e.Theirs, Nearest: e.Nearest, Detail: e.Detail, stranger: e.Stranger,
	}
	if !e.RemoteID.IsZero() {
		out.RemoteID = e.RemoteID.String()
	}
	if e.Failure != ike.NoFailure {
		out.Failure = e.Failure.String()
		x.blame(&e, out)
	}
	x.failed.note(time.Now(), out)
	x.d.ring.add(&Event{Kind: KindIKE, Message: out.String(), Rule: "", Place: out.Place, IKE: out})
}

// inForce is the policy in force as far as the key exchange knows it.
func (x *exchange) inForce() blocks { return *x.d.keeper.blocks.Load() }

// blame says what in the policy a failure is about.
func (x *exchange) blame(e *ike.Event, out *IKEEvent) {
	b := x.inForce()
	if e.Failure == ike.UnknownPeer && e.Peer == "" && x.nearest(b, e, out) {
		return
	}
	if e.Failure == ike.NoSelectors && e.Child != "" {
		if r, setting := ruleOf(x.d.engine.Policy(), e); r != nil {
			out.Rule, out.Setting, out.Place = r.Name, setting, r.Place
			return
		}
	}
	out.Setting, out.Place = settingOf(b, e)
	for _, k := range b {
		if e.Failure == ike.WrongKey && e.Setting == "public_keys" && k.ike != nil && k.ike.Name == e.Peer {
			out.File = filepath.Join(k.ike.PublicKeys, out.RemoteID+".pub")
		}
		if e.Failure == ike.BadCertificate && e.Setting == "ca" && k.ike != nil && k.ike.Name == e.Peer {
			out.File = k.ike.CA
		}
	}
}

// ruleOf finds the rule of an ipsec block that a failure about selectors speaks of:
// the first that has one of the arguments by which the two sides differ. setting are
// those of them that it has. If none has any, it is the first rule, as a whole.
func ruleOf(p *engine.Policy, e *ike.Event) (rule *engine.Rule, setting string) {
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.Action != engine.Protect || r.With != e.Child {
			continue
		}
		written := map[string]bool{"local_address": len(r.Local) > 0, "remote_address": len(r.Remote) > 0, "protocol": len(r.Protocols) > 0,
			"local_port": len(r.LocalPorts) > 0, "remote_port": len(r.RemotePorts) > 0}
		var words []string
		for w := range strings.SplitSeq(e.Setting, ", ") {
			if written[w] {
				words = append(words, w)
			}
		}
		if len(words) > 0 {
			return r, strings.Join(words, ", ")
		}
		if rule == nil {
			rule = r
		}
	}
	return rule, ""
}

// settingOf finds what in the policy a failure is about, and where the first of
// it stands.
func settingOf(b blocks, e *ike.Event) (setting, place string) {
	var k *rules.IKE
	var s *rules.IPsec
	for _, x := range b {
		if x.ike != nil && x.ike.Name == e.Peer {
			k = x.ike
			if x.Name == e.Child {
				s = x.IPsec
			}
		}
	}
	words := strings.Split(e.Setting, ", ")
	if i := slices.Index(words, "proposals"); i >= 0 {
		words = slices.Replace(words, i, i+1, "encryption", "integrity", "key_exchange", "prf")
	}
	if k == nil {
		return e.Setting, ""
	}
	written := func(places map[string]string) (setting, place string) { // all of them, and where the first is
		for _, w := range words {
			switch {
			case places[w] == "":
			case place == "":
				setting, place = w, places[w]
			default:
				setting += ", " + w
			}
		}
		return setting, place
	}
	if s != nil {
		if setting, place = written(s.Places); place != "" {
			return setting, place
		}
	}
	if setting, place = written(k.Places); place != "" {
		return setting, place
	}
	setting = words[0]
	if s != nil {
		return setting, s.Place
	}
	return setting, k.Place
}

// sentences say in words why an exchange failed; the list is closed.
var sentences = map[string]string{
	ike.NoAnswer.String():        "the peer does not answer",
	ike.NoProposal.String():      "the two sides have no proposal in common",
	ike.NoSelectors.String():     "the traffic that the two sides want to protect does not overlap",
	ike.WrongMode.String():       "one side wants transport mode, the other a tunnel",
	ike.UnknownPeer.String():     "the policy does not know the peer",
	ike.WrongIdentity.String():   "the peer is not who the policy expects",
	ike.WrongKey.String():        "the peer has not proved who it is: it has another key",
	ike.BadCertificate.String():  "the peer's certificate is not good",
	ike.WrongMethod.String():     "the peer proves who it is in a way that the policy does not have",
	ike.NoPPK.String():           "one side lacks the post-quantum pre-shared key",
	ike.NoAddress.String():       "there is no address to be had",
	ike.RefusedByPeer.String():   "the peer has refused",
	ike.Malformed.String():       "a message breaks the protocol",
	ike.TooMany.String():         "a limit is reached",
	ike.BadRandomness.String():   "there is no randomness",
	ike.UnexpectedNAT.String():   "a NAT is in the way",
	ike.WrongKeyByPeer.String():  "the peer does not believe that we are who we say",
	ike.InternalFailure.String(): "our own side is not in order",
}

// String gives the event in one line.
func (e *IKEEvent) String() string {
	var b strings.Builder
	switch {
	case e.Peer != "" && e.Child != "":
		fmt.Fprintf(&b, "ipsec %q of ike %q", e.Child, e.Peer)
	case e.Peer != "":
		fmt.Fprintf(&b, "ike %q", e.Peer)
	default:
		b.WriteString("ike")
	}
	if e.Remote.IsValid() {
		b.WriteString(" with " + e.Remote.String())
	}
	if e.RemoteID != "" {
		b.WriteString(" (" + e.RemoteID + ")")
	}
	if e.What == ike.Silent.String() {
		return b.String() + ": " + e.Detail
	}
	if e.Failure == "" {
		b.WriteString(" " + strings.TrimPrefix(strings.TrimPrefix(e.What, "ike-"), "child-"))
		if e.SPIIn != 0 {
			fmt.Fprintf(&b, ", spi %#08x in, %#08x out", e.SPIIn, e.SPIOut)
		}
		if e.Suite != "" {
			b.WriteString(", " + e.Suite)
		}
		if e.Detail != "" {
			b.WriteString(": " + e.Detail)
		}
		return b.String()
	}
	fmt.Fprintf(&b, " failed (%s): %s", e.Failure, sentences[e.Failure])
	for _, part := range [...]struct{ name, text string }{
		{"", e.Detail}, {"ours: ", e.Ours}, {"theirs: ", e.Theirs}, {"nearest: ", e.Nearest}} {
		if part.text != "" {
			b.WriteString("; " + part.name + part.text)
		}
	}
	if e.Setting != "" || e.Rule != "" {
		b.WriteString("; look at " + e.Setting)
		if e.Rule != "" && e.Setting != "" {
			b.WriteString(" of ")
		}
		if e.Rule != "" {
			fmt.Fprintf(&b, "rule %q", e.Rule)
		}
		if e.Place != "" {
			b.WriteString(" in " + e.Place)
		}
		if e.File != "" {
			b.WriteString(", and at " + e.File)
		}
	}
	return b.String()
}
