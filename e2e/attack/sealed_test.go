package attack

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// far is the other end of a tunnel with keys set by hand: the test itself,
// which seals what it likes and opens what comes.
type far struct {
	s       *site
	w       way
	in, out *esp.SA

	mu     sync.Mutex
	opened [][]byte
	echo   uint16
}

// link makes the keys of a pair of SAs and gives the gateway's ipsec block and
// the far end.
func (s *site) link(name string, spi uint32, w way) (block string, f *far) {
	s.Helper()
	key := func() []byte { b := make([]byte, 32); _, _ = rand.Read(b); return b } // never fails: crypto/rand
	enc, mac := [2][]byte{key(), key()}, [2][]byte{key(), key()}
	text, cipher, encryption := "", "", ""
	for i, dir := range []string{"in", "out"} {
		if w.protocol == "esp" {
			text += fmt.Sprintf("encryption_%s = %x\n", dir, enc[i])
		}
		text += fmt.Sprintf("integrity_%s = %x\n", dir, mac[i])
	}
	if w.protocol == "esp" {
		encryption, cipher = "aes-256-cbc", "    encryption = \"aes-256-cbc\"\n"
	} else {
		enc = [2][]byte{}
	}
	file := s.File(filepath.Join("gateway", name+".keys"), text)
	more := ""
	if w.udp {
		more += "  encapsulation = \"udp\"\n"
	}
	if w.window > 0 {
		more += fmt.Sprintf("  replay_window = %d\n", w.window)
	}
	block = fmt.Sprintf(`
ipsec %q {
  mode            = %q
  protocol        = %q
  local_endpoint  = %q
  remote_endpoint = %q
%s  manual {
    spi_in    = "%#x"
    spi_out   = "%#x"
%s    integrity = "hmac-sha2-256-128"
    key_file  = %q
  }
}
`, name, w.mode, w.protocol, s.v.self, s.v.far, more, spi, spi+1, cipher, file)
	proto := esp.ESP
	if w.protocol == "ah" {
		proto = esp.AH
	}
	suite, err := esp.NewSuite(proto, encryption, "hmac-sha2-256-128")
	if err != nil {
		s.Fatal(err)
	}
	f = &far{s: s, w: w}
	for i, sa := range []**esp.SA{&f.out, &f.in} {
		c := esp.Config{SPI: spi + uint32(i), Direction: esp.Out, Mode: esp.Tunnel, Suite: suite, Manual: true, NoReplayCheck: true,
			EncryptionKey: esp.NewKey(enc[i]), IntegrityKey: esp.NewKey(mac[i]), Src: s.v.far, Dst: s.v.self}
		if w.mode == "transport" {
			c.Mode = esp.Transport
		}
		if i == 1 {
			c.Direction, c.Src, c.Dst = esp.In, s.v.self, s.v.far
		}
		if w.udp {
			c.Encap = esp.Encap{SrcPort: 4500, DstPort: 4500}
		}
		if *sa, err = esp.New(c); err != nil {
			s.Fatal(err)
		}
	}
	s.wan.listen(f.hear)
	return block, f
}

// hear opens what comes.
func (f *far) hear(fr frame) {
	if fr.out || !sealed(fr.ip) {
		return
	}
	b := bytes.Clone(fr.ip)
	b = append(make([]byte, 0, len(b)+64), b...)
	if out, _, fault := f.in.Open(b, time.Now().UnixNano()); fault == esp.OK {
		f.mu.Lock()
		f.opened = append(f.opened, bytes.Clone(out))
		f.mu.Unlock()
	}
}

// seal gives the datagram that carries an inner one.
func (f *far) seal(inner []byte) []byte {
	f.s.Helper()
	out, _, fault := f.out.Seal(nil, inner, time.Now().UnixNano())
	if fault != esp.OK {
		f.s.Fatalf("seal: %v", fault)
	}
	return out
}

// send seals a datagram and sends it.
func (f *far) send(inner []byte) { f.s.Helper(); f.s.wan.send(f.seal(inner)) }

// has says how many opened datagrams have the text.
func (f *far) has(text string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.opened {
		if bytes.Contains(p, []byte(text)) {
			n++
		}
	}
	return n
}

// await waits until something comes sealed that has the text.
func (f *far) await(text string) {
	f.s.Helper()
	eventually(f.s, "sealed, "+text+" comes out of the gateway", func() bool { return f.has(text) > 0 })
}

// fence sends honest protected packets behind what has been sent, waits for
// their answers, and gives what must not come a little longer. It is also the
// proof that protected traffic works.
func (f *far) fence() {
	f.s.Helper()
	v := f.s.v
	for range 2 {
		f.echo++
		src, dst := v.inner, v.self
		if f.w.mode == "transport" {
			src = v.far
		}
		text := marker("fence")
		ping := echo(f.s, src, dst, 40000+f.echo, 0, text)
		f.send(ping)
		// On a busy machine a packet may be lost: ask again.
		n := 0
		eventually(f.s, "an honest protected ping is answered", func() bool {
			if n++; n%200 == 0 {
				f.send(ping)
			}
			return f.has(text) > 0
		})
	}
	time.Sleep(grace)
}

// udp makes a datagram from the far network to the gateway's side.
func (f *far) udp(sport uint16, to string, dport uint16, text string) []byte {
	f.s.Helper()
	v := f.s.v
	src, dst := v.inner, v.self
	if f.w.mode == "transport" {
		src = v.far
	}
	switch to {
	case "lan":
		dst = v.lanHost
	case "nobody":
		dst = v.lanNobody
	}
	return udp(f.s, src, sport, dst, dport, text)
}

// fragments cuts a datagram in two, the first of so many bytes of data.
func (f *far) fragments(t testing.TB, whole []byte, id uint32) (first, second []byte) {
	t.Helper()
	head := 20
	if whole[0]>>4 == 6 {
		head = 48
	}
	data := len(whole) - min(head, 40)
	size := ((data+1)/2 + 7) &^ 7
	parts, err := packet.Fragment(whole, head+size, id)
	if err != nil || len(parts) != 2 {
		t.Fatalf("%d fragments: %v", len(parts), err)
	}
	return parts[0], parts[1]
}
