package ike

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// fakeEAP is an EAP method of the test: after as many empty rounds as told,
// the caller names itself and shows a certificate, and both have a key. It
// proves nothing; package eap has one that does.
type fakeEAP struct {
	call   EAPCall
	rounds int
	id     byte
	live   *int
	closed bool
	lie    string // what a broken method does in the end
}

var fakeMSK = bytes.Repeat([]byte("key of the method"), 4)

func (f *fakeEAP) Next(in []byte) EAPStep {
	if f.id++; f.rounds > 0 || in == nil {
		f.rounds--
		return EAPStep{Out: []byte{1, f.id}}
	}
	name, cert, _ := bytes.Cut(in[min(2, len(in)):], []byte{0})
	if !f.call.AskIdentity {
		name = nil
	}
	switch f.lie {
	case "no proof":
		return EAPStep{Out: []byte{3, f.id}, MSK: fakeMSK}
	case "no key":
		_ = f.call.Verify(string(name), [][]byte{cert})
		return EAPStep{Out: []byte{3, f.id}, MSK: fakeMSK[:63]}
	}
	if err := f.call.Verify(string(name), [][]byte{cert}); err != nil {
		return EAPStep{Out: []byte{4, f.id}, Err: err}
	}
	return EAPStep{Out: []byte{3, f.id}, MSK: fakeMSK}
}

func (f *fakeEAP) Close() error {
	if !f.closed {
		f.closed = true
		*f.live--
	}
	return nil
}

// eapCaller is the initiator's side of RFC 7296 section 2.16, as a task.
type eapCaller struct {
	name, cert []byte
	msk        []byte
	first      uint32
	reply      []byte // EAP
	proved     bool   // EAP Success has come
	failed     bool   // EAP Failure has come
}

func (t *eapCaller) build(c *Core, sa *ikeSA) (uint8, []payload, bool) {
	hs := sa.hs
	switch {
	case t.proved:
		ctx := hs.authContext(sa.suite.prf, t.first)
		return exIKEAuth, []payload{authPayload(authPSK, pskAuth(sa.suite.prf, t.msk, ctx.octets(true, sa.keys.pi, sa.localID)))}, true
	case t.reply != nil:
		return exIKEAuth, []payload{{kind: plEAP, body: t.reply}}, true
	}
	t.first, sa.localID = sa.nextOut, sa.peer.LocalID
	list := []payload{{kind: plIDi, body: sa.localID.body()}}
	hs.child, _ = c.offerChild(sa, hs.want[0], true)
	list = append(list, configRequest(sa)...)
	return exIKEAuth, append(append(list, hs.child.saPayload()), hs.child.tsPayloads()...), true
}

func (t *eapCaller) answer(c *Core, sa *ikeSA, m *opened, ns notifies) {
	hs, p := sa.hs, sa.peer
	end := func(ev Event) {
		c.fail(sa, ev)
		c.destroyQuietly(sa)
	}
	ctx := hs.authContext(sa.suite.prf, t.first)
	authp, _ := find(m.payloads, plAUTH)
	method, auth, err := parseAuth(authp.body)
	if t.proved {
		if err != nil || method != authPSK || !hmac.Equal(auth, pskAuth(sa.suite.prf, t.msk, ctx.octets(false, sa.keys.pr, sa.remoteID))) {
			end(Event{Failure: WrongKey})
			return
		}
		c.takeConfig(sa, m)
		ni, nr, offer := hs.ni, hs.nr, hs.child
		c.establish(sa, lowest(ni, nr), false)
		n, ev := c.acceptChild(sa, offer, m.payloads, ns, negotiation{noKE: true})
		if n == nil {
			end(ev)
			return
		}
		toR, toI := childKeys(sa.suite.prf, sa.keys.d, &n.suite, nil, ni, nr)
		c.addChild(sa, n, toI, toR, true, nil, origin{true, lowest(ni, nr)})
		return
	}
	if t.reply == nil { // the responder proves itself first
		idp, _ := find(m.payloads, plIDr)
		id, err2 := parseID(idp.body)
		if err != nil || err2 != nil {
			n, _ := ns.failure()
			end(c.peerError(sa, n))
			return
		}
		cl := &claim{id: id, certs: parseCerts(m.payloads, certX509), method: method, auth: auth, octets: ctx.octets(false, sa.keys.pr, id)}
		if fail := p.verifyPeer(cl, sa.suite.prf, c.now); fail != nil {
			end(Event{Failure: fail.why})
			return
		}
		sa.remoteID = id
	}
	eap, ok := find(m.payloads, plEAP)
	switch {
	case !ok || eap.body[0] == 4:
		t.failed = ok
		end(Event{Failure: WrongKeyByPeer})
		return
	case eap.body[0] == 3:
		t.proved = true
	default:
		t.reply = append(append([]byte{2, eap.body[1]}, t.name...), 0)
		t.reply = append(t.reply, t.cert...)
	}
	sa.enqueue(t)
}

