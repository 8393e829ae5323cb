package peers

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/ike"
)

// libreswan 4.10, told of a connection by whack without a word on sequence numbers,
// leaves their length out of what it offers, and takes an answer only without it. A
// tunnel that it calls for comes up, carries, and is rekeyed from both sides.
func TestLibreswanWithoutESN(t *testing.T) {
	t.Parallel()
	if !chosen(t, 0, line("libreswan", "peer", "no length of sequence numbers")) {
		return
	}
	l := lab.New(t)
	guest, us := l.Guest("guest"), l.Host("us")
	guest.Join(us, "c0", []string{"10.77.0.2/24"}, []string{"10.77.0.1/24"})
	guest.Run("sh", "-c", "ip route add 10.1.0.0/16 dev vec0 via 10.77.0.2; ip addr add 10.2.0.1/32 dev lo")
	here, there := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")
	id, _ := ike.ParseIdentity("us.example")
	p := &play{T: t, start: time.Now(), us: newStation(t, us, ike.Config{Peers: []*ike.Peer{{Name: "peer", LocalID: id, RemoteID: "them.example", PSK: []byte(secret),
		Children: []*ike.Child{{Name: "net", LocalTS: []ike.TrafficSelector{ike.SelectorOf(netip.PrefixFrom(here, 32))}, RemoteTS: []ike.TrafficSelector{ike.SelectorOf(netip.PrefixFrom(there, 32))}}}}}},
		netip.MustParseAddr("10.77.0.2"))}
	pluto := guest.Pluto(lab.PlutoOld, lab.PlutoConfig{Secrets: "@them.example @us.example : PSK \"" + secret + "\"\n"})
	defer func() {
		if t.Failed() {
			for _, e := range p.us.events() {
				t.Logf("us: %s", e)
			}
			t.Log(pluto.Log())
		}
	}()
	for _, args := range []string{
		"--name w --ikev2 --psk --encrypt --tunnel --host 10.77.0.1 --id @them.example --client 10.2.0.1/32 --updown /bin/true --to --host 10.77.0.2 --id @us.example --client 10.1.0.1/32",
		"--initiate --name w",
	} {
		if out, err := pluto.Whack(strings.Fields(args)...); err != nil {
			t.Fatalf("whack %s: %v\n%s", args, err, out)
		}
	}
	p.eventually("a child", func() bool { return p.us.count(ike.ChildUp) == 1 })
	p.pings(guest, here, there)
	for _, by := range sides {
		before := p.us.count(ike.ChildRekeyed)
		if by == "us" {
			p.do(func(c *ike.Core, now time.Time) ike.Output { return c.Rekey(now, "peer", "net") })
		} else if out, err := pluto.RekeyChild("w"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		p.eventually("a rekey by "+by, func() bool { return p.us.count(ike.ChildRekeyed) > before })
		p.pings(guest, here, there)
	}
}
