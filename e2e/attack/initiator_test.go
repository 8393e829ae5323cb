package attack

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// Numbers of RFC 7296 that the initiator uses.
const (
	exInit, exAuth, exChild, exInfo = 34, 35, 36, 37

	plSA, plKE, plIDi, plIDr, plCERT, plAUTH, plNonce = 33, 34, 35, 36, 37, 39, 40
	plNotify, plDelete, plTSi, plTSr, plSK, plCP      = 41, 42, 44, 45, 46, 47
	plEAP, plSKF                                      = 48, 53

	noProposal, authFailed, cookie, fragmentation, hashes = 14, 24, 16390, 16430, 16431

	groupX25519, groupMODP4096 = 31, 16
)

// initiator is an attacker's own IKEv2, and his alone: it says what it is told
// to, true or not. One suite: AES-256-GCM, HMAC-SHA2-256, X25519.
type initiator struct {
	t    testing.TB
	conn *net.UDPConn

	spiI, spiR     [8]byte
	ni, nr         []byte
	message        []byte // IKE_SA_INIT, for AUTH
	key            *ecdh.PrivateKey
	d, ei, er      []byte
	pi, pr         []byte
	mid            uint32
	lastNi, lastNr []byte      // of the last child
	more           []payloadOf // in IKE_SA_INIT
}

// payloadOf is one payload of a message.
type payloadOf struct {
	kind byte
	body []byte
}

// errNoAnswer says that nothing has come.
var errNoAnswer = errors.New("no answer")

// newInitiator opens a socket at an address of a host, towards port 500 of the gateway.
func newInitiator(t testing.TB, h *lab.Host, from, to netip.Addr) *initiator {
	t.Helper()
	c := &initiator{t: t}
	if err := h.Do(func() (err error) {
		c.conn, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(at(from, 0)), net.UDPAddrFromAddrPort(at(to, 500)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	_, _ = rand.Read(c.spiI[:]) // never fails: crypto/rand
	return c
}

func (c *initiator) close() { _ = c.conn.Close() }

// chain writes payloads one behind the other.
func chain(list []payloadOf) (first byte, b []byte) {
	for i, p := range list {
		next := byte(0)
		if i+1 < len(list) {
			next = list[i+1].kind
		}
		b = append(b, next, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(4+len(p.body)))
		b = append(b, p.body...)
	}
	if len(list) > 0 {
		first = list[0].kind
	}
	return first, b
}

// unchain reads payloads.
func unchain(kind byte, b []byte) (list []payloadOf) {
	for kind != 0 && len(b) >= 4 {
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n < 4 || n > len(b) {
			return list
		}
		list = append(list, payloadOf{kind, b[4:n]})
		kind, b = b[0], b[n:]
	}
	return list
}

func find(list []payloadOf, kind byte) []byte {
	for _, p := range list {
		if p.kind == kind {
			return p.body
		}
	}
	return nil
}

// notified says whether there is a notification of a type, and gives its data.
func notified(list []payloadOf, typ uint16) ([]byte, bool) {
	for _, p := range list {
		if p.kind == plNotify && len(p.body) >= 4 && binary.BigEndian.Uint16(p.body[2:]) == typ {
			return p.body[4+int(p.body[1]):], true
		}
	}
	return nil, false
}

func note(typ uint16, data ...byte) payloadOf {
	return payloadOf{plNotify, append(binary.BigEndian.AppendUint16([]byte{0, 0}, typ), data...)}
}

// header is that of a message of so many bytes in all.
func (c *initiator) header(first, exchange byte, mid uint32, n int) []byte {
	b := append(append([]byte{}, c.spiI[:]...), c.spiR[:]...)
	b = append(b, first, 0x20, exchange, 0x08)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, mid), uint32(n))
}

// transform is one with a key length, or none if bits is 0.
func transform(last bool, typ byte, id uint16, bits int) []byte {
	more, n := byte(3), 8
	if last {
		more = 0
	}
	var attr []byte
	if bits > 0 {
		attr = binary.BigEndian.AppendUint16([]byte{0x80, 14}, uint16(bits))
		n += 4
	}
	return append([]byte{more, 0, 0, byte(n), typ, 0, byte(id >> 8), byte(id)}, attr...)
}

// proposal is the one there is, with a group.
func proposal(group uint16) []byte {
	ts := append(transform(false, 1, 20, 256), transform(false, 2, 5, 0)...)
	ts = append(ts, transform(true, 4, group, 0)...)
	return append([]byte{0, 0, 0, byte(8 + len(ts)), 1, 1, 0, 3}, ts...)
}

// first makes an IKE_SA_INIT with a group and more payloads.
func (c *initiator) first(group uint16, more ...payloadOf) []byte {
	var err error
	if c.key, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
		c.t.Fatal(err)
	}
	public := c.key.PublicKey().Bytes()
	if group == groupMODP4096 {
		public = make([]byte, 512)
		_, _ = rand.Read(public[1:])
	}
	c.ni = make([]byte, 32)
	_, _ = rand.Read(c.ni)
	list := append(more, payloadOf{plSA, proposal(group)},
		payloadOf{plKE, append([]byte{byte(group >> 8), byte(group), 0, 0}, public...)}, payloadOf{plNonce, c.ni},
		note(fragmentation), note(hashes, 0, 2, 0, 5)) // SHA2-256 and Identity
	kind, b := chain(list)
	return append(c.header(kind, exInit, 0, 28+len(b)), b...)
}

