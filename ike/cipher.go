package ike

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"hash"
	"io"

	"golang.org/x/crypto/chacha20poly1305"
)

var errIntegrity = errors.New("integrity check failed")

// sealer protects and opens SK and SKF payloads in one direction, RFC 7296
// section 3.14, RFC 5282 and RFC 7634.
type sealer struct {
	aead  cipher.AEAD // or
	block cipher.Block
	mac   func() hash.Hash

	salt   []byte
	macKey []byte
	icv    int // bytes of the integrity check value
	iv     int // bytes of the explicit IV

	rand io.Reader // IVs of CBC must not be guessed
	next uint64    // IVs of an AEAD must not repeat: a counter
}

// newSealer takes slices of the keys and keeps them.
func newSealer(s *suite, encr, integ []byte, rand io.Reader) (*sealer, error) {
	x := &sealer{rand: rand, macKey: integ}
	var err error
	switch s.encr {
	case EncrAESGCM16, EncrChaCha20:
		n := len(encr) - saltLen
		x.salt, x.iv, x.icv = encr[n:], 8, 16
		if s.encr == EncrChaCha20 {
			x.aead, err = chacha20poly1305.New(encr[:n])
			return x, err
		}
		b, err := aes.NewCipher(encr[:n])
		if err != nil {
			return nil, err
		}
		x.aead, err = cipher.NewGCM(b)
		return x, err
	case EncrAESCBC:
		x.block, err = aes.NewCipher(encr)
		x.iv = aes.BlockSize
	default:
		return nil, errors.New("cipher is not known")
	}
	switch s.integ {
	case IntegSHA1:
		x.mac, x.icv = sha1.New, 12
	case IntegSHA256:
		x.mac, x.icv = sha256.New, 16
	case IntegSHA384:
		x.mac, x.icv = sha512.New384, 24
	case IntegSHA512:
		x.mac, x.icv = sha512.New, 32
	default:
		return nil, errors.New("integrity algorithm is not known")
	}
	return x, err
}

// padding is how many bytes of padding and pad length follow n bytes.
func (x *sealer) padding(n int) int {
	if x.aead != nil {
		return 1 // just the pad length octet, RFC 5282 section 3
	}
	return x.block.BlockSize() - n%x.block.BlockSize()
}

// overhead is the most that sealing adds to n bytes of plaintext.
func (x *sealer) overhead(n int) int { return x.iv + x.padding(n) + x.icv }

// seal appends IV, ciphertext and integrity check value of plain to msg,
// which holds the header and the payload header, their lengths filled in.
func (x *sealer) seal(msg, plain []byte) ([]byte, error) {
	aad := len(msg)
	pad := x.padding(len(plain))
	if x.aead != nil {
		iv := binary.BigEndian.AppendUint64(nil, x.next)
		x.next++
		msg = append(msg, iv...)
		plain = append(append(make([]byte, 0, len(plain)+1), plain...), 0)
		defer wipe(plain)
		return x.aead.Seal(msg, append(append([]byte(nil), x.salt...), iv...), plain, msg[:aad]), nil
	}
	iv := make([]byte, x.iv)
	if _, err := io.ReadFull(x.rand, iv); err != nil {
		return nil, err
	}
	msg = append(msg, iv...)
	start := len(msg)
	msg = append(msg, plain...)
	msg = append(msg, make([]byte, pad)...)
	msg[len(msg)-1] = byte(pad - 1)
	cipher.NewCBCEncrypter(x.block, iv).CryptBlocks(msg[start:], msg[start:])
	return append(msg, x.tag(msg)...), nil
}

func (x *sealer) tag(b []byte) []byte {
	m := hmac.New(x.mac, x.macKey)
	m.Write(b)
	return m.Sum(nil)[:x.icv]
}

// open gives the plaintext of msg, of which the first aad bytes are headers.
// msg is left as it was.
func (x *sealer) open(msg []byte, aad int) ([]byte, error) {
	if len(msg) < aad+x.iv+1+x.icv {
		return nil, syntaxError("encrypted payload of %d bytes, at least %d needed", len(msg)-aad, x.iv+1+x.icv)
	}
	iv, body := msg[aad:aad+x.iv], msg[aad+x.iv:]
	var plain []byte
	if x.aead != nil {
		var err error
		plain, err = x.aead.Open(nil, append(append([]byte(nil), x.salt...), iv...), body, msg[:aad])
		if err != nil {
			return nil, errIntegrity
		}
	} else {
		n := len(msg) - x.icv
		if !hmac.Equal(x.tag(msg[:n]), msg[n:]) {
			return nil, errIntegrity
		}
		body = body[:len(body)-x.icv]
		if len(body)%x.block.BlockSize() != 0 {
			return nil, syntaxError("ciphertext of %d bytes is not whole blocks", len(body))
		}
		plain = make([]byte, len(body))
		cipher.NewCBCDecrypter(x.block, iv).CryptBlocks(plain, body)
	}
	pad := int(plain[len(plain)-1]) + 1
	if pad > len(plain) {
		return nil, syntaxError("padding of %d bytes in %d", pad, len(plain))
	}
	return plain[:len(plain)-pad], nil
}

func (x *sealer) wipe() {
	if x == nil {
		return
	}
	wipe(x.salt, x.macKey)
	x.aead, x.block, x.macKey = nil, nil, nil
}
