package peers

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/ike/eap"
	"github.com/ipfw/ipfw/packet"
)

// site is where a row is played: our host and the peer's, what each calls the
// other, and whether somebody translates addresses between them.
type site struct {
	host       *lab.Host
	peer       *lab.Charon
	more       []netip.Addr  // further addresses of ours
	peerHost   *lab.Host     // the peer's; nil: it is a guest
	line       *disorder     // in front of the peer; nil: a good one
	move       func()        // changes the peer's IPv4 address
	userSpace  bool          // the peer's ESP is charon's own
	ours       [2]netip.Addr // our own addresses, IPv4 and IPv6
	theirs     [2]netip.Addr // their own
	oursSeen   [2]netip.Addr // ours as the peer calls them; not valid: the peer cannot call
	mapped     [2]netip.Addr // ours as a NAT makes them for the peer; not valid: there is none
	theirsSeen [2]netip.Addr // theirs as we see them; not valid: we cannot call
}

// Inner addresses of the tunnels.
var (
	innerOurs   = [2]netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd01::1")}
	innerTheirs = [2]netip.Addr{netip.MustParseAddr("10.2.0.1"), netip.MustParseAddr("fd02::1")}
)

const secret = "the same on both sides of the wire"

// quick gives a silent peer up within a few seconds.
var quick = ike.Retransmit{First: 300 * time.Millisecond, Factor: 1.5, Tries: 3}

// row is one line of the matrix.
type row struct {
	name string
	call string // who calls: "us" or "peer"
	v6   bool   // outer addresses
	mode ike.Mode

	// Suites by our names, for both sides; "": each side's defaults, unless
	// the peer has its own by its names.
	suiteIKE, suiteChild   string
	theirsIKE, theirsChild string
	proposals, child       []ike.Proposal // made from them
	ts                     string         // the peer's selectors
	pools                  string         // the peer's, for addresses of ours
	leased                 string         // who gets addresses: "us", "peer" or nobody
	// local and remote are lines for the peer's blocks "local" and "remote",
	// from its side; nil means a pre-shared key.
	local, remote, secrets, conn, children string
	ours                                   func(*ike.Peer, *ike.Child)
	prepare                                func(testing.TB, *site, *row) // keys and certificates
	retransmit                             ike.Retransmit
	limits                                 ike.Limits
	silent                                 bool // failures are expected after the child is up

	// failure is what must be reported, by us; theirs is in the peer's log.
	failure ike.Failure
	theirs  string
	detail  string      // and this is in our words for it
	pss     bool        // certificates are of a CA that signs by RSASSA-PSS
	after   func(*play) // with the child up
}

// play is a row under way.
type play struct {
	*testing.T
	row   row
	site  *site
	us    *station
	start time.Time
	// collided: both have rekeyed at once, and the peer may not have noticed.
	collided bool
}

func (s *site) family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

// swanNames are strongSwan's names of transforms.
var swanNames = map[string]string{
	"aes-128-gcm-16": "aes128gcm16", "aes-192-gcm-16": "aes192gcm16", "aes-256-gcm-16": "aes256gcm16", "chacha20-poly1305": "chacha20poly1305",
	"aes-128-cbc": "aes128", "aes-192-cbc": "aes192", "aes-256-cbc": "aes256",
	"hmac-sha1-96": "sha1", "hmac-sha2-256-128": "sha256", "hmac-sha2-384-192": "sha384", "hmac-sha2-512-256": "sha512",
	"prf-hmac-sha1": "prfsha1", "prf-hmac-sha2-256": "prfsha256", "prf-hmac-sha2-384": "prfsha384", "prf-hmac-sha2-512": "prfsha512",
	"x25519": "curve25519", "p-256": "ecp256", "p-384": "ecp384", "p-521": "ecp521",
	"modp-2048": "modp2048", "modp-3072": "modp3072", "modp-4096": "modp4096", "ml-kem-768": "mlkem768", "none": "modpnone", "esn": "esn", "no-esn": "noesn",
}

