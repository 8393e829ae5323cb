package crowd

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/ike"
)

// TestRates is how many handshakes ipfw and strongSwan answer in a second: the
// whole daemons, over sockets, IKE SAs without a child (RFC 6023), 16 calls at a
// time. The callers are ours, and share the processors; what they use is told.
// Of the turns the one in the middle counts.
func TestRates(t *testing.T) {
	turns, n := 1, 30
	if figures() {
		turns, n = 3, 1500
	}
	for _, row := range []struct {
		name       string
		certs, kem bool
	}{{"psk x25519", false, false}, {"psk x25519+ml-kem-768", false, true}, {"ecdsa certificates, x25519", true, false}, {"ecdsa certificates, x25519+ml-kem-768", true, true}} {
		for _, who := range []string{"ipfw", "strongswan"} {
			t.Run(who+" "+row.name, func(t *testing.T) {
				s := newSite(t)
				props := ike.Proposal{Protocol: ike.ProtoIKE, Transforms: []ike.Transform{{Type: ike.TransformENCR, ID: ike.EncrAESGCM16, Bits: 128},
					{Type: ike.TransformPRF, ID: ike.PRFSHA256}, {Type: ike.TransformKE, ID: ike.KEX25519}}}
				if row.kem {
					props.Transforms = append(props.Transforms, ike.Transform{Type: ike.TransformADDKE, ID: ike.KEMLKEM768})
				}
				var ca *certified
				if row.certs {
					ca = certify(t, nil, "CA of the crowd")
				}
				var d target
				if who == "ipfw" {
					d = s.ipfw(t, s.certPolicy(ca))
				} else {
					d = s.charon(ca, row.kem, true)
				}
				c := gather(t, s.crowd, n*turns, func(i int, p *ike.Peer) {
					p.Proposals, p.Childless, p.DPD = []ike.Proposal{props}, true, -1
					if ca != nil {
						own := certify(t, ca, callerName(i))
						p.PSK, p.Key, p.Certificates, p.CAs = nil, own.key, []*x509.Certificate{own.cert}, []*x509.Certificate{ca.cert}
					}
				})
				c.done = ike.IKEUp
				var rates, cores, used []float64
				for i := range turns {
					began, cpu, own := time.Now(), cpuTime(t, d.pid), cpuTime(t, os.Getpid())
					c.callAll(i*n, (i+1)*n, 16, time.Minute)
					span := time.Since(began).Seconds()
					cpu, own = cpuTime(t, d.pid)-cpu, cpuTime(t, os.Getpid())-own
					took, missing := c.delays()
					if missing > 0 || len(took) != n {
						t.Fatalf("%d of %d are up: %v", len(took), n, c.fails)
					}
					rates = append(rates, float64(n)/span)
					cores = append(cores, float64(n)/max(cpu.Seconds(), 0.01))
					used = append(used, cpu.Seconds()/span, own.Seconds()/span)
				}
				all := fmt.Sprintf("%.0f; %.0f", rates, cores)
				slices.Sort(rates)
				slices.Sort(cores)
				t.Logf("%-10s %-38s %5.0f handshakes/s, %5.0f for a second of its processor time (%s; processors it and the callers used, %.1f)",
					who, row.name, rates[turns/2], cores[turns/2], all, used)
			})
		}
	}
}

// certified is who has a key and a certificate for it.
type certified struct {
	key  crypto.Signer
	cert *x509.Certificate
}

// certify makes an ECDSA certificate for a name; a CA if there is none yet.
func certify(t testing.TB, ca *certified, name string) *certified {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h := &certified{key: key}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	parent, by := tmpl, h
	if ca == nil {
		tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
	} else {
		parent, by, tmpl.DNSNames = ca.cert, ca, []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), by.key)
	if err == nil {
		h.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func certPEM(h *certified) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.cert.Raw}))
}

func keyPEM(t testing.TB, h *certified) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(h.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// certPolicy is the server's policy with certificates of a CA; with pre-shared
// keys if there is none.
func (s *site) certPolicy(ca *certified) string {
	if ca == nil {
		return s.policy("")
	}
	own := certify(s, ca, "server.example")
	s.File("server/ca.pem", certPEM(ca))
	s.File("server/own.pem", certPEM(own))
	s.File("server/own.key", keyPEM(s, own))
	return s.policyWith("  ca = \"ca.pem\"\n  certificate = \"own.pem\"\n  private_key = \"own.key\"\n")
}

// charon is strongSwan as a responder for the crowd, of the release that has
// ML-KEM if that is wanted. open: with neither cookies nor a limit of half-open
// IKE SAs for an address.
func (s *site) charon(ca *certified, kem, open bool) target {
	s.Helper()
	more := "  filelog {\n    stderr {\n      default = -1\n      ike = -1\n      cfg = -1\n      chd = -1\n      enc = -1\n    }\n  }\n"
	if open {
		more += "  dos_protection = no\n  init_limit_half_open = 0\n"
	}
	start, suite := s.server.Charon, "-curve25519"
	if kem {
		start, suite = s.server.CharonKEM, "-curve25519-ke1_mlkem768"
	}
	c := start(more)
	local, remote := "auth = psk", "auth = psk"
	secrets := "secrets {\n  ike-all {\n    secret = \"" + secret + "\"\n  }\n}\n"
	if ca != nil {
		own := certify(s, ca, "server.example")
		for name, text := range map[string]string{"x509ca/ca.pem": certPEM(ca), "x509/own.pem": certPEM(own), "private/own.pem": keyPEM(s, own)} {
			s.File("server-swan/"+name, text)
		}
		local, remote, secrets = "auth = pubkey\n      certs = own.pem", "auth = pubkey\n      cacerts = ca.pem", ""
	}
	var suites []string
	for _, cipher := range []string{"aes128gcm16", "aes256gcm16"} {
		suites = append(suites, cipher+"-prfsha256"+suite)
	}
	c.Load(fmt.Sprintf("connections {\n  all {\n    version = 2\n    unique = never\n    proposals = %s\n    local {\n      %s\n      id = server.example\n    }\n    remote {\n      %s\n    }\n  }\n}\n%s",
		strings.Join(suites, ","), local, remote, secrets))
	return target{pid: c.Pid}
}
