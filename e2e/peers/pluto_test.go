package peers

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
)

// plutoRow is one line of the matrix with libreswan: an address, an identity
// of its own on both sides, and a connection of its own.
type plutoRow struct {
	name        string
	call        string
	v6          bool // outer addresses
	mode        ike.Mode
	auth        string // psk, cert or raw
	kind        string // of the keys
	by          string // libreswan's word for how both sign
	ike, esp    string // its suites; "" is its default
	n           int    // what is its own is numbered
	addr, their netip.Addr
	crossing    bool   // both delete at the same moment
	busy        bool   // it asks for cookies
	user        bool   // it lends us an address
	both        bool   // in short, with both releases
	more        string // lines of its connection
	cfg         *ike.Peer
}

// ends are the addresses that talk through the child.
func (r *plutoRow) ends() (ours, theirs netip.Addr) {
	switch {
	case r.user:
		return netip.MustParseAddr("10.9.0.10"), netip.MustParseAddr(fmt.Sprintf("10.2.0.%d", r.n))
	case r.mode == ike.Transport:
		return r.addr, r.their
	case r.v6:
		return netip.MustParseAddr(fmt.Sprintf("fd01::%d", r.n)), netip.MustParseAddr(fmt.Sprintf("fd02::%d", r.n))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.1.0.%d", r.n)), netip.MustParseAddr(fmt.Sprintf("10.2.0.%d", r.n))
}

// plutoRows are those of a release. 4.10 ends as soon as it is given a raw ECDSA
// key that is not of P-256. What the two have in common is tried in short with
// the older one.
func plutoRows(release string) (rows []*plutoRow) {
	older := release == lab.PlutoOld
	n := 0
	add := func(r plutoRow) {
		for _, call := range sides {
			// In short, the callers take turns.
			if n++; full() || n%2 == 0 == (len(rows)%2 == 0) && (r.both || older == (r.auth != "raw" || !beyond(r.kind))) {
				x := r
				x.call = call
				rows = append(rows, &x)
			}
		}
	}
	for _, v6 := range outerTwo {
		for _, mode := range []ike.Mode{ike.Tunnel, ike.Transport} {
			if full() || v6 == (mode == ike.Transport) {
				add(plutoRow{name: fmt.Sprintf("psk, %s, outer %s", mode, version(v6)), auth: "psk", v6: v6, mode: mode})
			}
		}
	}
	for _, c := range []struct{ kind, by string }{{"rsa-2048", "rsa-sha2_256"}, {"ecdsa-256", "ecdsa-sha2_256"}, {"rsa-3072", "rsa-sha2_512"}, {"ecdsa-384", "ecdsa-sha2_384"}, {"ecdsa-521", "ecdsa-sha2_512"}} {
		for _, auth := range []string{"cert", "raw"} {
			if auth == "raw" && beyond(c.kind) && older {
				continue
			}
			if full() || (auth == "cert" && c.kind[len(c.kind)-3:] == "256") || auth == "raw" && (c.kind == "rsa-2048" || beyond(c.kind)) {
				add(plutoRow{name: auth + " " + c.kind + " " + c.by, auth: auth, kind: c.kind, by: c.by})
			}
		}
	}
	// It offers compression, which nobody has to take; its children want another group
	// than its IKE SAs have, which INVALID_KE_PAYLOAD tells us (4.10 takes that of the IKE SA
	// all the same).
	add(plutoRow{name: "psk, compression offered", auth: "psk", more: "compress=yes\n"})
	add(plutoRow{name: "psk, another group for children", auth: "psk", ike: "aes256-sha2_256;dh31", esp: "aes256-sha2_256;dh15", both: true})
	if !older {
		rows = append(rows, &plutoRow{name: "psk, an address, a server and domains from it", call: "us", auth: "psk", user: true,
			more: "rightaddresspool=10.9.0.10-10.9.0.20\nleftmodecfgserver=yes\nrightmodecfgclient=yes\nmodecfgdns=10.2.0.53\nmodecfgdomains=\"corp.example, lab.example\"\nnarrowing=yes\n"})
	}
	if older || full() {
		rows = append(rows, &plutoRow{name: "psk, cookies and another group (INVALID_KE_PAYLOAD)", call: "us", auth: "psk", ike: "aes256-sha2_256;dh15", busy: true})
	}
	add(plutoRow{name: "psk, both delete at the same moment", auth: "psk", crossing: true})
	for i, s := range []struct{ ike, esp string }{
		{"aes_gcm256-sha2_512;dh19", "aes_gcm128-null;dh19"}, {"aes_gcm128-sha2_256;dh31", "aes_gcm256-null;dh31"},
		{"chacha20_poly1305-sha2_384;dh20", "chacha20_poly1305-null;dh20"}, {"aes128-sha2_256;dh14", "aes128-sha2_256;dh14"},
		{"aes256-sha2_512;dh16", "aes256-sha2_512;dh15"}, {"aes256-sha2_384;dh21", "aes256-sha2_384;dh21"}} {
		if full() || i == 2 {
			add(plutoRow{name: "ike " + s.ike + " esp " + s.esp, auth: "psk", ike: s.ike, esp: s.esp})
			if full() {
				add(plutoRow{name: "transport, ike " + s.ike + " esp " + s.esp, auth: "psk", ike: s.ike, esp: s.esp, mode: ike.Transport})
			}
		}
	}
	return rows
}

// beyond says that a key is of a curve larger than P-256.
func beyond(kind string) bool { return kind == "ecdsa-384" || kind == "ecdsa-521" }

// pkcs12 writes a key with its certificate for NSS, without a password.
func pkcs12(t *testing.T, l *lab.Lab, name string, p *party) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	file := l.File(name+".pem", pemOf("PRIVATE KEY", der, err)+pemOf("CERTIFICATE", p.cert.Raw, nil))
	out := filepath.Join(l.Dir, name+".p12")
	if b, err := exec.Command("openssl", "pkcs12", "-export", "-in", file, "-out", out, "-name", name, "-passout", "pass:").CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, b)
	}
	return out
}

