package ike

import (
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
)

// Key exchange payload, RFC 7296 section 3.4.

func kePayload(method uint16, public []byte) payload {
	b := binary.BigEndian.AppendUint16(nil, method)
	b = append(b, 0, 0)
	return payload{kind: plKE, body: append(b, public...)}
}

func parseKE(b []byte) (method uint16, public []byte, err error) {
	if len(b) < 5 {
		return 0, nil, syntaxError("KE payload of %d bytes, at least 5 needed", len(b))
	}
	return binary.BigEndian.Uint16(b), b[4:], nil
}

// Nonce payload, RFC 7296 section 3.9: 16 to 256 bytes.

const nonceLen = 32

func parseNonce(list []payload) ([]byte, error) {
	p, ok := find(list, plNonce)
	if !ok {
		return nil, syntaxError("no nonce")
	}
	if len(p.body) < 16 || len(p.body) > 256 {
		return nil, syntaxError("nonce of %d bytes, 16 to 256 allowed", len(p.body))
	}
	return p.body, nil
}

// notify is a Notify payload, RFC 7296 section 3.10.
type notify struct {
	proto uint8
	kind  uint16
	spi   []byte
	data  []byte
}

func (n notify) payload() payload {
	b := []byte{n.proto, byte(len(n.spi))}
	b = binary.BigEndian.AppendUint16(b, n.kind)
	b = append(b, n.spi...)
	return payload{kind: plNotify, body: append(b, n.data...)}
}

// note is a Notify payload that speaks of the IKE SA it travels in.
func note(kind uint16, data ...byte) payload { return notify{kind: kind, data: data}.payload() }

func parseNotify(b []byte) (notify, error) {
	if len(b) < 4 || len(b) < 4+int(b[1]) {
		return notify{}, syntaxError("notify payload of %d bytes is too short", len(b))
	}
	n := 4 + int(b[1])
	return notify{proto: b[0], kind: binary.BigEndian.Uint16(b[2:]), spi: b[4:n], data: b[n:]}, nil
}

// parseNotifies gives all Notify payloads of a message.
func parseNotifies(list []payload) (notifies, error) {
	var out notifies
	for _, p := range list {
		if p.kind != plNotify {
			continue
		}
		n, err := parseNotify(p.body)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

type notifies []notify

func (ns notifies) get(kind uint16) (notify, bool) {
	for _, n := range ns {
		if n.kind == kind {
			return n, true
		}
	}
	return notify{}, false
}

func (ns notifies) has(kind uint16) bool {
	_, ok := ns.get(kind)
	return ok
}

// failure gives the first notification that reports an error.
func (ns notifies) failure() (notify, bool) {
	for _, n := range ns {
		if n.kind < firstErrorGroup {
			return n, true
		}
	}
	return notify{}, false
}

// Delete payload, RFC 7296 section 3.11.

func deletePayload(proto uint8, spis ...uint32) payload {
	b := []byte{proto, 4}
	if proto == ProtoIKE {
		b[1] = 0
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(spis)))
	for _, s := range spis {
		b = binary.BigEndian.AppendUint32(b, s)
	}
	return payload{kind: plDelete, body: b}
}

func parseDelete(b []byte) (proto uint8, spis []uint32, err error) {
	if len(b) < 4 {
		return 0, nil, syntaxError("delete payload of %d bytes, at least 4 needed", len(b))
	}
	proto, size, n := b[0], int(b[1]), int(binary.BigEndian.Uint16(b[2:]))
	want := 4
	if proto == ProtoIKE {
		size, want = 0, 0
	}
	if size != want || len(b) != 4+size*n {
		return 0, nil, syntaxError("delete payload says %d SPIs of %d bytes in %d", n, b[1], len(b))
	}
	for b = b[4:]; len(b) > 0; b = b[4:] {
		spis = append(spis, binary.BigEndian.Uint32(b))
	}
	return proto, spis, nil
}

// Authentication payload, RFC 7296 section 3.8.

func authPayload(method uint8, data []byte) payload {
	return payload{kind: plAUTH, body: append([]byte{method, 0, 0, 0}, data...)}
}

func parseAuth(b []byte) (method uint8, data []byte, err error) {
	if len(b) < 5 {
		return 0, nil, syntaxError("AUTH payload of %d bytes, at least 5 needed", len(b))
	}
	return b[0], b[4:], nil
}

// Certificate and certificate request payloads, RFC 7296 sections 3.6, 3.7.
const (
	certX509   = 4  // X.509 certificate - signature
	certRawKey = 15 // SubjectPublicKeyInfo, RFC 7670
)

func certPayload(kind uint8, encoding byte, data []byte) payload {
	return payload{kind: kind, body: append([]byte{encoding}, data...)}
}

// parseCerts gives the contents of the CERT payloads of one encoding.
func parseCerts(list []payload, encoding byte) (out [][]byte) {
	for _, p := range list {
		if p.kind == plCERT && len(p.body) > 1 && p.body[0] == encoding {
			out = append(out, p.body[1:])
		}
	}
	return out
}

// natHash is the content of NAT_DETECTION_*_IP, RFC 7296 section 2.23. SHA-1
// is what the protocol says here; nothing depends on its strength.
func natHash(spiI, spiR uint64, a netip.AddrPort) []byte {
	b := binary.BigEndian.AppendUint64(nil, spiI)
	b = binary.BigEndian.AppendUint64(b, spiR)
	b = append(b, a.Addr().Unmap().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, a.Port())
	h := sha1.Sum(b)
	return h[:]
}

// natBetween reports that one of the notifications of a kind is there and
// none of them is the hash of the address we see.
func natBetween(ns notifies, kind uint16, spiI, spiR uint64, seen netip.AddrPort) (nat, known bool) {
	want := natHash(spiI, spiR, seen)
	nat = true
	for _, n := range ns {
		if n.kind == kind {
			known = true
			if subtle.ConstantTimeCompare(n.data, want) == 1 {
				nat = false
			}
		}
	}
	return nat && known, known
}
