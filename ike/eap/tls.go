package eap

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/ipfw/ipfw/ike"
)

// handshake is crypto/tls over a pipe. Its goroutine and the caller of feed
// and close take turns: one of the two always waits.
type handshake struct {
	pipe
	cfg  *tls.Config
	msk  []byte
	err  error
	over chan struct{} // closed when the goroutine has ended
	sure bool          // the certificate is one of the policy's
}

func newHandshake(call *ike.EAPCall, identity string) *handshake {
	h := &handshake{pipe: pipe{feed: make(chan []byte), hungry: make(chan struct{})}, over: make(chan struct{})}
	own := tls.Certificate{PrivateKey: call.Key}
	for _, c := range call.Certificates {
		own.Certificate = append(own.Certificate, c.Raw)
	}
	roots := x509.NewCertPool()
	for _, c := range call.CAs {
		roots.AddCert(c)
	}
	h.cfg = &tls.Config{
		MinVersion: tls.VersionTLS12,
		// Without the extended master secret (RFC 7627) two handshakes must not
		// come to the same secret: only exchanges to which both sides
		// contribute, and, below, nothing taken up again.
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		Certificates: []tls.Certificate{own},
		// RFC 5216 section 2.1.2: who comes back proves itself anew. A ticket
		// would outlive a revocation.
		SessionTicketsDisabled: true,
		Time:                   func() time.Time { return call.Now },
		// The caller is told whose certificates will do; whether one will do
		// is VerifyConnection's to say, also of no certificate at all.
		ClientAuth: tls.RequestClientCert,
		ClientCAs:  roots,
		VerifyConnection: func(s tls.ConnectionState) error {
			var chain [][]byte
			for _, c := range s.PeerCertificates {
				chain = append(chain, c.Raw)
			}
			err := call.Verify(identity, chain)
			h.sure = err == nil
			return err
		},
	}
	return h
}

// feed brings bytes of the peer and gives what TLS has to say to them. done
// says that the handshake has ended, err how.
func (h *handshake) feed(in []byte) (out []byte, done bool, err error) {
	if !h.begun {
		h.begun = true
		h.in = in
		go h.run()
	} else {
		h.pipe.feed <- in
	}
	select {
	case <-h.hungry:
	case <-h.over:
		done = true
	}
	out, h.out = h.out, nil
	return out, done, h.err
}

// close ends the goroutine; it may be called again.
func (h *handshake) close() {
	if h.begun && !h.closed {
		close(h.pipe.feed)
		<-h.over
	}
	h.closed = true
	clear(h.msk)
}

// run is the goroutine.
func (h *handshake) run() {
	defer close(h.over)
	c := tls.Server(&h.pipe, h.cfg)
	if err := c.Handshake(); err != nil {
		h.err = h.why(err)
		return
	}
	s := c.ConnectionState()
	if !h.sure || s.DidResume {
		h.err = errors.New("the TLS handshake has ended without a look at the certificate")
		return
	}
	label, context := "client EAP encryption", []byte(nil) // RFC 5216 section 2.3
	if s.Version >= tls.VersionTLS13 {
		label, context = "EXPORTER_EAP_TLS_Key_Material", []byte{typeTLS} // RFC 9190 section 2.3
	}
	key, err := s.ExportKeyingMaterial(label, context, 128)
	if err != nil {
		h.err = &ike.EAPError{Failure: ike.NoProposal, Theirs: "TLS 1.2 without extended master secret",
			Detail: "this program takes no key from such a handshake (RFC 7627)"}
		return
	}
	clear(key[mskLen:]) // the EMSK
	if s.Version >= tls.VersionTLS13 {
		// RFC 9190 section 2.5: one zero byte says that no more TLS follows.
		if _, err := c.Write([]byte{0}); err != nil {
			h.err = err
			return
		}
	}
	h.msk = key[:mskLen]
}

// mskLen is how many bytes of the key material are the MSK (RFC 5216 section
// 2.3).
const mskLen = 64

// why puts an error of crypto/tls into the words of the key exchange.
func (h *handshake) why(err error) error {
	var known *ike.EAPError
	var remote *net.OpError
	var record tls.RecordHeaderError
	out := &ike.EAPError{Failure: ike.Malformed, Detail: err.Error()}
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &remote) && remote.Op == "remote error": // an alert of the peer
		out.Failure, out.Theirs, out.Setting = ike.WrongKeyByPeer, remote.Err.Error(), "certificate"
		out.Detail = "the peer ended TLS: it does not take the certificate of this side, or has none of its own"
	case errors.As(err, &record):
	case h.sure:
		out.Failure = ike.WrongKey
	case strings.Contains(err.Error(), "support"): // versions, cipher suites, curves
		out.Failure = ike.NoProposal
	}
	return out
}

// pipe is the connection that crypto/tls sees.
type pipe struct {
	begun, closed bool
	in, out       []byte
	hungry        chan struct{} // TLS waits for bytes
	feed          chan []byte   // closed: there will be none
}

// Read gives bytes of the peer, and waits for feed when there are none.
func (p *pipe) Read(b []byte) (int, error) {
	if len(p.in) == 0 {
		var ok bool
		select {
		case p.hungry <- struct{}{}:
			p.in, ok = <-p.feed
		case p.in, ok = <-p.feed: // nobody waits for us any more
		}
		if !ok {
			return 0, net.ErrClosed
		}
	}
	n := copy(b, p.in)
	p.in = p.in[n:]
	return n, nil
}

// Write keeps what TLS has to say.
func (p *pipe) Write(b []byte) (int, error) {
	p.out = append(p.out, b...)
	return len(b), nil
}

// Close and the rest of net.Conn have nothing to do here.
func (p *pipe) Close() error { return nil }

// LocalAddr is none.
func (p *pipe) LocalAddr() net.Addr { return nil }

// RemoteAddr is none.
func (p *pipe) RemoteAddr() net.Addr { return nil }

// SetDeadline has no effect: there is no waiting for the network.
func (p *pipe) SetDeadline(time.Time) error { return nil }

// SetReadDeadline is SetDeadline.
func (p *pipe) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is SetDeadline.
func (p *pipe) SetWriteDeadline(time.Time) error { return nil }
