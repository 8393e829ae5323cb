package eap

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/ike"
)

// Each limit holds by itself, and says so: nobody may go on for ever, nor fill
// memory, nor say other things than are due.
func TestLimits(t *testing.T) {
	ca := issue(t, nil, "CA", "ecdsa", 0)
	server := issue(t, ca, "gateway.example", "ecdsa", 120) // more than one fragment
	tlsPart := func(s ike.EAPStep, flags byte, data ...byte) []byte {
		b := append([]byte{2, s.Out[1], 0, 0, typeTLS, flags}, data...)
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		return b
	}
	for _, row := range []struct {
		name, detail string
		ask          bool
		next         func(s ike.EAPStep, i int, p *peer) []byte
	}{
		{"fragments without end", "more than 65536 bytes", false, func(s ike.EAPStep, _ int, _ *peer) []byte { return tlsPart(s, flagMore, make([]byte, 1000)...) }},
		{"rounds without end", "end in 100 EAP packets", false, func(s ike.EAPStep, _ int, _ *peer) []byte { return tlsPart(s, flagMore, 0) }},
		{"a fragment of nothing", "fragment without data", false, func(s ike.EAPStep, _ int, _ *peer) []byte { return tlsPart(s, flagMore) }},
		{"less than was announced", "3 were announced", false, func(s ike.EAPStep, _ int, _ *peer) []byte { return tlsPart(s, flagLength, 0, 0, 0, 3, 22, 3) }},
		{"a long name", "EAP identity of 1025 bytes", true, func(s ike.EAPStep, _ int, _ *peer) []byte {
			return append([]byte{2, s.Out[1], 4, 6, typeIdentity}, make([]byte, 1025)...)
		}},
		{"data between our fragments", "nobody has asked for", false, func(s ike.EAPStep, i int, p *peer) []byte {
			if i == 0 {
				return p.answer(s.Out)
			}
			return tlsPart(s, 0, 22)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			call := trusting(server, ca)
			call.AskIdentity = row.ask
			c := New(call)
			defer c.Close()
			p := newPeer(t, clientConfig(ca, nil, 0), 4000)
			s := c.Next(nil)
			for i := 0; s.Err == nil; i++ {
				if i > maxRounds {
					t.Fatal("no end")
				}
				s = c.Next(row.next(s, i, p))
			}
			var e *ike.EAPError
			if !errors.As(s.Err, &e) || e.Failure != ike.Malformed || !strings.Contains(e.Detail, row.detail) || s.Out[0] != codeFailure {
				t.Errorf("%v, want %q", s.Err, row.detail)
			}
		})
	}
}