// callEAP has a call b with EAP instead of AUTH.
func (s *sim) callEAP(a *node, t *eapCaller) {
	s.t.Helper()
	hold := true
	s.nat = func(d Datagram) (Datagram, bool) { return d, !(hold && d.Data[18] == exIKEAuth) }
	s.call(a, "b", "net")
	var sa *ikeSA
	for sa == nil || sa.req == nil || sa.req.exchange != exIKEAuth {
		if !s.step(s.now.Add(10 * time.Second)) {
			s.t.Fatal("IKE_SA_INIT has no end")
		}
		for _, sa = range a.sas {
		}
	}
	a.release(sa.hs.child.spi)
	sa.hs.child, sa.req, hold = nil, nil, false
	sa.nextOut--
	sa.enqueue(t)
	a.settle(sa)
	s.take(a, a.end())
}

// eapSides are a gateway, b, with EAP, and a caller.
type eapSides struct {
	*sim
	ca     *pki
	a, b   *node
	pa, pb *Peer
	caller *eapCaller
	live   int // methods that run
	rounds int
	lie    string
}

func newEAPSides(t testing.TB) *eapSides {
	x := &eapSides{sim: newSim(t, 1), ca: newPKI(t)}
	x.pa, x.pb = pskPeers()
	withCerts(t, x.ca, x.pa, x.pb, "ecdsa")
	x.pa.LocalID = Identity{idRFC822, "ann@a.example"}
	x.pa.Certificates = nil // it proves itself otherwise
	x.pb.EAP, x.pb.RemoteID, x.pb.Endpoint = true, "*@a.example", netip.AddrPort{}
	x.caller = &eapCaller{cert: x.user("ann@a.example").Raw, msk: fakeMSK}
	return x
}

