package packet

import (
	"bytes"
	"strings"
	"testing"
)

func TestBuildErrors(t *testing.T) {
	rows := []struct {
		want string
		spec Spec
	}{
		{"without a source", Spec{Dst: v4a}},
		{"from an IPv4 to an IPv6", Spec{Src: v4a, Dst: v6a}},
		{"needs Fragment", Spec{Src: v4a, Dst: v4b, FragOffset: 8}},
		{"fragment offset 12", Spec{Src: v4a, Dst: v4b, Fragment: true, FragOffset: 12}},
		{"fragment offset -8", Spec{Src: v4a, Dst: v4b, Fragment: true, FragOffset: -8}},
		{"fragment offset 65536", Spec{Src: v4a, Dst: v4b, Fragment: true, FragOffset: 65536}},
		{"41 bytes of IPv4 options", Spec{Src: v4a, Dst: v4b, IPv4Options: make([]byte, 41)}},
		{"41 bytes of TCP options", Spec{Src: v4a, Dst: v4b, Protocol: TCP, TCPOptions: make([]byte, 41)}},
		{"no extension headers", Spec{Src: v4a, Dst: v4b, Extensions: []Extension{{}}}},
		{"2047 bytes", Spec{Src: v6a, Dst: v6b, Extensions: []Extension{{Routing, make([]byte, 2047)}}}},
		{"more than UDP holds", Spec{Src: v4a, Dst: v4b, Protocol: UDP, Payload: make([]byte, 65528)}},
		{"more than an IPv4 packet holds", Spec{Src: v4a, Dst: v4b, Protocol: 99, Payload: make([]byte, 65516)}},
		{"more than an IPv6 payload holds", Spec{Src: v6a, Dst: v6b, Protocol: 99, Payload: make([]byte, 65536)}},
		{"more than AH holds", Spec{Src: v6a, Dst: v6b, Protocol: AH, ICV: make([]byte, 1020)}},
	}
	for _, r := range rows {
		b, err := Append([]byte("keep"), &r.spec)
		if err == nil || !strings.Contains(err.Error(), r.want) || string(b) != "keep" {
			t.Errorf("want %q: %v, %d bytes", r.want, err, len(b))
		}
	}
	// A super-packet of the greatest length comes whole.
	for _, s := range []Spec{{Protocol: TCP, TCPFlags: ACK, Payload: make([]byte, 65495)}, six(Spec{Protocol: TCP, TCPFlags: ACK, Payload: make([]byte, 65515)})} {
		if p := parsed(t, build(t, s)); p.Len-p.Payload != len(s.Payload) {
			t.Errorf("%d bytes", p.Len)
		}
	}
}

// TestFragment cuts packets, reads each piece, and puts them together again.
func TestFragment(t *testing.T) {
	data := make([]byte, 3001)
	for i := range data {
		data[i] = byte(i)
	}
	rows := []struct {
		name  string
		spec  Spec
		mtu   int
		count int
	}{
		{"UDP", Spec{Protocol: UDP, Payload: data, ID: 9}, 1500, 3},
		{"UDP, smallest MTU", Spec{Protocol: UDP, Payload: data}, 68, 63},
		{"options, of which one is copied", Spec{Protocol: UDP, Payload: data, IPv4Options: []byte{1, 7, 3, 4, 148, 4, 0, 0}}, 576, 6},
		{"fits", Spec{Protocol: UDP, Payload: data}, 3029, 1},
		{"IPv6", six(Spec{Protocol: TCP, TCPFlags: ACK, Payload: data}), 1280, 3},
		{"IPv6 with headers on both sides", six(Spec{Protocol: UDP, Payload: data}, Extension{Header: HopByHop}, Extension{Header: DestOptions}, Extension{Routing, []byte{4, 1, 0, 0, 0, 0}}, Extension{Header: DestOptions}), 1280, 3},
	}
	for _, r := range rows {
		b := build(t, r.spec)
		whole := parsed(t, b)
		out, err := Fragment(b, r.mtu, 0xabcd)
		if err != nil || len(out) != r.count {
			t.Errorf("%s: %d fragments, %v", r.name, len(out), err)
			continue
		}
		if len(out) == 1 {
			continue
		}
		var joined []byte
		for i, f := range out {
			p := parsed(t, f)
			if len(f) > r.mtu || p.FragID != 0xabcd || !p.Fragment || p.MoreFragment != (i < len(out)-1) || p.SourceRouted != whole.SourceRouted {
				t.Errorf("%s: fragment %d: %+v", r.name, i, *p)
			}
			at := p.Transport
			if i == 0 {
				if p.SrcPort != whole.SrcPort || p.Protocol != whole.Protocol {
					t.Errorf("%s: first fragment: %+v", r.name, *p)
				}
				if p.Version == 6 { // fragment header and what is after it
					at = len(f) - parsed(t, out[1]).FragOffset
				}
			}
			if p.FragOffset != len(joined) {
				t.Errorf("%s: fragment %d is at %d, want %d", r.name, i, p.FragOffset, len(joined))
			}
			if i > 0 && r.spec.IPv4Options != nil && (p.Transport != 24 || f[20] != 148) {
				t.Errorf("%s: fragment %d has options %x, want the copied one", r.name, i, f[20:p.Transport])
			}
			if p.Version == 4 && Checksum(f[:p.Transport], 0) != 0 {
				t.Errorf("%s: fragment %d: header checksum", r.name, i)
			}
			joined = append(joined, f[at:]...)
		}
		if !bytes.HasSuffix(b, joined) || len(joined) < len(data) {
			t.Errorf("%s: joined %d bytes differ from the datagram", r.name, len(joined))
		}
	}
	for _, s := range []Spec{{Protocol: UDP, Payload: data}, {Protocol: UDP, Fragment: true, Payload: data}, six(Spec{Protocol: UDP, Fragment: true, LastFragment: true, Payload: data}), six(Spec{Protocol: UDP, Payload: data})} {
		if out, err := Fragment(build(t, s), 27, 1); err == nil {
			t.Errorf("%d fragments and no error", len(out))
		}
	}
	for _, b := range [][]byte{build(t, Spec{Protocol: UDP, Fragment: true, Payload: data}), build(t, Spec{Protocol: UDP, Payload: data})[:2000]} {
		if _, err := Fragment(b, 576, 1); err == nil {
			t.Error("fragmented what is not a whole datagram")
		}
	}
	if _, err := Fragment([]byte{0x45}, 100, 1); err == nil {
		t.Error("fragmented one byte")
	}
}