// ask sends a message until an answer comes that ok takes.
func (c *initiator) ask(b []byte, tries int, ok func(b []byte) bool) ([]byte, error) {
	in := make([]byte, 1<<16)
	for range tries {
		if _, err := c.conn.Write(b); err != nil && !errors.Is(err, net.ErrClosed) {
			time.Sleep(10 * time.Millisecond) // an ICMP error of before
		}
		_ = c.conn.SetReadDeadline(time.Now().Add(time.Second))
		for {
			n, err := c.conn.Read(in)
			if err != nil {
				break
			}
			if n >= 28 && ok(in[:n]) {
				return bytes.Clone(in[:n]), nil
			}
		}
	}
	return nil, errNoAnswer
}

// begin does IKE_SA_INIT and gives the payloads of the answer; a cookie that is
// asked for is sent back.
func (c *initiator) begin(group uint16, tries int) ([]payloadOf, error) {
	msg := c.first(group, c.more...)
	for range 2 {
		answer, err := c.ask(msg, tries, func(b []byte) bool { return [8]byte(b[:8]) == c.spiI && b[18] == exInit && b[19]&0x20 != 0 })
		if err != nil {
			return nil, err
		}
		list := unchain(answer[16], answer[28:])
		if data, ok := notified(list, cookie); ok {
			kind, b := chain(append([]payloadOf{note(cookie, data...)}, unchain(msg[16], msg[28:])...))
			msg = append(c.header(kind, exInit, 0, 28+len(b)), b...)
			continue
		}
		c.message = msg
		ke := find(list, plKE)
		if len(ke) < 4 || group != groupX25519 {
			copy(c.spiR[:], answer[8:16])
			return list, nil
		}
		copy(c.spiR[:], answer[8:16])
		c.nr = find(list, plNonce)
		return list, c.derive(ke[4:])
	}
	return nil, errors.New("one cookie after another")
}

func prf(key []byte, data ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, d := range data {
		h.Write(d)
	}
	return h.Sum(nil)
}

// derive makes the keys, RFC 7296 section 2.14.
func (c *initiator) derive(public []byte) error {
	far, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return err
	}
	shared, err := c.key.ECDH(far)
	if err != nil {
		return err
	}
	seed := prf(append(append([]byte{}, c.ni...), c.nr...), shared)
	var stream, t []byte
	for i := byte(1); len(stream) < 32+2*36+2*32; i++ {
		t = prf(seed, t, c.ni, c.nr, c.spiI[:], c.spiR[:], []byte{i})
		stream = append(stream, t...)
	}
	take := func(n int) []byte { b := stream[:n]; stream = stream[n:]; return b }
	c.d, c.ei, c.er, c.pi, c.pr = take(32), take(36), take(36), take(32), take(32)
	return nil
}

func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key[:32])
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // the block has 16
	}
	return a
}

// sealed encrypts payloads into a message; the next message ID is the next
// request's.
func (c *initiator) sealed(exchange byte, list ...payloadOf) []byte {
	kind, plain := chain(list)
	return c.encrypt(exchange, c.mid, payloadOf{plSK, nil}, kind, append(plain, 0))
}

// fragment is one of an encrypted message, RFC 7383 section 2.5.
func (c *initiator) fragment(exchange byte, n, total uint16, data []byte) []byte {
	head := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, n), total)
	return c.encrypt(exchange, c.mid, payloadOf{plSKF, head}, 0, append(data, 0))
}

