package esp

import (
	"strings"
	"testing"
)

// TestWiresharkKeys holds the words that Wireshark's table wants; the end-to-end
// tests ask tshark itself.
func TestWiresharkKeys(t *testing.T) {
	for _, c := range []struct {
		p        Protocol
		enc, mac string
		esn      bool
		want     string // part of the row, or of the error
		ok       bool
	}{
		{ESP, "aes-256-gcm-16", "", false, `"AES-GCM with 16 octet ICV [RFC4106]","0x1118`, true},
		{ESP, "aes-256-gcm-16", "", true, `,"NULL",""`, true},
		{ESP, "aes-128-cbc", "hmac-sha1-96", false, `"HMAC-SHA-1-96 [RFC2404]","0x777e`, true},
		{ESP, "aes-128-ctr", "hmac-sha2-384-192", false, `"AES-CTR [RFC3686]"`, true},
		// What it cannot check it is told not to, or it would call it bad.
		{ESP, "aes-128-cbc", "hmac-sha1-96", true, `"ANY 96 bit authentication [no checking]","0x777e`, true},
		{ESP, "insecure-null", "hmac-sha2-512-256", true, `"NULL","","ANY 256 bit authentication [no checking]"`, true},
		{ESP, "chacha20-poly1305", "", false, "Wireshark cannot read chacha20-poly1305", false},
		{ESP, "aes-128-gmac", "", false, "Wireshark cannot read aes-128-gmac", false},
		{AH, "", "hmac-sha2-256-128", false, "ah does not encrypt", false},
	} {
		row, err := newPair(t, Config{Suite: suite(t, c.p, c.enc, c.mac), ESN: c.esn}).in.WiresharkKeys()
		if err != nil {
			row = err.Error()
		}
		if c.ok != (err == nil) || !strings.Contains(row, c.want) {
			t.Errorf("%s/%s: %s %v, want %s", c.enc, c.mac, row, err, c.want)
		}
	}
}
