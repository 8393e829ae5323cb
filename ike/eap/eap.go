// Package eap is EAP-TLS (RFC 5216; RFC 9190 for TLS 1.3) as the
// authenticator's side of package ike wants it: remote users prove themselves
// by the certificate of a person, as Windows, Apple's systems and strongSwan do
// it. TLS is that of crypto/tls.
//
//	ike --EAP response--> conversation --TLS bytes--> pipe --> crypto/tls
//	    <--EAP request---              <--TLS bytes--      <--
//
// crypto/tls wants a connection and a goroutine. It gets one for the time of
// the handshake, which runs only within Next, and waits for the peer's next
// bytes in between: nothing of it waits for anything else, and Close ends it.
//
// crypto/tls gives no key from TLS 1.2 without the extended master secret
// (RFC 7627), which strongSwan 5.9 does not have, unless the program says
// //go:debug tlsunsafeekm=1. What that guards against, a secret that two
// handshakes share, needs another key exchange than those allowed here, or
// resumption, which is off.
//
// Limits: no method but EAP-TLS; no resumption; no OCSP. The identity of an EAP
// Identity response proves nothing, and is a hint only. Names of Windows
// domains (UPN) in certificates are not read.
package eap

import (
	"fmt"
	"strings"

	"github.com/ipfw/ipfw/ike"
)

const (
	// fragmentSize is how many bytes of TLS go into one packet: with what is
	// around it, the IKE message needs no fragmentation.
	fragmentSize = 1024
	// maxMessage bounds one TLS message of the peer, in bytes: its
	// certificates.
	maxMessage = 64 << 10
	// maxRounds bounds a conversation, in packets of the peer.
	maxRounds = 100
	// maxIdentity bounds an EAP identity, in bytes.
	maxIdentity = 1024
)

// phase is what the peer's next packet is about.
type phase uint8

const (
	begin    phase = iota // nothing is sent yet
	identity              // what it calls itself
	tlsParts              // the next fragment of its TLS message
	ourParts              // it waits for the next fragment of ours
	ended                 // TLS has ended, and the peer has heard how
	over                  // EAP has ended
)

// conversation is one run of EAP-TLS with one peer.
type conversation struct {
	call   ike.EAPCall
	phase  phase
	id     uint8 // of the last request, and of the response that is due
	rounds int

	identity string
	tls      *handshake
	in       []byte // fragments of the peer's TLS message
	total    int    // what their sum must be; -1: not said
	out      []byte // what is left of ours

	msk []byte // when TLS has ended well
	err error  // when it has not; the peer is told by an alert before
}

// New begins a conversation; it is what ike.Config.EAP wants.
func New(call ike.EAPCall) ike.EAP { return &conversation{call: call, total: -1} }

// Close ends the conversation, and tells why it has failed, if it has and Next
// has not said so.
func (c *conversation) Close() error {
	if c.tls != nil {
		c.tls.close()
	}
	clear(c.msk)
	if c.phase == over {
		return nil
	}
	c.phase = over
	return c.err
}

// Next takes a packet of the peer, nil at first.
func (c *conversation) Next(in []byte) ike.EAPStep {
	if c.phase == begin {
		if c.call.AskIdentity {
			c.phase = identity
			return ike.EAPStep{Out: c.request(typeIdentity)}
		}
		return c.start()
	}
	out, err := c.take(in)
	if err != nil {
		return c.fail(err)
	}
	return out
}

// request gives the next Request.
func (c *conversation) request(kind uint8, data ...byte) []byte {
	c.id++
	return request(c.id, kind, data...)
}

// fail ends EAP with Failure. It has, as Success has, the Identifier of the
// response that it answers (RFC 3748 section 4.2).
func (c *conversation) fail(err error) ike.EAPStep {
	c.phase, c.err = over, nil
	return ike.EAPStep{Out: verdict(codeFailure, c.id), Err: err}
}

// start asks for EAP-TLS.
func (c *conversation) start() ike.EAPStep {
	c.phase = tlsParts
	return ike.EAPStep{Out: c.request(typeTLS, flagStart)}
}

