package nfq

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"testing"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// body makes the body of a NFQNL_MSG_PACKET.
func body(t testing.TB, attrs ...netlink.Attribute) []byte {
	t.Helper()
	b, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{unix.AF_INET, 0, 0x10, 0xcd}, b...)
}

func header(id uint32, hook byte) netlink.Attribute {
	return netlink.Attribute{Type: attrPacketHeader, Data: append(binary.BigEndian.AppendUint32(nil, id), 0x08, 0, hook)}
}

func word(typ uint16, n int) netlink.Attribute { return netlink.Attribute{Type: typ, Data: big32(n)} }

func datagram(typ uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	return append(append(b, make([]byte, 10)...), body...)
}

func TestParseMessage(t *testing.T) {
	payload := netlink.Attribute{Type: attrPayload, Data: []byte("payload")}
	whole := body(t, header(7, 3), word(attrMark, 0xabcdef01), word(attrInDev, 2), word(attrOutDev, 3), word(attrCapLen, 1500), payload)
	for _, tc := range []struct {
		name string
		body []byte
		ok   bool
		want message
	}{
		{"all of it", whole, true, message{id: 7, hasID: true, hook: 3, mark: 0xabcdef01, inDev: 2, outDev: 3, wireLen: 1500, payload: []byte("payload")}},
		{"no length beside the payload's", body(t, header(1, 1), payload), true, message{id: 1, hasID: true, hook: 1, wireLen: 7, payload: []byte("payload")}},
		{"a length that is too small", body(t, header(1, 1), word(attrCapLen, 3), payload), true, message{id: 1, hasID: true, hook: 1, wireLen: 7, payload: []byte("payload")}},
		{"no payload", body(t, header(1, 1)), true, message{id: 1, hasID: true, hook: 1}},
		{"attributes that mean nothing", body(t, word(999, 1), header(1, 1)), true, message{id: 1, hasID: true, hook: 1}},
		{"no header", body(t, payload), false, message{wireLen: 7, payload: []byte("payload")}},
		{"nothing", nil, false, message{}},
		{"cut in an attribute", body(t, header(9, 2), payload)[:20], false, message{id: 9, hasID: true, hook: 2}},
		{"cut in a length", append(body(t, header(9, 2)), 5, 0), false, message{id: 9, hasID: true, hook: 2}},
		{"short mark", body(t, header(9, 2), netlink.Attribute{Type: attrMark, Data: []byte{1}}), false, message{id: 9, hasID: true, hook: 2}},
		{"short flags", body(t, header(9, 2), netlink.Attribute{Type: attrSkbInfo, Data: []byte{1}}, payload), false, message{id: 9, hasID: true, hook: 2}},
		{"short header", body(t, netlink.Attribute{Type: attrPacketHeader, Data: []byte{1, 2, 3, 4, 5, 6}}), false, message{}},
	} {
		m := message{id: 99, hasID: true, mark: 99} // from the packet before
		ok := m.parse(tc.body)
		if ok != tc.ok || m.id != tc.want.id || m.hasID != tc.want.hasID || m.hook != tc.want.hook || m.mark != tc.want.mark ||
			m.inDev != tc.want.inDev || m.outDev != tc.want.outDev || m.wireLen != tc.want.wireLen || !bytes.Equal(m.payload, tc.want.payload) {
			t.Errorf("%s: %v %+v", tc.name, ok, m)
		}
	}
}

