package peers

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/ipfw/ipfw/ike"
)

// Types of attributes that the tests' subjects have.
var (
	oidC, oidO, oidCN = asn1.ObjectIdentifier{2, 5, 4, 6}, asn1.ObjectIdentifier{2, 5, 4, 10}, asn1.ObjectIdentifier{2, 5, 4, 3}
	oidSerial, oidE   = asn1.ObjectIdentifier{2, 5, 4, 5}, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
	oidDC, oidUID     = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
)

// dn makes a subject with the string types of openssl: UTF8String for names,
// PrintableString for C and serialNumber, IA5String for DC and mail addresses.
func dn(parts ...[]pkix.AttributeTypeAndValue) (list pkix.RDNSequence) {
	for _, p := range parts {
		list = append(list, p)
	}
	return list
}

func attr(oid asn1.ObjectIdentifier, value string) []pkix.AttributeTypeAndValue {
	tag := asn1.TagUTF8String
	switch {
	case oid.Equal(oidC), oid.Equal(oidSerial):
		tag = asn1.TagPrintableString
	case oid.Equal(oidDC), oid.Equal(oidE):
		tag = asn1.TagIA5String
	}
	return []pkix.AttributeTypeAndValue{{Type: oid, Value: asn1.RawValue{Tag: tag, Bytes: []byte(value)}}}
}

// named makes a certificate of ca for a subject, with no other name in it.
func named(t testing.TB, ca *party, subject pkix.RDNSequence) *party {
	t.Helper()
	p := &party{key: newKey(t, "ecdsa-256")}
	raw, err := asn1.Marshal(subject)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), RawSubject: raw,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, p.key.Public(), ca.key)
	if err == nil {
		p.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// nameRows are peers that go by the subjects of their certificates: what
// strongSwan is told of its own name, what the policy says, and how the
// certificate has it.
func nameRows(call string) (rows []row) {
	swiss := dn(attr(oidC, "CH"), attr(oidO, "Example"), attr(oidCN, "them"))
	buero := dn(attr(oidC, "CH"), attr(oidO, "Büro"), attr(oidCN, "them"))
	dc := dn(attr(oidDC, "org"), attr(oidDC, "example"), attr(oidCN, "them"))
	uid := dn(attr(oidO, "Example"), attr(oidUID, "ann"))
	mail := dn(attr(oidO, "Example"), attr(oidCN, "ann"), attr(oidE, "ann@example.org"))
	several := dn(attr(oidO, "Example"), append(attr(oidCN, "them"), attr(oidSerial, "42")...))
	turned := dn(attr(oidCN, "them"), attr(oidO, "Example"))
	for _, x := range []struct {
		theirs, remote string // strongSwan's id, our remote_id
		subject        pkix.RDNSequence
		failure        ike.Failure
	}{
		{"", "CN=them,O=Example,C=CH", swiss, 0},
		{"", "C=CH, O=Example, CN=them", swiss, 0},
		{"", "/C=CH/O=Example/CN=them", swiss, 0},
		{"", "CN=them,O=Example,*", swiss, 0},
		{"C=CH, O=Example, CN=them", "CN=them,O=Example,C=CH", swiss, 0},
		{"C=CH, O=Example, CN=them", "C=CH, O=Example, CN=*", swiss, 0},
		{"C=CH, O=Example, CN=them", "*", swiss, 0},
		{"C=CH, O=Example, CN=them", "CN=them,O=Example,*", swiss, 0},
		{"", "CN=them,O=Büro,C=CH", buero, 0},
		{"", "CN=them,DC=example,DC=org", dc, 0},
		{"", "DC=org, DC=example, CN=them", dc, 0},
		{"", "CN=*,DC=example,DC=org", dc, 0},
		{"", "UID=ann,O=Example", uid, 0},
		{"", "E=ann@example.org,CN=ann,O=Example", mail, 0},
		{"", "O=Example, CN=ann, emailAddress=ann@example.org", mail, 0},
		{"", "CN=them+SERIALNUMBER=42,O=Example", several, 0},
		{"", "CN=them,*", several, ike.WrongIdentity}, // the part has another value
		{"", "/CN=them/O=Example", turned, 0},
	} {
		r := row{call: call, failure: x.failure, name: fmt.Sprintf("certificate of %s, remote_id %s", or(x.theirs, "its subject"), x.remote)}
		if x.failure != 0 && call == "peer" {
			r.failure, r.theirs = ike.UnknownPeer, "AUTHENTICATION_FAILED"
		}
		r.prepare = func(t testing.TB, s *site, r *row) {
			ca := issue(t, nil, "CA of the test", "ecdsa-256", 0)
			us, them := named(t, ca, dn(attr(oidC, "CH"), attr(oidO, "Example"), attr(oidCN, "us"))), named(t, ca, x.subject)
			swanFile(t, s, "x509ca/ca.pem", "CERTIFICATE", ca.cert.Raw)
			swanFile(t, s, "x509/peer.pem", "CERTIFICATE", them.cert.Raw)
			swanKey(t, s, "peer.pem", them.key)
			r.local = "auth = pubkey\n      certs = peer.pem"
			if x.theirs != "" {
				r.local += "\n      id = \"" + x.theirs + "\""
			}
			// strongSwan writes our name in PrintableString, the certificate has UTF8String.
			r.remote = "auth = pubkey\n      cacerts = ca.pem\n      id = \"C=CH, O=Example, CN=us\""
			r.ours = func(p *ike.Peer, c *ike.Child) {
				p.PSK, p.RemoteID = nil, x.remote
				p.Key, p.Certificates, p.CAs = us.key, []*x509.Certificate{us.cert}, []*x509.Certificate{ca.cert}
				var err error
				if p.LocalID, err = ike.ParseIdentity("C=CH, O=Example, CN=us"); err != nil {
					t.Fatal(err)
				}
			}
		}
		rows = append(rows, r)
	}
	return rows
}
