package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// seen is a Frame that may be kept.
type seen struct {
	data  string
	wire  int
	time  int64
	link  uint16
	iface string
	way   Way
}

func readAll(t testing.TB, file []byte) ([]seen, error) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	var out []seen
	for f := new(Frame); ; {
		if err := r.Next(f); err == io.EOF {
			return out, nil
		} else if err != nil {
			return out, err
		}
		out = append(out, seen{string(f.Data), f.Len, f.Time, f.Link, f.Interface, f.Way})
	}
}

// randomFrames are frames of all lengths, some cut short by the capture.
func randomFrames(n int) ([][]byte, []gopacket.CaptureInfo) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var data [][]byte
	var infos []gopacket.CaptureInfo
	for i := range n {
		b := make([]byte, rnd.IntN(3000))
		for j := range b {
			b[j] = byte(rnd.Uint32())
		}
		data = append(data, b)
		infos = append(infos, gopacket.CaptureInfo{
			Timestamp:     time.Unix(1700000000+int64(i), rnd.Int64N(1e9)).UTC(),
			CaptureLength: len(b), Length: len(b) + rnd.IntN(2)*rnd.IntN(60000),
		})
	}
	return data, infos
}

// TestTwin writes with pcapgo and wants back what was written.
func TestTwin(t *testing.T) {
	data, infos := randomFrames(2000)
	for _, format := range []string{"pcap", "pcap-nano", "pcapng"} {
		for _, packed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s gzip=%v", format, packed), func(t *testing.T) {
				var file bytes.Buffer
				unit, iface := time.Microsecond, ""
				switch format {
				case "pcapng":
					unit, iface = time.Nanosecond, "wan0"
					in := pcapgo.DefaultNgInterface
					in.Name, in.LinkType, in.SnapLength = iface, layers.LinkTypeRaw, 0
					w, err := pcapgo.NewNgWriterInterface(&file, in, pcapgo.DefaultNgWriterOptions)
					if err != nil {
						t.Fatal(err)
					}
					for i := range data {
						if err := w.WritePacket(infos[i], data[i]); err != nil {
							t.Fatal(err)
						}
					}
					w.Flush()
				default:
					w := pcapgo.NewWriter(&file)
					if format == "pcap-nano" {
						w, unit = pcapgo.NewWriterNanos(&file), time.Nanosecond
					}
					w.WriteFileHeader(65535, layers.LinkTypeRaw)
					for i := range data {
						if err := w.WritePacket(infos[i], data[i]); err != nil {
							t.Fatal(err)
						}
					}
				}
				raw := file.Bytes()
				if packed {
					raw = zip(raw)
				}
				got, err := readAll(t, raw)
				if err != nil || len(got) != len(data) {
					t.Fatalf("%d frames of %d, error %v", len(got), len(data), err)
				}
				for i, g := range got {
					want := seen{string(data[i]), infos[i].Length, infos[i].Timestamp.Truncate(unit).UnixNano(), linkRaw, iface, Unknown}
					if g != want {
						t.Fatalf("frame %d: wire %d time %d link %d %q, want wire %d time %d link %d %q; data equal: %v", i,
							g.wire, g.time, g.link, g.iface, want.wire, want.time, want.link, want.iface, g.data == want.data)
					}
				}
			})
		}
	}
}

