package ike

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// authContext is what both AUTH payloads of an IKE SA are computed from,
// RFC 7296 section 2.15 and RFC 9242 section 3.3.
type authContext struct {
	prf          uint16
	full         bool   // both IKE_SA_INIT messages go into each AUTH
	initI, initR []byte // RealMessage1 and RealMessage2: the IKE_SA_INIT messages, the last of each
	ni, nr       []byte
	intI, intR   []byte // IntAuth of the last IKE_INTERMEDIATE; nil: there was none
	mid          uint32 // message ID of IKE_AUTH
}

// clone is a copy for a job: the Core wipes its own when a handshake ends.
func (a *authContext) clone() authContext {
	b := *a
	for _, v := range []*[]byte{&b.ni, &b.nr, &b.intI, &b.intR} {
		*v = bytes.Clone(*v)
	}
	return b
}

// authKeys is a copy of what AUTH and a PPK have to do with.
func (k *ikeKeys) authKeys() ikeKeys {
	return ikeKeys{d: bytes.Clone(k.d), pi: bytes.Clone(k.pi), pr: bytes.Clone(k.pr)}
}

// zeroPrefix stands before what both IKE_SA_INIT messages make, and makes it
// differ from all that one message makes: that begins with the initiator's SPI,
// which is never zero.
const zeroPrefix = "\x00\x00\x00\x00\x00\x00\x00\x00"

// octets is what one side signs: its own IKE_SA_INIT message, the other
// side's nonce, the MAC of its identity, and IntAuth. With full transcript
// authentication the message that it has received stands before its own
// (draft-ietf-ipsecme-ikev2-downgrade-prevention).
func (a *authContext) octets(initiator bool, skp []byte, id Identity) []byte {
	sent, received, nonce := a.initR, a.initI, a.ni
	if initiator {
		sent, received, nonce = a.initI, a.initR, a.nr
	}
	var b []byte
	if a.full {
		b = append(append(b, zeroPrefix...), received...)
	}
	b = append(append(b, sent...), nonce...)
	b = append(b, prf(a.prf, skp, id.body())...)
	if a.intI != nil {
		b = append(append(b, a.intI...), a.intR...)
		b = binary.BigEndian.AppendUint32(b, a.mid)
	}
	return b
}

// pskAuth is AUTH with a shared secret, RFC 7296 section 2.15.
func pskAuth(id uint16, secret, octets []byte) []byte {
	k := prf(id, secret, []byte("Key Pad for IKEv2"))
	defer wipe(k)
	return prf(id, k, octets)
}

// mixPPK is RFC 8784 section 3: the post-quantum key goes into SK_d and into
// what AUTH is computed with.
func mixPPK(id uint16, k *ikeKeys, ppk []byte) {
	for _, b := range []*[]byte{&k.d, &k.pi, &k.pr} {
		old := *b
		*b = prfPlus(id, ppk, old, prfLen(id))
		wipe(old)
	}
}

// makeAuth authenticates us to the peer.
func (p *Peer) makeAuth(id uint16, octets []byte, hashes []uint16, k kexSource) (method uint8, data []byte, err error) {
	if p.Key != nil {
		return sign(p.Key, octets, hashes, k.rand)
	}
	if len(p.PSK) == 0 {
		return 0, nil, errors.New("neither private key nor pre-shared key")
	}
	return authPSK, pskAuth(id, p.PSK, octets), nil
}

// claim is what a peer shows of itself in IKE_AUTH.
type claim struct {
	id     Identity
	method uint8
	auth   []byte
	certs  [][]byte // X.509, leaf first
	raw    [][]byte // raw public keys, RFC 7670
	octets []byte
	names  []Identity // see fits
	shown  *shown     // certs, see certificates
	until  time.Time  // when what has proved it ends; zero: never. Set by verifyPeer
}

// certificates reads what the claim shows, once.
func (c *claim) certificates() *shown {
	if c.shown == nil {
		c.shown = readShown(c.certs)
	}
	return c.shown
}

