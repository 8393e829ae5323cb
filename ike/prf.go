package ike

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"
)

// hashOf gives the hash under a PRF and its key and output length in bytes.
func hashOf(prf uint16) (func() hash.Hash, int) {
	switch prf {
	case PRFSHA1:
		return sha1.New, 20
	case PRFSHA256:
		return sha256.New, 32
	case PRFSHA384:
		return sha512.New384, 48
	case PRFSHA512:
		return sha512.New, 64
	}
	return nil, 0
}

// prfLen is the preferred key length and the output length of a PRF.
func prfLen(prf uint16) int { _, n := hashOf(prf); return n }

// prf is RFC 7296 section 2.13's prf(key, data), data given in parts.
func prf(id uint16, key []byte, parts ...[]byte) []byte {
	h, _ := hashOf(id)
	m := hmac.New(h, key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

// prfPlus is RFC 7296 section 2.13's prf+(key, seed), cut to n bytes. At most
// 255 blocks can be had; nothing here asks for more than a dozen.
//
//	T1 = prf(K, S | 0x01), T2 = prf(K, T1 | S | 0x02), ...
func prfPlus(id uint16, key, seed []byte, n int) []byte {
	out := make([]byte, 0, n+prfLen(id))
	var last []byte
	for i := byte(1); len(out) < n; i++ {
		last = prf(id, key, last, seed, []byte{i})
		out = append(out, last...)
	}
	wipe(out[n:cap(out)])
	return out[:n]
}

// wipe overwrites a secret. Go may have copied it elsewhere; what this
// package holds is gone.
func wipe(b ...[]byte) {
	for _, s := range b {
		clear(s)
	}
}

// ikeKeys are the keys of an IKE SA, RFC 7296 section 2.14.
type ikeKeys struct {
	d      []byte // derives the keys of children
	ai, ar []byte // integrity; empty with AEAD
	ei, er []byte // encryption, the salt of an AEAD behind the key
	pi, pr []byte // into the AUTH payload
}

func (k *ikeKeys) wipe() {
	wipe(k.d, k.ai, k.ar, k.ei, k.er, k.pi, k.pr)
	*k = ikeKeys{}
}

// deriveIKE computes the keys of an IKE SA from SKEYSEED.
func deriveIKE(s *suite, skeyseed, ni, nr []byte, spiI, spiR uint64) ikeKeys {
	seed := append(append([]byte(nil), ni...), nr...)
	seed = binary.BigEndian.AppendUint64(seed, spiI)
	seed = binary.BigEndian.AppendUint64(seed, spiR)
	p, e, a := prfLen(s.prf), s.encrKeyLen(), s.integKeyLen()
	m := prfPlus(s.prf, skeyseed, seed, 3*p+2*e+2*a)
	take := func(n int) []byte { b := m[:n:n]; m = m[n:]; return b }
	return ikeKeys{d: take(p), ai: take(a), ar: take(a), ei: take(e), er: take(e), pi: take(p), pr: take(p)}
}

// seedInit is SKEYSEED of IKE_SA_INIT: prf(Ni | Nr, g^ir).
func seedInit(id uint16, ni, nr, shared []byte) []byte {
	return prf(id, append(append([]byte(nil), ni...), nr...), shared)
}

// seedNext is SKEYSEED after an IKE_INTERMEDIATE with a key exchange, or of a
// rekeyed IKE SA: prf(SK_d, SK(n) | Ni | Nr) (RFC 9370 section 2.2.2, RFC 7296
// section 2.18). id is the PRF that SK_d belongs to. more are the shared
// secrets of additional exchanges, which come after the nonces (RFC 9370
// section 2.2.4).
func seedNext(id uint16, d, shared, ni, nr []byte, more ...[]byte) []byte {
	return prf(id, d, append([][]byte{shared, ni, nr}, more...)...)
}

// childKeys gives the KEYMAT of a child SA (RFC 7296 section 2.17): what the
// initiator of the exchange sends with, then what the responder sends with.
func childKeys(id uint16, d []byte, s *suite, shared, ni, nr []byte, more ...[]byte) (toR, toI Keys) {
	var seed []byte
	for _, p := range append([][]byte{shared, ni, nr}, more...) {
		seed = append(seed, p...)
	}
	e, a := s.encrKeyLen(), s.integKeyLen()
	m := prfPlus(id, d, seed, 2*(e+a))
	wipe(seed)
	take := func(n int) []byte { b := m[:n:n]; m = m[n:]; return b }
	toR = Keys{Encryption: take(e), Integrity: take(a)}
	return toR, Keys{Encryption: take(e), Integrity: take(a)}
}
