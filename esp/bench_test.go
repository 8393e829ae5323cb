package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

var benchSizes = []int{64, 576, 1400, 65000}

// benchSuites are each encryption algorithm once, each integrity algorithm once
// in ESP, and AH with each; other suites are made of the same parts.
func benchSuites(b *testing.B) (list []Suite) {
	for _, a := range algorithms {
		switch {
		case a.Type == Integrity:
			list = append(list, suite(b, AH, "", a.Name))
			if a.method != aesGMAC && a.method != hmacSHA256 {
				list = append(list, suite(b, ESP, "aes-256-cbc", a.Name))
			}
		case a.Combined():
			list = append(list, suite(b, ESP, a.Name, ""))
		default:
			list = append(list, suite(b, ESP, a.Name, "hmac-sha2-256-128"))
		}
	}
	return list
}

// BenchmarkPacket is what a packet costs, tunnel mode, IPv4 in IPv4, by the
// size of the inner packet: sealed and opened, each next to the same ciphers
// alone over the same bytes, which nobody can do without. `make bench-esp`
// prints it as a table. Seal copies its packet, as it appends; Open works in
// place, and the copy that gives it a packet to work on counts for it.
func BenchmarkPacket(b *testing.B) {
	eachBench(b, func(b *testing.B, p *pair, size int) {
		pkt := udp4(size)
		sealed := p.mustSeal(b, pkt)
		buf := make([]byte, 0, size+200)
		bareSeal, bareOpen := bareCipher(p, size)
		p.in.win.off = true // the same packet over and over
		for _, c := range []struct {
			name string
			work func()
		}{
			{"seal", func() {
				var f Fault
				if buf, _, f = p.out.Seal(buf[:0], pkt, 0); f != OK {
					b.Fatal(f)
				}
			}},
			{"bare-seal", bareSeal},
			{"open", func() {
				buf = append(buf[:0], sealed...)
				if _, _, f := p.in.Open(buf, 0); f != OK {
					b.Fatal(f)
				}
			}},
			{"bare-open", bareOpen},
		} {
			b.Run(c.name, func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					c.work()
				}
			})
		}
	})
}

// BenchmarkSealBatch seals in place, 32 packets for one reservation: what a
// segmented GSO packet costs.
func BenchmarkSealBatch(b *testing.B) {
	eachBench(b, func(b *testing.B, p *pair, size int) {
		b.SetBytes(int64(size))
		b.ReportAllocs()
		head, tail := p.out.Room()
		buf := make([]byte, head+size+tail)
		pkt := udp4(size)
		left := 0
		var batch Batch
		for b.Loop() {
			if left == 0 {
				batch.Done()
				batch, _ = p.out.Reserve(32, 0)
				left = 32
			}
			left--
			copy(buf[head:], pkt)
			if _, _, f := batch.SealInPlace(buf, head, size); f != OK {
				b.Fatal(f)
			}
		}
	})
}

func eachBench(b *testing.B, run func(*testing.B, *pair, int)) {
	for _, s := range benchSuites(b) {
		for _, size := range benchSizes {
			b.Run(fmt.Sprintf("%s/%s/%d", s.Protocol, s, size), func(b *testing.B) {
				run(b, newPair(b, Config{Suite: s, Mode: Tunnel}), size)
			})
		}
	}
}

// bareCipher gives the ciphers of a pair's suite over the bytes that they see
// when the pair seals, and opens, an IPv4 packet of size bytes.
func bareCipher(p *pair, size int) (seal, open func()) {
	s, c := p.out.Suite(), p.out.crypt
	var (
		plain   = size // bytes to encrypt
		covered int    // bytes under the integrity algorithm
		key     = pattern(64, 1)
		nonce   = make([]byte, 12)
		aad     = make([]byte, espHeader)
		sum     = make([]byte, 0, 64)
	)
	if s.Protocol == AH {
		covered = p.out.SealedLen(size)
	} else {
		plain += trailer(size, 0, s.Encryption.Block)
		covered = espHeader + c.iv + plain
	}
	src, dst := make([]byte, covered), make([]byte, covered+32)
	var block cipher.Block
	var aead cipher.AEAD
	switch c.method {
	case aesGCM, aesGMAC:
		block, _ = aes.NewCipher(key[:s.Encryption.Key+s.Integrity.Key])
		aead, _ = cipher.NewGCM(block)
	case aesCBC, aesCTR:
		block, _ = aes.NewCipher(key[:s.Encryption.Key])
	case chachaPoly:
		aead, _ = chacha20poly1305.New(key[:32])
	}
	switch c.method {
	case aesGCM, chachaPoly:
		sealed := aead.Seal(nil, nonce, src[:plain], aad)
		return func() { aead.Seal(dst[:0], nonce, src[:plain], aad) }, func() { _, _ = aead.Open(dst[:0], nonce, sealed, aad) }
	case aesGMAC:
		sealed := aead.Seal(nil, nonce, nil, src)
		return func() { aead.Seal(sum[:0], nonce, nil, src) }, func() { _, _ = aead.Open(sum[:0], nonce, sealed, src) }
	}
	mac := hmac.New(map[method]func() hash.Hash{hmacSHA1: sha1.New, hmacSHA256: sha256.New,
		hmacSHA384: sha512.New384, hmacSHA512: sha512.New}[s.Integrity.method], key[:s.Integrity.Key])
	digest := func() { mac.Reset(); mac.Write(src); mac.Sum(sum) }
	switch c.method {
	case aesCBC:
		enc, dec := cipher.NewCBCEncrypter(block, key[:16]), cipher.NewCBCDecrypter(block, key[:16])
		return func() { enc.CryptBlocks(dst, src[:plain]); digest() }, func() { digest(); dec.CryptBlocks(dst, src[:plain]) }
	case aesCTR:
		ctr := cipher.NewCTR(block, key[:16])
		both := func() { ctr.XORKeyStream(dst, src[:plain]); digest() }
		return both, both
	}
	return digest, digest
}