// proposal makes one proposal of ipfw's names: "aes-256-cbc hmac-sha2-256-128
// x25519".
func proposal(t testing.TB, protocol uint8, names string) []ike.Proposal {
	t.Helper()
	p := ike.Proposal{Protocol: protocol}
next:
	for name := range strings.FieldsSeq(names) {
		for _, kind := range []uint8{ike.TransformENCR, ike.TransformPRF, ike.TransformINTEG, ike.TransformKE, ike.TransformESN} {
			// "+ml-kem-768" is an additional key exchange (RFC 9370).
			if add, ok := strings.CutPrefix(name, "+"); ok {
				name, kind = add, ike.TransformADDKE
			}
			if tr, ok := ike.TransformNamed(kind, name); ok && (name != "none" || kind == ike.TransformKE) {
				p.Transforms = append(p.Transforms, tr)
				continue next
			}
		}
		t.Fatalf("no transform is called %q", name)
	}
	return []ike.Proposal{p}
}

// withOld adds to proposals the groups that a policy has to name.
func withOld(list []ike.Proposal) []ike.Proposal {
	for i := range list {
		for _, name := range []string{"p-521", "modp-4096", "modp-3072", "modp-2048"} {
			tr, _ := ike.TransformNamed(ike.TransformKE, name)
			list[i].Transforms = append(list[i].Transforms, tr)
		}
	}
	return list
}

