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
		form     WiresharkForm
		want     string // part of the row, or of the error
		ok       bool
	}{
		{ESP, "aes-256-gcm-16", "", false, 0, `"AES-GCM with 16 octet ICV [RFC4106]","0x1118`, true},
		{ESP, "aes-256-gcm-16", "", true, Wireshark40, `,"NULL",""`, true},
		{ESP, "aes-256-gcm-16", "", true, Wireshark44, `,"NULL","","64-bit","0"`, true},
		{ESP, "aes-128-cbc", "hmac-sha1-96", true, Wireshark44, `","64-bit","0"`, true},
		{ESP, "aes-128-cbc", "hmac-sha1-96", true, Wireshark44, `"HMAC-SHA-1-96 [RFC2404]","0x777e`, true},
		{ESP, "aes-128-cbc", "hmac-sha1-96", false, 0, `"HMAC-SHA-1-96 [RFC2404]","0x777e`, true},
		{ESP, "aes-128-ctr", "hmac-sha2-384-192", false, 0, `"AES-CTR [RFC3686]"`, true},
		// What it cannot check it is told not to, or it would call it bad.
		{ESP, "aes-128-cbc", "hmac-sha1-96", true, Wireshark40, `"ANY 96 bit authentication [no checking]","0x777e`, true},
		{ESP, "insecure-null", "hmac-sha2-512-256", true, Wireshark40, `"NULL","","ANY 256 bit authentication [no checking]"`, true},
		{ESP, "chacha20-poly1305", "", false, 0, "Wireshark cannot read chacha20-poly1305", false},
		{ESP, "aes-128-gmac", "", false, 0, "Wireshark cannot read aes-128-gmac", false},
		{AH, "", "hmac-sha2-256-128", false, 0, "ah does not encrypt", false},
	} {
		row, err := newPair(t, Config{Suite: suite(t, c.p, c.enc, c.mac), ESN: c.esn}).in.WiresharkKeys(c.form)
		if err != nil {
			row = err.Error()
		}
		if c.ok != (err == nil) || !strings.Contains(row, c.want) {
			t.Errorf("%s/%s: %s %v, want %s", c.enc, c.mac, row, err, c.want)
		}
	}
}