// keyText writes a public key as ipsec.conf does, in base64: RSA after RFC
// 3110, ECDSA as the two coordinates (RFC 6605).
func keyText(k crypto.Signer) string {
	var b []byte
	switch k := k.Public().(type) {
	case *rsa.PublicKey:
		b = append([]byte{3, byte(k.E >> 16), byte(k.E >> 8), byte(k.E)}, k.N.Bytes()...)
	case *ecdsa.PublicKey:
		b, _ = k.Bytes()
		b = b[1:]
	}
	return "0s" + base64.StdEncoding.EncodeToString(b)
}

// TestLibreswan holds ike against libreswan: who calls, keys, suites, modes,
// rekeys of both kinds from either side, pings through what comes out of it.
// It wants a key exchange with each rekey of a child, as it does when left
// alone.
func TestLibreswan(t *testing.T) {
	t.Parallel()
	libreswan(t, "libreswan", lab.PlutoOld, map[string]string{"raw keys ecdsa-384 and ecdsa-521": "raw ECDSA keys but of P-256 (not tried with 4.10; 5.2 has them)"})
}

// TestLibreswanNew is that with the release of today.
func TestLibreswanNew(t *testing.T) {
	t.Parallel()
	libreswan(t, "libreswan 5", lab.PlutoNew, nil)
}