// fits gives the identity by which a claim fits a peer of the policy. Who calls
// itself by the subject of its certificate, as Windows does, goes by the other
// names in it as well: what proves the subject proves them.
func (c *claim) fits(p *Peer) (Identity, bool) {
	if c.id.matches(p.RemoteID) {
		return c.id, true
	}
	if c.id.Type != idDN || c.method == authPSK || len(p.CAs) == 0 || len(p.PublicKeys) > 0 || len(c.certs) == 0 {
		return Identity{}, false
	}
	if c.names == nil { // once, however many peers it is asked about
		c.names = []Identity{c.id}
		if w := c.certificates(); w.err == nil && c.id.inCertificate(w.leaf()) {
			c.names = namesIn(w.leaf())
		}
	}
	i := slices.IndexFunc(c.names, func(id Identity) bool { return id.matches(p.RemoteID) })
	if i < 0 {
		return Identity{}, false
	}
	return c.names[i], true
}

// authError is a failed authentication with its reason.
type authError struct {
	why     Failure
	text    string
	setting string
	peer    string // the ike block that comes nearest
}

func (e *authError) Error() string { return e.text }

func authFail(why Failure, setting, format string, a ...any) *authError {
	return &authError{why: why, text: fmt.Sprintf(format, a...), setting: setting}
}

// noTranscript refuses a peer without full transcript authentication. The
// block that requires it is known at IKE_AUTH only, so the responder offers it to
// everybody; whoever has not taken it then is not let in by that block.
func noTranscript(who string) *authError {
	return authFail(NoTranscript, "full_transcript_auth",
		"%s does not authenticate both IKE_SA_INIT messages (IKE_SA_INIT_FULL_TRANSCRIPT_AUTH), and the policy requires it", who)
}

// transcriptText says by what both sides have authenticated IKE_SA_INIT.
func (sa *ikeSA) transcriptText() string {
	switch {
	case sa.transcript:
		return "both sides have authenticated all of IKE_SA_INIT"
	case sa.peer.FullTranscript == TranscriptNever:
		return "without full transcript authentication: the policy does not offer it"
	}
	return "without full transcript authentication: the peer does not offer it"
}

// event is the failure for people.
func (e *authError) event() Event {
	return Event{Failure: e.why, Detail: e.text, Setting: e.setting, Peer: e.peer}
}

// verifyPeer checks who the peer is. It returns nil only if the peer has
// shown the key that the policy has for its identity.
func (p *Peer) verifyPeer(c *claim, prfID uint16, now time.Time) *authError {
	if _, ok := c.fits(p); !ok {
		return authFail(WrongIdentity, "remote_id", "the peer calls itself %s, the policy expects %q", c.id, p.RemoteID)
	}
	if p.EAP {
		return authFail(WrongMethod, "remote_auth", "the peer does not use EAP, the policy wants it")
	}
	if c.method == authPSK {
		if len(p.PSK) == 0 || len(p.CAs) > 0 || len(p.PublicKeys) > 0 {
			return authFail(WrongMethod, "public_keys, ca, psk_file", "the peer uses a pre-shared key, the policy does not")
		}
		if !hmac.Equal(pskAuth(prfID, p.PSK, c.octets), c.auth) {
			return authFail(WrongKey, "psk_file", "the pre-shared keys differ")
		}
		return nil
	}
	pub, leaf, fail := p.publicKey(c)
	if fail != nil {
		return fail
	}
	// AUTH goes first: whoever has not even the key of its certificate is not
	// worth a look at a chain.
	if err := verify(pub, c.method, c.auth, c.octets); err != nil {
		if leaf == nil {
			return authFail(WrongKey, "public_keys", "%s: %v", c.id, err)
		}
		return authFail(WrongKey, "", "%s: %v", c.id, err) // of the certificate that the peer itself has sent
	}
	if leaf == nil {
		return nil
	}
	// RFC 4945 section 5.1.3.12: IKE asks for no extended key usage.
	until, err := p.verifyChain(c.shown, now, x509.ExtKeyUsageAny)
	if err != nil {
		return p.noTrust(c, err)
	}
	if !c.id.inCertificate(leaf) {
		return authFail(BadCertificate, "remote_id", "the certificate does not speak for %s, but for %s", c.id, identitiesOf(leaf))
	}
	c.until = until
	return nil
}