// The parser that allocates nothing agrees with the library's.
func FuzzParseMessage(f *testing.F) {
	f.Add(body(f, header(7, 3), word(attrMark, 1), word(attrCapLen, 1500), netlink.Attribute{Type: attrPayload, Data: []byte("x")}))
	f.Add(body(f, word(attrInDev, 1), header(1, 1)))
	f.Add([]byte{2, 0, 0, 0, 4, 0, 1, 0})
	f.Add(body(f, header(7, 3), word(attrSkbInfo, skbPartial|skbGSO)))
	f.Add(body(f, header(7, 3), netlink.Attribute{Type: attrSkbInfo, Data: []byte{1}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m message
		ok := m.parse(b)
		if ok && m.wireLen < len(m.payload) {
			t.Errorf("longer than it is: %+v", m)
		}
		want, wantOK := slowParse(b)
		if ok != wantOK {
			t.Fatalf("%x: %v, the library says %v", b, ok, wantOK)
		}
		if ok && (m.id != want.id || m.hook != want.hook || m.mark != want.mark || m.inDev != want.inDev ||
			m.outDev != want.outDev || m.info != want.info || m.wireLen != want.wireLen || !bytes.Equal(m.payload, want.payload)) {
			t.Fatalf("%x: %+v, the library says %+v", b, m, want)
		}
	})
}

func slowParse(b []byte) (m message, ok bool) {
	if len(b) < sizeofNfgenmsg {
		return m, false
	}
	for b = b[sizeofNfgenmsg:]; len(b) > 0; {
		if len(b) < sizeofAttr {
			return m, false
		}
		// One at a time: the library takes attributes of length 0 for an
		// end, and forgives bytes behind the last one.
		n := int(binary.NativeEndian.Uint16(b))
		if n < sizeofAttr || n > len(b) {
			return m, false
		}
		ad, err := netlink.NewAttributeDecoder(b[:n])
		if err != nil {
			return m, false
		}
		b = b[min((n+3)/4*4, len(b)):]
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			v := ad.Bytes()
			word := func(to *uint32) bool {
				if len(v) < 4 {
					return false
				}
				*to = binary.BigEndian.Uint32(v)
				return true
			}
			fine := true
			var length uint32
			switch ad.Type() {
			case attrPacketHeader:
				if fine = len(v) >= 7 && word(&m.id); fine {
					m.hook, m.hasID = v[6], true
				}
			case attrMark:
				fine = word(&m.mark)
			case attrInDev:
				fine = word(&m.inDev)
			case attrOutDev:
				fine = word(&m.outDev)
			case attrCapLen:
				fine = word(&length)
				m.wireLen = int(length)
			case attrSkbInfo:
				// Less than a word is no flags: whether a checksum is still
				// to be filled in is then not known, so the packet is dropped.
				fine = word(&m.info)
			case attrPayload:
				m.payload = v
			}
			if !fine {
				return m, false
			}
		}
		if ad.Err() != nil {
			return m, false
		}
	}
	m.wireLen = max(m.wireLen, len(m.payload))
	return m, m.hasID
}

// Datagrams of any kind end, and yield no more bytes than they have.
func FuzzSplitMessage(f *testing.F) {
	two := append(datagram(msgPacket, body(f, header(7, 3))), datagram(unix.NLMSG_ERROR, []byte{1, 2, 3, 4})...)
	f.Add(two)
	f.Add(two[:len(two)-1])
	f.Add([]byte{17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		left := len(b)
		for {
			_, body, rest, ok := splitMessage(b)
			if !ok {
				return
			}
			if left -= unix.SizeofNlMsghdr + len(body); left < len(rest) || len(rest) >= len(b) {
				t.Fatalf("%d bytes left, %d before", len(rest), len(b))
			}
			left, b = len(rest), rest
		}
	})
}

func FuzzParseQueues(f *testing.F) {
	f.Add([]byte(" 4301   1234     5 2 65531     6     7       99  1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := len(parseQueues(b)); n > bytes.Count(b, []byte("\n"))+1 {
			t.Fatalf("%d queues", n)
		}
	})
}

func TestParseQueues(t *testing.T) {
	got := parseQueues([]byte("    0   1234     5 2 65531     6     7       99  1\nrubbish\n70000 1 1 1 1 1 1 1 1\n 4301 4294967295 0 2 512 0 0 0 1\n"))
	want := []queueLine{{0, 1234, 5, 6, 7}, {4301, 4294967295, 0, 0, 0}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%+v", got)
	}
}

