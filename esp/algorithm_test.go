package esp

import "testing"

// TestStatus holds the table to RFC 8221: section 5 (encryption) with its note
// on 192-bit keys, section 6 (authentication), and section 4: what is not named
// there MAY be implemented. Names and numbers are those of IANA's registry
// "Internet Key Exchange Version 2 (IKEv2) Parameters", transform types 1 and 3.
func TestStatus(t *testing.T) {
	for _, c := range []struct {
		iana   string
		typ    TransformType
		id     uint16
		bits   int // Key Length attribute
		name   string
		status string
	}{
		{"ENCR_NULL", Encryption, 11, 0, "insecure-null", "MUST"},
		{"ENCR_AES_CBC", Encryption, 12, 128, "aes-128-cbc", "MUST"},
		{"ENCR_AES_CBC", Encryption, 12, 192, "aes-192-cbc", "MAY"},
		{"ENCR_AES_CBC", Encryption, 12, 256, "aes-256-cbc", "MUST"},
		{"ENCR_AES_CTR", Encryption, 13, 128, "aes-128-ctr", "MAY"}, // not named
		{"ENCR_AES_CTR", Encryption, 13, 192, "aes-192-ctr", "MAY"},
		{"ENCR_AES_CTR", Encryption, 13, 256, "aes-256-ctr", "MAY"},
		{"ENCR_AES_CCM_8", Encryption, 14, 128, "", "SHOULD"}, // for IoT; not here
		{"ENCR_AES_GCM_16", Encryption, 20, 128, "aes-128-gcm-16", "MUST"},
		{"ENCR_AES_GCM_16", Encryption, 20, 192, "aes-192-gcm-16", "MAY"},
		{"ENCR_AES_GCM_16", Encryption, 20, 256, "aes-256-gcm-16", "MUST"},
		{"ENCR_NULL_AUTH_AES_GMAC", Encryption, 21, 128, "aes-128-gmac", "MAY"}, // not named
		{"ENCR_NULL_AUTH_AES_GMAC", Encryption, 21, 192, "aes-192-gmac", "MAY"},
		{"ENCR_NULL_AUTH_AES_GMAC", Encryption, 21, 256, "aes-256-gmac", "MAY"},
		{"ENCR_CHACHA20_POLY1305", Encryption, 28, 0, "chacha20-poly1305", "SHOULD"},
		{"ENCR_DES", Encryption, 2, 0, "", "MUST NOT"},
		{"ENCR_3DES", Encryption, 3, 0, "", "SHOULD NOT"},
		{"ENCR_BLOWFISH", Encryption, 7, 128, "", "MUST NOT"},

		{"AUTH_HMAC_MD5_96", Integrity, 1, 0, "", "MUST NOT"},
		{"AUTH_HMAC_SHA1_96", Integrity, 2, 0, "hmac-sha1-96", "MUST-"},
		{"AUTH_DES_MAC", Integrity, 3, 0, "", "MUST NOT"},
		{"AUTH_KPDK_MD5", Integrity, 4, 0, "", "MUST NOT"},
		{"AUTH_AES_XCBC_96", Integrity, 5, 0, "", "SHOULD"}, // for IoT, else MAY; not here
		{"AUTH_AES_128_GMAC", Integrity, 9, 0, "aes-128-gmac", "MAY"},
		{"AUTH_AES_192_GMAC", Integrity, 10, 0, "aes-192-gmac", "MAY"}, // not named
		{"AUTH_AES_256_GMAC", Integrity, 11, 0, "aes-256-gmac", "MAY"},
		{"AUTH_HMAC_SHA2_256_128", Integrity, 12, 0, "hmac-sha2-256-128", "MUST"},
		{"AUTH_HMAC_SHA2_384_192", Integrity, 13, 0, "hmac-sha2-384-192", "MAY"}, // not named
		{"AUTH_HMAC_SHA2_512_256", Integrity, 14, 0, "hmac-sha2-512-256", "SHOULD"},
	} {
		a, ok := FindTransform(c.typ, c.id, c.bits)
		if ok != (c.name != "") || ok && (a.Name != c.name || a.Status.String() != c.status) {
			t.Errorf("%s, %d bits: %t %s %s, want %q %s", c.iana, c.bits, ok, a.Name, a.Status, c.name, c.status)
		}
	}
	// Every algorithm that is here is in the list above.
	if n := len(Algorithms()); n != 14+7 {
		t.Errorf("%d algorithms", n)
	}
}
