package ike

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// suite is the outcome of a negotiation: one transform of each type.
type suite struct {
	proto    uint8
	encr     uint16
	encrBits uint16
	integ    uint16
	prf      uint16
	ke       uint16
	esn      bool
	// esnUnsaid says that the peer has nothing on the length of sequence numbers in
	// its proposals, see Proposal.withoutESN.
	esnUnsaid bool
	addke     [7]uint16 // additional key exchanges (RFC 9370); KENone: not used
}

// aead says that the cipher brings its own integrity.
func aead(encr uint16) bool {
	return encr == EncrAESGCM16 || encr == EncrChaCha20 || encr == EncrAESGMAC
}

// saltLen is how many bytes of an AEAD's keying material are its salt
// (RFC 4106 section 8.1, RFC 7634 section 2).
const saltLen = 4

func (s *suite) encrKeyLen() int {
	switch s.encr {
	case EncrAESGCM16, EncrAESGMAC, EncrAESCTR:
		return int(s.encrBits)/8 + saltLen
	case EncrChaCha20:
		return 32 + saltLen
	case EncrAESCBC:
		return int(s.encrBits) / 8
	}
	return 0
}

func (s *suite) integKeyLen() int {
	switch s.integ {
	case IntegSHA1:
		return 20
	case IntegGMAC128:
		return 16 + saltLen
	case IntegGMAC192:
		return 24 + saltLen
	case IntegGMAC256:
		return 32 + saltLen
	case IntegSHA256:
		return 32
	case IntegSHA384:
		return 48
	case IntegSHA512:
		return 64
	}
	return 0
}

// nextAddKE gives the first additional key exchange from slot i on.
func (s *suite) nextAddKE(i int) (slot int, method uint16, ok bool) {
	for ; i < len(s.addke); i++ {
		if s.addke[i] != KENone {
			return i, s.addke[i], true
		}
	}
	return i, KENone, false
}

// proposal gives the suite back as a proposal with one transform of a type.
func (s *suite) proposal() Proposal {
	p := Proposal{Protocol: s.proto}
	add := func(typ uint8, id, bits uint16) {
		p.Transforms = append(p.Transforms, Transform{Type: typ, ID: id, Bits: bits})
	}
	if s.encr != 0 {
		add(TransformENCR, s.encr, s.encrBits)
	}
	if s.prf != 0 {
		add(TransformPRF, s.prf, 0)
	}
	if s.integ != IntegNone {
		add(TransformINTEG, s.integ, 0)
	}
	if s.ke != KENone {
		add(TransformKE, s.ke, 0)
	}
	if s.proto != ProtoIKE && !s.esnUnsaid {
		esn := uint16(esnNo)
		if s.esn {
			esn = esnYes
		}
		add(TransformESN, esn, 0)
	}
	for i, m := range s.addke {
		if m != KENone {
			add(TransformADDKE+uint8(i), m, 0)
		}
	}
	return p
}

// The names by which policies, events and people know transforms.
var transformNames = map[Transform]string{
	{TransformENCR, EncrAESGCM16, 128}: "aes-128-gcm-16",
	{TransformENCR, EncrAESGCM16, 192}: "aes-192-gcm-16",
	{TransformENCR, EncrAESGCM16, 256}: "aes-256-gcm-16",
	{TransformENCR, EncrChaCha20, 0}:   "chacha20-poly1305",
	{TransformENCR, EncrAESCBC, 128}:   "aes-128-cbc",
	{TransformENCR, EncrAESCBC, 192}:   "aes-192-cbc",
	{TransformENCR, EncrAESCBC, 256}:   "aes-256-cbc",
	{TransformENCR, EncrAESCTR, 128}:   "aes-128-ctr",
	{TransformENCR, EncrAESCTR, 192}:   "aes-192-ctr",
	{TransformENCR, EncrAESCTR, 256}:   "aes-256-ctr",
	{TransformENCR, EncrAESGMAC, 128}:  "aes-128-gmac",
	{TransformENCR, EncrAESGMAC, 192}:  "aes-192-gmac",
	{TransformENCR, EncrAESGMAC, 256}:  "aes-256-gmac",
	{TransformENCR, EncrNull, 0}:       "insecure-null",
	{TransformINTEG, IntegGMAC128, 0}:  "aes-128-gmac",
	{TransformINTEG, IntegGMAC192, 0}:  "aes-192-gmac",
	{TransformINTEG, IntegGMAC256, 0}:  "aes-256-gmac",
	{TransformPRF, PRFSHA256, 0}:       "prf-hmac-sha2-256",
	{TransformPRF, PRFSHA384, 0}:       "prf-hmac-sha2-384",
	{TransformPRF, PRFSHA512, 0}:       "prf-hmac-sha2-512",
	{TransformPRF, PRFSHA1, 0}:         "prf-hmac-sha1",
	{TransformINTEG, IntegSHA256, 0}:   "hmac-sha2-256-128",
	{TransformINTEG, IntegSHA384, 0}:   "hmac-sha2-384-192",
	{TransformINTEG, IntegSHA512, 0}:   "hmac-sha2-512-256",
	{TransformINTEG, IntegSHA1, 0}:     "hmac-sha1-96",
	{TransformKE, KEX25519, 0}:         "x25519",
	{TransformKE, KEP256, 0}:           "p-256",
	{TransformKE, KEP384, 0}:           "p-384",
	{TransformKE, KEP521, 0}:           "p-521",
	{TransformKE, KEMODP2048, 0}:       "modp-2048",
	{TransformKE, KEMODP3072, 0}:       "modp-3072",
	{TransformKE, KEMODP4096, 0}:       "modp-4096",
	{TransformKE, KEMLKEM768, 0}:       "ml-kem-768",
	{TransformKE, KENone, 0}:           "none",
	{TransformESN, esnNo, 0}:           "no-esn",
	{TransformESN, esnYes, 0}:          "esn",
	{TransformINTEG, IntegNone, 0}:     "none",
}