func (x *eapSides) user(mail string) *x509.Certificate {
	return x.ca.sign(x.t, &x509.Certificate{Subject: pkix.Name{CommonName: "somebody"}, EmailAddresses: []string{mail},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, newKey(x.t, "ecdsa").Public(), x.ca.cert)
}

func (x *eapSides) meet(more ...*Peer) {
	x.a = x.add("a", "192.0.2.1", Config{Peers: []*Peer{x.pa}})
	x.b = x.add("b", "192.0.2.2", Config{Peers: append([]*Peer{x.pb}, more...), EAP: func(c EAPCall) EAP {
		x.live++
		return &fakeEAP{call: c, rounds: x.rounds, live: &x.live, lie: x.lie}
	}})
}

// settled fails if something of EAP is left.
func (x *eapSides) settled() {
	x.t.Helper()
	if x.live != 0 || x.b.guard.eap != 0 || x.b.guard.total != 0 {
		x.t.Errorf("left over: %d methods, %d counted, %d half-open", x.live, x.b.guard.eap, x.b.guard.total)
	}
}

// EAP that succeeds ends with one pair, and with the name that the certificate
// proves.
func TestEAP(t *testing.T) {
	for name, row := range map[string]struct {
		change func(x *eapSides)
		want   string
	}{
		"IDi is the name":     {func(x *eapSides) {}, "ann@a.example"},
		"many rounds":         {func(x *eapSides) { x.rounds = 20 }, "ann@a.example"},
		"without ML-KEM":      {func(x *eapSides) { x.pa.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tX25519)} }, "ann@a.example"},
		"IDi is an address":   {func(x *eapSides) { x.pa.LocalID = addrIdentity(netip.MustParseAddr("10.0.0.7")) }, "ann@a.example"},
		"IDi is another word": {func(x *eapSides) { x.pa.LocalID = Identity{idFQDN, "laptop"} }, "ann@a.example"},
		"an anonymous EAP name": {func(x *eapSides) {
			x.pa.LocalID = addrIdentity(netip.MustParseAddr("10.0.0.7"))
			x.caller.name = []byte("@a.example")
		}, "ann@a.example"},
		"the EAP name says which of two": {func(x *eapSides) {
			x.pa.LocalID = addrIdentity(netip.MustParseAddr("10.0.0.7"))
			x.caller.name = []byte("root@a.example")
			x.caller.cert = x.ca.sign(t, &x509.Certificate{EmailAddresses: []string{"ann@a.example", "root@a.example"}}, newKey(t, "ecdsa").Public(), x.ca.cert).Raw
		}, "root@a.example"},
		"a pool": {func(x *eapSides) {
			x.pb.Pools, x.pa.RequestIPv4 = []netip.Prefix{netip.MustParsePrefix("10.99.0.0/24")}, true
			all := []TrafficSelector{SelectorOf(netip.MustParsePrefix("0.0.0.0/0"))}
			for _, c := range []*Child{x.pa.Children[0], x.pb.Children[0]} {
				c.LocalTS, c.RemoteTS = all, all
			}
		}, "ann@a.example"},
	} {
		bothWays(t, name, func(t *testing.T, jobs int) {
			x := newEAPSides(t)
			x.jobs = jobs
			row.change(x)
			x.meet()
			x.loss = 10
			x.callEAP(x.a, x.caller)
			x.run(time.Minute)
			if len(x.pairs(x.a, x.b, "net")) != 1 {
				x.dump()
				t.Fatal("no pair")
			}
			st := x.b.Status()[0]
			if st.RemoteID.String() != row.want || st.Peer != "a" {
				t.Errorf("the gateway sees %s of %q", st.RemoteID, st.Peer)
			}
			if x.pa.RequestIPv4 && (len(st.Leased) != 1 || st.Leased[0].String() != "10.99.0.2") {
				t.Errorf("leased %v", st.Leased)
			}
			x.settled()
			// What EAP began is rekeyed as any other.
			x.take(x.b, x.b.Rekey(x.now, "", ""))
			x.run(time.Minute)
			if len(x.pairs(x.a, x.b, "net")) != 1 || x.b.has(IKERekeyed) != 1 {
				t.Errorf("after a rekey: %d", x.b.has(IKERekeyed))
			}
		})
	}
}

