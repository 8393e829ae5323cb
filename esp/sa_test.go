package esp

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestConfigCheck(t *testing.T) {
	gcm, cbc := suite(t, ESP, "aes-128-gcm-16", ""), suite(t, ESP, "aes-128-cbc", "hmac-sha2-256-128")
	ah := suite(t, AH, "", "hmac-sha2-256-128")
	for _, c := range []struct {
		want   string // a part of the message; "" for none
		change func(*Config)
	}{
		{"", func(c *Config) {}},
		{"SPI 255 is reserved", func(c *Config) { c.SPI = 255 }},
		{"mode must be", func(c *Config) { c.Mode = 0 }},
		{"protocol 0 is neither", func(c *Config) { c.Suite = Suite{} }},
		{"not of one family", func(c *Config) { c.Dst = v6b }},
		{"without a zone", func(c *Config) { c.Dst = netip.MustParseAddr("::ffff:192.0.2.1") }},
		{"needs both addresses", func(c *Config) { c.Src = netip.Addr{} }},
		{"takes no manual keys", func(c *Config) { c.Manual = true }},
		{"", func(c *Config) { c.Manual, c.Suite = true, cbc }},
		{"window 31 is outside 32 to 8192", func(c *Config) { c.ReplayWindow = 31 }},
		{"window 8193", func(c *Config) { c.ReplayWindow = 8193 }},
		{"need the replay check", func(c *Config) { c.ESN, c.NoReplayCheck = true, true }},
		{"both ports", func(c *Config) { c.Encap.SrcPort = 4500 }},
		{"ah cannot be encapsulated", func(c *Config) { c.Suite, c.Encap = ah, Encap{1, 1} }},
		{"tunnel mode", func(c *Config) { c.TFC = 100 }},
		{"DSCP must be", func(c *Config) { c.Outer.DSCP = 64 }},
		{"come in pairs", func(c *Config) { c.OriginalDst = v4a }},
		{"not of the SA's family", func(c *Config) { c.OriginalSrc, c.OriginalDst = v4a, v6b }},
		{"not of the SA's family", func(c *Config) { c.OriginalSrc, c.OriginalDst = v6a, v6b }},
		{"must be 20 bytes (16 of key, 4 of salt), not 3", func(c *Config) { c.EncryptionKey = NewKey([]byte("abc")) }},
		{"no algorithm that takes one", func(c *Config) { c.IntegrityKey = NewKey([]byte("abc")) }},
		{"must be 32 bytes, not 0", func(c *Config) { c.Suite = cbc; c.IntegrityKey = Key{} }},
	} {
		conf := Config{SPI: 256, Direction: Out, Mode: Transport, Suite: gcm, Src: v4a, Dst: v4b}
		c.change(&conf)
		if conf.EncryptionKey.Len() == 0 {
			conf.EncryptionKey = NewKey(make([]byte, conf.Suite.Encryption.KeyMaterial()))
		}
		if conf.IntegrityKey.Len() == 0 && c.want != "must be 32 bytes, not 0" {
			conf.IntegrityKey = NewKey(make([]byte, conf.Suite.Integrity.KeyMaterial()))
		}
		_, err := New(conf)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

func TestSuiteMessages(t *testing.T) {
	for _, c := range []struct {
		p             Protocol
		enc, mac, say string
	}{
		{ESP, "", "", "esp needs an encryption algorithm"},
		{ESP, "null", "hmac-sha1-96", `written "insecure-null"`},
		{ESP, "insecure-null", "", "protects nothing"},
		{ESP, "aes-256-cbc", "", "protects nothing"},
		{ESP, "aes-256-ctr", "", "protects nothing"},
		{ESP, "aes-128-gcm-16", "hmac-sha1-96", "makes its own integrity value"},
		{ESP, "aes-128-cbc", "aes-128-gmac", "is for ah"},
		{ESP, "rot13", "", "not known; use one of aes-128-gcm-16,"},
		{ESP, "aes-128-cbc", "md5", "not known; use one of hmac-sha2-256-128,"},
		{AH, "aes-128-cbc", "hmac-sha1-96", "ah does not encrypt"},
		{AH, "", "", "ah needs an integrity algorithm"},
	} {
		if _, err := NewSuite(c.p, c.enc, c.mac); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s %q %q: %v, want %q", c.p, c.enc, c.mac, err, c.say)
		}
	}
	// Every row of the table is found by its name and by its IKE numbers.
	for _, a := range Algorithms() {
		if b, ok := FindAlgorithm(a.Type, a.Name); !ok || a != b {
			t.Errorf("%s is not found by name", a.Name)
		}
		if b, ok := FindTransform(a.Type, a.ID, a.KeyBits); !ok || a != b {
			t.Errorf("%s is not found by number", a.Name)
		}
	}
	s := suite(t, ESP, "aes-256-cbc", "hmac-sha2-512-256")
	if e, i, err := s.Keys(make([]byte, 96)); err != nil || e.Len() != 32 || i.Len() != 64 {
		t.Error(e.Len(), i.Len(), err)
	}
	if _, _, err := s.Keys(make([]byte, 95)); err == nil {
		t.Error("95 bytes of key material were taken for 96")
	}
}

// TestSecrets: no way of printing an SA or what it is made of shows a key.
func TestSecrets(t *testing.T) {
	enc, mac := []byte("ENCRYPTIONKEY-32-bytes-long-0123"), []byte("INTEGRITYKEY--32-bytes-long-4567")
	c := Config{SPI: 0x1001, Mode: Transport, Direction: Out, Src: v4a, Dst: v4b, Suite: suite(t, ESP, "aes-256-cbc", "hmac-sha2-256-128"),
		EncryptionKey: NewKey(enc), IntegrityKey: NewKey(mac)}
	sa, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	hidden := struct {
		sa *SA
		c  Config
		k  Key
	}{sa, c, c.EncryptionKey}
	var shown strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%o", "%T"} {
		for _, v := range []any{sa, c, &c, c.EncryptionKey, &c.EncryptionKey, hidden, &hidden, sa.Config()} {
			fmt.Fprintf(&shown, verb+"\n", v)
		}
	}
	for _, v := range []any{sa, c, c.EncryptionKey} {
		slog.New(slog.NewTextHandler(&shown, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&shown, nil)).Info("x", "v", v)
	}
	j, _ := json.Marshal(c)
	shown.Write(j)
	for _, key := range [][]byte{enc, mac} {
		part := key[:8]
		decimal := strings.Trim(fmt.Sprint(part), "[]")
		for _, form := range []string{string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)), decimal,
			base64.StdEncoding.EncodeToString(key)[:8], strings.ReplaceAll(fmt.Sprintf("%#v", part), "[]byte{", "")[:20]} {
			if strings.Contains(shown.String(), form) {
				t.Errorf("a key is shown as %q", form)
			}
		}
	}
	if want := "esp 0x00001001 out transport aes-256-cbc/hmac-sha2-256-128 192.0.2.1 -> 198.51.100.2"; sa.String() != want {
		t.Errorf("%s, want %s", sa, want)
	}
	in := c
	in.Direction, in.Dst, in.EncryptionKey, in.IntegrityKey = In, netip.Addr{}, c.EncryptionKey, c.IntegrityKey
	open, err := New(in)
	if err != nil {
		t.Fatal(err)
	}
	if want := "esp 0x00001001 in transport aes-256-cbc/hmac-sha2-256-128 192.0.2.1 -> any"; open.String() != want {
		t.Errorf("%s, want %s", open, want)
	}
	open.Close()
	row, err := sa.WiresharkKeys(Wireshark44)
	if want := fmt.Sprintf(`"IPv4","192.0.2.1","198.51.100.2","0x00001001","AES-CBC [RFC3602]","0x%x","HMAC-SHA-256-128 [RFC4868]","0x%x"`, enc, mac); row != want {
		t.Errorf("%s %v", row, err)
	}
	// The keys are wiped on Close, the caller's own copy when it says so.
	mine, theirs := sa.encryption.bytes(), sa.integrity.bytes()
	sa.Close()
	c.EncryptionKey.Wipe()
	if !bytes.Equal(mine, make([]byte, 32)) || !bytes.Equal(theirs, make([]byte, 32)) || c.EncryptionKey.Len() != 0 {
		t.Error("keys outlive Close")
	}
	if row, err := sa.WiresharkKeys(Wireshark44); err == nil {
		t.Errorf("a closed SA gives its keys: %s", row)
	}
	if _, _, f := sa.Seal(nil, udp4(100), 0); f != Closed {
		t.Errorf("a closed SA seals: %v", f)
	}
}