func TestAppendVerdict(t *testing.T) {
	for _, tc := range []struct {
		typ  uint16
		a    answer
		want string
	}{
		{msgVerdict, answer{}, "200000000103010000000000000000000000" + "10cd" + "0c0002000000000001020304"},
		{msgVerdictBatch, answer{accept: true}, "200000000303010000000000000000000000" + "10cd" + "0c0002000000000101020304"},
		{msgVerdict, answer{accept: true, setMark: true, mark: 0xabc}, "280000000103010000000000000000000000" + "10cd" + "0c0002000000000101020304" + "0800030000000abc"},
	} {
		if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
			t.Skip("SKIPPED: the expected bytes are little-endian")
		}
		if got := hex.EncodeToString(appendVerdict(nil, tc.typ, 4301, 0x01020304, tc.a)); got != tc.want {
			t.Errorf("%+v:\n%s, want\n%s", tc.a, got, tc.want)
		}
	}
}

// fixed is a worker outside of any kernel.
func fixed(h Handler) *worker {
	fw := &Firewall{cfg: Config{}, marks: marks(DefaultMask), links: new(linkNames), rejects: newRateLimit(1)}
	fw.cfg, _ = fw.cfg.withDefaults()
	fw.links.names.Store(&map[uint32]link{2: {name: "eth0", mtu: 1500}})
	return newWorker(fw, h, new(queueStats))
}

// fill puts datagrams into the ring as recvmmsg does.
func (r *batchReceiver) fill(ds ...[]byte) {

	for i, d := range ds {
		r.ring[i].len = uint32(copy(r.slots[i*slotSize:], d))
	}
}

func offline() *batchReceiver {
	return &batchReceiver{queue: 4301, ring: make([]mmsghdr, ringSlots), slots: make([]byte, ringSlots*slotSize)}
}

// answers judges datagrams and gives the answers as they would be sent.
func (r *batchReceiver) answers(w *worker, ds ...[]byte) []byte {
	r.fill(ds...)
	r.judgeAll(w, len(ds))
	if r.pending.n > 0 {
		r.settle()
	}
	out := r.out
	r.out = nil
	return out
}

