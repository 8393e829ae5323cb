package ike

import (
	"crypto"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"encoding/binary"
	"strings"
	"testing"
	"time"
)

// Offers for a child that are odd, as other implementations are known to make them,
// and what is answered (RFC 7296 sections 2.7, 3.3.3 and 3.3.6).
func TestOddOffers(t *testing.T) {
	gcm := Transform{TransformENCR, EncrAESGCM16, 256}
	cbc := Transform{TransformENCR, EncrAESCBC, 128}
	hmac := Transform{TransformINTEG, IntegSHA256, 0}
	noInteg := Transform{TransformINTEG, IntegNone, 0}
	no, yes := Transform{TransformESN, esnNo, 0}, Transform{TransformESN, esnYes, 0}
	esp := func(num uint8, list ...Transform) Proposal {
		return Proposal{Protocol: ProtoESP, Transforms: list, num: num, spi: []byte{0, 0, 1, num}}
	}
	for name, x := range map[string]struct {
		offer []Proposal
		want  string // the answer; empty: none
		num   uint8
	}{
		"a key exchange in IKE_AUTH":                   {[]Proposal{esp(1, gcm, Transform{TransformKE, KEMODP2048, 0}, no)}, "aes-256-gcm-16,no-esn", 1},
		"AES-GCM and HMAC, no NONE":                    {[]Proposal{esp(1, gcm, hmac, no)}, "", 0},
		"AES-GCM, AES-CBC, HMAC and NONE in one":       {[]Proposal{esp(1, gcm, cbc, hmac, noInteg, no)}, "aes-256-gcm-16,no-esn", 1},
		"AES-GCM, AES-CBC and HMAC in one":             {[]Proposal{esp(1, gcm, cbc, hmac, no)}, "aes-128-cbc,hmac-sha2-256-128,no-esn", 1},
		"AES-CBC without a key length":                 {[]Proposal{esp(1, Transform{TransformENCR, EncrAESCBC, 0}, hmac, no)}, "", 0},
		"HMAC with a key length":                       {[]Proposal{esp(1, cbc, Transform{TransformINTEG, IntegSHA256, 256}, no)}, "", 0},
		"a transform type that nobody knows":           {[]Proposal{esp(1, gcm, no, Transform{13, 1, 0})}, "", 0},
		"a PRF":                                        {[]Proposal{esp(1, gcm, no, Transform{TransformPRF, PRFSHA256, 0})}, "", 0},
		"no key exchange by name":                      {[]Proposal{esp(1, gcm, Transform{TransformKE, KENone, 0}, no)}, "aes-256-gcm-16,no-esn", 1},
		"three lengths of sequence numbers":            {[]Proposal{esp(1, gcm, Transform{TransformESN, 2, 0}, no, yes)}, "aes-256-gcm-16,esn", 1},
		"no length of sequence numbers":                {[]Proposal{esp(1, gcm)}, "aes-256-gcm-16", 1},
		"no length of sequence numbers, then one":      {[]Proposal{esp(1, gcm), esp(2, gcm, no)}, "aes-256-gcm-16,no-esn", 2},
		"no length of sequence numbers, then a weaker": {[]Proposal{esp(1, gcm), esp(2, cbc, hmac, yes)}, "aes-128-cbc,hmac-sha2-256-128,esn", 2},
		"no length of sequence numbers, then another":  {[]Proposal{esp(1, gcm), {Protocol: ProtoAH, Transforms: []Transform{hmac, no}, num: 2}}, "aes-256-gcm-16", 1},
	} {
		s, answer, ok := choose(DefaultChildProposals(ProtoESP), x.offer, negotiation{noKE: true})
		if got := answer.String(); ok != (x.want != "") || ok && (got != x.want || answer.num != x.num) {
			t.Errorf("%s: answered %v, %q of proposal %d; want %q of %d", name, ok, got, answer.num, x.want, x.num)
		}
		if ok && s.esn != strings.HasSuffix(x.want, ",esn") {
			t.Errorf("%s: extended sequence numbers %v", name, s.esn)
		}
	}
	// Whoever insists on 64 bits does not take an offer that does not say it.
	ours := DefaultChildProposals(ProtoESP)[0].without(func(t Transform) bool { return t == no })
	if _, _, ok := choose([]Proposal{ours}, []Proposal{esp(1, gcm)}, negotiation{noKE: true}); ok {
		t.Error("an offer without a length is read as one with 64 bits")
	}
}

