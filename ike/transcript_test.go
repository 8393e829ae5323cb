package ike

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// The octets that each side signs, put together by hand from
// draft-ietf-ipsecme-ikev2-downgrade-prevention-08 and RFC 7296 section 2.15.
func TestTranscriptOctets(t *testing.T) {
	a := &authContext{prf: PRFSHA256, initI: []byte("request"), initR: []byte("response"), ni: []byte("Ni"), nr: []byte("Nr")}
	id, key := Identity{idFQDN, "a.example"}, []byte("SK_p")
	mac := prf(PRFSHA256, key, id.body())
	inter := "\x00\x00\x00\x02"
	for _, row := range []struct {
		full, initiator, inter bool
		want                   string
	}{
		{false, true, false, "requestNr" + string(mac)},
		{false, false, false, "responseNi" + string(mac)},
		{true, true, false, "\x00\x00\x00\x00\x00\x00\x00\x00responserequestNr" + string(mac)},
		{true, false, false, "\x00\x00\x00\x00\x00\x00\x00\x00requestresponseNi" + string(mac)},
		{true, true, true, "\x00\x00\x00\x00\x00\x00\x00\x00responserequestNr" + string(mac) + "II" + "RR" + inter},
	} {
		a.full, a.intI, a.intR, a.mid = row.full, nil, nil, 2
		if row.inter {
			a.intI, a.intR = []byte("II"), []byte("RR")
		}
		if got := a.octets(row.initiator, key, id); !bytes.Equal(got, []byte(row.want)) {
			t.Errorf("full %v, initiator %v: %q, want %q", row.full, row.initiator, got, row.want)
		}
	}
}

// cookies has a responder ask everybody for a cookie.
var cookies = Limits{CookieAfter: -1}

// transcriptRows are ways to IKE_AUTH.
func transcriptRows(t testing.TB) map[string]func(a, b *Peer) {
	ca := newPKI(t)
	plain := func(a, b *Peer) {
		a.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tX25519)}
		b.Proposals = a.Proposals
	}
	return map[string]func(a, b *Peer){
		"pre-shared key": plain,
		"IKE_INTERMEDIATE, ML-KEM": func(a, b *Peer) {
			a.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tX25519, tKEM)}
			b.Proposals = a.Proposals
		},
		"certificates": func(a, b *Peer) { plain(a, b); withCerts(t, ca, a, b, "ecdsa") },
		"raw keys":     func(a, b *Peer) { plain(a, b); withRawKeys(t, a, b, "ed25519") },
		"post-quantum pre-shared key": func(a, b *Peer) {
			plain(a, b)
			for _, p := range []*Peer{a, b} {
				p.PPKs, p.PPKID = map[string][]byte{"k1": []byte("post-quantum")}, "k1"
			}
		},
		"post-quantum pre-shared key at one side": func(a, b *Peer) {
			plain(a, b)
			a.PPKs, a.PPKID = map[string][]byte{"k1": []byte("post-quantum")}, "k1"
			b.PPKs, b.PPKID = map[string][]byte{"k2": []byte("other")}, "k2"
		},
		"another group first": func(a, b *Peer) {
			a.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tP384, tX25519)}
			b.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tX25519)}
		},
	}
}

