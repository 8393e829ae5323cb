package ike

import (
	"crypto/ecdh"
	"crypto/mlkem"
	"fmt"
	"io"
)

// keyExchange is our half of one key exchange as its initiator. A KEM fits
// the same shape: the initiator sends an encapsulation key, the responder a
// ciphertext (RFC 9370 section 2).
type keyExchange interface {
	method() uint16
	// public is what goes into the KE payload.
	public() []byte
	// shared takes the responder's KE payload.
	shared(peer []byte) ([]byte, error)
}

func knownKE(method uint16) bool {
	_, curve := curves[method]
	_, modp := modpGroups[method]
	return curve || modp || method == KEMLKEM768
}

// costly says that a key exchange is work enough for an attack: nobody has any of it
// done who has not shown that it hears us.
func costly(method uint16) bool { return method == KEP521 || modpGroups[method] != nil }

// kexSource makes key exchanges. Randomness comes from rand alone; the
// standard library draws the randomness of an ML-KEM encapsulation itself, so
// tests that replay bytes set encapsulate.
type kexSource struct {
	rand        io.Reader
	encapsulate func(ek []byte) (shared, ciphertext []byte, err error)
}

func (k kexSource) start(method uint16) (keyExchange, error) {
	switch {
	case method == KEMLKEM768:
		seed := make([]byte, mlkem.SeedSize)
		if _, err := io.ReadFull(k.rand, seed); err != nil {
			return nil, err
		}
		dk, err := mlkem.NewDecapsulationKey768(seed)
		wipe(seed)
		return kem{dk}, err
	case curves[method].curve != nil:
		return k.startECDH(method)
	case modpGroups[method] != nil:
		return k.startMODP(method)
	}
	return nil, fmt.Errorf("key exchange method %d is not known", method)
}

// answer is our half of a key exchange as the responder of IKE_SA_INIT, which
// computes the shared secret later: until then nobody has shown that it hears us.
// A KEM has both in one step, and costs no more than half of another exchange.
func (k kexSource) answer(method uint16, peer []byte) (keyExchange, error) {
	if method != KEMLKEM768 {
		return k.start(method)
	}
	ct, shared, err := k.encapsulate768(peer)
	return encapsulated{ct, shared}, err
}

// encapsulated is a KEM's answer; the secret is there already.
type encapsulated struct{ ciphertext, secret []byte }

func (e encapsulated) method() uint16                { return KEMLKEM768 }
func (e encapsulated) public() []byte                { return e.ciphertext }
func (e encapsulated) shared([]byte) ([]byte, error) { return e.secret, nil }

// respond does the responder's half in one step.
func (k kexSource) respond(method uint16, peer []byte) (public, shared []byte, err error) {
	if method == KEMLKEM768 {
		// A wrong length fails here, and so does a key that FIPS 203
		// section 7.2 calls invalid.
		ct, sh, err := k.encapsulate768(peer)
		return ct, sh, err
	}
	kx, err := k.start(method)
	if err != nil {
		return nil, nil, err
	}
	shared, err = kx.shared(peer)
	return kx.public(), shared, err
}

func (k kexSource) encapsulate768(ekBytes []byte) (ciphertext, shared []byte, err error) {
	if k.encapsulate != nil {
		shared, ciphertext, err = k.encapsulate(ekBytes)
		return ciphertext, shared, err
	}
	ek, err := mlkem.NewEncapsulationKey768(ekBytes)
	if err != nil {
		return nil, nil, fmt.Errorf("ml-kem-768: %w", err)
	}
	shared, ciphertext = ek.Encapsulate()
	return ciphertext, shared, nil
}

type kem struct{ dk *mlkem.DecapsulationKey768 }

func (k kem) method() uint16 { return KEMLKEM768 }
func (k kem) public() []byte { return k.dk.EncapsulationKey().Bytes() }
func (k kem) shared(ct []byte) ([]byte, error) {
	s, err := k.dk.Decapsulate(ct)
	if err != nil {
		return nil, fmt.Errorf("ml-kem-768: %w", err)
	}
	return s, nil
}

// curve says how a curve's points travel. RFC 5903 sends x and y without the
// 0x04 of the uncompressed form and uses x as the secret; RFC 8031 sends the
// 32 bytes of X25519 as they are.
type curve struct {
	curve ecdh.Curve
	size  int  // bytes of a private key
	mask  byte // of the first byte of a private key
	point bool // 0x04 stands before a public key outside of IKE
}

var curves = map[uint16]curve{
	KEX25519: {ecdh.X25519(), 32, 0xff, false},
	KEP256:   {ecdh.P256(), 32, 0xff, true},
	KEP384:   {ecdh.P384(), 48, 0xff, true},
	KEP521:   {ecdh.P521(), 66, 0x01, true},
}

type dh struct {
	id   uint16
	priv *ecdh.PrivateKey
}

func (k kexSource) startECDH(id uint16) (keyExchange, error) {
	c := curves[id]
	b := make([]byte, c.size)
	defer wipe(b)
	// ecdh's own GenerateKey takes no randomness from its caller. A draw is
	// out of range with a chance of 2^-32 at most (P-256).
	for range 64 {
		if _, err := io.ReadFull(k.rand, b); err != nil {
			return nil, err
		}
		b[0] &= c.mask
		if p, err := c.curve.NewPrivateKey(b); err == nil {
			return dh{id, p}, nil
		}
	}
	return nil, fmt.Errorf("the randomness source gave no usable private key")
}

func (d dh) method() uint16 { return d.id }

func (d dh) public() []byte {
	b := d.priv.PublicKey().Bytes()
	if curves[d.id].point {
		b = b[1:]
	}
	return b
}

func (d dh) shared(peer []byte) ([]byte, error) {
	c := curves[d.id]
	if c.point {
		peer = append([]byte{4}, peer...)
	}
	// NewPublicKey checks length, range and curve equation (RFC 6989).
	pub, err := c.curve.NewPublicKey(peer)
	if err != nil {
		return nil, fmt.Errorf("public value of the peer: %w", err)
	}
	s, err := d.priv.ECDH(pub) // refuses X25519's all-zero result (RFC 8031 section 4)
	if err != nil {
		return nil, fmt.Errorf("public value of the peer: %w", err)
	}
	return s, nil
}
