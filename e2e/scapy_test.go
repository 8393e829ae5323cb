package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// peerSuites are all suites that SAs can have: every encryption algorithm with
// every integrity algorithm that fits it, and AH with each.
func peerSuites(t *testing.T) (list []esp.Suite) {
	t.Helper()
	var enc, mac []esp.Algorithm
	for _, a := range esp.Algorithms() {
		if a.Type == esp.Encryption {
			enc = append(enc, a)
		} else {
			mac = append(mac, a)
		}
	}
	for _, e := range append(enc, esp.Algorithm{}) {
		for _, i := range append(mac, esp.Algorithm{}) {
			for _, p := range []esp.Protocol{esp.ESP, esp.AH} {
				if s, err := esp.SuiteOf(p, e, i); err == nil {
					list = append(list, s)
				}
			}
		}
	}
	if len(list) < 30 {
		t.Fatalf("only %d suites: the table of algorithms was misread", len(list))
	}
	return list
}

// peerKeys are key material of the suite, cut in two; no two bytes of it alike
// by accident.
func peerKeys(s esp.Suite, seed byte) (enc, mac []byte) {
	m := make([]byte, s.KeyMaterial())
	for i := range m {
		m[i] = seed + byte(i*31)
	}
	n := s.Encryption.KeyMaterial()
	return m[:n], m[n:]
}

// peerShape is what SAs differ in besides their suite.
type peerShape struct {
	mode   esp.Mode
	inner6 bool // the protected packet is IPv6
	outer6 bool // the tunnel's addresses are IPv6; in transport mode as inner6
	esn    bool
	udp    bool
}

func (s peerShape) String() string {
	family := map[bool]string{false: "v4", true: "v6"}
	name := s.mode.String() + "-" + family[s.inner6]
	if s.mode == esp.Tunnel {
		name += "-in-" + family[s.outer6]
	}
	if s.esn {
		name += "-esn"
	}
	if s.udp {
		name += "-udp"
	}
	return name
}

// peerShapes gives every shape.
func peerShapes() (list []peerShape) {
	for i := range 32 {
		bit := func(n int) bool { return i>>n&1 == 1 }
		s := peerShape{esp.Transport, bit(0), bit(0), bit(1), bit(2)}
		if bit(3) {
			s.mode, s.outer6 = esp.Tunnel, bit(4)
		} else if bit(4) {
			continue
		}
		list = append(list, s)
	}
	return list
}

