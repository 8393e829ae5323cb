package ike

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// NIST's CAVP publishes vectors of the IKEv2 key derivation (SP 800-135); this
// is one of those for HMAC-SHA-1. The other hashes differ in hashOf alone,
// which TestPRFVectors holds to RFC 4231.
func TestNISTKeyDerivation(t *testing.T) {
	ni, nr := unhex(t, "32b50d5f4a3763f3"), unhex(t, "9206a04b26564cb1")
	gir := unhex(t, "4b2c1f971981a8ad8d0abeafabf38cf75fc8349c148142465ed9c8b516b8be52")
	girNew := unhex(t, "863f3c9d06efd39d2b907b97f8699e5dd5251ef64a2a176f36ee40c87d4f9330")
	spiI, spiR := binary.BigEndian.Uint64(unhex(t, "34c9e7c188868785")), binary.BigEndian.Uint64(unhex(t, "3ff77d760d2b2199"))

	seed := seedInit(PRFSHA1, ni, nr, gir)
	if want := unhex(t, "a9a7b222b59f8f48645f28a1db5b5f5d7479cba7"); !bytes.Equal(seed, want) {
		t.Fatalf("SKEYSEED is %x, want %x", seed, want)
	}
	// The vector has 132 bytes: three PRF keys of 20, and with these two
	// ciphers and integrity algorithms of 16 and 20 bytes each.
	s := suite{encr: EncrAESCBC, encrBits: 128, integ: IntegSHA1, prf: PRFSHA1}
	k := deriveIKE(&s, seed, ni, nr, spiI, spiR)
	got := bytes.Join([][]byte{k.d, k.ai, k.ar, k.ei, k.er, k.pi, k.pr}, nil)
	want := unhex(t, "a14293677cc80ff8f9cc0eee30d895da9d8f405666e30ef0dfcb63c634a46002"+
		"a2a63080e514a062768b76606f9fa5e992204fc5a670bde3f10d6b027113936a"+
		"5c55b648a194ae587b0088d52204b702c979fa280870d2ed41efa9c549fd1119"+
		"8af1670b143d384bd275c5f594cf266b05ebadca855e4249520a441a81157435a7a56cc4")
	if !bytes.Equal(got, want) {
		t.Errorf("keys are %x, want %x", got, want)
	}
	rekey := seedNext(PRFSHA1, k.d, girNew, ni, nr)
	if want := unhex(t, "63e81194946ebd05df7df5ebf5d8750056bf1f1d"); !bytes.Equal(rekey, want) {
		t.Errorf("SKEYSEED of the rekey is %x, want %x", rekey, want)
	}
}

// IntAuth of RFC 9242 section 3.3.2, put together here from the words of the
// RFC: the chain over both directions under the keys of each exchange, and the
// lengths as if nothing had been encrypted.
func TestIntAuth(t *testing.T) {
	key := func(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }
	sa := &ikeSA{suite: suite{prf: PRFSHA256}}
	h := header{spiI: 1, spiR: 2, exchange: exIntermediate, flags: flagInitiator, id: 1}
	plain, first := appendPayloads(nil, []payload{kePayload(KEMLKEM768, []byte("a key"))})
	var chain []byte
	sa.addInt(&chain, key(1), h, first, plain)
	h.id = 2
	sa.addInt(&chain, key(2), h, first, plain)

	message := func(id byte) []byte {
		b := unhex(t, "0000000000000001"+"0000000000000002"+"2e20"+"2b"+"08"+"000000")
		b = append(b, id)
		b = binary.BigEndian.AppendUint32(b, uint32(28+4+len(plain)))
		b = append(b, plKE, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(4+len(plain)))
		return append(b, plain...)
	}
	one := prf(PRFSHA256, key(1), message(1))
	two := prf(PRFSHA256, key(2), append(bytes.Clone(one), message(2)...))
	if !bytes.Equal(chain, two) {
		t.Errorf("IntAuth is %x, want %x", chain, two)
	}
	a := authContext{prf: PRFSHA256, initI: []byte("I"), initR: []byte("R"), ni: []byte("ni"), nr: []byte("nr"), intI: []byte("ii"), intR: []byte("ir"), mid: 3}
	id := Identity{idFQDN, "x"}
	for initiator, start := range map[bool]string{true: "Inr", false: "Rni"} {
		want := append([]byte(start), prf(PRFSHA256, key(5), []byte{idFQDN, 0, 0, 0, 'x'})...)
		want = append(want, "iiir\x00\x00\x00\x03"...)
		if got := a.octets(initiator, key(5), id); !bytes.Equal(got, want) {
			t.Errorf("octets of initiator %v are %x, want %x", initiator, got, want)
		}
	}
}