// An answer has the number and one transform for each type of one that was offered
// (RFC 7296 section 3.3).
func TestOddAnswers(t *testing.T) {
	ours := DefaultChildProposals(ProtoESP)
	_, answer, ok := choose(ours, []Proposal{{Protocol: ProtoESP, num: 1, Transforms: ours[0].Transforms}}, negotiation{noKE: true})
	if _, good := accepts(ours, answer, negotiation{noKE: true}); !ok || !good {
		t.Fatalf("a good answer is refused: %s", answer)
	}
	for name, change := range map[string]func(p *Proposal){
		"another proposal's number": func(p *Proposal) { p.num = 2 },
		"a number never offered":    func(p *Proposal) { p.num = 9 },
		"two ciphers": func(p *Proposal) {
			p.Transforms = append(p.Transforms, Transform{TransformENCR, EncrAESGCM16, 128})
		},
		"a cipher never offered": func(p *Proposal) { p.Transforms[0] = Transform{TransformENCR, EncrAESGCM16, 192} },
		"another protocol":       func(p *Proposal) { p.Protocol = ProtoAH },
	} {
		x := answer
		x.Transforms = append([]Transform(nil), answer.Transforms...)
		change(&x)
		if _, good := accepts(ours, x, negotiation{noKE: true}); good {
			t.Errorf("%s: taken: %s", name, x)
		}
	}
}

// What is refused later by CREATE_CHILD_SA is told with what it was about: selectors
// where selectors do not fit, algorithms where these do not.
func TestRefusalSaysWhy(t *testing.T) {
	s, a, b := upTwo(t, nil)
	b.elsewhere(true)
	s.take(a, a.Rekey(s.now, "b", "net"))
	s.run(5 * time.Second)
	b.elsewhere(false)
	b.cfg.Peers[0].Children[0].Proposals = []Proposal{{Protocol: ProtoESP, Transforms: append(aesBits(EncrAESGCM16, 192), transforms(TransformESN, esnNo)...)}}
	s.take(a, a.Rekey(s.now, "b", "net"))
	s.run(5 * time.Second)
	for f, want := range map[Failure]string{NoSelectors: "192.0.2.1 <-> 192.0.2.2", NoProposal: "aes-256-gcm-16|"} {
		told := false
		for _, e := range a.log {
			told = told || e.Failure == f && strings.HasPrefix(e.Ours, want)
		}
		if !told {
			t.Errorf("no %s with %q of ours", f, want)
		}
	}
	if t.Failed() {
		s.dump()
	}
}

// RSA with SHA-1 is refused, and said to be; there is no setting for it.
func TestRSAWithSHA1(t *testing.T) {
	key, octets := newKey(t, "rsa"), []byte("what is signed")
	sum := sha1.Sum(octets)
	sig, err := key.Sign(rand.Reader, sum[:], crypto.SHA1)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(key.Public(), authRSA, sig, octets); err == nil || err.Error() != rsaSHA1 {
		t.Errorf("SHA-1: %v", err)
	}
	sig[7] ^= 1
	if err := verify(key.Public(), authRSA, sig, octets); err != errSignature {
		t.Errorf("a wrong signature: %v", err)
	}
	if len(rsaSHA1) > maxText || len(rsaRefused) > maxText {
		t.Error("too long for an event")
	}
}

// A peer without RFC 7427 that refuses our RSA signature: the event says what is most
// likely the matter. With another key, or a peer that knows RFC 7427, it is not that.
func TestRSARefused(t *testing.T) {
	for _, x := range []struct {
		kind  string
		knows bool
		want  bool
	}{{"rsa", false, true}, {"rsa", true, false}, {"ecdsa", false, false}} {
		s := newSim(t, 3)
		ca := newPKI(t)
		pa, pb := pskPeers()
		withCerts(t, ca, pa, pb, x.kind)
		pb.CAs = []*x509.Certificate{newPKI(t).cert}
		a, _ := s.twoNodes(pa, pb)
		s.nat = func(d Datagram) (Datagram, bool) {
			if h, err := parseHeader(d.Data); err == nil && h.exchange == exIKESAInit && h.response() && !x.knows {
				for i := headerLen; i+8 < len(d.Data); i++ { // hides the notification
					if d.Data[i+4] == 0 && d.Data[i+5] == 0 && binary.BigEndian.Uint16(d.Data[i+6:]) == nSigHashes {
						binary.BigEndian.PutUint16(d.Data[i+6:], 40960)
					}
				}
			}
			return d, true
		}
		s.call(a, "b", "net")
		s.run(5 * time.Second)
		told := false
		for _, e := range a.log {
			if e.Failure == WrongKeyByPeer {
				told = e.Detail == rsaRefused && e.Setting == "private_key"
			}
		}
		if a.Stats().Failures[WrongKeyByPeer] != 1 || told != x.want {
			s.dump()
			t.Errorf("%s, knows RFC 7427 %v: told %v", x.kind, x.knows, told)
		}
	}
}
