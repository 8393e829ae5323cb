package esp

import (
	"net/netip"
	"testing"
)

func resumeConfig(t *testing.T) Config {
	t.Helper()
	return Config{SPI: 0x1001, Mode: Transport, Direction: Out, Suite: suite(t, ESP, "aes-256-cbc", "hmac-sha2-256-128"),
		EncryptionKey: NewKey(pattern(32, 1)), IntegrityKey: NewKey(pattern(32, 2)), Manual: true,
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2")}
}

func resumed(t *testing.T, c Config) *SA {
	t.Helper()
	sa, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

// An SA that goes on from a number sends the next one, and takes nothing that
// may have come before.
func TestResume(t *testing.T) {
	for _, esn := range []bool{false, true} {
		for _, last := range []uint64{1, 63, 64, 1000, 1<<32 - 70} {
			c := resumeConfig(t)
			c.ESN, c.ReplayWindow = esn, 64
			c.Direction, c.Sequence = Out, last
			out := resumed(t, c)
			if got := out.Counters(); got.Packets != 0 || got.Seq != last {
				t.Errorf("from %d: %d packets, number %d", last, got.Packets, got.Seq)
			}
			sealed := func(from uint64) []byte {
				c := c
				c.Direction, c.Sequence = Out, from
				b, _, f := resumed(t, c).Seal(nil, udp4(40), 0)
				if f != OK {
					t.Fatal(f)
				}
				return b
			}
			c.Direction = In
			in := resumed(t, c)
			for _, seq := range []uint64{last, last - min(last-1, 40)} {
				if _, _, f := in.Open(sealed(seq-1), 0); f != Replay {
					t.Errorf("number %d after going on from %d: %v, want %v", seq, last, f, Replay)
				}
			}
			for _, seq := range []uint64{last + 1, last + 3, last + 2} {
				if _, _, f := in.Open(sealed(seq-1), 0); f != OK {
					t.Errorf("number %d after going on from %d: %v", seq, last, f)
				}
			}
		}
	}
	c := resumeConfig(t)
	c.Direction, c.Sequence, c.Hard.Packets = Out, 100, 2
	out := resumed(t, c)
	for i, want := range []Fault{OK, OK, Expired} {
		if _, _, f := out.Seal(nil, udp4(40), 0); f != want {
			t.Errorf("packet %d of 2 that may be: %v, want %v", i+1, f, want)
		}
	}
	c.Sequence = 1 << 32
	if _, err := New(c); err == nil {
		t.Error("a number of 33 bits is taken without ESN")
	}
}

// Replace leaves no moment without an SA, and takes only the one it was shown.
func TestReplace(t *testing.T) {
	d := NewSAD()
	c := resumeConfig(t)
	c.Direction = In
	first, second, third := resumed(t, c), resumed(t, c), resumed(t, c)
	if d.Replace(first, second) {
		t.Error("replaced what was not there")
	}
	if err := d.Insert(first); err != nil {
		t.Fatal(err)
	}
	if !d.Replace(first, second) || d.Inbound(ESP, c.SPI) != second || first.Closed() || d.Len() != 1 {
		t.Error("not replaced as asked")
	}
	if d.Replace(first, third) || d.Inbound(ESP, c.SPI) != second {
		t.Error("an SA took the place of one that it did not know")
	}
}

// KeyID differs in whatever makes another SA, and in nothing else.
func TestKeyID(t *testing.T) {
	c := resumeConfig(t)
	base := c.KeyID()
	same := c
	same.EncryptionKey = NewKey(c.EncryptionKey.bytes())
	same.Sequence, same.Created = 7, 9
	if same.KeyID() != base {
		t.Error("equal keys, different IDs")
	}
	for name, change := range map[string]func(*Config){
		"spi":       func(c *Config) { c.SPI++ },
		"direction": func(c *Config) { c.Direction = 1 - c.Direction },
		"key": func(c *Config) {
			b := append([]byte(nil), c.EncryptionKey.bytes()...)
			b[0] ^= 1
			c.EncryptionKey = NewKey(b)
		},
		"integrity": func(c *Config) {
			b := append([]byte(nil), c.IntegrityKey.bytes()...)
			b[31] ^= 1
			c.IntegrityKey = NewKey(b)
		},
	} {
		other := c
		change(&other)
		if other.KeyID() == base {
			t.Errorf("another %s has the same ID", name)
		}
	}
}