func (c *initiator) encrypt(exchange byte, mid uint32, wrap payloadOf, kind byte, plain []byte) []byte {
	iv := make([]byte, 8)
	_, _ = rand.Read(iv)
	body := len(wrap.body) + 8 + len(plain) + 16
	b := c.header(wrap.kind, exchange, mid, 28+4+body)
	b = append(b, kind, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(4+body))
	b = append(b, wrap.body...)
	aad := bytes.Clone(b)
	b = append(b, iv...)
	return gcm(c.ei).Seal(b, append(bytes.Clone(c.ei[32:]), iv...), plain, aad)
}

// open decrypts an answer; nil if it is none of ours.
func (c *initiator) open(b []byte) []payloadOf {
	if len(b) < 28+4+8+17 || [8]byte(b[:8]) != c.spiI || b[16] != plSK {
		return nil
	}
	plain, err := gcm(c.er).Open(nil, append(bytes.Clone(c.er[32:]), b[32:40]...), b[40:], b[:32])
	if err != nil || len(plain) == 0 || int(plain[len(plain)-1]) >= len(plain) {
		return nil
	}
	return append([]payloadOf{}, unchain(b[28], plain[:len(plain)-1-int(plain[len(plain)-1])])...)
}

// request sends an encrypted request and gives the payloads of the answer.
func (c *initiator) request(exchange byte, tries int, list ...payloadOf) ([]payloadOf, error) {
	c.mid++
	var got []payloadOf
	_, err := c.ask(c.sealed(exchange, list...), tries, func(b []byte) bool {
		if b[19]&0x20 == 0 || binary.BigEndian.Uint32(b[20:]) != c.mid {
			return false
		}
		got = c.open(b)
		return got != nil
	})
	return got, err
}

// idFQDN is the body of an identification payload with a name.
func idFQDN(name string) []byte { return append([]byte{2, 0, 0, 0}, name...) }

// octets is what the initiator's AUTH covers.
func (c *initiator) octets(id []byte) []byte {
	return append(append(bytes.Clone(c.message), c.nr...), prf(c.pi, id)...)
}

// authPSK is AUTH by a pre-shared key.
func (c *initiator) authPSK(id []byte, secret string) payloadOf {
	return payloadOf{plAUTH, append([]byte{2, 0, 0, 0}, prf(prf([]byte(secret), []byte("Key Pad for IKEv2")), c.octets(id))...)}
}

// authEd25519 is AUTH by a signature (RFC 7427, RFC 8420).
func (c *initiator) authEd25519(id []byte, key ed25519.PrivateKey) payloadOf {
	oid := []byte{0x30, 5, 6, 3, 0x2b, 0x65, 0x70}
	b := append([]byte{14, 0, 0, 0, byte(len(oid))}, oid...)
	return payloadOf{plAUTH, append(b, ed25519.Sign(key, c.octets(id))...)}
}

// childPayloads ask for an ESP tunnel between two ranges of addresses.
func childPayloads(spi uint32, local, remote netip.Prefix) []payloadOf {
	ts := append(transform(false, 1, 20, 256), transform(true, 5, 0, 0)...)
	p := append([]byte{0, 0, 0, byte(12 + len(ts)), 1, 3, 4, 2}, binary.BigEndian.AppendUint32(nil, spi)...)
	return []payloadOf{{plSA, append(p, ts...)}, {plTSi, selectors(local)}, {plTSr, selectors(remote)}}
}

func selectors(p netip.Prefix) []byte {
	first, last := p.Masked().Addr().AsSlice(), p.Masked().Addr().AsSlice()
	for i := range last {
		for bit := range 8 {
			if i*8+bit >= p.Bits() {
				last[i] |= 0x80 >> bit
			}
		}
	}
	typ := byte(7)
	if p.Addr().Is6() {
		typ = 8
	}
	b := []byte{1, 0, 0, 0, typ, 0, 0, byte(8 + 2*len(first)), 0, 0, 0xff, 0xff}
	return append(append(b, first...), last...)
}

// remove deletes the IKE SA, and waits for the answer.
func (c *initiator) remove() {
	_, _ = c.request(exInfo, 1, payloadOf{plDelete, []byte{1, 0, 0, 0}})
}

// notice names the first error that an answer notifies.
func notice(list []payloadOf) string {
	for _, p := range list {
		if p.kind == plNotify && len(p.body) >= 4 {
			if n := binary.BigEndian.Uint16(p.body[2:]); n < 16384 {
				return fmt.Sprint("error ", n)
			}
		}
	}
	return "no error"
}