func zip(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

// pcapFile writes a pcap by hand.
func pcapFile(order binary.AppendByteOrder, magic uint32, link uint32, frames ...[]byte) []byte {
	b := order.AppendUint32(nil, magic)
	b = order.AppendUint16(order.AppendUint16(b, 2), 4)
	b = append(b, make([]byte, 8)...)
	b = order.AppendUint32(order.AppendUint32(b, 65535), link)
	for i, f := range frames {
		b = order.AppendUint32(order.AppendUint32(b, uint32(i+1)), 5)
		b = order.AppendUint32(order.AppendUint32(b, uint32(len(f))), uint32(len(f)+100))
		b = append(b, f...)
	}
	return b
}

// block writes one pcapng block around a body of whole words.
func block(order binary.AppendByteOrder, typ uint32, body []byte) []byte {
	n := uint32(len(body) + 12)
	b := order.AppendUint32(order.AppendUint32(nil, typ), n)
	return order.AppendUint32(append(b, body...), n)
}

func sectionBlock(order binary.AppendByteOrder) []byte {
	body := order.AppendUint32(nil, orderMagic)
	body = order.AppendUint16(order.AppendUint16(body, 1), 0)
	return block(order, blockSection, append(body, 255, 255, 255, 255, 255, 255, 255, 255))
}

func interfaceBlock(order binary.AppendByteOrder, link uint16, snap uint32, opts ...byte) []byte {
	body := order.AppendUint16(order.AppendUint16(nil, link), 0)
	return block(order, blockInterface, append(order.AppendUint32(body, snap), opts...))
}

func enhancedBlock(order binary.AppendByteOrder, id uint32, stamp uint64, data []byte, flags uint32) []byte {
	body := order.AppendUint32(nil, id)
	body = order.AppendUint32(order.AppendUint32(body, uint32(stamp>>32)), uint32(stamp))
	body = order.AppendUint32(order.AppendUint32(body, uint32(len(data))), uint32(len(data)))
	body = append(body, data...)
	body = append(body, make([]byte, -len(data)&3)...)
	if flags != 0 {
		body = order.AppendUint16(order.AppendUint16(body, optFlags), 4)
		body = append(order.AppendUint32(body, flags), 0, 0, 0, 0)
	}
	return block(order, blockEnhanced, body)
}

func TestByHand(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	abc := []byte("abcde")
	for _, row := range []struct {
		name string
		file []byte
		want []seen
	}{
		{"pcap, big-endian", pcapFile(be, magicMicro, linkSLL2, abc), []seen{{"abcde", 105, 1000005000, linkSLL2, "", Unknown}}},
		{"pcap, little-endian nanoseconds", pcapFile(le, magicNano, linkSLL2, abc, nil), []seen{{"abcde", 105, 1000000005, linkSLL2, "", Unknown}, {"", 100, 2000000005, linkSLL2, "", Unknown}}},
		{"pcap, check sequence bits above the link type", pcapFile(le, magicMicro, 0x24000001, abc), []seen{{"abcde", 105, 1000005000, linkEthernet, "", Unknown}}},
		{"pcapng, both byte orders in turn, each with its interfaces", join(
			sectionBlock(le), interfaceBlock(le, linkEthernet, 0), enhancedBlock(le, 0, 7, abc, 0),
			sectionBlock(be), block(be, 4, make([]byte, 32)), interfaceBlock(be, linkRaw, 0, 0, 2, 0, 3, 'w', 'a', 'n', 0), enhancedBlock(be, 0, 8, abc, 2)),
			[]seen{{"abcde", 5, 7000, linkEthernet, "", Unknown}, {"abcde", 5, 8000, linkRaw, "wan", Sent}}},
		{"pcapng, units of 2^-10 s and an offset of 2 s", join(sectionBlock(le),
			interfaceBlock(le, linkRaw, 0, 9, 0, 1, 0, 0x8a, 0, 0, 0, 14, 0, 8, 0, 2, 0, 0, 0, 0, 0, 0, 0), enhancedBlock(le, 0, 512, abc, 1)),
			[]seen{{"abcde", 5, 2500000000, linkRaw, "", Received}}},
		{"pcapng, simple packet cut by the snapshot length", join(sectionBlock(le), interfaceBlock(le, linkRaw, 4),
			block(le, blockSimple, []byte{9, 0, 0, 0, 'a', 'b', 'c', 'd'})), []seen{{"abcd", 9, 0, linkRaw, "", Unknown}}},
		{"pcapng, an interface block with lying options", join(sectionBlock(le), interfaceBlock(le, linkRaw, 0, 2, 0, 200, 0, 'x', 'y', 'z', 0), enhancedBlock(le, 0, 1, abc, 0)),
			[]seen{{"abcde", 5, 1000, linkRaw, "", Unknown}}},
		{"pcapng, no packet", sectionBlock(le), nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := readAll(t, row.file)
			if err != nil || fmt.Sprint(got) != fmt.Sprint(row.want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, row.want)
			}
		})
	}
}

