package nfq

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// told is a connection's message as the kernel writes it.
func told(t testing.TB, a, b netip.Addr, proto uint8, sp, dp uint16) []byte {
	t.Helper()
	be16 := func(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
	be32 := func(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
	be64 := func(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
	e := netlink.NewAttributeEncoder()
	e.Nested(ctTupleOrig, toldTuple(a, b, proto, sp, dp))
	e.Nested(ctTupleReply, toldTuple(b, a, proto, dp, sp))
	e.Bytes(ctStatus, be32(ctSeenReply|8))
	e.Bytes(ctTimeout, be32(300))
	e.Bytes(ctMark, be32(0x5800_0042))
	e.Bytes(ctZone, be16(7))
	for i, typ := range []uint16{ctCountersOrig, ctCountersReply} {
		e.Nested(typ, func(e *netlink.AttributeEncoder) error {
			e.Bytes(ctCountersPackets, be64(uint64(10+i)))
			e.Bytes(ctCountersBytes, be64(uint64(1000+i)))
			return nil
		})
	}
	if proto == unix.IPPROTO_TCP {
		e.Nested(ctProtoInfo, func(e *netlink.AttributeEncoder) error {
			e.Nested(ctProtoInfoTCP, func(e *netlink.AttributeEncoder) error {
				e.Uint8(ctProtoInfoTCPState, 3)
				return nil
			})
			return nil
		})
	}
	out, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{unix.AF_UNSPEC, 0, 0, 0}, out...)
}

// toldTuple is one direction of a connection as the kernel writes it.
func toldTuple(src, dst netip.Addr, proto uint8, sp, dp uint16) func(*netlink.AttributeEncoder) error {
	be16 := func(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
	return func(e *netlink.AttributeEncoder) error {
		e.Nested(ctTupleIP, func(e *netlink.AttributeEncoder) error {
			if src.Is4() {
				e.Bytes(ctIPv4Src, src.AsSlice())
				e.Bytes(ctIPv4Dst, dst.AsSlice())
			} else {
				e.Bytes(ctIPv6Src, src.AsSlice())
				e.Bytes(ctIPv6Dst, dst.AsSlice())
			}
			return nil
		})
		e.Nested(ctTupleProto, func(e *netlink.AttributeEncoder) error {
			e.Uint8(ctProtoNum, proto)
			switch proto {
			case unix.IPPROTO_ICMP:
				e.Bytes(ctProtoICMPID, be16(sp))
			case unix.IPPROTO_ICMPV6:
				e.Bytes(ctProtoICMPv6ID, be16(sp))
			default:
				e.Bytes(ctProtoSrcPort, be16(sp))
				e.Bytes(ctProtoDstPort, be16(dp))
			}
			return nil
		})
		return nil
	}
}

func TestConnectionMessage(t *testing.T) {
	for _, row := range []struct {
		a, b   string
		proto  uint8
		sp, dp uint16
		want   string // source and destination for the engine
	}{
		{"10.9.0.1", "10.9.0.2", unix.IPPROTO_TCP, 1000, 80, "10.9.0.1:1000 10.9.0.2:80"},
		{"fd00:9::1", "fd00:9::2", unix.IPPROTO_UDP, 1000, 53, "[fd00:9::1]:1000 [fd00:9::2]:53"},
		{"10.9.0.1", "10.9.0.2", unix.IPPROTO_ICMP, 77, 77, "10.9.0.1:77 10.9.0.2:77"},
		{"fd00:9::1", "fd00:9::2", unix.IPPROTO_ICMPV6, 77, 77, "[fd00:9::1]:77 [fd00:9::2]:77"},
		{"10.9.0.1", "10.9.0.2", unix.IPPROTO_GRE, 1, 2, "10.9.0.1:0 10.9.0.2:0"}, // keys, to the kernel alone
	} {
		b := told(t, addrOf(row.a), addrOf(row.b), row.proto, row.sp, row.dp)
		var c connection
		if !c.parse(b) {
			t.Errorf("%s %d: not read", row.a, row.proto)
			continue
		}
		e := c.carried(true)
		if got := e.Source.String() + " " + e.Dest.String(); got != row.want {
			t.Errorf("ends %s, want %s", got, row.want)
		}
		if c.mark != 0x5800_0042 || !bytes.Equal(c.zone, []byte{0, 7}) || e.Packets != [2]uint64{10, 11} || e.Bytes != [2]uint64{1000, 1001} ||
			!e.Counted || !e.Replied || e.Expires.Seconds() != 300 || !e.Forward || (e.State == 3) != (row.proto == unix.IPPROTO_TCP) {
			t.Errorf("read %+v, told %+v", c, e)
		}
		const ends = 4 + 2*(4+4+16+4+8) // a message shorter than this has not both
		for n := range ends {
			if (&connection{}).parse(b[:n]) {
				t.Errorf("a message cut at %d of %d bytes is read as whole", n, len(b))
			}
		}
	}
}

// What cannot be a connection does no harm, and what is read has both ends.
func FuzzConnection(f *testing.F) {
	f.Add(told(f, addrOf("10.9.0.1"), addrOf("10.9.0.2"), unix.IPPROTO_TCP, 1000, 80))
	f.Add(told(f, addrOf("fd00:9::1"), addrOf("fd00:9::2"), unix.IPPROTO_ICMPV6, 1, 1))
	f.Add([]byte{0, 0, 0, 0, 4, 0, 1, 128})
	f.Fuzz(func(t *testing.T, b []byte) {
		var c connection
		if !c.parse(b) {
			return
		}
		e := c.carried(false)
		name, _ := c.name()
		if !e.Source.IsValid() || !e.Dest.IsValid() || len(name) < sizeofAttr+len(c.origRaw) {
			t.Errorf("%x gives %+v, %x", b, e, name)
		}
	})
}