// publicKey finds the key that AUTH must be made with: the one that the policy
// has for the identity, or that of a certificate, which is then to be verified.
func (p *Peer) publicKey(c *claim) (pub crypto.PublicKey, leaf *x509.Certificate, fail *authError) {
	if k := p.known[c.id.folded()]; k != nil {
		if len(c.raw) > maxChain {
			return nil, nil, authFail(WrongKey, "public_keys", "%s sent %d public keys, %d are allowed", c.id, len(c.raw), maxChain)
		}
		for _, raw := range c.raw {
			if sent, err := x509.ParsePKIXPublicKey(raw); err == nil && !samePublic(k, sent) {
				return nil, nil, authFail(WrongKey, "public_keys", "%s sent a public key that is not the one we have for it", c.id)
			}
		}
		return k, nil, nil
	}
	if len(p.CAs) == 0 {
		if len(p.PublicKeys) > 0 {
			return nil, nil, authFail(UnknownPeer, "public_keys", "no public key is known for %s", c.id)
		}
		return nil, nil, authFail(WrongMethod, "psk_file, ca, public_keys", "the peer signs, the policy has no ca or public_keys to check it")
	}
	if len(c.certs) == 0 {
		return nil, nil, authFail(BadCertificate, "", "%s sent no certificate", c.id)
	}
	w := c.certificates()
	if w.err != nil {
		return nil, nil, authFail(BadCertificate, "", "certificate of %s: %v", c.id, w.err)
	}
	return w.leaf().PublicKey, w.leaf(), nil
}

// ownCerts are the CERT payloads that go with our AUTH. A raw key goes only to
// who asks for one: it is known over there, and OpenIKED refuses what it does
// not know.
func (p *Peer) ownCerts(askedRaw bool) []payload {
	if p.Key == nil {
		return nil
	}
	var out []payload
	for _, c := range p.Certificates {
		out = append(out, certPayload(plCERT, certX509, c.Raw))
	}
	if len(out) == 0 && askedRaw {
		if spki, err := x509.MarshalPKIXPublicKey(p.Key.Public()); err == nil {
			out = append(out, certPayload(plCERT, certRawKey, spki))
		}
	}
	return out
}

// asksRaw says that a message has a CERTREQ for raw keys.
func asksRaw(list []payload) bool {
	return slices.ContainsFunc(list, func(p payload) bool {
		return p.kind == plCERTREQ && len(p.body) > 0 && p.body[0] == certRawKey
	})
}

// maxRequested bounds the CAs that one message names: IKE_SA_INIT is answered
// to anybody, and must not grow by it.
const maxRequested = 16

// certRequests asks for certificates of the peers' CAs, by the SHA-1 of their
// public keys (RFC 7296 section 3.7). Raw keys are not asked for: the policy
// has them already, and OpenIKED, asked for what it does not have, stops.
func certRequests(peers ...*Peer) []payload {
	var cas []byte
	seen := map[[sha1.Size]byte]bool{}
	for _, p := range peers {
		if p.EAP {
			continue // its certificate comes within EAP
		}
		for _, ca := range p.CAs {
			h := sha1.Sum(ca.RawSubjectPublicKeyInfo)
			if !seen[h] && len(seen) < maxRequested {
				seen[h] = true
				cas = append(cas, h[:]...)
			}
		}
	}
	if len(cas) == 0 {
		return nil
	}
	return []payload{certPayload(plCERTREQ, certX509, cas)}
}

// ownID is what we call ourselves.
func (p *Peer) ownID(sa *ikeSA) Identity {
	switch {
	case !p.LocalID.IsZero():
		if id, ok := p.certifiedID(); ok {
			return id
		}
		return p.LocalID
	case len(p.Certificates) > 0:
		c := p.Certificates[0]
		if len(c.DNSNames) > 0 {
			return Identity{idFQDN, c.DNSNames[0]}
		}
		return Identity{idDN, string(c.RawSubject)}
	}
	return addrIdentity(sa.local.Addr())
}

// certifiedID is LocalID as our certificate has it. A subject is copied byte for
// byte (RFC 4945 section 3.1.5): there are peers that compare bytes. Whoever has
// written it in the order of the other kind of program means this one as well.
func (p *Peer) certifiedID() (id Identity, ok bool) {
	if len(p.Certificates) == 0 {
		return id, false
	}
	c := p.Certificates[0]
	subject := Identity{idDN, string(c.RawSubject)}
	switch {
	case p.LocalID.same(subject), p.LocalID.turned().same(subject):
		return subject, true
	case p.LocalID.inCertificate(c):
		return p.LocalID, true
	}
	return id, false
}