// Between two that have it, full transcript authentication is in use by every way
// to IKE_AUTH, also where IKE_SA_INIT is sent again with a cookie or for another
// group, and a rekeyed IKE SA still says so.
func TestTranscriptInUse(t *testing.T) {
	for name, change := range transcriptRows(t) {
		bothWays(t, name, func(t *testing.T, jobs int) {
			s := newSim(t, 1)
			s.jobs = jobs
			pa, pb := pskPeers()
			change(pa, pb)
			pa.FullTranscript, pb.FullTranscript = TranscriptRequired, TranscriptRequired
			a, b := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}}), s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Limits: cookies})
			s.call(a, "b", "net")
			s.run(5 * time.Second)
			if b.Stats().Cookies == 0 {
				t.Error("no cookie")
			}
			for _, n := range []*node{a, b} {
				if st := n.Status(); len(st) != 1 || !st[0].Up || !st[0].Transcript {
					s.dump()
					t.Fatalf("%s: not up, or not with the full transcript", n.name)
				}
				if n.told(IKEUp, "both sides have authenticated all of IKE_SA_INIT") != 1 {
					t.Errorf("%s does not say so", n.name)
				}
			}
			s.take(a, a.Rekey(s.now, "b", ""))
			s.run(5 * time.Second)
			if st := b.Status(); len(st) != 1 || !st[0].Transcript || b.has(IKERekeyed) == 0 {
				t.Error("not after a rekey")
			}
		})
	}
}

// EAP's AUTH payloads, both the gateway's signature and those of the MSK, are of
// the full transcript as well.
func TestTranscriptEAP(t *testing.T) {
	for _, cut := range []bool{false, true} {
		x := newEAPSides(t)
		x.pb.FullTranscript = TranscriptRequired
		if cut {
			x.pa.FullTranscript = TranscriptNever
		}
		x.meet()
		x.callEAP(x.a, x.caller)
		x.run(5 * time.Second)
		if cut {
			if x.b.has(IKEUp) != 0 || x.b.failure() != NoTranscript {
				t.Errorf("required and missing: up %d, %s", x.b.has(IKEUp), x.b.failure())
			}
			continue
		}
		if st := x.b.Status(); len(st) != 1 || !st[0].Up || !st[0].Transcript {
			x.dump()
			t.Error("not up, or not with the full transcript")
		}
		x.settled()
	}
}

// With a peer that lacks it, or that is not offered it, authentication is that of
// RFC 7296; where the policy requires it, there is none, and the event says why.
func TestTranscriptFallback(t *testing.T) {
	const auto, required, never = TranscriptAuto, TranscriptRequired, TranscriptNever
	for _, row := range []struct {
		a, b Transcript
		up   bool
		full bool
		// what the sides say where it is refused
		sayA, sayB Failure
	}{
		{auto, auto, true, true, 0, 0},
		{auto, required, true, true, 0, 0},
		{required, auto, true, true, 0, 0},
		{auto, never, true, false, 0, 0},
		{never, auto, true, false, 0, 0},
		{never, never, true, false, 0, 0},
		{required, never, false, false, NoTranscript, NoFailure},
		{never, required, false, false, WrongKeyByPeer, NoTranscript},
	} {
		t.Run(fmt.Sprint(row.a, row.b), func(t *testing.T) {
			s := newSim(t, 1)
			pa, pb := pskPeers()
			pa.FullTranscript, pb.FullTranscript = row.a, row.b
			a, b := s.twoNodes(pa, pb)
			s.call(a, "b", "net")
			s.run(5 * time.Second)
			if up := len(s.pairs(a, b, "net")) == 1; up != row.up || a.has(IKEUp)+b.has(IKEUp) != 2*btoi(row.up) {
				s.dump()
				t.Fatalf("up: %v", up)
			}
			if !row.up {
				if a.failure() != row.sayA || b.failure() != NoFailure && b.failure() != row.sayB {
					t.Errorf("a says %s, b says %s", a.failure(), b.failure())
				}
				n := a
				if row.sayA != NoTranscript {
					n = b
				}
				if n.told(Failed, "IKE_SA_INIT_FULL_TRANSCRIPT_AUTH") != 1 {
					t.Error("the event does not name what is missing")
				}
				return
			}
			if a.Status()[0].Transcript != row.full || b.Status()[0].Transcript != row.full {
				t.Errorf("full: %v and %v", a.Status()[0].Transcript, b.Status()[0].Transcript)
			}
			if plain := a.told(IKEUp, "without full transcript authentication"); plain != btoi(!row.full) {
				t.Error("the event says otherwise")
			}
		})
	}
}