// EAP that fails is one event, with a reason, and leaves nothing.
func TestEAPFails(t *testing.T) {
	strange := newPKI(t)
	for name, row := range map[string]struct {
		change  func(x *eapSides)
		want    Failure
		setting string
	}{
		"another CA": {func(x *eapSides) { x.caller.cert = strange.issue(t, "ann", newKey(t, "ecdsa")).Raw }, BadCertificate, "ca"},
		"revoked": {func(x *eapSides) {
			c, _ := x509.ParseCertificate(x.caller.cert)
			x.pb.CRLs = []*x509.RevocationList{x.ca.revoke(t, simStart.Add(time.Hour), c)}
		}, BadCertificate, "ca"},
		"stale revocation list": {func(x *eapSides) { x.pb.CRLs = []*x509.RevocationList{x.ca.revoke(t, simStart.Add(-time.Minute))} }, BadCertificate, "ca"},
		"a name that the policy does not have": {func(x *eapSides) {
			x.pa.LocalID = addrIdentity(netip.MustParseAddr("10.0.0.7"))
			x.caller.cert = x.user("ann@elsewhere.example").Raw
		}, BadCertificate, "remote_id"},
		"the claimed name is not the proved one": {func(x *eapSides) { x.caller.cert = x.user("bob@a.example").Raw }, BadCertificate, "remote_id"},
		"a server's certificate": {func(x *eapSides) {
			x.caller.cert = x.ca.sign(t, &x509.Certificate{EmailAddresses: []string{"ann@a.example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, newKey(t, "ecdsa").Public(), x.ca.cert).Raw
		}, BadCertificate, "ca"},
		"a curve that is too short": {func(x *eapSides) {
			k, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			x.caller.cert = x.ca.sign(t, &x509.Certificate{EmailAddresses: []string{"ann@a.example"}}, k.Public(), x.ca.cert).Raw
		}, BadCertificate, "ca"},
		"an RSA key that is too long": {func(x *eapSides) {
			x.caller.cert = x.ca.sign(t, &x509.Certificate{EmailAddresses: []string{"ann@a.example"}}, newLongKey(t, 8192).Public(), x.ca.cert).Raw
		}, BadCertificate, "ca"},
		"a method that ends without a proof":     {func(x *eapSides) { x.lie = "no proof" }, InternalFailure, ""},
		"a method that ends without enough keys": {func(x *eapSides) { x.lie = "no key" }, InternalFailure, ""},
		"AUTH by another key":                    {func(x *eapSides) { x.caller.msk = bytes.Repeat([]byte{1}, 64) }, WrongKey, ""},
		"no block with EAP":                      {func(x *eapSides) { x.pb.EAP = false }, WrongMethod, "remote_auth"},
		"too many":                               {func(x *eapSides) {}, TooMany, ""},
	} {
		bothWays(t, name, func(t *testing.T, jobs int) {
			x := newEAPSides(t)
			x.jobs = jobs
			row.change(x)
			x.meet()
			if row.want == TooMany {
				x.b.guard.eap = 512
			}
			x.callEAP(x.a, x.caller)
			x.run(5 * time.Minute)
			if row.want == TooMany {
				x.b.guard.eap -= 512
			}
			var got []Event
			for _, e := range x.b.log {
				if e.Failure != NoFailure {
					got = append(got, e)
				}
			}
			if len(got) != 1 || got[0].Failure != row.want || row.setting != "" && got[0].Setting != row.setting {
				t.Errorf("reported %v, want %v of %s", got, row.want, row.setting)
			}
			if len(x.b.sas) != 0 || len(x.b.sad) != 0 {
				t.Error("something is up")
			}
			if row.want == BadCertificate && !x.caller.failed {
				t.Error("the caller was not told by EAP Failure")
			}
			x.settled()
		})
	}
}

// A caller that breaks off with INFORMATIONAL is answered, and that is the end.
func TestEAPBroken(t *testing.T) {
	x := newEAPSides(t)
	x.rounds = 3
	x.meet()
	x.callEAP(x.a, x.caller)
	for x.live == 0 && x.step(x.now.Add(time.Second)) {
	}
	var sa *ikeSA
	for _, sa = range x.a.sas {
	}
	x.wire = nil
	b, err := sealMessage(sa.header(exInformational, sa.req.id+1, false), []payload{note(nAuthFailed)}, sa.out, 0)
	if err != nil {
		t.Fatal(err)
	}
	o := x.b.Handle(x.now, Datagram{Local: sa.remote, Remote: sa.local, Data: b[0]})
	x.take(x.b, o)
	if len(o.Send) != 1 || x.b.failure() != WrongKeyByPeer || len(x.b.sas) != 0 {
		t.Errorf("%d answers, reported %v", len(o.Send), x.b.failure())
	}
	x.settled()
}

// A caller that goes away in the middle is given up, as soon as others are, and
// so is the method; the end of the Core ends it as well.
func TestEAPSilence(t *testing.T) {
	for _, how := range []string{"silence", "terminate", "abandon"} {
		x := newEAPSides(t)
		x.rounds = 3
		x.meet()
		x.callEAP(x.a, x.caller)
		for x.live == 0 && x.step(x.now.Add(time.Second)) {
		}
		if x.live != 1 || x.b.guard.eap != 1 {
			t.Fatalf("%d methods", x.live)
		}
		x.nat = func(d Datagram) (Datagram, bool) { return d, false }
		x.wire = nil
		switch how {
		case "terminate":
			x.take(x.b, x.b.Terminate(x.now, "", ""))
		case "abandon":
			x.b.abandonEAP()
		default:
			x.run(25 * time.Second)
			if x.live != 1 {
				t.Error("given up too early")
			}
			if n := x.b.has(Silent); n != 0 { // somebody may be about to type a PIN
				t.Errorf("told %d times that a call does not go on", n)
			}
			x.run(10 * time.Second)
			if x.b.failure() != NoAnswer {
				t.Errorf("reported %v", x.b.failure())
			}
		}
		x.settled()
	}
}

// Of several blocks the name that is proved decides, not the one that is
// claimed: it is what says which selectors somebody may have.
func TestEAPWhichBlock(t *testing.T) {
	for name, row := range map[string]struct{ claim, cert, want string }{
		"by IDi":                           {"ann@a.example", "ann@a.example", "a"},
		"by IDi, the second":               {"root@admins.example", "root@admins.example", "admins"},
		"by the certificate":               {"", "root@admins.example", "admins"},
		"a user who claims to be an admin": {"root@admins.example", "ann@a.example", ""},
		"an admin who claims to be a user": {"ann@a.example", "root@admins.example", ""},
		"somebody whom no block is for":    {"", "eve@elsewhere.example", ""},
	} {
		bothWays(t, name, func(t *testing.T, jobs int) {
			x := newEAPSides(t)
			x.jobs = jobs
			admins := *x.pb
			admins.Name, admins.RemoteID = "admins", "*@admins.example"
			admins.Children = []*Child{{Name: "net"}}
			x.pa.LocalID = Identity{idRFC822, row.claim}
			if row.claim == "" {
				x.pa.LocalID = addrIdentity(netip.MustParseAddr("10.0.0.7"))
			}
			x.caller.cert = x.user(row.cert).Raw
			x.meet(&admins)
			x.callEAP(x.a, x.caller)
			x.run(time.Minute)
			got := ""
			for _, st := range x.b.Status() {
				got = st.Peer
			}
			if got != row.want {
				t.Errorf("came in by %q, want %q", got, row.want)
			}
			x.settled()
		})
	}
}

// A policy that changes in the middle does not let in whom it does not have any
// more, and a block with EAP takes nothing else.
func TestEAPPolicy(t *testing.T) {
	x := newEAPSides(t)
	x.rounds = 3
	x.meet()
	x.callEAP(x.a, x.caller)
	for x.live == 0 && x.step(x.now.Add(time.Second)) {
	}
	other := *x.pb
	other.RemoteID = "*@elsewhere.example"
	o, err := x.b.Update(x.now, []*Peer{&other})
	if err != nil {
		t.Fatal(err)
	}
	x.take(x.b, o)
	x.run(time.Minute)
	if x.b.failure() != UnknownPeer || len(x.b.sas) != 0 {
		t.Errorf("reported %v", x.b.failure())
	}
	x.settled()

	s := newSim(t, 2)
	pa, pb := pskPeers()
	withCerts(t, newPKI(t), pa, pb, "ecdsa")
	pb.EAP, pb.Endpoint = true, netip.AddrPort{}
	a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}})
	b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, EAP: func(EAPCall) EAP { t.Error("begun"); return nil }})
	s.call(a, "b", "net")
	s.run(time.Minute)
	if b.failure() != WrongMethod || len(b.sas) != 0 {
		t.Errorf("a certificate without EAP: %v", b.failure())
	}
	if _, err := b.Initiate(s.now, Call{Peer: "a", Child: "net", Local: netip.MustParseAddrPort("192.0.2.2:500"), Remote: netip.MustParseAddrPort("192.0.2.1:500")}); err == nil || !strings.Contains(err.Error(), "waits to be called") {
		t.Errorf("called: %v", err)
	}
	if _, err := New(Config{Rand: testRand(1), Peers: []*Peer{pb}}); err == nil {
		t.Error("a Core without a method takes a peer with EAP")
	}
}