func TestLifetimes(t *testing.T) {
	gcm := suite(t, ESP, "aes-128-gcm-16", "")
	second := int64(time.Second)
	for _, c := range []struct {
		name       string
		soft, hard Lifetime
		softAt     int // which of ten packets of 100 bytes, one a second from 1, asks for another SA
		last       int // the last that passes
	}{
		{"none", Lifetime{}, Lifetime{}, 0, 10},
		{"packets", Lifetime{Packets: 3}, Lifetime{Packets: 5}, 3, 5},
		{"bytes", Lifetime{Bytes: 250}, Lifetime{Bytes: 450}, 3, 5},
		{"time", Lifetime{Time: 4 * time.Second}, Lifetime{Time: 7 * time.Second}, 4, 6},
		{"soft only", Lifetime{Packets: 1}, Lifetime{}, 1, 10},
		{"hard only", Lifetime{}, Lifetime{Packets: 2}, 0, 2},
	} {
		p := newPair(t, Config{Suite: gcm, Soft: c.soft, Hard: c.hard})
		free := newPair(t, Config{Suite: gcm})
		for i := 1; i <= 10; i++ {
			now := int64(i) * second
			want := OK
			if i > c.last {
				want = Expired
			}
			_, rekey, f := p.out.Seal(nil, udp4(100), now)
			if f != want || rekey != (i == c.softAt) {
				t.Errorf("%s: sealing %d: rekey %t %v", c.name, i, rekey, f)
			}
			// The receiver counts for itself. Bytes are counted opened,
			// without the IP header of transport mode.
			if c.name == "bytes" {
				continue
			}
			sealed, _, _ := free.out.Seal(nil, udp4(100), now)
			_, rekey, f = p.in.Open(sealed, now)
			if f != want || rekey != (i == c.softAt) {
				t.Errorf("%s: opening %d: rekey %t %v", c.name, i, rekey, f)
			}
		}
		rekey, f := newPair(t, Config{Suite: gcm, Soft: c.soft, Hard: c.hard}).out.Due(5 * second)
		if rekey != (c.soft.Time != 0) || f != OK {
			t.Errorf("%s: due after 5 s: %t %v", c.name, rekey, f)
		}
		if _, f := p.out.Due(10 * second); (f == Expired) != (c.hard != Lifetime{}) {
			t.Errorf("%s: due after all: %v", c.name, f)
		}
	}
}