// config makes the configuration of one SA of the shape; the caller sets the
// direction.
func (s peerShape) config(suite esp.Suite, enc, mac []byte) esp.Config {
	c := esp.Config{SPI: 0x12345678, Mode: s.mode, Suite: suite, ESN: s.esn,
		EncryptionKey: esp.NewKey(enc), IntegrityKey: esp.NewKey(mac),
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2")}
	if s.outer6 {
		c.Src, c.Dst = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	}
	if s.udp {
		c.Encap = esp.Encap{SrcPort: 4500, DstPort: 4500}
	}
	return c
}

// packet builds what the SA protects: size bytes of payload in UDP.
func (s peerShape) packet(t *testing.T, c *esp.Config, size int) []byte {
	t.Helper()
	spec := packet.Spec{Src: c.Src, Dst: c.Dst, Protocol: packet.UDP, SrcPort: 40000, DstPort: 7, Payload: make([]byte, size)}
	if s.mode == esp.Tunnel {
		spec.Src, spec.Dst = netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("10.2.0.9")
		if s.inner6 {
			spec.Src, spec.Dst = netip.MustParseAddr("2001:db8:a::5"), netip.MustParseAddr("2001:db8:b::9")
		}
	}
	for i := range spec.Payload {
		spec.Payload[i] = byte(i * 7)
	}
	b, err := packet.Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// peerSA makes one SA of the configuration.
func peerSA(t *testing.T, c esp.Config, d esp.Direction) *esp.SA {
	t.Helper()
	c.Direction = d
	sa, err := esp.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

// scapyLacks says why scapy cannot do a combination, "" if it can.
func scapyLacks(s esp.Suite, shape peerShape) string {
	switch {
	case s.Protocol == esp.ESP && scapyNames[s.Encryption.Name] == "",
		!s.Encryption.Combined() && scapyNames[s.Integrity.Name] == "":
		return "it has no AES-GMAC"
	case shape.esn && s.Protocol == esp.ESP && !s.Encryption.Combined():
		return "in ESP it has extended sequence numbers for combined algorithms only"
	}
	return ""
}

// TestScapy seals with esp and opens with scapy, and the other way round, in
// every suite, mode, family, with and without extended sequence numbers and
// UDP encapsulation; and both refuse what was altered on the way.
func TestScapy(t *testing.T) {
	t.Parallel()
	peer := startScapy(t)
	rows, lacking := 0, map[string]int{}
	for _, suite := range peerSuites(t) {
		t.Run(fmt.Sprintf("%s/%s", suite.Protocol, suite), func(t *testing.T) {
			for _, shape := range peerShapes() {
				if shape.udp && suite.Protocol == esp.AH {
					continue // RFC 3948 is for ESP
				}
				if why := scapyLacks(suite, shape); why != "" {
					lacking[why]++
					continue
				}
				rows++
				t.Run(shape.String(), func(t *testing.T) { scapyRow(t, peer, suite, shape) })
			}
		})
	}
	t.Logf("%d combinations of suite, mode, family, ESN and UDP, both ways", rows)
	for why, n := range lacking {
		t.Logf("%d combinations not tried with scapy: %s", n, why)
	}
	if rows < 300 {
		t.Errorf("only %d combinations tried", rows)
	}
}

func scapyRow(t *testing.T, peer *scapyPeer, suite esp.Suite, shape peerShape) {
	enc, mac := peerKeys(suite, 0x51)
	c := shape.config(suite, enc, mac)
	out, in, theirs := peerSA(t, c, esp.Out), peerSA(t, c, esp.In), scapyOf(&c, enc, mac)

	for i, size := range []int{0, 1, 13, 64, 1357} {
		clear := shape.packet(t, &c, size)
		if i%2 == 1 && clear[0]>>4 == 4 {
			setID(clear, 0x1d00+uint16(i))
		}

		sealed, _, f := out.Seal(nil, clear, 0)
		if f != esp.OK {
			t.Fatalf("%d bytes: seal: %v", size, f)
		}
		opened, err := peer.ask(t, "open", theirs, sealed)
		if err != nil {
			t.Fatalf("%d bytes: scapy does not open ours: %v\n%x", size, err, sealed)
		}
		if want := identified(t, &c, clear, opened); !bytes.Equal(opened, want) {
			t.Fatalf("%d bytes: scapy opened ours to\n%x, want\n%x", size, opened, want)
		}

		theirs.Seq = uint32(i + 1)
		sealed, err = peer.ask(t, "seal", theirs, clear)
		if err != nil {
			t.Fatalf("%d bytes: scapy does not seal: %v", size, err)
		}
		altered := bytes.Clone(sealed)
		altered[len(altered)-1-i] ^= 0x40
		if _, _, f := in.Open(altered, 0); f != esp.Unauthentic {
			t.Fatalf("%d bytes: esp opened scapy's altered packet: %v", size, f)
		}
		again := bytes.Clone(sealed)
		opened, _, f = in.Open(sealed, 0)
		if f != esp.OK {
			t.Fatalf("%d bytes: esp does not open scapy's: %v\n%x", size, f, again)
		}
		if !bytes.Equal(opened, clear) {
			t.Fatalf("%d bytes: esp opened scapy's to\n%x, want\n%x", size, opened, clear)
		}
		if _, _, f := in.Open(again, 0); f != esp.Replay {
			t.Fatalf("%d bytes: esp opened scapy's packet twice: %v", size, f)
		}
	}

	sealed, _, f := out.Seal(nil, shape.packet(t, &c, 100), 0)
	if f != esp.OK {
		t.Fatal(f)
	}
	sealed[len(sealed)-1] ^= 0x40
	if _, err := peer.ask(t, "open", theirs, sealed); err == nil {
		t.Fatal("scapy opened an altered packet of ours: it does not check what this test relies on")
	}
}

// identified is clear as the far end of c sees it. Nothing of it changes, with
// one exception: AH in transport mode covers the identification of IPv4, which
// a raw socket would put into a header that has none, so ours does it first.
// Which one it took is read from opened; all else must be as it was.
func identified(t *testing.T, c *esp.Config, clear, opened []byte) []byte {
	t.Helper()
	if c.Suite.Protocol != esp.AH || c.Mode != esp.Transport || clear[0]>>4 != 4 || binary.BigEndian.Uint16(clear[4:]) != 0 {
		return clear
	}
	if len(opened) < 20 {
		t.Fatalf("opened to %x", opened)
	}
	id := binary.BigEndian.Uint16(opened[4:])
	if id == 0 {
		t.Error("AH over an IPv4 header without identification")
	}
	want := bytes.Clone(clear)
	setID(want, id)
	return want
}

// setID gives a plain IPv4 header an identification.
func setID(b []byte, id uint16) {
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[10:], 0)
	binary.BigEndian.PutUint16(b[10:], packet.Checksum(b[:20], 0))
}
