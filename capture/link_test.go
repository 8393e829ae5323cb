package capture

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// ip4 and ip6 are whole datagrams: 28 bytes of UDP over IPv4, 48 over IPv6.
const (
	ip4 = "4500001c00010000401100007f0000017f000001" + "0035003500080000"
	ip6 = "600000000008114000000000000000000000000000000001" + "00000000000000000000000000000001" + "0035003500080000"
	mac = "020000000001020000000002"
)

// TestLinks has a row for each way to carry an IP packet: link type, header,
// packet, what follows it.
func TestLinks(t *testing.T) {
	for _, row := range []struct {
		name              string
		link              uint16
		head, ip, trailer string
		way               Way
	}{
		{"Ethernet", linkEthernet, mac + "0800", ip4, "", Unknown},
		{"Ethernet, padded to 60 bytes", linkEthernet, mac + "0800", ip4, strings.Repeat("00", 18), Unknown},
		{"Ethernet, IPv6 and a check sequence", linkEthernet, mac + "86dd", ip6, "deadbeef", Unknown},
		{"VLAN", linkEthernet, mac + "8100000a0800", ip4, "", Unknown},
		{"VLAN in VLAN", linkEthernet, mac + "88a8000a8100000b86dd", ip6, "", Unknown},
		{"LLC and SNAP", linkEthernet, mac + "0024aaaa030000000800", ip4, "", Unknown},
		{"MPLS, two labels", linkEthernet, mac + "88470001004000020140", ip4, "", Unknown},
		{"PPPoE on Ethernet", linkEthernet, mac + "886411000001001e0021", ip4, "", Unknown},
		{"raw", linkRaw, "", ip6, "", Unknown},
		{"raw, as BSD numbers it", linkRaw12, "", ip4, "", Unknown},
		{"raw, as OpenBSD numbers it", linkRaw14, "", ip4, "", Unknown},
		{"IPv4", linkIPv4, "", ip4, "", Unknown},
		{"IPv6", linkIPv6, "", ip6, "", Unknown},
		{"Null, little-endian", linkNull, "02000000", ip4, "", Unknown},
		{"Null, big-endian", linkNull, "0000001e", ip6, "", Unknown},
		{"Loop", linkLoop, "00000018", ip6, "", Unknown},
		{"SLL, to us", linkSLL, "0000000100060200000000010000" + "0800", ip4, "", Received},
		{"SLL, from us", linkSLL, "0004000100060200000000010000" + "86dd", ip6, "", Sent},
		{"SLL, VLAN, passing", linkSLL, "0003000100060200000000010000" + "8100" + "000a0800", ip4, "", Passing},
		{"SLL2, from us", linkSLL2, "0800" + "0000" + "00000002" + "0001" + "0406" + "0200000000010000", ip4, "", Sent},
		{"SLL2, multicast", linkSLL2, "86dd" + "0000" + "00000002" + "0001" + "0206" + "0200000000010000", ip6, "", Received},
		{"PPP", linkPPP, "ff030021", ip4, "", Unknown},
		{"PPP, compressed", linkPPP, "57", ip6, "", Unknown},
		{"PPP in HDLC", linkPPPHDLC, "ff030057", ip6, "", Unknown},
		{"PPP of pppd, sent", linkPPPD, "01030021", ip4, "", Sent},
		{"PPP of pppd, received", linkPPPD, "00030021", ip4, "", Received},
		{"PPPoE", linkPPPoE, "11000001001e0021", ip4, "", Unknown},
		{"Cisco HDLC", linkCHDLC, "0f000800", ip4, "", Unknown},
		{"NFLOG", linkNFLOG, "02000007" + "08000100" + "08000300" + "20000900", ip4, "", Unknown},
		// From here on gopacket finds the header.
		{"FDDI", 10, "50" + mac + "aaaa030000000800", ip4, "", Unknown},
		{"802.11 data", 105, "08000000" + mac + "0200000000030000" + "aaaa030000000800", ip4, "", Unknown},
		{"Radiotap and 802.11", 127, "0000080000000000" + "08000000" + mac + "0200000000030000" + "aaaa030000000800", ip4, "", Unknown},
	} {
		t.Run(row.name, func(t *testing.T) {
			ip := unhex(t, row.ip)
			frame := append(append(unhex(t, row.head), ip...), unhex(t, row.trailer)...)
			d, err := (&Frame{Data: frame, Len: len(frame), Link: row.link}).Datagram()
			if err != nil || !bytes.Equal(d.Bytes, ip) || d.Len != len(ip) || d.Way != row.way {
				t.Fatalf("got %x, %d bytes, way %d, %v", d.Bytes, d.Len, d.Way, err)
			}
			// Cut anywhere: an error, or a prefix of the same packet.
			for n := range frame {
				d, err := (&Frame{Data: frame[:n:n], Len: len(frame), Link: row.link}).Datagram()
				if err == nil && (!bytes.HasPrefix(ip, d.Bytes) || d.Len < len(d.Bytes)) {
					t.Fatalf("cut to %d bytes: got %x of %d bytes", n, d.Bytes, d.Len)
				}
			}
		})
	}
}