// TestSequenceEnd: no number is used twice; the SA stops before, and says in
// good time that it will.
func TestSequenceEnd(t *testing.T) {
	for _, esn := range []bool{false, true} {
		p := newPair(t, Config{Suite: suite(t, ESP, "aes-128-gcm-16", ""), ESN: esn})
		end := uint64(1<<32 - 1)
		if esn {
			end = 1<<64 - 1
		}
		p.out.seq.Store(end - 2)
		p.in.win.top = end - 2
		if _, f := p.out.Reserve(3, 0); f != Exhausted {
			t.Errorf("three of two numbers: %v", f)
		}
		for i := range 4 {
			sealed, rekey, f := p.out.Seal(nil, udp4(100), 0)
			switch {
			case i < 2 && (f != OK || rekey != (i == 0)):
				t.Errorf("esn %t, number %d: rekey %t, %v", esn, i, rekey, f)
			case i < 2:
				if _, _, f := p.in.Open(sealed, 0); f != OK {
					t.Errorf("esn %t, number %d: %v", esn, i, f)
				}
			case f != Exhausted:
				t.Errorf("esn %t: a number after the last: %v", esn, f)
			}
		}
		if p.out.Counters().Seq != end || p.out.Counters().Faults[Exhausted] != 3 {
			t.Errorf("%+v", p.out.Counters())
		}
	}
}

func TestWrongWay(t *testing.T) {
	p := newPair(t, Config{Suite: suite(t, ESP, "aes-128-gcm-16", "")})
	if _, _, f := p.in.Seal(nil, udp4(100), 0); f != WrongWay {
		t.Error(f)
	}
	if _, _, f := p.out.Open(p.mustSeal(t, udp4(100)), 0); f != WrongWay {
		t.Error(f)
	}
	if _, f := p.out.Reserve(0, 0); f != WrongWay {
		t.Error(f)
	}
	var b Batch
	if _, f := b.Seal(nil, udp4(100)); f != Exhausted {
		t.Error(f)
	}
	b.Done()
}

// TestConcurrent seals on several cores by one SA and opens on several by one:
// every packet comes out once.
func TestConcurrent(t *testing.T) {
	for _, s := range []Suite{suite(t, ESP, "aes-128-gcm-16", ""), suite(t, ESP, "aes-128-cbc", "hmac-sha2-256-128"), suite(t, AH, "", "aes-256-gmac")} {
		p := newPair(t, Config{Suite: s, Mode: Tunnel, ReplayWindow: MaxWindow})
		const workers, rounds, batch = 4, 60, 8
		packets := make(chan []byte, workers*rounds*batch)
		var seal, open sync.WaitGroup
		for range workers {
			seal.Go(func() {
				for range rounds {
					b, f := p.out.Reserve(batch, 0)
					if f != OK {
						t.Error(f)
					}
					for range batch {
						out, f := b.Seal(nil, udp4(200))
						if f != OK {
							t.Error(f)
						}
						packets <- out
						packets <- bytes.Clone(out)
					}
					b.Done()
				}
			})
			open.Go(func() {
				for pkt := range packets {
					out, _, f := p.in.Open(pkt, 0)
					if f != OK && f != Replay || f == OK && !bytes.Equal(out, udp4(200)) {
						t.Error(f)
					}
				}
			})
		}
		seal.Wait()
		close(packets)
		open.Wait()
		c := p.in.Counters()
		if n := uint64(workers * rounds * batch); c.Packets != n || c.Faults[Replay] != n || c.Seq != n {
			t.Errorf("%s: %d packets, %d replays, top %d; want %d of each", s, c.Packets, c.Faults[Replay], c.Seq, n)
		}
	}
}