var transformTypes = map[uint8]string{
	TransformENCR: "encryption", TransformPRF: "prf", TransformINTEG: "integrity",
	TransformKE: "key exchange", TransformESN: "sequence numbers",
}

func transformType(t uint8) string {
	if s, ok := transformTypes[t]; ok {
		return s
	}
	if isAddKE(t) {
		return fmt.Sprintf("additional key exchange %d", t-TransformADDKE+1)
	}
	return fmt.Sprintf("transform type %d", t)
}

func isAddKE(t uint8) bool { return t >= TransformADDKE && t < TransformADDKE+7 }

// String gives the name a policy uses for the transform, or its numbers.
func (t Transform) String() string {
	key := t
	if isAddKE(t.Type) {
		key.Type = TransformKE
	}
	if s, ok := transformNames[key]; ok {
		return s
	}
	if t.Bits != 0 {
		return fmt.Sprintf("%s %d (%d bits)", transformType(t.Type), t.ID, t.Bits)
	}
	return fmt.Sprintf("%s %d", transformType(t.Type), t.ID)
}

// TransformNamed finds a transform by its policy name; kind says the type,
// since "none" is the name of several.
func TransformNamed(kind uint8, name string) (Transform, bool) {
	look := kind
	if isAddKE(kind) {
		look = TransformKE
	}
	for t, n := range transformNames {
		if n == name && t.Type == look {
			t.Type = kind
			return t, true
		}
	}
	return Transform{}, false
}

// String gives "aes-256-gcm-16,prf-hmac-sha2-256,x25519+ml-kem-768"; alternatives of
// one type are separated by "|", and stand in parentheses where others are added to
// them (RFC 9370).
func (p Proposal) String() string {
	var b strings.Builder
	p.write(&b, math.MaxInt)
	return b.String()
}

// write adds the text of a proposal, and stops behind limit bytes.
func (p Proposal) write(b *strings.Builder, limit int) {
	var kinds, added []uint8 // in the order in which they come
	of := map[uint8][]Transform{}
	for _, t := range p.Transforms {
		if of[t.Type] == nil && isAddKE(t.Type) {
			added = append(added, t.Type)
		} else if of[t.Type] == nil {
			kinds = append(kinds, t.Type)
		}
		of[t.Type] = append(of[t.Type], t)
	}
	if at := slices.Index(kinds, TransformKE); at >= 0 {
		kinds = slices.Insert(kinds, at+1, added...)
	} else {
		kinds = append(kinds, added...)
	}
	for i, kind := range kinds {
		switch {
		case b.Len() > limit:
			return
		case isAddKE(kind):
			b.WriteByte('+')
		case i > 0:
			b.WriteByte(',')
		}
		group := len(of[kind]) > 1 && (isAddKE(kind) || kind == TransformKE && len(added) > 0)
		if group {
			b.WriteByte('(')
		}
		for n, t := range of[kind] {
			if b.Len() > limit {
				return
			}
			if n > 0 {
				b.WriteByte('|')
			}
			b.WriteString(t.String())
		}
		if group {
			b.WriteByte(')')
		}
	}
}

// proposalText is what an event says of proposals. It is cut, like all texts of
// events: strangers offer what they like.
func proposalText(list []Proposal) string {
	var b strings.Builder
	for i, p := range list {
		if i > 0 {
			b.WriteString(" or ")
		}
		if p.write(&b, maxText); b.Len() > maxText {
			break
		}
	}
	return cut(b.String())
}

func (s *suite) String() string { return s.proposal().String() }

// Combined says that a cipher, by its transform ID, brings its own integrity.
func Combined(encr uint16) bool { return aead(encr) }
