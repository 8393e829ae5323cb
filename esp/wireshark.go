package esp

import (
	"fmt"
	"strings"
)

// WiresharkForm is a form of Wireshark's table "ESP SAs".
type WiresharkForm uint8

// The forms, the zero value that of today.
const (
	// Wireshark44 has a row of ten columns where sequence numbers have 64 bits:
	// the last two say so, and what their upper half is.
	Wireshark44 WiresharkForm = iota
	// Wireshark40 has eight columns always, and warns of more.
	Wireshark40
)

// wiresharkNames are what Wireshark 4.0 calls our algorithms. It knows neither
// AES-GMAC nor ChaCha20-Poly1305 in ESP.
var wiresharkNames = map[method]string{
	nullCipher: "NULL",
	aesCBC:     "AES-CBC [RFC3602]",
	aesCTR:     "AES-CTR [RFC3686]",
	aesGCM:     "AES-GCM with 16 octet ICV [RFC4106]",
	hmacSHA1:   "HMAC-SHA-1-96 [RFC2404]",
	hmacSHA256: "HMAC-SHA-256-128 [RFC4868]",
	hmacSHA384: "HMAC-SHA-384-192 [RFC4868]",
	hmacSHA512: "HMAC-SHA-512-256 [RFC4868]",
}

// WiresharkKeys gives the SA's keys as a row of Wireshark's table "ESP SAs"
// (the file esp_sa, or tshark -o 'uat:esp_sa:ROW'). It is the one way in which
// keys leave this package, for whoever asks by name; the caller sees to it that
// this is root. With extended sequence numbers Wireshark 4.0 reads the packets but
// cannot check them: it is told not to, and calls AES-GCM bad all the same; later
// ones are told the upper half of the number as it is now. It
// fails for a closed SA, for AH, which hides nothing, and for a suite that
// Wireshark cannot read.
func (sa *SA) WiresharkKeys(form WiresharkForm) (string, error) {
	s := sa.cfg.Suite
	if s.Protocol != ESP {
		return "", fmt.Errorf("%s: ah does not encrypt: there is nothing to read it by", sa)
	}
	encryption, ok := wiresharkNames[s.Encryption.method]
	if !ok {
		return "", fmt.Errorf("%s: Wireshark cannot read %s", sa, s.Encryption.Name)
	}
	integrity := "NULL"
	switch {
	case s.Integrity.method != 0 && sa.cfg.ESN && form == Wireshark40:
		// It does not know the half of the number that is not sent, and
		// would call every packet bad.
		integrity = fmt.Sprintf("ANY %d bit authentication [no checking]", s.ICV()*8)
	case s.Integrity.method != 0:
		integrity = wiresharkNames[s.Integrity.method]
	}
	src, dst, _ := sa.Endpoints()
	family := "IPv4"
	if dst.Is6() {
		family = "IPv6"
	}
	source, destination := "*", "*"
	if src.IsValid() {
		source = src.String()
	}
	if dst.IsValid() {
		destination = dst.String()
	}
	sa.keys.Lock()
	defer sa.keys.Unlock()
	if sa.closed.Load() {
		return "", fmt.Errorf("%s: closed, its keys are wiped", sa)
	}
	row := []string{family, source, destination, fmt.Sprintf("%#08x", sa.cfg.SPI),
		encryption, hexKey(sa.encryption), integrity, hexKey(sa.integrity)}
	if sa.cfg.ESN && form != Wireshark40 {
		row = append(row, "64-bit", fmt.Sprintf("%x", sa.Counters().Seq>>32))
	}
	return `"` + strings.Join(row, `","`) + `"`, nil
}

func hexKey(k Key) string {
	if k.Len() == 0 {
		return ""
	}
	return fmt.Sprintf("0x%x", k.bytes())
}
