package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"
)

var be = binary.BigEndian

// ctrTag is how many bytes the GCM under AES-CTR writes behind what it
// encrypts; no integrity algorithm has a shorter ICV.
const ctrTag = 12

// crypter is the keyed part of an SA. Any number of cores use one at the same
// time, each with a scratch of its own.
type crypter struct {
	method  // of the encryption, or aesGMAC when AH uses it
	esn     bool
	iv, icv int // bytes in each packet
	salt    [4]byte
	aead    cipher.AEAD
	block   cipher.Block
	ivBlock cipher.Block // CBC: makes IVs, with a key of its own
	ivStart uint64
	mac     hash.Cloner // an HMAC that has its key and nothing else
	macSize int
	pool    sync.Pool // of *scratch
}

// scratch is what one packet in work needs beside its bytes. It lives in a
// pool, so that slices of it can pass through the cipher interfaces without an
// allocation for each packet.
type scratch struct {
	nonce    [12]byte
	aad      [12]byte
	counter  [16]byte
	sum      [sha512.Size]byte
	mac      hash.Hash
	enc, dec cbcMode
	buf      []byte
}

// cbcMode is what the standard library's CBC modes are beside BlockMode; their
// SetIV spares an allocation for each packet.
type cbcMode interface {
	cipher.BlockMode
	SetIV([]byte)
}

func newCrypter(s Suite, encryption, integrity Key, esn bool) (*crypter, error) {
	c := &crypter{method: s.Encryption.method, esn: esn, iv: s.IV(), icv: s.ICV()}
	e, i := s.Encryption, s.Integrity
	if n := encryption.Len(); n != e.KeyMaterial() {
		return nil, keyLength("encryption", e, n)
	}
	if n := integrity.Len(); n != i.KeyMaterial() {
		return nil, keyLength("integrity", i, n)
	}
	if s.Protocol == AH && i.method == aesGMAC {
		c.method, e, encryption = aesGMAC, i, integrity
	}
	key := encryption.bytes()
	copy(c.salt[:], key[min(len(key), e.Key):])
	var err error
	switch c.method {
	case aesGCM, aesGMAC, aesCBC, aesCTR:
		if c.block, err = aes.NewCipher(key[:e.Key]); err != nil {
			return nil, err
		}
	case chachaPoly:
		if c.aead, err = chacha20poly1305.New(key[:e.Key]); err != nil {
			return nil, err
		}
	}
	switch c.method {
	case aesGCM, aesGMAC:
		if c.aead, err = cipher.NewGCM(c.block); err != nil {
			return nil, err
		}
	case aesCTR:
		if c.aead, err = cipher.NewGCMWithTagSize(c.block, ctrTag); err != nil {
			return nil, err
		}
	case aesCBC:
		if err := c.newIVs(); err != nil {
			return nil, err
		}
	}
	var h func() hash.Hash
	switch i.method {
	case hmacSHA1:
		h = sha1.New
	case hmacSHA256:
		h = sha256.New
	case hmacSHA384:
		h = sha512.New384
	case hmacSHA512:
		h = sha512.New
	default:
		return c, nil
	}
	m := hmac.New(h, integrity.bytes())
	m.Reset() // computes the two keyed states, which clones then share
	var ok bool
	if c.mac, ok = m.(hash.Cloner); !ok {
		return nil, errors.New("this Go release's hmac cannot be cloned")
	}
	c.macSize = i.ICV
	return c, nil
}

func keyLength(what string, a Algorithm, n int) error {
	switch {
	case a.method == 0:
		return fmt.Errorf("%s key of %d bytes, and no algorithm that takes one", what, n)
	case a.Salt > 0:
		return fmt.Errorf("%s key for %s must be %d bytes (%d of key, %d of salt), not %d", what, a.Name, a.KeyMaterial(), a.Key, a.Salt, n)
	}
	return fmt.Errorf("%s key for %s must be %d bytes, not %d", what, a.Name, a.Key, n)
}

// newIVs readies the IVs of CBC, which nobody may foresee (RFC 3602 section 3).
// They are the packet's number encrypted, as in the first method of NIST SP
// 800-38A, appendix C, but under a random key that lives as long as the SA, so
// that a traffic key set by hand twice does not give the same IVs twice.
func (c *crypter) newIVs() (err error) {
	var seed [24]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return err
	}
	c.ivBlock, err = aes.NewCipher(seed[:16])
	c.ivStart = be.Uint64(seed[16:])
	clear(seed[:])
	return err
}

func (c *crypter) get() *scratch {
	if s, ok := c.pool.Get().(*scratch); ok {
		return s
	}
	s := new(scratch)
	copy(s.nonce[:], c.salt[:])
	if c.method == aesCBC {
		s.enc = cipher.NewCBCEncrypter(c.block, s.counter[:]).(cbcMode)
		s.dec = cipher.NewCBCDecrypter(c.block, s.counter[:]).(cbcMode)
	}
	if c.mac != nil {
		m, err := c.mac.Clone()
		if err != nil {
			panic("esp: " + err.Error()) // newCrypter's clone of the same kind is proof that it can
		}
		s.mac = m.(hash.Hash)
	}
	return s
}

func (c *crypter) put(s *scratch) { c.pool.Put(s) }

