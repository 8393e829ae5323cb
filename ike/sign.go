package ike

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha1"
	_ "crypto/sha256" // linked for crypto.Hash
	_ "crypto/sha512"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
)

// Authentication methods, IANA "IKEv2 Authentication Method".
const (
	authRSA       = 1
	authPSK       = 2
	authECDSA256  = 9
	authECDSA384  = 10
	authECDSA521  = 11
	authSignature = 14 // RFC 7427
)

// Hash identifiers of SIGNATURE_HASH_ALGORITHMS, RFC 7427 section 7 and
// RFC 8420 section 3.
const (
	hashSHA256   = 2
	hashSHA384   = 3
	hashSHA512   = 4
	hashIdentity = 5 // the algorithm hashes by itself: Ed25519
)

var ourHashes = []uint16{hashSHA256, hashSHA384, hashSHA512, hashIdentity}

// sigAlg is one AlgorithmIdentifier of RFC 7427 appendix A.
type sigAlg struct {
	name string
	der  []byte
	hash crypto.Hash // 0 for Ed25519
	id   uint16      // hash identifier
	kind keyKind
}

type keyKind uint8

const (
	keyOther keyKind = iota
	keyECDSA
	keyEd25519
	keyRSAPSS
	keyRSAPKCS1 // read from old peers, never written with RFC 7427
)

// sigAlgs in order of preference for writing.
var sigAlgs = []sigAlg{
	{"ed25519", der(oid(1, 3, 101, 112)), 0, hashIdentity, keyEd25519},
	{"ecdsa-with-sha256", der(oid(1, 2, 840, 10045, 4, 3, 2)), crypto.SHA256, hashSHA256, keyECDSA},
	{"ecdsa-with-sha384", der(oid(1, 2, 840, 10045, 4, 3, 3)), crypto.SHA384, hashSHA384, keyECDSA},
	{"ecdsa-with-sha512", der(oid(1, 2, 840, 10045, 4, 3, 4)), crypto.SHA512, hashSHA512, keyECDSA},
	{"rsassa-pss-sha256", pss(1, 32), crypto.SHA256, hashSHA256, keyRSAPSS},
	{"rsassa-pss-sha384", pss(2, 48), crypto.SHA384, hashSHA384, keyRSAPSS},
	{"rsassa-pss-sha512", pss(3, 64), crypto.SHA512, hashSHA512, keyRSAPSS},
	{"rsa-sha256", der(oid(1, 2, 840, 113549, 1, 1, 11), asn1.NullBytes), crypto.SHA256, hashSHA256, keyRSAPKCS1},
	{"rsa-sha384", der(oid(1, 2, 840, 113549, 1, 1, 12), asn1.NullBytes), crypto.SHA384, hashSHA384, keyRSAPKCS1},
	{"rsa-sha512", der(oid(1, 2, 840, 113549, 1, 1, 13), asn1.NullBytes), crypto.SHA512, hashSHA512, keyRSAPKCS1},
}

func oid(n ...int) []byte { b, _ := asn1.Marshal(asn1.ObjectIdentifier(n)); return b }

// der is a SEQUENCE of encoded parts.
func der(parts ...[]byte) []byte { return tlv(0x30, bytes.Join(parts, nil)) }

func tlv(tag byte, body []byte) []byte {
	if len(body) > 127 {
		return append([]byte{tag, 0x81, byte(len(body))}, body...)
	}
	return append([]byte{tag, byte(len(body))}, body...)
}

// pss is RSASSA-PSS with its parameters spelled out: SHA-2 by the last arc of
// its OID, MGF1 with the same hash, salt as long as the hash (RFC 7427
// appendix A.4).
func pss(arc int, salt byte) []byte {
	hash := der(oid(2, 16, 840, 1, 101, 3, 4, 2, arc), asn1.NullBytes)
	mgf := der(oid(1, 2, 840, 113549, 1, 1, 8), hash)
	return der(oid(1, 2, 840, 113549, 1, 1, 10),
		der(tlv(0xa0, hash), tlv(0xa1, mgf), tlv(0xa2, []byte{2, 1, salt})))
}