// swan writes proposals as strongSwan does.
func swan(list []ike.Proposal) string {
	if list == nil {
		return "default"
	}
	var all []string
	for _, p := range list {
		var names []string
		for _, tr := range p.Transforms {
			name := swanNames[tr.String()]
			if tr.Type >= ike.TransformADDKE {
				name = fmt.Sprintf("ke%d_%s", tr.Type-ike.TransformADDKE+1, name)
			}
			names = append(names, name)
		}
		all = append(all, strings.Join(names, "-"))
	}
	return strings.Join(all, ", ")
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// swanctl writes the peer's configuration.
func (r *row) swanctl(s *site) string {
	f := s.family(r.v6)
	remote := "%any"
	if s.oursSeen[f].IsValid() && r.call == "peer" {
		remote = s.oursSeen[f].String()
	}
	ts := fmt.Sprintf("local_ts = %s, %s\n      remote_ts = %s, %s", innerTheirs[0], innerTheirs[1], innerOurs[0], innerOurs[1])
	if r.mode == ike.Transport {
		ts = "mode = transport"
	}
	ts = or(r.ts, ts)
	return fmt.Sprintf(`connections {
  row {
    version = 2
    local_addrs = %s
    remote_addrs = %s
    proposals = %s
    %s
    local {
      %s
    }
    remote {
      %s
    }
    children {
      net {
        esp_proposals = %s
        %s
        %s
      }
    }
  }
}
secrets {
  %s
}
pools {
  %s
}
`, s.theirs[f], remote, or(r.theirsIKE, swan(r.proposals)), r.conn,
		or(r.local, "auth = psk\n      id = peer.example"), or(r.remote, "auth = psk\n      id = us.example"),
		or(r.theirsChild, swan(r.child)), ts, r.children, or(r.secrets, "ike-row {\n    secret = \""+secret+"\"\n  }"), r.pools)
}

// peer writes our configuration.
func (r *row) peer(s *site) *ike.Peer {
	f := s.family(r.v6)
	c := &ike.Child{Name: "net", Mode: r.mode, Proposals: r.child}
	if r.mode == ike.Tunnel {
		for i := range 2 {
			c.LocalTS = append(c.LocalTS, ike.SelectorOf(netip.PrefixFrom(innerOurs[i], innerOurs[i].BitLen())))
			c.RemoteTS = append(c.RemoteTS, ike.SelectorOf(netip.PrefixFrom(innerTheirs[i], innerTheirs[i].BitLen())))
		}
	}
	id, _ := ike.ParseIdentity("us.example")
	p := &ike.Peer{Name: "peer", LocalID: id, RemoteID: "peer.example", PSK: []byte(secret), Proposals: r.proposals, Children: []*ike.Child{c}}
	if r.call == "us" {
		p.Endpoint = netip.AddrPortFrom(s.theirsSeen[f], 500)
	}
	if r.ours != nil {
		r.ours(p, c)
	}
	return p
}

// begin configures both sides and lets whoever calls call.
func (r row) begin(t *testing.T, s *site) *play {
	t.Helper()
	clean(t, s)
	if r.suiteIKE != "" {
		r.proposals = proposal(t, ike.ProtoIKE, r.suiteIKE)
	}
	if r.suiteChild != "" {
		r.child = proposal(t, ike.ProtoESP, r.suiteChild)
	}
	if r.prepare != nil {
		r.prepare(t, s, &r)
	}
	p := &play{T: t, row: r, site: s}
	s.peer.Load(r.swanctl(s))
	p.us = newStation(t, s.host, ike.Config{Peers: []*ike.Peer{r.peer(s)}, EAP: eap.New, Retransmit: r.retransmit, Limits: r.limits}, append(s.more, s.ours[:]...)...)
	t.Cleanup(func() {
		if t.Failed() {
			p.dump()
		}
		p.us.with(func(now time.Time) ike.Output { return p.us.core.Terminate(now, "", "") })
		_, _ = s.peer.Try("--terminate", "--ike", "row", "--force", "--timeout", "1")
	})
	p.start = time.Now()
	if r.call == "us" {
		p.initiate()
		return p
	}
	out, err := s.peer.Try("--initiate", "--child", "net", "--timeout", "20")
	if err != nil && r.failure == ike.NoFailure {
		t.Fatalf("the peer's call failed: %v\n%s", err, out)
	}
	return p
}

// initiate has us call.
func (p *play) initiate() { p.initiateFrom(p.site.ours[p.site.family(p.row.v6)]) }

func (p *play) initiateFrom(a netip.Addr) {
	p.do(func(c *ike.Core, now time.Time) ike.Output {
		o, err := c.Initiate(now, ike.Call{Peer: "peer", Child: "net", Local: netip.AddrPortFrom(a, 0)})
		if err != nil {
			p.Error(err)
		}
		return o
	})
}

// run plays the whole row.
func (r row) run(t *testing.T, s *site) {
	p := r.begin(t, s)
	if r.failure != ike.NoFailure {
		p.eventually("our report of the failure", func() bool { return p.failure() != ike.NoFailure })
		if got := p.failure(); got != r.failure {
			t.Errorf("reported %v, want %v", got, r.failure)
		}
		if !slices.ContainsFunc(p.us.events(), func(e ike.Event) bool { return e.Failure == r.failure && strings.Contains(e.Detail, r.detail) }) {
			t.Errorf("no event says %q", r.detail)
		}
		p.eventually("the peer's report "+r.theirs, func() bool { return strings.Contains(s.peer.Log(), r.theirs) })
		return
	}
	p.eventually("a child", func() bool { return p.us.count(ike.ChildUp) == 1 })
	p.traffic()
	p.same()
	if r.after != nil && !t.Failed() {
		r.after(p)
	}
	for _, e := range p.us.events() {
		if e.Failure != ike.NoFailure && !r.silent {
			t.Errorf("reported %s", e)
		}
	}
}

// dump shows what both sides have to say.
func (p *play) dump() {
	for _, e := range p.us.events() {
		p.Logf("us: %s %s", e.Time.Sub(p.start).Round(time.Millisecond), e)
	}
	p.us.mu.Lock()
	p.Logf("us: opened %d packets", p.us.opened)
	for _, l := range p.us.lost {
		p.Logf("us: lost %s", l)
	}
	p.us.mu.Unlock()
	p.Logf("peer: %s", p.site.peer.Log())
}

// eventually waits for what must come.
func (p *play) eventually(what string, ok func() bool) {
	p.Helper()
	for end := time.Now().Add(lab.Patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	p.Fatalf("did not come: %s", what)
}

func (s *station) events() []ike.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]ike.Event(nil), s.log...)
}