// seal encrypts p, an ESP packet from its SPI to the room for its ICV (RFC
// 4303, section 2), in place, and fills in IV and ICV. SPI and sequence number
// are there.
func (c *crypter) seal(s *scratch, p []byte, seq uint64) {
	body := p[espHeader+c.iv : len(p)-c.icv]
	switch c.method {
	case aesGCM, chachaPoly:
		// The IV is the sequence number: never the same twice under one
		// key (RFC 4106 section 3.1, RFC 7634 section 2).
		be.PutUint64(p[espHeader:], seq)
		be.PutUint64(s.nonce[4:], seq)
		c.aead.Seal(body[:0], s.nonce[:], body, c.header(s, p, seq))
		return
	case aesGMAC:
		be.PutUint64(p[espHeader:], seq)
		be.PutUint64(s.nonce[4:], seq)
		c.aead.Seal(p[len(p)-c.icv:len(p)-c.icv], s.nonce[:], nil, c.gmacData(s, p, seq))
		return
	case aesCBC:
		clear(s.counter[:])
		be.PutUint64(s.counter[:], c.ivStart)
		be.PutUint64(s.counter[8:], seq)
		iv := p[espHeader : espHeader+16]
		c.ivBlock.Encrypt(iv, s.counter[:])
		s.enc.SetIV(iv)
		s.enc.CryptBlocks(body, body)
	case aesCTR:
		be.PutUint64(p[espHeader:], seq)
		c.ctr(s, p, body)
	}
	copy(p[len(p)-c.icv:], c.sum(s, p[:len(p)-c.icv], nil, seq))
}

// open proves p, an ESP packet from its SPI to its ICV, and decrypts it in
// place. The caller has seen to it that p is long enough and, for a block
// cipher, whole blocks. When it fails, the bytes of p are worth nothing.
func (c *crypter) open(s *scratch, p []byte, seq uint64) bool {
	body := p[espHeader+c.iv : len(p)-c.icv]
	switch c.method {
	case aesGCM, chachaPoly:
		copy(s.nonce[4:], p[espHeader:espHeader+8])
		_, err := c.aead.Open(body[:0], s.nonce[:], p[espHeader+c.iv:], c.header(s, p, seq))
		return err == nil
	case aesGMAC:
		copy(s.nonce[4:], p[espHeader:espHeader+8])
		_, err := c.aead.Open(s.sum[:0], s.nonce[:], p[len(p)-c.icv:], c.gmacData(s, p, seq))
		return err == nil
	}
	if subtle.ConstantTimeCompare(p[len(p)-c.icv:], c.sum(s, p[:len(p)-c.icv], nil, seq)) != 1 {
		return false
	}
	switch c.method {
	case aesCBC:
		s.dec.SetIV(p[espHeader : espHeader+16])
		s.dec.CryptBlocks(body, body)
	case aesCTR:
		c.ctr(s, p, body)
	}
	return true
}

// header is the additional data of an AEAD: SPI and sequence number, 64 bits
// of it with ESN (RFC 4106 section 5, RFC 7634 section 2.1).
func (c *crypter) header(s *scratch, p []byte, seq uint64) []byte {
	copy(s.aad[:], p[:4])
	if !c.esn {
		be.PutUint32(s.aad[4:], uint32(seq))
		return s.aad[:8]
	}
	be.PutUint64(s.aad[4:], seq)
	return s.aad[:12]
}

// gmacData is what AES-GMAC authenticates in ESP: header, IV and the whole
// payload with its trailer (RFC 4543 section 3.3).
func (c *crypter) gmacData(s *scratch, p []byte, seq uint64) []byte {
	if !c.esn {
		return p[:len(p)-c.icv]
	}
	s.buf = append(s.buf[:0], c.header(s, p, seq)...)
	s.buf = append(s.buf, p[espHeader:len(p)-c.icv]...)
	return s.buf
}

// ctr encrypts or decrypts body: the counter block is nonce, IV and a block
// count from 1 (RFC 3686 section 4). The standard library's CTR cannot start
// over, and making one for each packet allocates; but GCM counts in the same
// way, from 2, after the block that its tag is made with (NIST SP 800-38D
// section 7.1). So the first block is done here and GCM does the others; its
// tag, of 12 bytes, falls on the ICV behind body, which is done with or not yet
// made. body is a multiple of 4 bytes long, as in ESP; GCM may write a last
// block of 16 bytes, and so stays inside the tag.
func (c *crypter) ctr(s *scratch, p, body []byte) {
	copy(s.nonce[4:], p[espHeader:espHeader+8])
	copy(s.counter[:], s.nonce[:])
	be.PutUint32(s.counter[12:], 1)
	c.block.Encrypt(s.counter[:], s.counter[:])
	n := subtle.XORBytes(body, body, s.counter[:])
	c.aead.Seal(body[n:n], s.nonce[:], body[n:], nil)
}

// sum is the ICV over first and rest, of a separate integrity algorithm; with
// ESN the high half of the sequence number follows them, unsent (RFC 4303
// section 2.2.1, RFC 4302 section 3.3.3.2.2). first must have been built in
// s.buf if the method is AES-GMAC, which wants its data in one piece.
func (c *crypter) sum(s *scratch, first, rest []byte, seq uint64) []byte {
	be.PutUint32(s.aad[:4], uint32(seq>>32))
	high := s.aad[:4]
	if !c.esn {
		high = nil
	}
	if c.method == aesGMAC {
		s.buf = append(append(first, rest...), high...)
		return c.aead.Seal(s.sum[:0], s.nonce[:], nil, s.buf)
	}
	s.mac.Reset()
	s.mac.Write(first)
	s.mac.Write(rest)
	s.mac.Write(high)
	return s.mac.Sum(s.sum[:0])[:c.macSize]
}