func kindOf(pub crypto.PublicKey) keyKind {
	switch pub.(type) {
	case *ecdsa.PublicKey:
		return keyECDSA
	case ed25519.PublicKey:
		return keyEd25519
	case *rsa.PublicKey:
		return keyRSAPSS
	}
	return keyOther
}

const (
	minRSABits = 2048 // RFC 8247 section 4.1
	// maxRSABits bounds what a stranger's keys cost: a verification takes a
	// tenth of a millisecond with 4,096 bits, and half a second with 16,384.
	// CAs have no longer ones; who wants more strength takes ECDSA.
	maxRSABits = 4096
)

// tooLong refuses an RSA key that is longer than maxRSABits.
func tooLong(pub crypto.PublicKey) error {
	if k, ok := pub.(*rsa.PublicKey); ok && k.N.BitLen() > maxRSABits {
		return fmt.Errorf("RSA key of %d bits, at most %d are taken", k.N.BitLen(), maxRSABits)
	}
	return nil
}

// checkKey refuses public keys that are too weak, too long, or of a kind we
// cannot use.
func checkKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return fmt.Errorf("RSA key of %d bits, at least %d needed", k.N.BitLen(), minRSABits)
		}
		return tooLong(pub)
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return fmt.Errorf("ECDSA key on a curve that is not P-256, P-384 or P-521")
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("public key of type %T is not ECDSA, Ed25519 or RSA", pub)
	}
	return nil
}

// curveHash is the hash that goes with the strength of an ECDSA curve.
func curveHash(c elliptic.Curve) (crypto.Hash, uint8) {
	switch c {
	case elliptic.P256():
		return crypto.SHA256, authECDSA256
	case elliptic.P384():
		return crypto.SHA384, authECDSA384
	}
	return crypto.SHA512, authECDSA521
}

func digest(h crypto.Hash, msg []byte) []byte {
	if h == 0 {
		return msg
	}
	x := h.New()
	x.Write(msg)
	return x.Sum(nil)
}

// What is said of peers without RFC 7427, such as Windows with some updates: their
// RSA goes with SHA-1 alone, which is neither made nor taken (RFC 8247 section 3).
// There is no setting for it; curves do without.
const (
	rsaRefused = "the peer has not said that it knows the signatures of RFC 7427, and without them most peers take RSA with SHA-1 alone, which ipfw does not make: " +
		"give this host a certificate with an ECDSA key (P-256), or turn RFC 7427 on there"
	rsaSHA1 = "the peer signs with RSA and SHA-1, which is too weak to be taken, as it does not know the signatures of RFC 7427: " +
		"give it a certificate with an ECDSA key (P-256), or turn RFC 7427 on there"
)

// sign makes the AUTH payload for the octets. hashes are the peer's
// SIGNATURE_HASH_ALGORITHMS; with none, the old methods of RFC 7296 and
// RFC 4754 are used.
func sign(key crypto.Signer, octets []byte, hashes []uint16, rand io.Reader) (method uint8, data []byte, err error) {
	pub := key.Public()
	if err := checkKey(pub); err != nil {
		return 0, nil, err
	}
	if len(hashes) == 0 {
		return signClassic(key, octets, rand)
	}
	want := crypto.Hash(0)
	if e, ok := pub.(*ecdsa.PublicKey); ok {
		want, _ = curveHash(e.Curve)
	}
	var pick *sigAlg
	for i := range sigAlgs {
		a := &sigAlgs[i]
		if a.kind != kindOf(pub) || !slices.Contains(hashes, a.id) {
			continue
		}
		if pick == nil || a.hash == want {
			pick = a
		}
	}
	if pick == nil {
		return 0, nil, errors.New("the peer takes no hash that our key can sign with")
	}
	var opts crypto.SignerOpts = pick.hash
	if pick.kind == keyRSAPSS {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: pick.hash}
	}
	sig, err := key.Sign(rand, digest(pick.hash, octets), opts)
	if err != nil {
		return 0, nil, fmt.Errorf("signing: %w", err)
	}
	data = append([]byte{byte(len(pick.der))}, pick.der...)
	return authSignature, append(data, sig...), nil
}

