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

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/ike"
)

// beforeVariable names another build of ipfw, to be set beside this one.
const beforeVariable = "IPFW_IKE_BEFORE"

// contestant answers handshakes.
type contestant struct {
	name string
	up   func(s *site, ca *certified, kem bool) target

	t                   target
	c                   *crowd
	rates, cores        []float64 // handshakes in a second; and in one of its processor time
	used, callers, late []float64 // processors it and the callers used; ms until 95 of 100 are up
}

// contestants are who is compared: ipfw with as many workers for public-key work
// as it has processors, which Go's GOMAXPROCS says, another build of it if there
// is one, and strongSwan with its sixteen threads.
func contestants() []*contestant {
	ours := func(program string, env ...string) func(*site, *certified, bool) target {
		return func(s *site, ca *certified, _ bool) target {
			s.server.Program = s.script("ipfw", append(append([]string{"exec", "env"}, env...), program)...)
			return s.ipfw(s, s.certPolicy(ca))
		}
	}
	before := os.Getenv(beforeVariable)
	var list []*contestant
	if before != "" {
		list = append(list, &contestant{name: "before", up: ours(before)})
	}
	program := ""
	for _, n := range []string{"1", "2"} {
		list = append(list, &contestant{name: "workers: " + n, up: func(s *site, ca *certified, kem bool) target {
			if program == "" {
				program = lab.Binary(s)
			}
			return ours(program, "GOMAXPROCS="+n)(s, ca, kem)
		}})
	}
	return append(list, &contestant{name: "strongSwan", up: func(s *site, ca *certified, kem bool) target { return s.charon(ca, kem, true) }})
}

// script is a program of the shell that hands its arguments on.
func (s *site) script(name string, words ...string) string {
	path := s.File(name, "#!/bin/sh\n"+strings.Join(words, " ")+" \"$@\"\n")
	if err := os.Chmod(path, 0o755); err != nil {
		s.Fatal(err)
	}
	return path
}

// turn has callers from to to-1 call a contestant.
func (x *contestant) turn(t *testing.T, from, to int) {
	t.Helper()
	began, cpu, own := time.Now(), cpuTime(t, x.t.pid), cpuTime(t, os.Getpid())
	x.c.callAll(from, to, 16, time.Minute)
	span := time.Since(began).Seconds()
	cpu, own = cpuTime(t, x.t.pid)-cpu, cpuTime(t, os.Getpid())-own
	took, missing := x.c.delays()
	n := to - from
	if missing > 0 || len(took) != n {
		t.Fatalf("%s: %d of %d are up: %v", x.name, len(took), n, x.c.fails)
	}
	x.rates = append(x.rates, float64(n)/span)
	x.cores = append(x.cores, float64(n)/max(cpu.Seconds(), 0.01))
	x.used, x.callers = append(x.used, cpu.Seconds()/span), append(x.callers, own.Seconds()/span)
	x.late = append(x.late, ms(part(took, .95)))
}

// TestRates is how many handshakes ipfw and strongSwan answer in a second: the
// whole daemons, over sockets, IKE SAs without a child (RFC 6023), 16 calls at a
// time. The callers are ours, and share the processors; what they use is told.
// The contestants call in turn, and of the turns the one in the middle counts.
func TestRates(t *testing.T) {
	turns, n := 1, 30
	if figures() {
		turns, n = 3, 2000
	}
	var table strings.Builder
	fmt.Fprintf(&table, "handshakes answered in a second; in brackets each turn's\n%-32s %-10s %6s %14s %9s %8s %12s\n",
		"", "", "rate", "/s of its CPU", "its CPUs", "callers'", "95 % up, ms")
	for _, row := range []struct {
		name       string
		certs, kem bool
	}{{"psk x25519", false, false}, {"psk x25519+ml-kem-768", false, true}, {"ecdsa x25519", true, false}, {"ecdsa x25519+ml-kem-768", true, true}} {
		t.Run(row.name, func(t *testing.T) {
			props := ike.Proposal{Protocol: ike.ProtoIKE, Transforms: []ike.Transform{{Type: ike.TransformENCR, ID: ike.EncrAESGCM16, Bits: 128},
				{Type: ike.TransformPRF, ID: ike.PRFSHA256}, {Type: ike.TransformKE, ID: ike.KEX25519}}}
			if row.kem {
				props.Transforms = append(props.Transforms, ike.Transform{Type: ike.TransformADDKE, ID: ike.KEMLKEM768})
			}
			var ca *certified
			var own []*certified
			if row.certs {
				ca = certify(t, nil, "CA of the crowd")
				for i := range n * turns {
					own = append(own, certify(t, ca, callerName(i)))
				}
			}
			list := contestants()
			for _, x := range list {
				s := newSite(t)
				x.t = x.up(s, ca, row.kem)
				x.c = gather(t, s.crowd, n*turns, func(i int, p *ike.Peer) {
					p.Proposals, p.Childless, p.DPD = []ike.Proposal{props}, true, -1
					if ca != nil {
						p.PSK, p.Key, p.Certificates, p.CAs = nil, own[i].key, []*x509.Certificate{own[i].cert}, []*x509.Certificate{ca.cert}
					}
				})
				x.c.done = ike.IKEUp
			}
			for i := range turns {
				for _, x := range list {
					x.turn(t, i*n, (i+1)*n)
				}
			}
			for _, x := range list {
				each := fmt.Sprintf("%.0f", x.rates)
				for _, v := range [][]float64{x.rates, x.cores, x.used, x.callers, x.late} {
					slices.Sort(v)
				}
				fmt.Fprintf(&table, "%-32s %-10s %6.0f %14.0f %9.2f %8.2f %12.1f  %s\n", row.name, x.name,
					x.rates[turns/2], x.cores[turns/2], x.used[turns/2], x.callers[turns/2], x.late[turns/2], each)
			}
		})
	}
	t.Log(table.String())
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
