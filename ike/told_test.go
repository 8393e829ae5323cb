package ike

import (
	"crypto/x509"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/packet"
)

// sel makes a selector of a range, or of a prefix.
func sel(addrs string, protocol uint8, first, last uint16) TrafficSelector {
	a, b, ok := strings.Cut(addrs, "-")
	t := TrafficSelector{Protocol: protocol, FirstPort: first, LastPort: last}
	if ok {
		t.First, t.Last = netip.MustParseAddr(a), netip.MustParseAddr(b)
		return t
	}
	p := netip.MustParsePrefix(a)
	t.First, t.Last = p.Addr(), lastOf(p)
	return t
}

// Selectors are printed as a policy writes them.
func TestSelectorTexts(t *testing.T) {
	for want, x := range map[string]TrafficSelector{
		"192.0.2.1":                                 sel("192.0.2.1/32", 0, 0, 65535),
		"10.1.0.0/16":                               sel("10.1.0.0/16", 0, 0, 65535),
		"0.0.0.0/0 tcp port 445":                    sel("0.0.0.0/0", packet.TCP, 445, 445),
		"fd00::/64 udp ports 80-90":                 sel("fd00::/64", packet.UDP, 80, 90),
		"10.0.0.1-10.0.0.9 tcp":                     sel("10.0.0.1-10.0.0.9", packet.TCP, 0, 65535),
		"2001:db8::1 ipv6-icmp echo-request":        sel("2001:db8::1/128", packet.ICMPv6, 128<<8, 128<<8),
		"192.0.2.1 icmp echo-request, any code":     sel("192.0.2.1/32", packet.ICMP, 8<<8, 8<<8|255),
		"192.0.2.1 icmp types and codes 0/0 to 8/1": sel("192.0.2.1/32", packet.ICMP, 0, 8<<8|1),
		"192.0.2.1 udp without ports (OPAQUE)":      sel("192.0.2.1/32", packet.UDP, 65535, 0),
		"192.0.2.1 port 7":                          sel("192.0.2.1/32", 0, 7, 7),
	} {
		if got := x.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	one, two := sel("192.0.2.1/32", 0, 0, 65535), sel("10.0.0.0/8", packet.TCP, 0, 65535)
	for want, sides := range map[string][2][]TrafficSelector{
		"192.0.2.1 <-> 10.0.0.0/8 tcp":              {{one}, {two}},
		"192.0.2.1 <-> (192.0.2.1, 10.0.0.0/8 tcp)": {{one}, {one, two}},
		"nothing <-> 192.0.2.1":                     {nil, {one}},
		"192.0.2.1 <-> 192.0.2.1":                   {{one, sel("192.0.2.1/32", packet.TCP, 5, 5)}, {one}},
	} {
		if got := sidesText(sides[0], sides[1]); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// What two rules differ by is named by the arguments that a rule has.
func TestDiffering(t *testing.T) {
	all := sel("0.0.0.0/0", 0, 0, 65535)
	smb := sel("192.0.2.1/32", packet.TCP, 445, 445)
	list := func(l ...TrafficSelector) []TrafficSelector { return l }
	for _, row := range []struct {
		want                                   string
		local, remote, theirLocal, theirRemote []TrafficSelector
	}{
		{"local_port", list(smb), list(all), list(sel("192.0.2.1/32", packet.TCP, 446, 446)), list(all)},
		{"remote_port", list(all), list(smb), list(all), list(sel("192.0.0.0/16", packet.TCP, 1, 444))},
		{"protocol", list(smb), list(all), list(sel("192.0.2.0/24", packet.UDP, 445, 445)), list(all)},
		{"local_address", list(smb), list(all), list(sel("192.0.2.2/32", packet.UDP, 1, 1)), list(all)},
		{"local_address, remote_address", list(smb), list(smb), list(sel("192.0.2.2/32", 0, 0, 65535)), list(sel("fd00::/64", 0, 0, 65535))},
		{allSelectors, list(all), list(all), list(all), list(all)},
	} {
		if got := differing(row.local, row.remote, row.theirLocal, row.theirRemote); got != row.want {
			t.Errorf("%v %v, %v %v: %q, want %q", row.local, row.remote, row.theirLocal, row.theirRemote, got, row.want)
		}
	}
}

// Key exchanges are written as a policy names them, also where several are offered.
func TestAddedExchangeTexts(t *testing.T) {
	list := append(transforms(TransformKE, KEX25519, KEP256), Transform{Type: TransformPRF, ID: PRFSHA256})
	for want, add := range map[string][]Transform{
		"x25519|p-256,prf-hmac-sha2-256":                           nil,
		"(x25519|p-256)+ml-kem-768,prf-hmac-sha2-256":              {{Type: TransformADDKE, ID: KEMLKEM768}},
		"(x25519|p-256)+(ml-kem-768|none)+p-384,prf-hmac-sha2-256": {{Type: TransformADDKE, ID: KEMLKEM768}, {Type: TransformADDKE}, {Type: TransformADDKE + 1, ID: KEP384}},
	} {
		p := Proposal{Protocol: ProtoIKE, Transforms: append(list[:3:3], add...)}
		if got := p.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	p := Proposal{Transforms: []Transform{{Type: TransformADDKE, ID: KEMLKEM768}, {Type: TransformPRF, ID: PRFSHA256}}}
	if got := p.String(); !strings.Contains(got, "ml-kem-768") {
		t.Errorf("what is added to nothing is lost: %q", got)
	}
}

// first gives the first failure that a node has told.
func (n *node) first() Event {
	for _, e := range n.log {
		if e.Kind == Failed {
			return e
		}
	}
	return Event{}
}

// Both sides of an exchange that fails are told the argument that is at fault, or all
// that may be, and who knows more.
func TestWhoIsTold(t *testing.T) {
	type told struct {
		failure Failure
		setting string
		texts   []string // in Detail, Ours or Theirs
	}
	there := func(n string) string { return "the reason is in the events of 192.0.2." + n }
	ports := func(port uint16) []TrafficSelector {
		return []TrafficSelector{sel("192.0.2.0/24", packet.TCP, port, port)}
	}
	tcp := []TrafficSelector{sel("192.0.2.0/24", packet.TCP, 0, 65535)}
	for name, row := range map[string]struct {
		change func(t *testing.T, ca *pki, a, b *Peer) // a calls
		a, b   told
	}{
		"the caller asks for somebody else": {func(_ *testing.T, _ *pki, a, _ *Peer) { a.RemoteID = "c.example" },
			told{WrongKeyByPeer, "remote_id, local_id, psk_file", []string{"we are a.example, and have asked for c.example", there("2")}},
			told{WrongIdentity, "local_id", []string{"asks for c.example, we are b.example"}}},
		"the callee expects somebody else": {func(_ *testing.T, _ *pki, _, b *Peer) { b.RemoteID = "c.example" },
			told{WrongKeyByPeer, "remote_id, local_id, psk_file", []string{"we are a.example", there("2")}},
			told{UnknownPeer, "remote_id", []string{"a.example"}}},
		"whoever answers will do": {func(_ *testing.T, _ *pki, a, b *Peer) {
			a.RemoteID, b.PSK = "*.example", []byte("another pre-shared key of some length")
		},
			told{WrongKeyByPeer, "local_id, psk_file", []string{"we are a.example", there("2")}},
			told{WrongKey, "psk_file", []string{"the pre-shared keys differ"}}},
		"the caller's certificate has ended": {func(t *testing.T, ca *pki, a, b *Peer) {
			withCerts(t, ca, a, b, "ecdsa")
			endingCert(t, ca, a, simStart.Add(time.Minute))
		},
			told{WrongKeyByPeer, "certificate", []string{"our own certificate has ended on 2026-01-01 00:01:00 UTC"}},
			told{BadCertificate, "", []string{"expired", "it is the peer's to renew"}}},
		"the callee's certificate has ended": {func(t *testing.T, ca *pki, a, b *Peer) {
			withCerts(t, ca, a, b, "ecdsa")
			endingCert(t, ca, b, simStart.Add(time.Minute))
		},
			told{BadCertificate, "", []string{"expired", "it is the peer's to renew"}},
			told{WrongKeyByPeer, "certificate", []string{"our own certificate has ended"}}},
		"another CA": {func(t *testing.T, ca *pki, a, b *Peer) {
			withCerts(t, ca, a, b, "ecdsa")
			b.CAs = []*x509.Certificate{newNamedPKI(t, "Other CA").cert, newNamedPKI(t, "Third CA").cert}
		},
			told{WrongKeyByPeer, "remote_id, local_id, certificate", []string{there("2")}},
			told{BadCertificate, "ca", []string{"it is signed by CN=test CA", "(key identifier ", ", and we trust CN=Other CA (SHA-256 fingerprint ", ", CN=Third CA (SHA-256", "add the peer's CA to ca"}}},
		"the caller trusts another CA": {func(t *testing.T, ca *pki, a, b *Peer) {
			withCerts(t, ca, a, b, "ecdsa")
			a.CAs = []*x509.Certificate{newNamedPKI(t, "Other CA").cert}
		},
			told{BadCertificate, "ca", []string{"it is signed by CN=test CA", "we trust CN=Other CA"}},
			told{WrongKeyByPeer, "local_id, certificate", []string{"the caller has given the IKE SA up at once: it was told of as up", there("1")}}},
		"another CA of the same name": {func(t *testing.T, ca *pki, a, b *Peer) {
			withCerts(t, ca, a, b, "ecdsa")
			b.CAs = []*x509.Certificate{newPKI(t).cert}
		},
			told{WrongKeyByPeer, "remote_id, local_id, certificate", []string{there("2")}},
			told{BadCertificate, "ca", []string{"it is signed by CN=test CA", "a CA of that name with another key than ours", "we trust CN=test CA"}}},
		"ports": {func(_ *testing.T, _ *pki, a, b *Peer) {
			a.Children[0].Mode, b.Children[0].Mode = Transport, Transport
			a.Children[0].LocalTS, a.Children[0].RemoteTS = ports(445), tcp
			b.Children[0].RemoteTS, b.Children[0].LocalTS = ports(446), tcp
		},
			told{NoSelectors, allSelectors, []string{"192.0.2.1 tcp port 445 <-> 192.0.2.2 tcp", "TS_UNACCEPTABLE", there("2")}},
			told{NoSelectors, "remote_port", []string{"192.0.2.2 tcp <-> 192.0.2.1 tcp port 446", "192.0.2.2 tcp <-> 192.0.2.1 tcp port 445"}}},
		"a rule that is not for the caller": {func(_ *testing.T, _ *pki, a, b *Peer) {
			a.Children[0].Mode, b.Children[0].Mode = Transport, Transport
			b.Children[0].RemoteTS = []TrafficSelector{sel("192.0.2.77/32", 0, 0, 65535)}
		},
			told{NoSelectors, allSelectors, []string{there("2")}},
			told{NoSelectors, "remote_address", []string{"192.0.2.2 <-> 192.0.2.77"}}},
		"mode": {func(_ *testing.T, _ *pki, a, _ *Peer) { a.Children[0].Mode = Transport },
			told{WrongMode, "mode", []string{"transport", "tunnel"}},
			told{RefusedByPeer, "mode", []string{"given the SAs up at once", "perhaps mode differs", there("1")}}},
		"mode, a tunnel of the caller": {func(_ *testing.T, _ *pki, _, b *Peer) { b.Children[0].Mode = Transport },
			told{NoProposal, "proposals, mode", []string{"or the peer wants transport mode, not a tunnel", there("2")}},
			told{WrongMode, "mode", []string{"transport", "tunnel"}}},
		"a certificate with a pre-shared key": {func(t *testing.T, ca *pki, a, b *Peer) {
			plain := *b
			withCerts(t, ca, a, b, "ecdsa")
			*b = plain
		},
			told{WrongKeyByPeer, "remote_id, local_id, certificate", []string{there("2")}},
			told{WrongMethod, "psk_file, ca, public_keys", []string{"the peer signs"}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, 5)
			pa, pb := pskPeers()
			row.change(t, newPKI(t), pa, pb)
			a, b := s.twoNodes(pa, pb)
			s.run(2 * time.Minute)
			s.call(a, "b", "net")
			s.run(5 * time.Second)
			for _, x := range []struct {
				n    *node
				want told
			}{{a, row.a}, {b, row.b}} {
				e := x.n.first()
				if e.Failure != x.want.failure || e.Setting != x.want.setting {
					t.Errorf("%s is told %s, want %s and to look at %q", x.n.name, e, x.want.failure, x.want.setting)
				}
				for _, text := range x.want.texts {
					if !strings.Contains(e.Detail+"; "+e.Ours+"; "+e.Theirs, text) {
						t.Errorf("%s is told %s, want %q in it", x.n.name, e, text)
					}
				}
			}
		})
	}
}

// A peer whose policy changes so that an SA ends: what came up goes down, in the
// events too.
func TestEndIsTold(t *testing.T) {
	for name, change := range map[string]func(*Peer){
		"another child": func(b *Peer) { b.Children[0].LocalTS = []TrafficSelector{sel("10.9.0.0/16", 0, 0, 65535)} },
		"another peer":  func(b *Peer) { b.PSK = []byte("another pre-shared key of some length") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, 6)
			pa, pb := pskPeers()
			a, b := s.twoNodes(pa, pb)
			s.call(a, "b", "net")
			s.run(time.Minute)
			if a.has(ChildUp) != 1 {
				t.Fatal("it did not come up")
			}
			_, next := pskPeers()
			change(next)
			o, err := b.Update(s.now, []*Peer{next})
			if err != nil {
				t.Fatal(err)
			}
			s.take(b, o)
			s.run(10 * time.Second)
			if a.has(ChildDown)+a.has(IKEDown) == 0 {
				s.dump()
				t.Error("nobody is told that it is down")
			}
		})
	}
}
