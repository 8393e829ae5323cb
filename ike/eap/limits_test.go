package eap

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/ike"
)

// Each limit holds by itself, and says so: nobody may go on for ever, nor fill
// memory, nor say other things than are due.
func TestLimits(t *testing.T) {
	ca := issue(t, nil, "CA", "ecdsa", 0)
	server := issue(t, ca, "gateway.example", "ecdsa", 120) // more than one fragment
	tlsPart := func(s ike.EAPStep, flags byte, data ...byte) []byte {
		b := append([]byte{2, s.Out[1], 0, 0, typeTLS, flags}, data...)
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		return b
	}
	for _, row := range []struct {
		name, detail string
		ask          bool
		next         func(s ike.EAPStep, i int, p *peer) []byte
	}{
		{"fragments without end", "more than 65536 bytes", false, func(s ike.EAPStep, _ int, _ *peer) []byte { return tlsPart(s, flagMore, make([]byte, 1000)...) }},
		{"rounds without end", "end in 100 EAP packets", false, func(s ike.EAPStep, _ int, _ *peer) []byte { return tlsPart(s, flagMore, 0) }},
		{"a fragment of nothing", "fragment without data", false, func(s ike.EAPStep, _ int, _ *peer) []byte { return tlsPart(s, flagMore) }},
		{"less than was announced", "3 were announced", false, func(s ike.EAPStep, _ int, _ *peer) []byte { return tlsPart(s, flagLength, 0, 0, 0, 3, 22, 3) }},
		{"a long name", "EAP identity of 1025 bytes", true, func(s ike.EAPStep, _ int, _ *peer) []byte {
			return append([]byte{2, s.Out[1], 4, 6, typeIdentity}, make([]byte, 1025)...)
		}},
		{"data between our fragments", "nobody has asked for", false, func(s ike.EAPStep, i int, p *peer) []byte {
			if i == 0 {
				return p.answer(s.Out)
			}
			return tlsPart(s, 0, 22)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			call := trusting(server, ca)
			call.AskIdentity = row.ask
			c := New(call)
			defer c.Close()
			p := newPeer(t, clientConfig(ca, nil, 0), 4000)
			s := c.Next(nil)
			for i := 0; s.Err == nil; i++ {
				if i > maxRounds {
					t.Fatal("no end")
				}
				s = c.Next(row.next(s, i, p))
			}
			var e *ike.EAPError
			if !errors.As(s.Err, &e) || e.Failure != ike.Malformed || !strings.Contains(e.Detail, row.detail) || s.Out[0] != codeFailure {
				t.Errorf("%v, want %q", s.Err, row.detail)
			}
		})
	}
}

// guess is a key that signs by chance.
type guess struct{ pub *rsa.PublicKey }

func (g guess) Public() crypto.PublicKey { return g.pub }

func (g guess) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, (g.pub.N.BitLen()+7)/8), nil
}

// No signature is looked at that is made with an RSA key that is too long. Of
// the policy, which takes no more than 4,096 bits, a certificate is asked
// before; TLS itself takes none beyond 8,192.
func TestLongKeys(t *testing.T) {
	ca := issue(t, nil, "CA", "ecdsa", 0)
	server := issue(t, ca, "gateway.example", "ecdsa", 0)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, bits := range []int{8192, 16384} {
			n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
			key := guess{&rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537}}
			der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"ann.example"},
				NotBefore: testNow.Add(-time.Hour), NotAfter: testNow.Add(time.Hour)}, ca.cert, key.Public(), ca.key)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			asked := 0
			call := trusting(server, ca)
			refused := &ike.EAPError{Failure: ike.BadCertificate, Detail: "too long"}
			call.Verify = func(string, [][]byte) error { asked++; return refused }
			c := New(call)
			s := talk(t, c, newPeer(t, clientConfig(ca, &party{key, cert}, version), 1400))
			want := ike.BadCertificate
			if bits > 8192 {
				want = ike.Malformed
			}
			var e *ike.EAPError
			if !errors.As(s.Err, &e) || e.Failure != want || (asked == 1) != (bits == 8192) {
				t.Errorf("%s, %d bits: %v, asked %d times", tls.VersionName(version), bits, s.Err, asked)
			}
			_ = c.Close()
		}
	}
}
