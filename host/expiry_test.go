package host

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/rules"
)

// lasting makes, in dir, a CA, a certificate of it with its key, and a revocation
// list, and gives a policy that uses them.
func lasting(t *testing.T, dir string, ca, own, crl [2]time.Time) string {
	t.Helper()
	put := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	caKey, ownKey := key(), key()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the CA"}, NotBefore: ca[0], NotAfter: ca[1],
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1, 2, 3}}
	der, err := x509.CreateCertificate(rand.Reader, root, root, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	put("ca.pem", "CERTIFICATE", der)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "alpha"}, DNSNames: []string{"alpha.example.org"}, NotBefore: own[0], NotAfter: own[1],
		KeyUsage: x509.KeyUsageDigitalSignature}
	if der, err = x509.CreateCertificate(rand.Reader, leaf, root, ownKey.Public(), caKey); err != nil {
		t.Fatal(err)
	}
	put("own.pem", "CERTIFICATE", der)
	if der, err = x509.MarshalPKCS8PrivateKey(ownKey); err != nil {
		t.Fatal(err)
	}
	put("own.key", "PRIVATE KEY", der)
	if der, err = x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: crl[0], NextUpdate: crl[1]}, root, caKey); err != nil {
		t.Fatal(err)
	}
	put("ca.crl", "X509 CRL", der)
	return `policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "all" {
  action         = "protect"
  with           = "x"
  direction      = "both"
  remote_address = "192.0.2.2"
}
ipsec "x" {
  mode = "transport"
  ike  = "x"
}
ike "x" {
  remote_endpoint = "192.0.2.2"
  local_id        = "alpha.example.org"
  certificate     = "own.pem"
  private_key     = "own.key"
  ca              = "ca.pem"
  crl             = "ca.crl"
}
`
}

// What of a policy's own certificates and lists ends is told in validate, and by a
// daemon at its start, in its status and on a reload: the same sentences, with file
// and line.
func TestEndsAreTold(t *testing.T) {
	now := time.Now()
	days := func(from, to int) [2]time.Time { return [2]time.Time{now.AddDate(0, 0, from), now.AddDate(0, 0, to)} }
	fine := days(-10, 400)
	for _, row := range []struct {
		name         string
		ca, own, crl [2]time.Time
		want         []string // line, summary, words
	}{
		{"all hold", fine, fine, fine, nil},
		{"31 days", days(-1, 31), days(-1, 31), days(-1, 31), nil},
		{"own ends", fine, days(-10, 12), fine, []string{":18:|Ends soon|The certificate of CN=alpha|own.pem|in 11 days"}},
		{"own ends today", fine, [2]time.Time{now.AddDate(0, 0, -1), now.Add(time.Hour)}, fine, []string{":18:|Ends soon|in less than a day"}},
		{"own has ended", fine, days(-400, -300), fine, []string{":18:|No longer valid|has ended at|no peer believes this host"}},
		{"own is not valid yet", fine, days(400, 800), fine, []string{":18:|Not valid yet|Is the clock right?"}},
		{"CA ends", days(-10, 29), fine, fine, []string{":20:|Ends soon|the authority CN=the CA|in 28 days"}},
		{"list has ended", fine, fine, days(-90, -1), []string{":21:|No longer valid|The revocation list of CN=the CA|ipfw pki crl"}},
		{"all", days(-400, -1), days(1, 100), days(-2, 2), []string{":18:|Not valid yet", ":20:|No longer valid", ":21:|Ends soon"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			text := lasting(t, dir, row.ca, row.own, row.crl)
			path := filepath.Join(dir, "p.hcl")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			p, diags := rules.Load([]string{path}, rules.LoadOptions{Check: CheckAll})
			if p == nil {
				t.Fatal(diags.Err())
			}
			same := func(where string, list []Diagnostic) {
				t.Helper()
				var got []Diagnostic
				for _, d := range list {
					if d.Summary != "Peer cannot be heard" {
						got = append(got, d)
					}
				}
				if len(got) != len(row.want) {
					t.Fatalf("%s: %v, want %q", where, got, row.want)
				}
				for i, d := range got {
					for _, w := range strings.Split(row.want[i], "|") {
						if !strings.Contains(d.String(), w) || d.Severity != "warning" {
							t.Errorf("%s: %s, want %q", where, d, w)
						}
					}
				}
			}
			same("validate", diags.All())

			// The daemon's own list, by the code that puts peers in force.
			peers, err := peersOf(p)
			if err != nil {
				t.Fatal(err)
			}
			same("daemon", endingNow(validitiesOf(peers[0].block, peers[0].Peer), now))
		})
	}
}

// A daemon tells it by an event and in its status, and once a day again.
func TestDaemonTellsOfEnds(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	fine := [2]time.Time{now.AddDate(0, 0, -1), now.AddDate(1, 0, 0)}
	text := lasting(t, dir, fine, [2]time.Time{fine[0], now.AddDate(0, 0, 5)}, fine)
	path := filepath.Join(dir, "p.hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p, diags := rules.Load([]string{path}, rules.LoadOptions{CheckFiles: true, Check: Check})
	if p == nil {
		t.Fatal(diags.Err())
	}
	peers, err := peersOf(p)
	if err != nil {
		t.Fatal(err)
	}
	list := validitiesOf(peers[0].block, peers[0].Peer)
	x := &daemon{ring: newRing(8), exchange: new(exchange)}
	x.exchange.valid.Store(&list)
	x.tellEnding(now)
	x.tellEnding(fine[0].AddDate(2, 0, 0))
	got, _ := readAll(x.ring)
	if len(got) != 2 || got[0].Kind != KindValidity || got[0].Count != 1 || got[1].Count != 3 || !strings.Contains(got[1].String(), "has ended") {
		t.Errorf("events: %v", got)
	}
	list = nil
	x.tellEnding(now)
	if got, _ = readAll(x.ring); len(got) != 2 {
		t.Errorf("an event about nothing: %v", got)
	}
}

func readAll(r *ring) ([]Event, bool) {
	rd := r.reader(r.size())
	defer rd.close()
	es := make([]Event, r.size())
	n, end := rd.read(es)
	return es[:n], end
}

// Of a file with very many the first few are told one by one.
func TestManyEndsAreFew(t *testing.T) {
	now := time.Now()
	k := &rules.IKE{Name: "x", CA: "all.pem", Place: "p.hcl:7"}
	p := &ike.Peer{}
	for i := range 100 {
		p.CAs = append(p.CAs, &x509.Certificate{Subject: pkix.Name{CommonName: fmt.Sprint("CA ", i)}, NotBefore: now.AddDate(-2, 0, 0), NotAfter: now.AddDate(-1, 0, 0)})
	}
	list := endingNow(validitiesOf(k, p), now)
	if len(list) != maxEnding+1 || !strings.Contains(list[maxEnding].Detail, "97 more in all.pem") || list[0].Line != 7 {
		t.Errorf("%v", list)
	}
}
