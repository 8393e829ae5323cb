package host

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/rules"
	"golang.org/x/net/dns/dnsmessage"
)

// A name is asked for again when its answer expires, within bounds, keeps one of
// several addresses as long as it is among them, and keeps what it had when there
// is no answer, which is said once.
func TestNames(t *testing.T) {
	var told []string
	n := newNames(func(s string) { told = append(told, s) })
	var answer []netip.Addr
	var ttl time.Duration
	var fail error
	asked := 0
	n.lookup = func(_ context.Context, name string) ([]netip.Addr, time.Duration, error) {
		asked++
		return slices.Clone(answer), ttl, fail
	}
	n.want([]ikePeer{{block: &rules.IKE{Remote: []rules.Endpoint{{Name: "peer.example"}}}}})
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	now := time.Unix(1e9, 0)
	step := func(what string, wait time.Duration, want netip.Addr, changes bool, events int) {
		t.Helper()
		before := asked
		changed, next := n.resolve(t.Context(), now)
		if asked != before+1 || changed != changes || n.addr("peer.example") != want || next.Sub(now) != wait || len(told) != events {
			t.Errorf("%s: asked %d times, changed %v, %s, again in %s, told %q", what, asked-before, changed, n.addr("peer.example"), next.Sub(now), told)
		}
		if n.resolve(t.Context(), next.Add(-1)); asked != before+1 {
			t.Errorf("%s: asked again before its time", what)
		}
		now = next
	}
	answer, ttl = []netip.Addr{a}, 300*time.Second
	step("first", 300*time.Second, a, true, 0)
	answer = []netip.Addr{b, a}
	step("one of two stays", 300*time.Second, a, false, 0)
	answer, ttl = []netip.Addr{b}, time.Second
	step("it moves to the other family", ttlFloor, b, true, 1)
	ttl = 48 * time.Hour
	step("a record for two days", ttlCeiling, b, false, 1)
	answer, ttl = []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.1")}, 0
	step("nobody says how long", resolvePeriod, a, true, 2)
	fail = errors.New("no such host")
	step("no answer", resolveRetry, a, false, 3)
	step("no answer again", resolveRetry, a, false, 3)
	if !strings.Contains(told[2], "peer.example") || !strings.Contains(told[2], a.String()) || !strings.Contains(told[2], "no such host") {
		t.Errorf("%q", told[2])
	}
	fail = nil
	step("back", resolvePeriod, a, false, 4)
	n.want(nil)
	if changed, next := n.resolve(t.Context(), now); changed || !next.IsZero() {
		t.Error("a name is looked up that nobody needs")
	}
}

// dnsServer answers from a zone over UDP and TCP, which it asks for when an
// answer is truncated on purpose. It gives its address.
func dnsServer(t *testing.T, truncate bool, answer func(q dnsmessage.Question) []dnsmessage.Resource) string {
	t.Helper()
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", u.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close(); l.Close() })
	reply := func(b []byte, tcp bool) []byte {
		var m dnsmessage.Message
		if m.Unpack(b) != nil || len(m.Questions) != 1 {
			return nil
		}
		m.Response, m.Additionals = true, nil
		if m.Truncated = truncate && !tcp; !m.Truncated {
			m.Answers = answer(m.Questions[0])
		}
		out, err := m.Pack()
		if err != nil {
			return nil
		}
		return out
	}
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(reply(b[:n], false), from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 1500)
				n, err := c.Read(b)
				if err != nil || n < 2 {
					return
				}
				out := reply(b[2:n], true)
				_, _ = c.Write([]byte{byte(len(out) >> 8)}) // in pieces, as TCP may
				_, _ = c.Write(append([]byte{byte(len(out))}, out...))
			}()
		}
	}()
	return u.LocalAddr().String()
}

// What passes through the resolver's sockets says how long an answer holds: the
// shortest time of the addresses and the aliases on the way, of either family.
func TestTTLsAreHeard(t *testing.T) {
	for _, tcp := range []bool{false, true} {
		server := dnsServer(t, tcp, func(q dnsmessage.Question) []dnsmessage.Resource {
			alias := dnsmessage.MustNewName("real.example.")
			h := func(name dnsmessage.Name, typ dnsmessage.Type, ttl uint32) dnsmessage.ResourceHeader {
				return dnsmessage.ResourceHeader{Name: name, Type: typ, Class: dnsmessage.ClassINET, TTL: ttl}
			}
			list := []dnsmessage.Resource{{Header: h(q.Name, dnsmessage.TypeCNAME, 500), Body: &dnsmessage.CNAMEResource{CNAME: alias}}}
			if q.Type == dnsmessage.TypeAAAA {
				return append(list, dnsmessage.Resource{Header: h(alias, q.Type, 70), Body: &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::7").As16()}})
			}
			return append(list, dnsmessage.Resource{Header: h(alias, q.Type, 900), Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 7}}})
		})
		var heard ttls
		r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return heard.dial(ctx, network, server)
		}}
		list, err := r.LookupNetIP(t.Context(), "ip", "peer.example.")
		if err != nil || len(list) != 2 || heard.least() != 70*time.Second {
			t.Errorf("by TCP %v: %v, %v, for %s", tcp, list, err, heard.least())
		}
	}
}

// Rubbish in an answer is not taken for one.
func FuzzHear(f *testing.F) {
	f.Add([]byte{0, 1, 0x81, 0x80, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		var h ttls
		h.hear(b)
		if !h.some && h.min != 0 {
			t.Error("a time from nowhere")
		}
	})
}
