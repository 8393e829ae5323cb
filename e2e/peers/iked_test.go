package peers

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/ike"
)

func pemOf(kind string, der []byte, err error) string {
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// ikedRow is one line of the matrix with OpenIKED. All rows are one
// configuration: each has an address, an identity and a network of its own.
type ikedRow struct {
	name string
	peer bool   // OpenIKED calls
	v6   bool   // outer addresses
	auth string // psk, raw or cert
	kind string // of our key
	word string // OpenIKED's for the method that it wants of us
	ike  string // its suites: "" is its default
	life string // its lifetimes: it rekeys before they end
	us   *station
	addr netip.Addr
	// inner addresses, ours and theirs
	here, there netip.Addr
}

func ikedRows() (rows []*ikedRow) {
	for _, peer := range []bool{false, true} {
		for _, v6 := range outerTwo {
			rows = append(rows, &ikedRow{name: "psk, outer " + version(v6), peer: peer, v6: v6, auth: "psk"})
		}
		for kind, word := range map[string]string{"ecdsa-256": "ecdsa256", "ecdsa-384": "ecdsa384", "ecdsa-521": "ecdsa521", "rsa-2048": "rfc7427", "rsa-3072": ""} {
			rows = append(rows, &ikedRow{name: "raw keys " + kind + " " + word, peer: peer, auth: "raw", kind: kind, word: word})
		}
		for _, kind := range []string{"ecdsa-256", "rsa-2048"} {
			rows = append(rows, &ikedRow{name: "certificates " + kind, peer: peer, auth: "cert", kind: kind})
		}
		for _, s := range []string{"enc aes-256 auth hmac-sha2-512 prf hmac-sha2-512 group ecp521", "enc aes-256-gcm prf hmac-sha2-384 group ecp384", "enc aes-128 auth hmac-sha2-256 prf hmac-sha2-256 group modp3072"} {
			rows = append(rows, &ikedRow{name: s, peer: peer, auth: "psk", ike: "ikesa " + s})
		}
		for _, s := range []string{"enc aes-128 auth hmac-sha2-512 group ecp256", "enc aes-256 auth hmac-sha2-384 group curve25519"} {
			rows = append(rows, &ikedRow{name: "child " + s, peer: peer, auth: "psk", ike: "childsa " + s})
		}
		rows = append(rows, &ikedRow{name: "they rekey both", peer: peer, auth: "psk", life: "ikelifetime 9 lifetime 5"})
	}
	return rows
}

func (r *ikedRow) caller() string { return either(r.peer, "peer", "us") }

// TestOpenIKED holds ike against OpenIKED, and pings through what comes out of
// it. Its kernel tells which key it receives with: that must be ours to send by.
func TestOpenIKED(t *testing.T) {
	t.Parallel()
	openIKED(t, "OpenIKED", lab.IKEDOld, ikedRows())
}

// TestOpenIKEDNew is that with the release of today, in short with few rows.
func TestOpenIKEDNew(t *testing.T) {
	t.Parallel()
	openIKED(t, "OpenIKED 7.4", lab.IKEDNew, slices.DeleteFunc(ikedRows(), func(r *ikedRow) bool {
		return !full() && !(r.v6 || r.life != "" || r.kind == "ecdsa-384" && r.auth == "raw")
	}))
}

func openIKED(t *testing.T, site, release string, rows []*ikedRow) {
	t.Helper()
	k := -1
	rows = slices.DeleteFunc(rows, func(r *ikedRow) bool { k++; return !chosen(t, k, line(site, r.caller(), r.name)) })
	if len(rows) == 0 {
		return
	}
	l := lab.New(t)
	guest, us := l.Guest("guest"), l.Host("us")
	guest.Join(us, "c0", []string{"10.77.0.2/24", "fd77::2/64"}, []string{"10.77.0.1/24", "fd77::1/64"})
	guest.Run("sh", "-c", "ip route add 10.1.0.0/16 dev vec0 via 10.77.0.2; ip route add fd01::/16 dev vec0 via fd77::2")
	theirKey := newKey(t, "ecdsa-256")
	spki, err := x509.MarshalPKIXPublicKey(theirKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	ca := issue(t, nil, "CA of the test", "ecdsa-256", 0)
	their := sign(t, ca, "peer.example", theirKey, 0)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(theirKey)
	files := map[string]string{"private/local.key": pemOf("PRIVATE KEY", pkcs8, err), "local.pub": pemOf("PUBLIC KEY", spki, nil),
		"ca/ca.crt": pemOf("CERTIFICATE", ca.cert.Raw, nil), "certs/peer.crt": pemOf("CERTIFICATE", their.cert.Raw, nil)}

	var conf strings.Builder
	for i, r := range rows {
		n := i + 10
		name := fmt.Sprintf("us%d.example", n)
		id, _ := ike.ParseIdentity(name)
		local := "10.77.0.1"
		if r.addr = netip.MustParseAddr(fmt.Sprintf("10.77.0.%d", n)); r.v6 {
			r.addr, local = netip.MustParseAddr(fmt.Sprintf("fd77::%d", n)), "fd77::1"
		}
		add := []string{"ip", "addr", "add", r.addr.String() + "/" + either(r.v6, "64", "24"), "dev", "c0"}
		if r.v6 {
			add = append(add, "nodad") // else it cannot be bound yet
		}
		us.Run(add...)
		net := func(s string) []ike.TrafficSelector {
			return []ike.TrafficSelector{ike.SelectorOf(netip.MustParsePrefix(s))}
		}
		here, there := fmt.Sprintf("10.1.%d.0/24", n), fmt.Sprintf("10.2.%d.0/24", n)
		if r.v6 { // its tunnels are of one family
			here, there = fmt.Sprintf("fd01:%d::/64", n), fmt.Sprintf("fd02:%d::/64", n)
		}
		r.here, r.there = netip.MustParsePrefix(here).Addr().Next(), netip.MustParsePrefix(there).Addr().Next()
		guest.Run("ip", "addr", "add", netip.PrefixFrom(r.there, r.there.BitLen()).String(), "dev", "lo", "nodad")
		p := &ike.Peer{Name: "peer", LocalID: id, RemoteID: "peer.example", Children: []*ike.Child{{Name: "net", LocalTS: net(here), RemoteTS: net(there)}}}
		if !r.peer {
			p.Endpoint = netip.AddrPortFrom(netip.MustParseAddr(local), 500)
		}
		if strings.Contains(r.ike, "ecp521") || strings.Contains(r.ike, "modp") {
			p.Proposals = withOld(ike.DefaultIKEProposals())
		}
		how := r.word
		switch r.auth {
		case "psk":
			p.PSK, how = []byte(secret), fmt.Sprintf("psk %q", secret)
		case "raw":
			p.Key = newKey(t, r.kind)
			p.PublicKeys = map[string]crypto.PublicKey{"peer.example": theirKey.Public()}
			der, err := x509.MarshalPKIXPublicKey(p.Key.Public())
			files["pubkeys/fqdn/"+name] = pemOf("PUBLIC KEY", der, err)
		case "cert":
			mine := issue(t, ca, name, r.kind, 0)
			p.Key, p.Certificates, p.CAs = mine.key, []*x509.Certificate{mine.cert}, []*x509.Certificate{ca.cert}
		}
		fmt.Fprintf(&conf, "ikev2 \"row%d\" %s esp from %s to %s local %s peer %s %s srcid peer.example dstid %s %s %s\n",
			n, map[bool]string{true: "active", false: "passive"}[r.peer], there, here, local, r.addr, r.ike, name, r.life, how)
		r.us = newStation(t, us, ike.Config{Peers: []*ike.Peer{p}}, r.addr)
	}
	// It answers before it has all of its configuration, and forgets whom it has
	// answered; it calls when it has, so it always has somebody to call.
	if !slices.ContainsFunc(rows, func(r *ikedRow) bool { return r.peer }) {
		fmt.Fprintf(&conf, "ikev2 \"ready\" active esp from 10.2.250.0/24 to 10.1.250.0/24 local 10.77.0.1 peer 10.77.0.250 srcid peer.example dstid nobody.example psk %q\n", secret)
	}
	d := guest.IKED(release, conf.String(), files)
	l.Eventually(lab.Patience, "OpenIKED calls", func() bool { return strings.Contains(d.Log(), "initiating \"r") })
	m := new(matrix)
	for _, r := range rows {
		t.Run(strings.ReplaceAll(r.name+", "+r.caller()+" calls", "/", "-"), func(t *testing.T) {
			start := time.Now()
			defer func() {
				m.add(t, site, row{name: r.name, call: r.caller()}, time.Since(start))
			}()
			r.run(t, guest, d)
		})
	}
	for _, call := range sides {
		m.lacks(site, call, "raw keys and certificates ed25519", "Ed25519 (RFC 8420)")
		m.lacks(site, call, "child with hmac-sha2-256-128", "HMAC-SHA2-256-128 by PF_KEY (Linux)")
		m.lacks(site, call, "child with aes-gcm or chacha20-poly1305", "AEAD ciphers by PF_KEY (Linux)")
	}
	m.print(t)
	if t.Failed() {
		t.Log(d.Log())
	}
}

func (r *ikedRow) run(t *testing.T, guest *lab.Guest, d *lab.IKED) {
	p := &play{T: t, us: r.us, start: time.Now()}
	defer func() {
		if t.Failed() {
			for _, e := range r.us.events() {
				t.Logf("us: %s", e)
			}
		}
	}()
	if !r.peer {
		p.do(func(c *ike.Core, now time.Time) ike.Output {
			o, err := c.Initiate(now, ike.Call{Peer: "peer", Child: "net", Local: netip.AddrPortFrom(r.addr, 0)})
			if err != nil {
				t.Error(err)
			}
			return o
		})
	}
	up := func() bool { return r.us.count(ike.ChildUp) > 0 }
	for end := time.Now().Add(lab.Patience); !up() && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	if !up() {
		t.Fatal("no child")
	}
	r.sameKey(t, d)
	p.pings(guest, r.here, r.there)
	for _, kind := range []ike.EventKind{ike.ChildRekeyed, ike.IKERekeyed} {
		if r.life != "" {
			p.eventually(kind.String()+" by the peer", func() bool { return r.us.count(kind) > 0 })
			p.pings(guest, r.here, r.there)
		}
	}
	for _, what := range []struct {
		child string
		kind  ike.EventKind
	}{{"net", ike.ChildRekeyed}, {"", ike.IKERekeyed}, {"net", ike.ChildRekeyed}} {
		before := r.us.count(what.kind)
		p.do(func(c *ike.Core, now time.Time) ike.Output { return c.Rekey(now, "peer", what.child) })
		p.eventually(what.kind.String(), func() bool { return r.us.count(what.kind) > before })
		p.pings(guest, r.here, r.there)
	}
	r.sameKey(t, d)
	for _, e := range r.us.events() {
		if e.Failure != ike.NoFailure {
			t.Errorf("reported %s", e)
		}
	}
}

// sameKey waits until the peer's kernel has the SA that we send by, with our
// key.
func (r *ikedRow) sameKey(t *testing.T, d *lab.IKED) {
	t.Helper()
	var want, list string
	for end := time.Now().Add(lab.Patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		r.us.mu.Lock()
		if u := r.us.using["net"]; u != nil {
			want = fmt.Sprintf("spi 0x%08x", u.SPIOut)
			list = d.States()
			if _, rest, ok := strings.Cut(list, want); ok {
				rest, _, _ = strings.Cut(rest, "\tproto ")
				if strings.Contains(rest, fmt.Sprintf("0x%x", u.Out.Encryption)) {
					r.us.mu.Unlock()
					return
				}
			}
		}
		r.us.mu.Unlock()
	}
	t.Errorf("the peer's kernel has no SA with %s and our key:\n%s", want, list)
}