// An answer without the offer is not believed at once: somebody in between may
// have sent it, and the peer's own may still come.
func TestTranscriptRequiredWaits(t *testing.T) {
	s := newSim(t, 1)
	pa, pb := pskPeers()
	pa.FullTranscript = TranscriptRequired
	a, b := s.twoNodes(pa, pb)
	forged := false
	s.nat = func(d Datagram) (Datagram, bool) {
		if h, _ := parseHeader(d.Data); h.exchange == exIKESAInit && h.response() && !forged {
			forged = true
			twin := d
			twin.Data = without(t, d.Data, nFullTranscript)
			s.fly(twin)
			s.now = s.now.Add(50 * time.Millisecond)
		}
		return d, true
	}
	s.call(a, "b", "net")
	s.run(5 * time.Second)
	if len(s.pairs(a, b, "net")) != 1 {
		s.dump()
		t.Error("not up")
	}
}

// without takes a notify out of an IKE_SA_INIT message.
func without(t testing.TB, msg []byte, kind uint16) []byte {
	t.Helper()
	h, err := parseHeader(msg)
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := parsePayloads(h.next, msg[headerLen:])
	if err != nil {
		t.Fatal(err)
	}
	n := len(list)
	list = slices.DeleteFunc(list, func(p payload) bool {
		return p.kind == plNotify && len(p.body) >= 4 && uint16(p.body[2])<<8|uint16(p.body[3]) == kind
	})
	if len(list) != n-1 {
		t.Fatalf("the message has no notify %d", kind)
	}
	return encodePlain(h, list)
}

// Whoever takes the offer out of one message, or out of both, gets no IKE SA, but
// with both out of both the sides fall back unless one requires it: then nobody
// could tell it from a peer that lacks it, and AUTH of RFC 7296 covers what each
// has sent.
func TestTranscriptOfferTakenOut(t *testing.T) {
	for _, row := range []struct {
		request, response bool
		a, b              Transcript
	}{
		{true, false, TranscriptAuto, TranscriptAuto},
		{false, true, TranscriptAuto, TranscriptAuto},
		{true, true, TranscriptAuto, TranscriptAuto},
		{true, false, TranscriptRequired, TranscriptAuto},
		{false, true, TranscriptAuto, TranscriptRequired},
		{true, true, TranscriptRequired, TranscriptRequired},
	} {
		s := newSim(t, 1)
		pa, pb := pskPeers()
		pa.FullTranscript, pb.FullTranscript = row.a, row.b
		a, b := s.twoNodes(pa, pb)
		s.nat = func(d Datagram) (Datagram, bool) {
			if h, _ := parseHeader(d.Data); h.exchange == exIKESAInit && (row.request && !h.response() || row.response && h.response()) {
				d.Data = without(t, d.Data, nFullTranscript)
			}
			return d, true
		}
		s.call(a, "b", "net")
		s.run(5 * time.Minute)
		if a.has(IKEUp)+b.has(IKEUp)+len(a.sad)+len(b.sad) != 0 {
			s.dump()
			t.Errorf("out of the request %v, the response %v, %v and %v: up", row.request, row.response, row.a, row.b)
		}
	}
}

// Which block a caller is of is known with its identity. A block that requires the
// full transcript never takes who came without, whatever other blocks there are,
// and one that says never takes who came with it.
func TestTranscriptStricterBlock(t *testing.T) {
	for _, row := range []struct {
		id     string
		caller Transcript
		up     bool
	}{
		{"strong.example", TranscriptAuto, true},
		{"strong.example", TranscriptNever, false},
		{"weak.example", TranscriptAuto, true},
		{"weak.example", TranscriptNever, true},
	} {
		s := newSim(t, 1)
		pa, weak := pskPeers()
		pa.FullTranscript, pa.LocalID = row.caller, Identity{idFQDN, row.id}
		weak.Endpoint, weak.RemoteID, weak.FullTranscript = netip.AddrPort{}, "weak.example", TranscriptNever
		strong := *weak
		strong.Name, strong.RemoteID, strong.FullTranscript = "strong", "strong.example", TranscriptRequired
		a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}})
		b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{weak, &strong}})
		s.call(a, "b", "net")
		s.run(5 * time.Second)
		if up := len(s.pairs(a, b, "net")) == 1; up != row.up {
			s.dump()
			t.Errorf("%s, caller %v: up %v", row.id, row.caller, up)
		}
		if !row.up && b.failure() != NoTranscript {
			t.Errorf("%s, caller %v: %s", row.id, row.caller, b.failure())
		}
	}
}

