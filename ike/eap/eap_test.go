package eap

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/ike"
)

var testNow = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// party is a key and its certificate.
type party struct {
	key  crypto.Signer
	cert *x509.Certificate
}

func newKey(t testing.TB, kind string) (k crypto.Signer) {
	t.Helper()
	var err error
	switch kind {
	case "ecdsa":
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ed25519":
		_, k, err = ed25519.GenerateKey(rand.Reader)
	case "rsa":
		k, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// issue makes a certificate; a CA without one. fill makes it longer.
func issue(t testing.TB, ca *party, name, kind string, fill int) *party {
	t.Helper()
	p := &party{key: newKey(t, kind)}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: testNow.Add(-time.Hour), NotAfter: testNow.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	for i := range fill {
		c.DNSNames = append(c.DNSNames, fmt.Sprintf("one-of-many-names-%d.example", i))
	}
	by, parent := ca, c
	if ca == nil {
		by, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = p, true, true, x509.KeyUsageCertSign
	} else {
		parent = ca.cert
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, p.key.Public(), by.key)
	if err == nil {
		p.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// peer is EAP-TLS at the caller's side: crypto/tls, and its own reading of
// RFC 5216.
type peer struct {
	t        testing.TB
	identity string
	size     int // of its fragments
	conn     *tls.Conn
	pipe     pipe
	over     chan struct{}
	err      error // of TLS, when it is over
	in, out  []byte
	nak      []byte
	requests []byte // types of the requests, in order
	zero     bool   // the commitment message has come
}

func newPeer(t testing.TB, cfg *tls.Config, size int) *peer {
	p := &peer{t: t, size: size, pipe: pipe{feed: make(chan []byte), hungry: make(chan struct{})}, over: make(chan struct{})}
	p.conn = tls.Client(&p.pipe, cfg)
	return p
}

// speak gives bytes to TLS, nil at first, and takes what it says to them.
func (p *peer) speak(in []byte) {
	if !p.pipe.begun {
		p.pipe.begun = true
		go func() {
			defer close(p.over)
			p.err = p.conn.Handshake()
			if p.err == nil && p.conn.ConnectionState().Version == tls.VersionTLS13 {
				b := make([]byte, 2)
				var n int
				n, p.err = p.conn.Read(b)
				p.zero = n == 1 && b[0] == 0
			}
		}()
		p.t.Cleanup(func() { close(p.pipe.feed); <-p.over })
	} else {
		select {
		case p.pipe.feed <- in:
		case <-p.over:
		}
	}
	select {
	case <-p.pipe.hungry:
	case <-p.over:
	}
	p.out, p.pipe.out = append(p.out, p.pipe.out...), nil
}

// answer takes a request and gives the response.
func (p *peer) answer(b []byte) []byte {
	p.t.Helper()
	if len(b) < header || b[0] != codeRequest || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
		p.t.Fatalf("request %x", b)
	}
	respond := func(kind byte, data ...byte) []byte {
		r := binary.BigEndian.AppendUint16([]byte{codeResponse, b[1]}, uint16(header+len(data)))
		return append(append(r, kind), data...)
	}
	p.requests = append(p.requests, b[4])
	switch {
	case b[4] == typeIdentity:
		return respond(typeIdentity, []byte(p.identity)...)
	case p.nak != nil:
		return respond(typeNak, p.nak...)
	case b[4] != typeTLS:
		p.t.Fatalf("request of type %d", b[4])
	}
	flags, data := b[5], b[6:]
	if flags&flagStart != 0 {
		p.speak(nil)
	} else {
		if flags&flagLength != 0 {
			data = data[4:]
		}
		p.in = append(p.in, data...)
		if flags&flagMore != 0 {
			return respond(typeTLS, 0)
		}
		if len(p.in) > 0 {
			in := p.in
			p.in = nil
			p.speak(in)
		}
	}
	n := min(len(p.out), p.size)
	head := []byte{0}
	if n < len(p.out) {
		head[0] = flagMore
		if flags&flagStart != 0 || len(data) > 0 { // the first fragment of a message
			head[0] |= flagLength
			head = binary.BigEndian.AppendUint32(head, uint32(len(p.out)))
		}
	}
	out := append(head, p.out[:n]...)
	p.out = p.out[n:]
	return respond(typeTLS, out...)
}

// talk lets a conversation come to its end.
func talk(t testing.TB, c ike.EAP, p *peer) ike.EAPStep {
	t.Helper()
	s := c.Next(nil)
	for range 200 {
		if s.Err != nil || s.MSK != nil {
			return s
		}
		s = c.Next(p.answer(s.Out))
	}
	t.Fatal("no end")
	return s
}

// trusting has a conversation take the certificates of a CA.
func trusting(server, ca *party) ike.EAPCall {
	return ike.EAPCall{Key: server.key, Certificates: []*x509.Certificate{server.cert}, CAs: []*x509.Certificate{ca.cert}, Now: testNow,
		Verify: func(_ string, chain [][]byte) error {
			if len(chain) == 0 {
				return &ike.EAPError{Failure: ike.BadCertificate, Detail: "no certificate"}
			}
			leaf, err := x509.ParseCertificate(chain[0])
			if err == nil {
				err = leaf.CheckSignatureFrom(ca.cert)
			}
			if err != nil {
				return &ike.EAPError{Failure: ike.BadCertificate, Detail: err.Error()}
			}
			return nil
		}}
}

func clientConfig(ca, own *party, version uint16) *tls.Config {
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "gateway.example", Time: func() time.Time { return testNow }, MaxVersion: version}
	cfg.RootCAs.AddCert(ca.cert)
	if own != nil {
		cert := tls.Certificate{Certificate: [][]byte{own.cert.Raw}, PrivateKey: own.key}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	return cfg
}

// Both sides come to the same key, whatever the version of TLS, the keys, the
// fragments, and whether the identity is asked for.
func TestAgree(t *testing.T) {
	ca := issue(t, nil, "CA", "ecdsa", 0)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, row := range []struct {
			kind       string
			fill, size int
			ask        bool
		}{{"ecdsa", 0, 1400, false}, {"rsa", 0, 1400, true}, {"ed25519", 0, 100, false}, {"ecdsa", 120, 1400, false}} {
			t.Run(fmt.Sprintf("%s, %s, fill %d, fragments %d", tls.VersionName(version), row.kind, row.fill, row.size), func(t *testing.T) {
				server, user := issue(t, ca, "gateway.example", row.kind, row.fill), issue(t, ca, "ann.example", row.kind, row.fill)
				call := trusting(server, ca)
				call.AskIdentity = row.ask
				heard := ""
				verify := call.Verify
				call.Verify = func(id string, chain [][]byte) error { heard = id; return verify(id, chain) }
				p := newPeer(t, clientConfig(ca, user, version), row.size)
				p.identity = "ann@example"
				c := New(call)
				s := talk(t, c, p)
				if s.Err != nil || s.Out[0] != codeSuccess || s.Out[1] != byte(len(p.requests)) {
					t.Fatalf("%v %x after %d requests", s.Err, s.Out, len(p.requests))
				}
				if <-p.over; p.err != nil {
					t.Fatal(p.err)
				}
				st := p.conn.ConnectionState()
				label, context := "client EAP encryption", []byte(nil)
				if version == tls.VersionTLS13 {
					label, context = "EXPORTER_EAP_TLS_Key_Material", []byte{13}
				}
				want, err := st.ExportKeyingMaterial(label, context, 128)
				if err != nil || !bytes.Equal(s.MSK, want[:64]) {
					t.Errorf("the keys differ: %v", err)
				}
				if p.zero != (version == tls.VersionTLS13) {
					t.Errorf("commitment message %v", p.zero)
				}
				if row.ask != slices.Contains(p.requests, typeIdentity) || row.ask != (heard == "ann@example") {
					t.Errorf("asked %v, heard %q", p.requests, heard)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// What goes wrong ends with Failure and its reason.
func TestDisagree(t *testing.T) {
	ca, other := issue(t, nil, "CA", "ecdsa", 0), issue(t, nil, "another CA", "ecdsa", 0)
	server, user, stranger := issue(t, ca, "gateway.example", "ecdsa", 0), issue(t, ca, "ann.example", "ecdsa", 0), issue(t, other, "ann.example", "ecdsa", 0)
	old := func(version uint16) *tls.Config {
		cfg := clientConfig(ca, user, version)
		cfg.MinVersion = version
		return cfg
	}
	suites := old(tls.VersionTLS12)
	suites.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	for name, row := range map[string]struct {
		cfg  *tls.Config
		nak  []byte
		want ike.Failure
	}{
		"their certificate is of another CA, 1.2": {clientConfig(ca, stranger, tls.VersionTLS12), nil, ike.BadCertificate},
		"their certificate is of another CA, 1.3": {clientConfig(ca, stranger, tls.VersionTLS13), nil, ike.BadCertificate},
		"no certificate, 1.2":                     {clientConfig(ca, nil, tls.VersionTLS12), nil, ike.BadCertificate},
		"no certificate, 1.3":                     {clientConfig(ca, nil, tls.VersionTLS13), nil, ike.BadCertificate},
		"ours is of another CA, 1.2":              {clientConfig(other, user, tls.VersionTLS12), nil, ike.WrongKeyByPeer},
		"ours is of another CA, 1.3":              {clientConfig(other, user, tls.VersionTLS13), nil, ike.WrongKeyByPeer},
		"the key is not the certificate's, 1.3":   {clientConfig(ca, &party{stranger.key, user.cert}, tls.VersionTLS13), nil, ike.WrongKey},
		"TLS 1.1":                                 {old(tls.VersionTLS11), nil, ike.NoProposal},
		"no cipher suite":                         {suites, nil, ike.NoProposal},
		"MSCHAPv2":                                {nil, []byte{26}, ike.WrongMethod},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t, row.cfg, 1400)
			p.nak = row.nak
			c := New(trusting(server, ca))
			s := talk(t, c, p)
			var e *ike.EAPError
			if s.MSK != nil || s.Out[0] != codeFailure || !errors.As(s.Err, &e) {
				t.Fatalf("%+v", s)
			}
			if e.Failure != row.want {
				t.Errorf("%v: %v, want %v", e.Failure, e, row.want)
			}
			if row.nak != nil && e.Theirs != "EAP-MSCHAPv2" {
				t.Errorf("they want %q", e.Theirs)
			}
			if err := c.Close(); err != nil {
				t.Errorf("told twice: %v", err)
			}
		})
	}
}

// A failure that the peer is told by an alert, and then goes away without an
// answer, is told by Close.
func TestSilentAfterAlert(t *testing.T) {
	ca, other := issue(t, nil, "CA", "ecdsa", 0), issue(t, nil, "another CA", "ecdsa", 0)
	p := newPeer(t, clientConfig(ca, issue(t, other, "ann.example", "ecdsa", 0), 0), 1400)
	c := New(trusting(issue(t, ca, "gateway.example", "ecdsa", 0), ca)).(*conversation)
	s := c.Next(nil)
	for c.err == nil && s.Err == nil {
		s = c.Next(p.answer(s.Out))
	}
	var e *ike.EAPError
	if err := c.Close(); !errors.As(err, &e) || e.Failure != ike.BadCertificate {
		t.Errorf("%v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("told twice: %v", err)
	}
}

// No goroutine stays, wherever a conversation is given up.
func TestNoLeak(t *testing.T) {
	ca := issue(t, nil, "CA", "ecdsa", 0)
	server, user := issue(t, ca, "gateway.example", "ecdsa", 0), issue(t, ca, "ann.example", "ecdsa", 0)
	ours := func() int {
		b := make([]byte, 1<<20)
		return strings.Count(string(b[:runtime.Stack(b, true)]), "eap.(*handshake).run")
	}
	middles := 0
	for steps := range 12 {
		p := newPeer(t, clientConfig(ca, user, 0), 600)
		c := New(trusting(server, ca))
		s := c.Next(nil)
		for range steps {
			if s.MSK == nil {
				s = c.Next(p.answer(s.Out))
			}
		}
		if c.(*conversation).tls != nil && s.MSK == nil && c.(*conversation).msk == nil {
			middles++
			if n := ours(); n != 1 {
				t.Errorf("%d goroutines in the middle, want 1", n)
			}
		}
		c.Close()
		for end := time.Now().Add(10 * time.Second); ours() != 0; { // it has ended but for its last instruction
			if runtime.Gosched(); time.Now().After(end) {
				t.Fatalf("given up after %d steps: %d goroutines", steps, ours())
			}
		}
	}
	if middles == 0 {
		t.Error("never given up in the middle")
	}
}

// Packets that break the rules end in Failure.
func TestMalformed(t *testing.T) {
	ca := issue(t, nil, "CA", "ecdsa", 0)
	call := trusting(issue(t, ca, "gateway.example", "ecdsa", 0), ca)
	for name, b := range map[string][]byte{
		"nothing":              {},
		"short":                {2, 1, 0, 4},
		"length too long":      {2, 1, 0, 7, 13, 0},
		"length too short":     {2, 1, 0, 5, 13, 0},
		"a request":            {1, 1, 0, 6, 13, 0},
		"another identifier":   {2, 2, 0, 6, 13, 0},
		"no flags":             {2, 1, 0, 5, 13},
		"start":                {2, 1, 0, 6, 13, flagStart},
		"no room for a length": {2, 1, 0, 8, 13, flagLength, 0, 0},
		"a length too long":    {2, 1, 0, 10, 13, flagLength, 0, 2, 0, 0},
		"a wrong length":       {2, 1, 0, 11, 13, flagLength, 0, 0, 0, 2, 22},
		"no data":              {2, 1, 0, 6, 13, 0},
		"fragment of nothing":  {2, 1, 0, 6, 13, flagMore},
		"identity":             {2, 1, 0, 6, 1, 'a'},
		"no TLS":               {2, 1, 0, 11, 13, 0, 'h', 'e', 'l', 'l', 'o'},
		"half a record":        {2, 1, 0, 9, 13, 0, 22, 3, 1},
	} {
		c := New(call)
		c.Next(nil)
		s := c.Next(b)
		for i := 0; s.Err == nil && i < 2; i++ { // an alert goes first
			s = c.Next([]byte{2, s.Out[1], 0, 6, 13, 0})
		}
		var e *ike.EAPError
		if !errors.As(s.Err, &e) || e.Failure != ike.Malformed || s.Out[0] != codeFailure {
			t.Errorf("%s: %+v", name, s)
		}
		c.Close()
	}
}

// FuzzPeer: whatever a peer sends, there is an answer, no key, and no
// goroutine left. The input is a list of packets, each behind its length.
func FuzzPeer(f *testing.F) {
	ca := issue(f, nil, "CA", "ecdsa", 0)
	call := trusting(issue(f, ca, "gateway.example", "ecdsa", 0), ca)
	p := newPeer(f, clientConfig(ca, nil, 0), 1400)
	c := New(call)
	hello := p.answer(c.Next(nil).Out)
	c.Close()
	seed := func(list ...[]byte) (out []byte) {
		for _, b := range list {
			out = append(binary.BigEndian.AppendUint16(out, uint16(len(b))), b...)
		}
		return out
	}
	f.Add(seed(hello, []byte{2, 2, 0, 6, 13, 0}), false)
	f.Add(seed([]byte{2, 1, 0, 6, 1, 'a'}, []byte{2, 2, 0, 6, 13, 0}), true)
	f.Add(seed([]byte{2, 1, 0, 6, 3, 26}), false)
	f.Fuzz(func(t *testing.T, b []byte, ask bool) {
		call := call
		call.AskIdentity = ask
		c := New(call)
		s := c.Next(nil)
		for r := bytes.NewReader(b); s.Err == nil; {
			var n uint16
			if binary.Read(r, binary.BigEndian, &n) != nil {
				break
			}
			packet := make([]byte, min(int(n), r.Len()))
			_, _ = io.ReadFull(r, packet)
			if len(packet) > 1 {
				packet[1] = s.Out[1]
			}
			s = c.Next(packet)
			if s.MSK != nil || len(s.Out) < 4 || int(binary.BigEndian.Uint16(s.Out[2:])) != len(s.Out) {
				t.Fatalf("%+v", s)
			}
			if (s.Err != nil) != (s.Out[0] == codeFailure) {
				t.Fatalf("%+v", s)
			}
		}
		c.Close()
		if tls := c.(*conversation).tls; tls != nil {
			<-tls.over
		}
	})
}
