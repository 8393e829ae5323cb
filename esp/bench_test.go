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

// benchSuites are the suites that differ in speed.
var benchSuites = []struct {
	protocol Protocol
	enc, mac string
}{
	{ESP, "aes-128-gcm-16", ""},
	{ESP, "aes-256-gcm-16", ""},
	{ESP, "chacha20-poly1305", ""},
	{ESP, "aes-128-cbc", "hmac-sha2-256-128"},
	{ESP, "aes-256-cbc", "hmac-sha2-512-256"},
	{ESP, "aes-128-cbc", "hmac-sha1-96"},
	{ESP, "aes-128-ctr", "hmac-sha2-256-128"},
	{ESP, "aes-128-gmac", ""},
	{ESP, "insecure-null", "hmac-sha2-256-128"},
	{AH, "", "hmac-sha2-256-128"},
	{AH, "", "aes-128-gmac"},
}

// BenchmarkSeal, BenchmarkOpen and BenchmarkCipher side by side: what a packet
// costs, tunnel mode, IPv4 in IPv4, against its ciphers alone.
//
//	go test -bench 'Seal|Open|Cipher' ./esp
func BenchmarkSeal(b *testing.B) {
	eachBench(b, func(b *testing.B, p *pair, size int) {
		pkt := udp4(size)
		buf := make([]byte, 0, size+200)
		for b.Loop() {
			var f Fault
			if buf, _, f = p.out.Seal(buf[:0], pkt, 0); f != OK {
				b.Fatal(f)
			}
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	eachBench(b, func(b *testing.B, p *pair, size int) {
		sealed, _, f := p.out.Seal(nil, udp4(size), 0)
		if f != OK {
			b.Fatal(f)
		}
		buf := make([]byte, len(sealed))
		p.in.win.off = true // the same packet over and over
		for b.Loop() {
			copy(buf, sealed)
			if _, _, f := p.in.Open(buf, 0); f != OK {
				b.Fatal(f)
			}
		}
	})
}

// BenchmarkSealBatch seals in place, 32 packets for one reservation: what a
// segmented GSO packet costs.
func BenchmarkSealBatch(b *testing.B) {
	eachBench(b, func(b *testing.B, p *pair, size int) {
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

func BenchmarkCipher(b *testing.B) {
	for _, c := range benchSuites {
		for _, size := range benchSizes {
			s, _ := NewSuite(c.protocol, c.enc, c.mac)
			b.Run(fmt.Sprintf("%s/%s/%d", s.Protocol, s, size), func(b *testing.B) {
				work := bareCipher(s, make([]byte, size+100), size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					work()
				}
			})
		}
	}
}

func eachBench(b *testing.B, run func(*testing.B, *pair, int)) {
	for _, c := range benchSuites {
		s, err := NewSuite(c.protocol, c.enc, c.mac)
		if err != nil {
			b.Fatal(err)
		}
		for _, size := range benchSizes {
			b.Run(fmt.Sprintf("%s/%s/%d", s.Protocol, s, size), func(b *testing.B) {
				p := newPair(b, Config{Suite: s, Mode: Tunnel})
				b.SetBytes(int64(size))
				b.ReportAllocs()
				run(b, p, size)
			})
		}
	}
}

// bareCipher is the cost that no implementation of the suite can avoid.
func bareCipher(s Suite, buf []byte, size int) func() {
	key := make([]byte, 64)
	nonce := make([]byte, 12)
	aad := make([]byte, 8)
	block, _ := aes.NewCipher(key[:max(16, s.Encryption.Key&63)])
	gcm, _ := cipher.NewGCM(block)
	var encrypt func()
	switch s.Encryption.method {
	case aesGCM:
		return func() { gcm.Seal(buf[:0], nonce, buf[:size], aad) }
	case chachaPoly:
		c, _ := chacha20poly1305.New(key[:32])
		return func() { c.Seal(buf[:0], nonce, buf[:size], aad) }
	case aesCBC:
		c := cipher.NewCBCEncrypter(block, key[:16])
		encrypt = func() { c.CryptBlocks(buf[:size&^15], buf[:size&^15]) }
	case aesCTR:
		c := cipher.NewCTR(block, key[:16])
		encrypt = func() { c.XORKeyStream(buf[:size], buf[:size]) }
	default:
		encrypt = func() {}
	}
	if s.Encryption.method == aesGMAC || s.Integrity.method == aesGMAC {
		return func() { gcm.Seal(nonce[:0], nonce, nil, buf[:size]) }
	}
	mac := hmac.New(map[method]func() hash.Hash{hmacSHA1: sha1.New, hmacSHA256: sha256.New,
		hmacSHA384: sha512.New384, hmacSHA512: sha512.New}[s.Integrity.method], key[:s.Integrity.Key])
	sum := make([]byte, 0, 64)
	return func() {
		encrypt()
		mac.Reset()
		mac.Write(buf[:size])
		mac.Sum(sum)
	}
}
