package esp

import (
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// TestECN is RFC 6040: section 4.1 and 4.3 for what the outer header says,
// figure 4 for what comes out. Marks: 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE; -1
// is a drop.
func TestECN(t *testing.T) {
	table := [4][4]int{ // inner, outer
		0: {0, 0, 0, -1},
		1: {1, 1, 1, 3},
		2: {2, 1, 2, 3},
		3: {3, 3, 3, 3},
	}
	for _, families := range []string{"44", "46", "64", "66"} {
		for inner, row := range table {
			for outer, want := range row {
				for _, noECN := range []bool{false, true} {
					c := Config{Suite: suite(t, ESP, "aes-128-gcm-16", ""), Mode: Tunnel, Outer: Outer{NoECN: noECN}}
					if families[1] == '6' {
						c.Src, c.Dst = v6a, v6b
					}
					spec := packet.Spec{Src: v4b, Dst: v4a, Protocol: packet.UDP, TOS: 0xb8 | uint8(inner)}
					if families[0] == '6' {
						spec.Src, spec.Dst = v6b, v6a
					}
					p := newPair(t, c)
					sealed := p.mustSeal(t, build(spec))
					wantOuter := 0xb8 | uint8(inner)
					if noECN {
						wantOuter = 0xb8
					}
					if got := tos(sealed); got != wantOuter {
						t.Fatalf("%s: outer class %#x, want %#x", families, got, wantOuter)
					}
					setTOS(sealed, 0x28|uint8(outer)) // a router marks, and changes the DSCP
					out, _, f := p.in.Open(sealed, 0)
					if want < 0 {
						if f != BadECN {
							t.Errorf("%s inner %d outer %d: %v", families, inner, outer, f)
						}
						continue
					}
					if f != OK || tos(out) != 0xb8|uint8(want) {
						t.Errorf("%s inner %d outer %d: %v %#x, want %d", families, inner, outer, f, tos(out), want)
					} else if families[0] == '4' && packet.Checksum(out[:20], 0) != 0 {
						t.Errorf("%s inner %d outer %d: checksum", families, inner, outer)
					}
				}
			}
		}
	}
}

func setTOS(b []byte, tos uint8) {
	if b[0]>>4 == 4 {
		b[1] = tos
		return
	}
	b[0] = 6<<4 | tos>>4
	b[1] = b[1]&0x0f | tos<<4
}

// TestOuterHeader holds the fields of tunnel mode's header: RFC 4301 section
// 5.1.2.
func TestOuterHeader(t *testing.T) {
	p4 := packet.Spec{Src: v4b, Dst: v4a, Protocol: packet.UDP, TTL: 3, TOS: 0xb8}
	df := p4
	df.DontFragment = true
	p6 := packet.Spec{Src: v6b, Dst: v6a, Protocol: packet.UDP, TTL: 3, TOS: 0xb8}
	for _, c := range []struct {
		name  string
		inner packet.Spec
		v6    bool
		how   Outer
		df    bool
		tos   uint8
		ttl   uint8
		label uint32
	}{
		{"copy DF clear", p4, false, Outer{}, false, 0xb8, 64, 0},
		{"copy DF set", df, false, Outer{}, true, 0xb8, 64, 0},
		{"copy DF of IPv6", p6, false, Outer{}, true, 0xb8, 64, 0},
		{"set DF", p4, false, Outer{DF: SetDF}, true, 0xb8, 64, 0},
		{"clear DF", df, false, Outer{DF: ClearDF}, false, 0xb8, 64, 0},
		{"clear DF of IPv6", p6, false, Outer{DF: ClearDF}, false, 0xb8, 64, 0},
		{"DSCP, TTL", p4, false, Outer{SetDSCP: true, DSCP: 10, TTL: 7}, false, 0x28, 7, 0},
		{"DSCP zero", p4, true, Outer{SetDSCP: true}, true, 0, 64, 0},
		{"label hidden", p6, true, Outer{}, true, 0xb8, 64, 0},
		{"label copied", p6, true, Outer{CopyFlowLabel: true}, true, 0xb8, 64, 0x12345},
		{"no label to copy", p4, true, Outer{CopyFlowLabel: true}, true, 0xb8, 64, 0},
	} {
		conf := Config{Suite: suite(t, ESP, "aes-128-gcm-16", ""), Mode: Tunnel, Outer: c.how}
		if c.v6 {
			conf.Src, conf.Dst = v6a, v6b
		}
		inner := build(c.inner)
		if inner[0]>>4 == 6 {
			inner[1] |= 1
			be.PutUint16(inner[2:], 0x2345)
		}
		var q packet.Packet
		sealed := newPair(t, conf).mustSeal(t, inner)
		if f := packet.Parse(&q, sealed, len(sealed)); f != packet.OK {
			t.Fatal(f)
		}
		label := uint32(0)
		if c.v6 {
			label = be.Uint32(sealed) & 0xfffff
		}
		if q.DontFragment != c.df || q.TOS != c.tos || q.TTL != c.ttl || label != c.label {
			t.Errorf("%s: DF %t class %#x TTL %d label %#x", c.name, q.DontFragment, q.TOS, q.TTL, label)
		}
	}
}