func TestNoDatagram(t *testing.T) {
	for _, row := range []struct {
		name string
		link uint16
		data string
		want error
	}{
		{"ARP", linkEthernet, mac + "0806" + "0001080006040001", ErrNotIP},
		{"spanning tree", linkEthernet, mac + "0026424203000000", ErrNotIP},
		{"EtherType says IPv4, version says 3", linkEthernet, mac + "0800" + "35", ErrNotIP},
		{"SNAP around a length", linkEthernet, mac + "0008" + "aaaa030000000008", ErrNotIP},
		{"PPP LCP", linkPPP, "ff03c021" + "0101", ErrNotIP},
		{"NFLOG without packet", linkNFLOG, "02000007" + "08000100" + "00000000", ErrHeaderCut},
		{"NFLOG with an endless attribute", linkNFLOG, "02000007" + "00000100" + "00000000", ErrNotIP},
		{"empty Ethernet", linkEthernet, "", ErrHeaderCut},
		{"empty raw", linkRaw, "", ErrHeaderCut},
		{"802.11 beacon", 105, "80000000" + mac + "0200000000030000" + "0000000000000000640001000000", ErrNotIP},
		{"no such link", 1234, "45", ErrLinkType},
		{"a link gopacket cannot read", 147, "45", ErrLinkType},
	} {
		data := unhex(t, row.data)
		_, err := (&Frame{Data: data, Len: len(data), Link: row.link}).Datagram()
		if !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
}

// TestLinkTwin compares with gopacket's decoders on random stacks of headers.
func TestLinkTwin(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		ip, typ := unhex(t, ip4), layers.EthernetTypeIPv4
		if rnd.IntN(2) == 0 {
			ip, typ = unhex(t, ip6), layers.EthernetTypeIPv6
		}
		var stack []gopacket.SerializableLayer
		tags := rnd.IntN(3)
		outer := typ
		if tags > 0 {
			outer = layers.EthernetTypeDot1Q
		}
		stack = append(stack, &layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: outer})
		for i := range tags {
			inner := typ
			if i < tags-1 {
				inner = layers.EthernetTypeDot1Q
			}
			stack = append(stack, &layers.Dot1Q{VLANIdentifier: uint16(rnd.IntN(4096)), Type: inner})
		}
		stack = append(stack, gopacket.Payload(ip))
		buf := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{}, stack...); err != nil {
			t.Fatal(err)
		}
		frame := buf.Bytes()
		got, err := (&Frame{Data: frame, Len: len(frame), Link: linkEthernet}).Datagram()
		want, werr := otherPayload(linkEthernet, frame)
		if err != nil || werr != nil || !bytes.Equal(got.Bytes, want[:len(got.Bytes)]) || !bytes.Equal(got.Bytes, ip) {
			t.Fatalf("%x: got %x, %v; gopacket %x, %v", frame, got.Bytes, err, want, werr)
		}
	}
}

// FuzzLink feeds any bytes as any kind of link, gopacket's included.
func FuzzLink(f *testing.F) {
	for _, link := range []uint16{0, 1, 9, 10, 50, 51, 101, 104, 105, 113, 117, 119, 127, 166, 220, 239, 276} {
		f.Add(link, []byte(mac+"\x08\x00\x45\x00\x00\x1c"))
	}
	f.Fuzz(func(t *testing.T, link uint16, data []byte) {
		d, err := (&Frame{Data: data, Len: len(data), Link: link}).Datagram()
		if err == nil && (len(d.Bytes) == 0 || d.Len < len(d.Bytes)) {
			t.Fatalf("%d bytes of %d", len(d.Bytes), d.Len)
		}
	})
}

func TestDatagramAllocatesNothing(t *testing.T) {
	frame := unhex(t, mac+"8100000a0800"+ip4)
	f := &Frame{Data: frame, Len: len(frame), Link: linkEthernet}
	if n := testing.AllocsPerRun(1000, func() { f.Datagram() }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