func TestBadFiles(t *testing.T) {
	le := binary.LittleEndian
	good := pcapFile(le, magicMicro, linkRaw, []byte("abcde"), []byte("fghij"))
	long := pcapFile(le, magicMicro, linkRaw, nil)
	le.PutUint32(long[pcapHeaderLen+8:], bufferSize+1)
	ng := append(sectionBlock(le), interfaceBlock(le, linkRaw, 0)...)
	for _, row := range []struct {
		name, want string
		file       []byte
	}{
		{"empty", "not a capture: only 0 bytes", nil},
		{"text", "not a capture: it starts with 72 75 6c 65", []byte("rule \"ssh\" { action = \"bypass\" }")},
		{"short header", "shorter than the 24 bytes", good[:20]},
		{"version", "pcap version 9", append([]byte{0xd4, 0xc3, 0xb2, 0xa1, 9, 0}, good[6:]...)},
		{"cut in a record", "after packet 1: the capture ends in the middle of a packet", good[:len(good)-1]},
		{"cut in a record header", "after packet 1: the capture ends in the middle of a packet", good[:len(good)-6]},
		{"cut gzip", "the capture ends in the middle of a packet", zip(good)[:60]},
		{"gzip of nothing", "not a capture: only 0 bytes", zip(nil)},
		{"not gzip after all", "gzip: ", []byte{0x1f, 0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
		{"record too long", "after packet 0: a record says that it holds 1048577 bytes", long},
		{"ng: no interface", "packet of interface 0, and 0 are described", append(sectionBlock(le), enhancedBlock(le, 0, 0, nil, 0)...)},
		{"ng: block length", "a block says that it has 13 bytes", append(ng[:len(ng):len(ng)], 6, 0, 0, 0, 13, 0, 0, 0)},
		{"ng: block too long", "a block of 16777216 bytes", append(ng[:len(ng):len(ng)], 6, 0, 0, 0, 0, 0, 0, 1)},
		{"ng: short packet block", "packet block of 4 bytes", append(ng[:len(ng):len(ng)], block(le, blockEnhanced, make([]byte, 4))...)},
		{"ng: packet longer than its block", "packet of 5 bytes in a block that has room for 0", append(ng[:len(ng):len(ng)], block(le, blockEnhanced, append(make([]byte, 12), 5, 0, 0, 0, 5, 0, 0, 0))...)},
		{"ng: resolution", "resolution 0x14 is too fine", append(sectionBlock(le), interfaceBlock(le, 1, 0, 9, 0, 1, 0, 20, 0, 0, 0)...)},
		{"ng: byte order", "byte-order magic", append(sectionBlock(le)[:8], make([]byte, 20)...)},
		{"ng: cut", "middle of a packet", ng[:len(ng)-2]},
	} {
		_, err := readAll(t, row.file)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.want)
		}
	}
	if got, err := readAll(t, good[:len(good)-1]); len(got) != 1 || !errors.Is(err, ErrCutShort) {
		t.Errorf("cut file: %d frames, %v", len(got), err)
	}
}

// FuzzReader feeds any file: it must end, without panic, and every frame must
// be within bounds.
func FuzzReader(f *testing.F) {
	le, be := binary.LittleEndian, binary.BigEndian
	f.Add(pcapFile(le, magicMicro, linkEthernet, []byte("abcdefghijklmnopqrst")))
	f.Add(pcapFile(be, magicNano, linkNFLOG, []byte("abcdefghijklmnopqrst")))
	f.Add(zip(pcapFile(be, magicNano, linkPPP, []byte("abc"))))
	f.Add(append(append(sectionBlock(be), interfaceBlock(be, 105, 0, 0, 9, 0, 1, 0x8a, 0, 0, 0)...), enhancedBlock(be, 0, 5, []byte("abc"), 1)...))
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := NewReader(bytes.NewReader(file))
		if err != nil {
			return
		}
		for fr := new(Frame); r.Next(fr) == nil; {
			if fr.Len < len(fr.Data) || fr.Time < 0 {
				t.Fatalf("frame of %d bytes, %d on the wire, at %d", len(fr.Data), fr.Len, fr.Time)
			}
			if d, err := fr.Datagram(); err == nil && d.Len < len(d.Bytes) {
				t.Fatalf("datagram of %d bytes, %d on the wire", len(d.Bytes), d.Len)
			}
		}
	})
}