// Between two that have it, whoever changes any byte of either IKE_SA_INIT on the
// way gets no IKE SA, at neither side. Retransmissions are changed as well.
func TestTranscriptEveryByte(t *testing.T) {
	changes := []func(byte) byte{
		func(b byte) byte { return b ^ 1 }, func(b byte) byte { return b ^ 0x80 },
		func(byte) byte { return 0 }, func(byte) byte { return 0xff }, func(b byte) byte { return b + 1 },
	}
	for name, change := range transcriptRows(t) {
		few := changes // of the first row; those of others are found out by the same octets
		if name != "pre-shared key" {
			few = changes[:1]
		}
		if testing.Short() && strings.Contains(name, " ") && name != "pre-shared key" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			for _, response := range []bool{false, true} {
				played, failed, at, atAuth := 0, 0, 0, 0
				for longest := 1; at < longest; at++ {
					seen := map[byte]bool{}
					for _, f := range few {
						n, up, auth, skip := alteredAt(t, change, response, at, f, seen)
						longest = max(longest, n)
						if skip {
							continue
						}
						played++
						failed += btoi(!up)
						atAuth += btoi(auth)
					}
				}
				if failed != played || played < longestInit {
					t.Errorf("response %v: %d of %d handshakes failed", response, failed, played)
				}
				t.Logf("response %v: %d bytes, %d handshakes, %d failed, %d of them at AUTH", response, at, played, failed, atAuth)
			}
		})
	}
}

// longestInit is less than any IKE_SA_INIT has, in bytes.
const longestInit = 150

// alteredAt plays a handshake with the byte at an offset of one of the
// IKE_SA_INIT messages changed. skip: the change is none, or known from before.
func alteredAt(t *testing.T, change func(a, b *Peer), response bool, at int, f func(byte) byte, seen map[byte]bool) (length int, up, auth, skip bool) {
	t.Helper()
	s := newSim(t, 1)
	pa, pb := pskPeers()
	change(pa, pb)
	limits := Limits{}
	if pa.Key != nil {
		limits = cookies
	}
	a, b := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}}), s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Limits: limits})
	changed, first := false, true
	s.nat = func(d Datagram) (Datagram, bool) {
		h, err := parseHeader(d.Data)
		if err != nil || h.exchange != exIKESAInit || h.response() != response {
			return d, true
		}
		length = max(length, len(d.Data))
		changed = false // what was refused before does not count: the last one is authenticated
		if at >= len(d.Data) {
			return d, true
		}
		d.Data = slices.Clone(d.Data)
		x := f(d.Data[at])
		if first {
			first = false
			skip = x == d.Data[at] || seen[x]
			seen[x] = true
		}
		changed = x != d.Data[at]
		d.Data[at] = x
		return d, true
	}
	s.call(a, "b", "net")
	if !skip {
		s.run(2 * time.Minute)
	}
	skip = skip || !changed
	up = a.has(IKEUp)+b.has(IKEUp)+len(a.sad)+len(b.sad) != 0
	if up && !skip {
		s.dump()
		t.Errorf("response %v, byte %d: up", response, at)
	}
	return length, up, a.told(Failed, "") > 0 && a.Stats().Failures[WrongKeyByPeer] > 0, skip
}
