package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/host"
)

// protectReasons are the reasons for which protected traffic is discarded, in
// words, in the order in which an administrator should look at them.
var protectReasons = []struct{ name, words string }{
	{"clear-text", "came in the clear, and policy wants it sealed"},
	{"clear-error", "an ICMP error in the clear about traffic that policy wants sealed"},
	{"no-sa", "had to leave sealed, and there was no SA"},
	{"other-peer", "is of a flow with another peer behind the same NAT"},
	{"wrong-sa", "came out of an SA that policy does not name for it"},
	{"translated", "came out of an SA, and another program (NAT) has changed its destination since policy was asked"},
	{"unknown-sa", "came out of an SA, and is to be forwarded, and ipfw has not let it in"},
	{"turns-back", "came out of an SA, and would leave in the clear by the interface that it came by sealed; a rule may name it"},
	{"must-seal", "came out of an SA, and would leave in the clear where policy wants it sealed"},
	{"ipsec-unknown-spi", "no SA has its SPI and address: the peer has other keys, or this host has lost them"},
	{"ipsec-unauthentic", "wrong integrity value: altered on the way, forged, or another key"},
	{"ipsec-replay", "sequence number seen before"},
	{"ipsec-too-old", "sequence number left of the replay window"},
	{"ipsec-expired", "the SA has reached the end of its lifetime"},
	{"ipsec-sequence-exhausted", "the SA has no sequence number left"},
	{"ipsec-closed", "the SA has just ended"},
	{"ipsec-wrong-way", "the SA is for the other direction"},
	{"ipsec-no-sa", "no SA serves it"},
	{"too-big", "too long to seal in one piece; the sender was told"},
	{"ipsec-too-big", "longer than a datagram can be when sealed"},
	{"ipsec-no-room", "longer than ipfw has room for"},
	{"ipsec-fragment", "a fragment: only whole datagrams are sealed and opened"},
	{"ipsec-short", "too short for ESP or AH"},
	{"ipsec-malformed", "headers that do not hold together"},
	{"ipsec-bad-padding", "opened, and padded wrongly"},
	{"ipsec-bad-payload", "opened, and holds no packet of the SA's mode"},
	{"ipsec-bad-ecn", "congestion mark over a packet that cannot bear one"},
}

// isProtectReason says whether a reason is shown with the protected traffic.
func isProtectReason(name string) bool {
	for _, r := range protectReasons {
		if r.name == name {
			return true
		}
	}
	return false
}

// printProtected tells how the protected traffic does; nothing where there is
// none.
func (a *app) printProtected(s *host.Status) {
	t := textTable{right: " 1 "}
	for _, r := range protectReasons {
		if n := s.Reasons[r.name]; n > 0 {
			t.add(yellow, "  "+r.name, count(n), r.words)
		}
	}
	q := &s.Queue
	protects := s.SAs > 0 || q.Sealed+q.Opened+q.Unsent > 0 || len(t.rows) > 0
	for _, r := range s.Rules {
		protects = protects || r.Action == engine.Protect.String()
	}
	if !protects {
		return
	}
	sealed := plural(q.Sealed, "datagram") + " sealed"
	if q.Direct > 0 {
		sealed += " (" + count(q.Direct) + " took the shortcut)"
	}
	parts := []string{plural(uint64(s.SAs), "SA"), sealed, plural(q.Opened, "packet") + " opened"}
	if q.Unsent > 0 {
		parts = append(parts, a.paint(yellow, count(q.Unsent)+" lost because the kernel would not take them"))
	}
	a.printf("\nProtected traffic: %s\n", strings.Join(parts, ", "))
	a.printIKECounts(s.IKE)
	if len(t.rows) > 0 {
		a.printf("  discarded:\n")
		t.print(a, 0)
	}
}

// printIKECounts tells how the key exchange does, what has failed in yellow.
func (a *app) printIKECounts(k *host.IKEStatus) {
	if k == nil {
		return
	}
	parts := []string{plural(uint64(k.SAs), "IKE SA"), plural(uint64(k.Children), "pair") + " of SAs agreed on"}
	if k.HeldSent > 0 || k.Held > 0 {
		parts = append(parts, plural(k.HeldSent, "packet")+" sent after a wait for keys")
	}
	if k.Held > 0 {
		parts = append(parts, plural(uint64(k.Held), "packet")+" waiting")
	}
	if k.HeldLost > 0 {
		parts = append(parts, a.paint(yellow, count(k.HeldLost)+" waited in vain"))
	}
	if k.EarlyOpened > 0 {
		parts = append(parts, plural(k.EarlyOpened, "packet")+" came before their keys")
	}
	if k.EarlyLost > 0 {
		parts = append(parts, a.paint(yellow, count(k.EarlyLost)+" came before their keys and were lost"))
	}
	for _, f := range slices.Sorted(maps.Keys(k.Failures)) {
		if n := k.Failures[f]; n > 0 {
			parts = append(parts, a.paint(yellow, count(n)+" "+f))
		}
	}
	a.printf("Key exchange: %s\n", strings.Join(parts, ", "))
}