func libreswan(t *testing.T, site, release string, lacks map[string]string) {
	m := new(matrix)
	k := -1
	var rows []*plutoRow
	for _, r := range plutoRows(release) {
		if k++; chosen(t, k, line(site, r.call, r.name)) {
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 {
		return
	}
	l := lab.New(t)
	guest, us := l.Guest("guest"), l.Host("us")
	guest.Join(us, "c0", []string{"10.77.0.2/24", "fd77::2/64"}, []string{"10.77.0.1/24", "fd77::1/64"})
	guest.Run("sh", "-c", "ip route add 10.1.0.0/16 dev vec0 via 10.77.0.2; ip route add fd01::/64 dev vec0 via fd77::2; ip route add 10.9.0.0/24 dev vec0 via 10.77.0.2")
	ca := issue(t, nil, "CA of the test", "ecdsa-256", 0)
	c := lab.PlutoConfig{Conns: map[string]string{}, CAs: []string{l.File("ca.pem", pemOf("CERTIFICATE", ca.cert.Raw, nil))}}
	for i, r := range rows {
		r.n = i + 10
		c.Conns[r.conn()] = r.configure(t, l, us, guest, ca, &c)
	}
	pluto := guest.Pluto(release, c)
	for _, r := range rows {
		t.Run(strings.ReplaceAll(r.name+", "+r.call+" calls", "/", "-"), func(t *testing.T) {
			start := time.Now()
			defer func() { m.add(t, site, row{name: r.name, call: r.call}, time.Since(start)) }()
			r.run(t, us, guest, pluto)
		})
	}
	for _, call := range sides {
		for name, why := range map[string]string{"certificates and raw keys ed25519": "Ed25519 (RFC 8420)", "ml-kem-768": "additional key exchanges (RFC 9370)"} {
			m.lacks(site, call, name, why)
		}
		for name, why := range lacks {
			m.lacks(site, call, name, why)
		}
	}
	m.print(t)
}

// conn is the name of the peer's connection.
func (r *plutoRow) conn() string { return fmt.Sprint("row", r.n) }

// configure makes both sides' configuration; it gives the peer's.
func (r *plutoRow) configure(t *testing.T, l *lab.Lab, us *lab.Host, guest *lab.Guest, ca *party, c *lab.PlutoConfig) string {
	t.Helper()
	peer, name := fmt.Sprintf("peer%d.example", r.n), fmt.Sprintf("us%d.example", r.n)
	r.their = netip.MustParseAddr(either(r.v6, "fd77::1", "10.77.0.1"))
	r.addr = netip.MustParseAddr(fmt.Sprintf(either(r.v6, "fd77::%d", "10.77.0.%d"), r.n))
	here, there := r.ends()
	us.Run("ip", "addr", "add", r.addr.String()+either(r.v6, "/64", "/24"), "dev", "c0", "nodad")
	conn := fmt.Sprintf("ikev2=insist\nleft=%s\nleftid=@%s\nleftupdown=/bin/true\nright=%s\nrightid=@%s\nauto=add\ntype=%s\n", r.their, peer, r.addr, name, r.mode)
	id, _ := ike.ParseIdentity(name)
	child := &ike.Child{Name: "net", Mode: r.mode}
	r.cfg = &ike.Peer{Name: "peer", LocalID: id, RemoteID: peer, Children: []*ike.Child{child}}
	if slices.ContainsFunc([]string{"dh14", "dh15", "dh16", "dh21"}, func(g string) bool { return strings.Contains(r.ike+r.esp, g) }) {
		r.cfg.Proposals, child.Proposals = withOld(ike.DefaultIKEProposals()), withOld(ike.DefaultChildProposals(ike.ProtoESP))
	}
	if r.mode == ike.Tunnel {
		guest.Run("ip", "addr", "add", netip.PrefixFrom(there, there.BitLen()).String(), "dev", "lo", "nodad")
		conn += fmt.Sprintf("leftsubnet=%s/%d\n", there, there.BitLen())
		if !r.user {
			conn += fmt.Sprintf("rightsubnet=%s/%d\n", here, here.BitLen())
		}
		child.LocalTS = []ike.TrafficSelector{ike.SelectorOf(netip.PrefixFrom(here, here.BitLen()))}
		child.RemoteTS = []ike.TrafficSelector{ike.SelectorOf(netip.PrefixFrom(there, there.BitLen()))}
	}
	if r.user {
		r.cfg.RequestIPv4, child.LocalTS = true, nil
	}
	if r.call == "us" {
		r.cfg.Endpoint = netip.AddrPortFrom(r.their, 500)
	}
	for what, v := range map[string]string{"ike": r.ike, "esp": r.esp} {
		if v != "" {
			conn += what + "=" + v + "\n"
		}
	}
	conn += r.more
	key := fmt.Sprint("key", r.n)
	switch r.auth {
	case "psk":
		r.cfg.PSK = []byte(secret)
		c.Secrets += fmt.Sprintf("@%s @%s : PSK \"%s\"\n", peer, name, secret)
		conn += "authby=secret\n"
	case "cert":
		mine, theirs := issue(t, ca, name, r.kind, 0), issue(t, ca, peer, r.kind, 0)
		r.cfg.Key, r.cfg.Certificates, r.cfg.CAs = mine.key, []*x509.Certificate{mine.cert}, []*x509.Certificate{ca.cert}
		c.Keys = append(c.Keys, pkcs12(t, l, key, theirs))
		conn += "authby=" + r.by + "\nleftcert=" + key + "\nleftsendcert=always\nrightca=%same\n"
	case "raw":
		mine, theirs := newKey(t, r.kind), newKey(t, r.kind)
		r.cfg.Key, r.cfg.PublicKeys = mine, map[string]crypto.PublicKey{peer: theirs.Public()}
		c.Keys = append(c.Keys, pkcs12(t, l, key, sign(t, nil, peer, theirs, 0)))
		word := either(r.kind[0] == 'r', "rsasigkey", "ecdsakey")
		conn += fmt.Sprintf("authby=%s\nleft%s=%s\nright%s=%s\n", r.by, word, keyText(theirs), word, keyText(mine))
	}
	return conn
}

func (r *plutoRow) run(t *testing.T, us *lab.Host, guest *lab.Guest, pluto *lab.Pluto) {
	p := &play{T: t, start: time.Now(), us: newStation(t, us, ike.Config{Peers: []*ike.Peer{r.cfg}}, r.addr)}
	before := len(pluto.Log())
	defer func() {
		if t.Failed() {
			for _, e := range p.us.events() {
				t.Logf("us: %s", e)
			}
			t.Log(pluto.Log()[before:])
		}
		if r.crossing { // our Delete goes out as theirs is about to be read
			p.us.delay(func() {
				p.do(func(c *ike.Core, now time.Time) ike.Output { return c.Terminate(now, "peer", "") })
			})
		}
		// It would call again if only we ended it.
		if out, err := pluto.Whack("--delete", "--name", r.conn()); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		p.eventually("the end", func() bool { p.us.mu.Lock(); defer p.us.mu.Unlock(); return len(p.us.core.Status()) == 0 })
	}()
	if r.busy {
		r.whack(t, pluto, "--ddos-busy")
		defer r.whack(t, pluto, "--ddos-auto")
	}
	if r.call == "us" {
		p.do(func(c *ike.Core, now time.Time) ike.Output {
			o, err := c.Initiate(now, ike.Call{Peer: "peer", Child: "net", Local: netip.AddrPortFrom(r.addr, 0)})
			if err != nil {
				t.Error(err)
			}
			return o
		})
	} else if out, err := pluto.Whack("--initiate", "--name", r.conn()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p.eventually("a child", func() bool { return p.us.count(ike.ChildUp) == 1 })
	here, there := r.ends()
	p.pings(guest, here, there)
	if r.user && !slices.ContainsFunc(p.us.events(), func(e ike.Event) bool {
		return e.Kind == ike.Address && contains(e.Detail, "dns 10.2.0.53 domain corp.example domain lab.example")
	}) {
		t.Error("the server and its domains have not come")
	}
	for _, by := range sides {
		for _, what := range []struct {
			kind  ike.EventKind
			child string
			whack func(name string) (string, error)
		}{{ike.ChildRekeyed, "net", pluto.RekeyChild}, {ike.IKERekeyed, "", func(name string) (string, error) { return pluto.Whack("--rekey-ike", "--name", name) }}} {
			before := p.us.count(what.kind)
			if by == "us" {
				p.do(func(c *ike.Core, now time.Time) ike.Output { return c.Rekey(now, "peer", what.child) })
			} else if out, err := what.whack(r.conn()); err != nil {
				t.Errorf("%s by the peer: %v\n%s", what.kind, err, out)
			}
			p.eventually(fmt.Sprintf("%s by %s", what.kind, by), func() bool { return p.us.count(what.kind) > before })
			p.pings(guest, here, there)
		}
	}
	for _, e := range p.us.events() {
		if e.Failure != ike.NoFailure {
			t.Errorf("reported %s", e)
		}
	}
}

// whack tells the peer something.
func (r *plutoRow) whack(t *testing.T, pluto *lab.Pluto, args ...string) {
	t.Helper()
	if out, err := pluto.Whack(args...); err != nil {
		t.Errorf("whack %v: %v\n%s", args, err, out)
	}
}

// pings pings both ways.
func (p *play) pings(guest *lab.Guest, here, there netip.Addr) {
	p.Helper()
	p.eventually("an answer to the peer's ping", func() bool {
		_, err := guest.Try(10*time.Second, "ping", "-n", "-c", "1", "-W", "1", "-I", there.String(), here.String())
		return err == nil
	})
	spec := packet.Spec{Src: here, Dst: there, Protocol: packet.ICMP, ICMPType: 8, EchoID: 77, Payload: []byte("from us")}
	if here.Is6() {
		spec.Protocol, spec.ICMPType = packet.ICMPv6, 128
	}
	p.us.mu.Lock()
	p.us.sent++
	spec.EchoSeq = p.us.sent
	p.us.mu.Unlock()
	p.eventually("an answer to our ping", func() bool {
		p.us.mu.Lock()
		p.us.seal("net", spec)
		p.us.mu.Unlock()
		time.Sleep(50 * time.Millisecond)
		p.us.mu.Lock()
		defer p.us.mu.Unlock()
		return p.us.echo[spec.EchoSeq]
	})
}
