package e2e

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// farSA is the SA by which the far host of a site seals, for a test that seals
// itself.
func (s *site) farSA(t *testing.T, m lab.Manual) *esp.SA {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Dir, "a-second.keys"))
	if err != nil {
		t.Fatal(err)
	}
	key := func(name string) esp.Key {
		for line := range strings.Lines(string(text)) {
			if k, v, _ := strings.Cut(line, " = "); k == name {
				b, err := hex.DecodeString(strings.TrimSpace(v))
				if err != nil {
					t.Fatal(err)
				}
				return esp.NewKey(b)
			}
		}
		return esp.Key{}
	}
	c := esp.Config{SPI: 0x1001, Direction: esp.Out, Mode: esp.Tunnel, Src: netip.MustParseAddr("192.0.2.2"), Dst: netip.MustParseAddr("192.0.2.1"),
		EncryptionKey: key("encryption_out"), IntegrityKey: key("integrity_out"), Manual: true}
	proto, cipher := esp.ESP, "aes-256-cbc"
	if m.Protocol == "ah" {
		proto, cipher = esp.AH, ""
	}
	if c.Suite, err = esp.NewSuite(proto, cipher, "hmac-sha2-256-128"); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(m.Extra, "udp") {
		c.Encap = esp.Encap{SrcPort: 4500, DstPort: 4500}
	}
	sa, err := esp.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

// listenUDP gives what comes to a UDP port of a host, until the test ends.
func listenUDP(t *testing.T, h *lab.Host, port int) <-chan []byte {
	t.Helper()
	var conn net.PacketConn
	if err := within(t, h, func() (err error) {
		conn, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	came := make(chan []byte, 64)
	go func() {
		for {
			b := make([]byte, 1<<16)
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			came <- b[:n]
		}
	}()
	return came
}

// Fragments that come in the clear never join fragments out of an SA: whoever
// sends them, and knows all that stands in their headers, neither gets a byte in
// nor has a datagram dropped, whether they come before, between or after the true
// ones. What is delivered is what was sealed.
func TestClearFragmentsNeverJoin(t *testing.T) {
	for _, row := range []struct {
		name string
		o    siteOptions
	}{
		{"ESP", siteOptions{}},
		{"ESP by the queue", siteOptions{starter: noBPF}},
		{"ESP in UDP", siteOptions{ipsec: lab.Manual{Extra: `  encapsulation = "udp"`}}},
		{"AH", siteOptions{ipsec: lab.Manual{Protocol: "ah"}}},
		{"narrow LAN", siteOptions{mtu: 1280, policy: `offload = "none"`}},
	} {
		t.Run(strings.ReplaceAll(row.name, " ", "-"), func(t *testing.T) {
			lab.Need(t, "setpriv")
			s := newSite(t, row.o)
			sa := s.farSA(t, row.o.ipsec)
			gw := macOf(s.gateway, "lan0")
			far := rawSocket(t, s.far, "lan0", macOf(s.far, "lan0"), gw)
			mallory := rawSocket(t, s.mallory, "lan0", macOf(s.mallory, "lan0"), gw)
			seal := func(b []byte) []byte {
				sealed, _, f := sa.Seal(nil, b, 0)
				if f != esp.OK {
					t.Fatal(f)
				}
				return sealed
			}
			id := uint32(4242)
			for _, v := range []struct {
				from, to string
				at       *lab.Host
			}{
				{"10.2.0.5", "192.0.2.1", s.gateway}, {"10.2.0.5", "198.51.100.77", s.lan},
				{"fd00:2::5", "2001:db8::1", s.gateway}, {"fd00:2::5", "fd00:1::77", s.lan},
			} {
				port := 9000 + int(id%1000)
				came := listenUDP(t, v.at, port)
				datagram := func(fill string) ([]byte, [][]byte) {
					payload := bytes.Repeat([]byte(fill), 3300/len(fill))
					b, err := packet.Build(packet.Spec{Src: netip.MustParseAddr(v.from), Dst: netip.MustParseAddr(v.to), Protocol: packet.UDP,
						SrcPort: 5000, DstPort: uint16(port), Payload: payload})
					if err != nil {
						t.Fatal(err)
					}
					if b[0]>>4 == 4 { // a checksum would only tell them apart
						b[26], b[27] = 0, 0
					}
					pieces, err := packet.Fragment(b, 1240, id)
					if err != nil || len(pieces) != 3 {
						t.Fatal(err, len(pieces))
					}
					return payload, pieces
				}
				// Neighbours are known before packets count.
				known := listenUDP(t, v.at, port+1000)
				whole, err := packet.Build(packet.Spec{Src: netip.MustParseAddr(v.from), Dst: netip.MustParseAddr(v.to), Protocol: packet.UDP,
					SrcPort: 5000, DstPort: uint16(port + 1000), Payload: []byte("first")})
				if err != nil {
					t.Fatal(err)
				}
				s.Eventually(waitLong, v.to+" hears", func() bool { far.send(t, seal(whole)); return len(known) > 0 })
				for evil := range 3 {
					for moment := range 4 { // before the first true piece, ..., after the last
						id++
						want, pieces := datagram("TRUE")
						_, forged := datagram("EVIL")
						for i := range 4 {
							if i == moment {
								mallory.send(t, forged[evil])
								time.Sleep(5 * time.Millisecond) // another wire
							}
							if i < 3 {
								far.send(t, seal(pieces[i]))
							}
						}
						expect(t, came, fmt.Sprintf("%s, forged piece %d at moment %d", v.to, evil, moment), want)
					}
				}
				select { // nor do the forged pieces that are left make anything
				case b := <-came:
					t.Errorf("%s: %d bytes more came: %.20q", v.to, len(b), b)
				case <-time.After(200 * time.Millisecond):
				}
			}
		})
	}
}

// expect waits for one datagram.
func expect(t *testing.T, came <-chan []byte, what string, want []byte) {
	t.Helper()
	select {
	case b := <-came:
		if !bytes.Equal(b, want) {
			t.Errorf("%s: %d bytes came that were not sent, %d of them forged", what, len(b), 4*bytes.Count(b, []byte("EVIL")))
		}
	case <-time.After(waitLong):
		t.Fatalf("%s: nothing came", what)
	}
}

// Long datagrams cross a tunnel between two ipfw in pieces, to the gateway itself
// and to a host of a narrow network behind it, and back.
func TestLongDatagramsThroughATunnel(t *testing.T) {
	t.Parallel()
	for _, extra := range []string{"", `  encapsulation = "udp"`} {
		t.Run(map[bool]string{true: "native", false: "udp"}[extra == ""], func(t *testing.T) {
			s := newSite(t, siteOptions{mtu: 1300, ipsec: lab.Manual{Extra: extra}, far: true})
			s.lan.Run("ip", "link", "set", "n0", "mtu", "1300")
			for _, to := range []string{"192.0.2.1", "198.51.100.77", "2001:db8::1", "fd00:1::77"} {
				from := "10.2.0.5"
				if strings.Contains(to, ":") {
					from = "fd00:2::5"
				}
				for _, size := range []string{"1400", "4000", "60000"} {
					if out, err := s.far.Try(waitLong, "ping", "-M", "dont", "-I", from, "-c", "2", "-i", "0.2", "-W", "3", "-s", size, to); err != nil || !strings.Contains(out, " 0% packet loss") {
						t.Errorf("%s bytes to %s:\n%s", size, to, out)
					}
				}
			}
			t.Log(s.g.Ask("status"))
		})
	}
}