func (s *station) count(kind ike.EventKind) (n int) {
	for _, e := range s.events() {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

func (p *play) failure() ike.Failure {
	for _, e := range p.us.events() {
		if e.Failure != ike.NoFailure {
			return e.Failure
		}
	}
	return ike.NoFailure
}

// ends are the addresses that talk through the child.
func (p *play) ends() (ours, theirs []netip.Addr) {
	if p.row.leased != "" {
		p.us.mu.Lock()
		st := p.us.core.Status()[0]
		p.us.mu.Unlock()
		if p.row.leased == "us" {
			return st.Assigned, innerTheirs[:]
		}
		return innerOurs[:], st.Leased
	}
	if p.row.mode == ike.Tunnel {
		return innerOurs[:], innerTheirs[:]
	}
	f := p.site.family(p.row.v6)
	return p.site.ours[f : f+1], p.site.theirsSeen[f : f+1]
}

// peerEnds are the same addresses as the peer has them: in transport mode a NAT
// is between them.
func (p *play) peerEnds() (theirs, ours []netip.Addr) {
	ours, theirs = p.ends()
	if p.row.mode == ike.Transport && p.row.leased == "" {
		f := p.site.family(p.row.v6)
		theirs = p.site.theirs[f : f+1]
		if p.site.mapped[f].IsValid() {
			ours = p.site.mapped[f : f+1]
		}
	}
	return theirs, ours
}

// traffic pings through the child from both sides: keys, modes and selectors
// are right, or nothing comes back.
func (p *play) traffic() {
	p.Helper()
	ours, theirs := p.ends()
	from, to := p.peerEnds()
	for i := range ours {
		a, b := ours[i], theirs[i]
		if !b.IsValid() {
			continue
		}
		// A datagram may be lost, so each is tried more than once.
		p.eventually(fmt.Sprintf("an answer to the peer's ping %s > %s", from[i], to[i]), func() bool {
			return p.site.peer.Ping(from[i], to[i]) == nil
		})
		spec := packet.Spec{Src: a, Dst: b, Protocol: packet.ICMP, ICMPType: 8, EchoID: 77, Payload: []byte("from us")}
		if a.Is6() {
			spec.Protocol, spec.ICMPType = packet.ICMPv6, 128
		}
		p.us.mu.Lock()
		p.us.sent++
		spec.EchoSeq = p.us.sent
		p.us.mu.Unlock()
		tries := 0
		p.eventually(fmt.Sprintf("an answer to our ping %s > %s", a, b), func() bool {
			p.us.mu.Lock()
			defer p.us.mu.Unlock()
			if tries%50 == 0 {
				p.us.seal("net", spec)
			}
			tries++
			return p.us.echo[spec.EchoSeq]
		})
	}
}

// same waits until both sides hold one IKE SA with one child, the same.
func (p *play) same() {
	p.Helper()
	var list string
	for end := time.Now().Add(lab.Patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		list = p.site.peer.Do("--list-sas", "--raw")
		p.us.mu.Lock()
		u := p.us.using["net"]
		n := 0
		for _, st := range p.us.core.Status() {
			// What a collision has made superfluous has no children, and goes.
			if len(st.Children) > 0 || !p.collided {
				n++
			}
		}
		p.us.mu.Unlock()
		if u != nil && n == 1 && strings.Count(list, "list-sa event {row {") == 1 && strings.Count(list, "state=INSTALLED") == 1 &&
			strings.Contains(list, fmt.Sprintf("spi-in=%08x spi-out=%08x", u.SPIOut, u.SPIIn)) {
			return
		}
	}
	p.Errorf("the two sides do not hold the same: peer has %s", list)
	for _, st := range p.us.core.Status() {
		p.Errorf("we have %+v", st)
	}
}

// gone waits until neither side has anything.
func (p *play) gone() {
	p.Helper()
	p.eventually("the end of everything", func() bool {
		p.us.mu.Lock()
		n := len(p.us.core.Status()) + len(p.us.pairs)
		p.us.mu.Unlock()
		return n == 0 && !strings.Contains(p.site.peer.Do("--list-sas", "--raw"), "list-sa event {row {")
	})
}
