package ike

import "fmt"

// keyRow is a row of Wireshark's ikev2_decryption_table: SPIs, SK_ei, SK_er,
// cipher, SK_ai, SK_ar, integrity algorithm. Its names are Wireshark's own.
func keyRow(sa *ikeSA) string {
	integ := map[uint16]string{
		IntegNone: "NONE [RFC4306]", IntegSHA1: "HMAC_SHA1_96 [RFC2404]", IntegSHA256: "HMAC_SHA2_256_128 [RFC4868]",
		IntegSHA384: "HMAC_SHA2_384_192 [RFC4868]", IntegSHA512: "HMAC_SHA2_512_256 [RFC4868]",
	}[sa.suite.integ]
	encr := fmt.Sprintf("AES-CBC-%d [RFC3602]", sa.suite.encrBits)
	switch sa.suite.encr {
	case EncrAESGCM16:
		encr = fmt.Sprintf("AES-GCM-%d with 16 octet ICV [RFC5282]", sa.suite.encrBits)
	case EncrChaCha20:
		encr = "CHACHA20-POLY1305 [RFC7634]" // Wireshark 4.0 does not know it
	}
	k := sa.keys
	return fmt.Sprintf("%016x,%016x,%x,%x,%q,%x,%x,%q", sa.spiI, sa.spiR, k.ei, k.er, encr, k.ai, k.ar, integ)
}