// take reads a packet of the peer.
func (c *conversation) take(in []byte) (step ike.EAPStep, err error) {
	if c.rounds++; c.rounds > maxRounds {
		return step, malformed("the peer has not come to an end in %d EAP packets", maxRounds)
	}
	kind, data, err := parseResponse(in, c.id)
	if err != nil {
		return step, err
	}
	switch {
	case c.phase == over:
		return step, malformed("EAP packet after the end")
	case kind == typeNak:
		return step, &ike.EAPError{Failure: ike.WrongMethod, Setting: "remote_auth", Theirs: methods(data),
			Detail: "the peer does not want EAP-TLS: it is not set up to prove itself by a certificate"}
	case c.phase == identity && kind == typeIdentity:
		if len(data) > maxIdentity {
			return step, malformed("EAP identity of %d bytes, at most %d are taken", len(data), maxIdentity)
		}
		c.identity = string(data)
		return c.start(), nil
	case kind != typeTLS || c.phase == identity:
		return step, malformed("EAP response of type %d does not belong here", kind)
	}
	p, err := parsePart(data)
	if err != nil {
		return step, err
	}
	if c.phase == tlsParts {
		return c.collect(p)
	}
	// The peer has had a fragment of ours, or all that TLS has to say.
	switch {
	case len(p.data) > 0 || p.more:
		return step, &ike.EAPError{Failure: ike.Malformed, Detail: "EAP-TLS data that nobody has asked for"}
	case c.phase == ourParts:
		return c.send(false), nil
	case c.err != nil:
		return step, c.err
	}
	c.phase = over
	return ike.EAPStep{Out: verdict(codeSuccess, c.id), MSK: c.msk}, nil
}

// collect adds a fragment to the peer's TLS message, and gives it to TLS when
// it is whole.
func (c *conversation) collect(p part) (step ike.EAPStep, err error) {
	if len(c.in) == 0 {
		c.total = p.total
	}
	c.in = append(c.in, p.data...)
	switch {
	case len(c.in) > maxMessage:
		return step, malformed("EAP-TLS message of more than %d bytes", maxMessage)
	case p.more && len(p.data) == 0:
		return step, malformed("EAP-TLS fragment without data")
	case p.more:
		return ike.EAPStep{Out: c.request(typeTLS, 0)}, nil // go on
	case c.total >= 0 && len(c.in) != c.total:
		return step, malformed("EAP-TLS fragments of %d bytes in all, %d were announced", len(c.in), c.total)
	case len(c.in) == 0:
		return step, malformed("EAP-TLS packet without data where TLS waits for some")
	}
	if c.tls == nil {
		c.tls = newHandshake(&c.call, c.identity)
	}
	var done bool
	c.out, done, err = c.tls.feed(c.in)
	c.in, c.total = nil, -1
	if done && err == nil {
		c.msk = c.tls.msk
	}
	switch {
	case len(c.out) == 0 && err == nil:
		return step, malformed("TLS is told less than it waits for")
	case len(c.out) == 0:
		return step, err
	}
	c.err = err
	return c.send(true), nil
}

// send gives the next fragment of our TLS message.
func (c *conversation) send(first bool) ike.EAPStep {
	var data []byte
	data, c.out = fragment(c.out, first)
	switch {
	case len(c.out) > 0:
		c.phase = ourParts
	case c.err != nil || c.msk != nil:
		c.phase = ended
	default:
		c.phase = tlsParts
	}
	return ike.EAPStep{Out: c.request(typeTLS, data...)}
}

// methods names what a peer would rather have.
func methods(nak []byte) string {
	names := map[byte]string{0: "nothing else", 4: "MD5-Challenge", 6: "GTC", 21: "EAP-TTLS", 25: "PEAP", 26: "EAP-MSCHAPv2", 43: "EAP-FAST", 52: "EAP-pwd", 55: "TEAP"}
	var out []string
	for _, t := range nak[:min(len(nak), 8)] {
		if names[t] == "" {
			names[t] = fmt.Sprintf("EAP type %d", t)
		}
		out = append(out, names[t])
	}
	return strings.Join(out, ", ")
}