func signClassic(key crypto.Signer, octets []byte, rand io.Reader) (uint8, []byte, error) {
	switch pub := key.Public().(type) {
	case *ecdsa.PublicKey:
		h, method := curveHash(pub.Curve)
		sig, err := key.Sign(rand, digest(h, octets), h)
		if err != nil {
			return 0, nil, fmt.Errorf("signing: %w", err)
		}
		var v struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(sig, &v); err != nil {
			return 0, nil, fmt.Errorf("signing: %w", err)
		}
		n := (pub.Curve.Params().BitSize + 7) / 8
		return method, append(v.R.FillBytes(make([]byte, n)), v.S.FillBytes(make([]byte, n))...), nil
	case *rsa.PublicKey:
		sig, err := key.Sign(rand, digest(crypto.SHA256, octets), crypto.SHA256)
		if err != nil {
			return 0, nil, fmt.Errorf("signing: %w", err)
		}
		return authRSA, sig, nil
	}
	return 0, nil, errors.New("the peer knows only the signature methods of before RFC 7427, which our key does not have")
}

var errSignature = errors.New("the signature does not fit the key")

// verify checks an AUTH payload against a public key.
func verify(pub crypto.PublicKey, method uint8, data, octets []byte) error {
	if err := checkKey(pub); err != nil {
		return err
	}
	switch method {
	case authSignature:
		return verifyRFC7427(pub, data, octets)
	case authRSA:
		k, ok := pub.(*rsa.PublicKey)
		if !ok {
			return errSignature
		}
		// The hash is named inside the signature; which one is not
		// negotiated (RFC 7296 section 3.8).
		for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			if rsa.VerifyPKCS1v15(k, h, digest(h, octets), data) == nil {
				return nil
			}
		}
		if d := sha1.Sum(octets); rsa.VerifyPKCS1v15(k, crypto.SHA1, d[:], data) == nil {
			return errors.New(rsaSHA1)
		}
		return errSignature
	case authECDSA256, authECDSA384, authECDSA521:
		k, ok := pub.(*ecdsa.PublicKey)
		if !ok {
			return errSignature
		}
		h, want := curveHash(k.Curve)
		n := (k.Curve.Params().BitSize + 7) / 8
		if method != want || len(data) != 2*n {
			return errSignature
		}
		r, s := new(big.Int).SetBytes(data[:n]), new(big.Int).SetBytes(data[n:])
		if !ecdsa.Verify(k, digest(h, octets), r, s) {
			return errSignature
		}
		return nil
	}
	return fmt.Errorf("authentication method %d is not one we verify", method)
}

func verifyRFC7427(pub crypto.PublicKey, data, octets []byte) error {
	if len(data) < 1 || len(data) < 1+int(data[0]) {
		return syntaxError("signature of %d bytes is too short", len(data))
	}
	id, sig := data[1:1+data[0]], data[1+data[0]:]
	i := slices.IndexFunc(sigAlgs, func(a sigAlg) bool { return bytes.Equal(a.der, id) })
	if i < 0 {
		return fmt.Errorf("signature algorithm %x is not known", id)
	}
	a, ok := sigAlgs[i], false
	d := digest(a.hash, octets)
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		ok = a.kind == keyECDSA && ecdsa.VerifyASN1(k, d, sig)
	case ed25519.PublicKey:
		ok = a.kind == keyEd25519 && ed25519.Verify(k, d, sig)
	case *rsa.PublicKey:
		switch a.kind {
		case keyRSAPSS:
			ok = rsa.VerifyPSS(k, a.hash, d, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		case keyRSAPKCS1:
			ok = rsa.VerifyPKCS1v15(k, a.hash, d, sig) == nil
		}
	}
	if !ok {
		return errSignature
	}
	return nil
}

// hashesNotify is our SIGNATURE_HASH_ALGORITHMS, RFC 7427 section 4.
func hashesNotify() payload {
	var b []byte
	for _, h := range ourHashes {
		b = binary.BigEndian.AppendUint16(b, h)
	}
	return note(nSigHashes, b...)
}

func parseHashes(ns notifies) (out []uint16) {
	n, _ := ns.get(nSigHashes)
	for b := n.data; len(b) >= 2 && len(out) < 32; b = b[2:] {
		out = append(out, binary.BigEndian.Uint16(b))
	}
	return out
}