func udp(t testing.TB, port uint16) []byte {
	t.Helper()
	b, err := packet.Build(packet.Spec{
		Src: addr4(0, 1), Dst: addr4(0, 2), Protocol: packet.UDP, SrcPort: 1000, DstPort: port, Payload: []byte("x"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Runs of equal answers become one message, and never more than they are:
// once a packet has gone without an answer, each gets its own.
func TestBatchAnswers(t *testing.T) {
	h := new(handler)
	h.set(port(9, engine.Result{}))
	good := func(id uint32, port uint16) []byte {
		return datagram(msgPacket, body(t, header(id, unix.NF_INET_LOCAL_IN), netlink.Attribute{Type: attrPayload, Data: udp(t, port)}))
	}
	yes, no := answer{accept: true}, answer{}
	v := func(out []byte, id uint32, a answer) []byte { return appendVerdict(out, msgVerdict, 4301, id, a) }
	b := func(out []byte, id uint32, a answer) []byte { return appendVerdict(out, msgVerdictBatch, 4301, id, a) }
	enoent := binary.NativeEndian.AppendUint32(nil, uint32(0xffffffff-uint32(unix.ENOENT)+1))
	einval := binary.NativeEndian.AppendUint32(nil, uint32(0xffffffff-uint32(unix.EINVAL)+1))
	cut := datagram(msgPacket, body(t, header(3, 1), word(attrMark, 1)))
	cut = datagram(msgPacket, cut[unix.SizeofNlMsghdr:len(cut)-2])
	for _, tc := range []struct {
		name string
		in   [][]byte
		want []byte
	}{
		{"one", [][]byte{good(1, 7)}, v(nil, 1, yes)},
		{"all let through", [][]byte{good(1, 7), good(2, 7), good(3, 7)}, b(nil, 3, yes)},
		{"all dropped", [][]byte{good(1, 9), good(2, 9)}, b(nil, 2, no)},
		{"by turns", [][]byte{good(1, 7), good(2, 9), good(3, 7)}, v(v(v(nil, 1, yes), 2, no), 3, yes)},
		{"runs", [][]byte{good(1, 7), good(2, 7), good(3, 9), good(4, 7), good(5, 7)}, b(v(b(nil, 2, yes), 3, no), 5, yes)},
		{"a cut message is dropped by its number", [][]byte{good(1, 7), good(2, 7), cut, good(4, 7), good(5, 7)}, b(v(b(nil, 2, yes), 3, no), 5, yes)},
		{"a verdict came late", [][]byte{good(1, 7), datagram(unix.NLMSG_ERROR, enoent), good(2, 7)}, b(nil, 2, yes)},
		{"a verdict was refused", [][]byte{datagram(unix.NLMSG_ERROR, einval), good(1, 7), good(2, 7)}, v(v(nil, 1, yes), 2, yes)},
		{"a message without a number", [][]byte{datagram(msgPacket, body(t, word(attrMark, 1))), good(1, 7), good(2, 7)}, v(v(nil, 1, yes), 2, yes)},
		{"no message at all", [][]byte{{1, 2, 3}, good(1, 7), good(2, 7)}, v(v(nil, 1, yes), 2, yes)},
		{"two messages in a datagram", [][]byte{append(good(1, 7), good(2, 7)...)}, b(nil, 2, yes)},
		{"other messages", [][]byte{datagram(unix.NLMSG_NOOP, nil)}, nil},
	} {
		if got := offline().answers(fixed(h), tc.in...); !bytes.Equal(got, tc.want) {
			t.Errorf("%s:\n%x, want\n%x", tc.name, got, tc.want)
		}
	}
}

// Whatever the handler says, these are dropped.
func TestAlwaysDropped(t *testing.T) {
	h := new(handler)
	h.set(pass)
	always := handlerFunc(func(*engine.Input, packet.Fault) engine.Result {
		return engine.Result{Verdict: engine.Bypass, Established: true}
	})
	ok := message{hook: unix.NF_INET_LOCAL_IN, payload: udp(t, 7), wireLen: 29}
	for _, tc := range []struct {
		name string
		m    message
		want bool
	}{
		{"a good packet, for comparison", ok, true},
		{"no bytes", message{hook: ok.hook}, false},
		{"cut header", message{hook: ok.hook, payload: ok.payload[:10], wireLen: 29}, false},
		{"prerouting", message{hook: unix.NF_INET_PRE_ROUTING, payload: ok.payload, wireLen: 29}, false},
		{"postrouting", message{hook: unix.NF_INET_POST_ROUTING, payload: ok.payload, wireLen: 29}, false},
		{"no hook there is", message{hook: 200, payload: ok.payload, wireLen: 29}, false},
	} {
		w := fixed(always)
		if got := w.judge(&tc.m, 1); got.accept != tc.want {
			t.Errorf("%s: %+v", tc.name, got)
		}
	}
}

type handlerFunc func(*engine.Input, packet.Fault) engine.Result

func (f handlerFunc) Handle(in *engine.Input, _ *engine.Output, fault packet.Fault) engine.Result {
	return f(in, fault)
}

func TestNoAllocs(t *testing.T) {
	h := new(handler)
	h.set(func(in *engine.Input) engine.Result { return engine.Result{Verdict: engine.Bypass} })
	w, r := fixed(h), offline()
	r.out = make([]byte, 0, 4096)
	d := datagram(msgPacket, body(t, header(1, unix.NF_INET_LOCAL_IN), word(attrMark, 0x04000000), word(attrInDev, 2),
		netlink.Attribute{Type: attrPayload, Data: udp(t, 7)}))
	r.fill(d, d, d, d)
	if n := testing.AllocsPerRun(100, func() {
		r.judgeAll(w, 4)
		r.settle()
		r.out = r.out[:0]
	}); n != 0 {
		t.Errorf("%v allocations for four packets", n)
	}
	if w.stats.accepted.Load() == 0 {
		t.Error("nothing was judged")
	}
}

// The rate of answers: a burst, then one for each share of a second.
func TestRateLimit(t *testing.T) {
	l := newRateLimit(100) // one in 10 ms
	taken := 0
	for range 1000 {
		if l.take(1e9) {
			taken++
		}
	}
	if taken != rejectBurst {
		t.Errorf("burst of %d, want %d", taken, rejectBurst)
	}
	for i, tc := range []struct {
		now  int64
		want bool
	}{{1e9 + 9e6, false}, {1e9 + 10e6, true}, {1e9 + 11e6, false}, {1e9 + 30e6, true}, {1e9 + 30e6, true}, {1e9 + 30e6, false}} {
		if got := l.take(tc.now); got != tc.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}
