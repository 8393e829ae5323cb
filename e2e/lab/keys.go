package lab

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// Manual is an ipsec block with keys set by hand, as the two hosts of a pair
// write it.
type Manual struct {
	Name            string // of the block; default "peer"
	Mode, Protocol  string // default "transport", "esp"
	Local, Remote   string // endpoints, of the first host
	SPI             uint32 // the first host receives by it, the second by the next; default 0x1001
	Encryption      string // default aes-256-cbc
	Integrity       string // default hmac-sha2-256-128
	KeySize, MACKey int    // bytes; default 32 each
	Extra           string // more lines of the block
}

// Blocks makes the block for both hosts, with new keys in files of the test
// whose names begin with tag.
func (l *Lab) Blocks(tag string, m Manual) (first, second string) {
	l.Helper()
	set := func(s *string, def string) {
		if *s == "" {
			*s = def
		}
	}
	set(&m.Name, "peer")
	set(&m.Mode, "transport")
	set(&m.Protocol, "esp")
	set(&m.Integrity, "hmac-sha2-256-128")
	if m.Protocol == "esp" {
		set(&m.Encryption, "aes-256-cbc")
	}
	if m.SPI == 0 {
		m.SPI = 0x1001
	}
	if m.KeySize == 0 {
		m.KeySize = 32
	}
	if m.MACKey == 0 {
		m.MACKey = 32
	}
	enc := [2]string{l.hexKey(m.KeySize), l.hexKey(m.KeySize)}
	mac := [2]string{l.hexKey(m.MACKey), l.hexKey(m.MACKey)}
	block := func(host string, in int, local, remote string) string {
		out := 1 - in
		keys := fmt.Sprintf("integrity_in = %s\nintegrity_out = %s\n", mac[in], mac[out])
		cipher := ""
		if m.Encryption != "" {
			cipher = fmt.Sprintf("    encryption = %q\n", m.Encryption)
			if m.Encryption != "insecure-null" {
				keys += fmt.Sprintf("encryption_in = %s\nencryption_out = %s\n", enc[in], enc[out])
			}
		}
		file := l.File(tag+"-"+host+".keys", keys)
		return fmt.Sprintf(`
ipsec %q {
  mode            = %q
  protocol        = %q
  local_endpoint  = %q
  remote_endpoint = %q
%s
  manual {
    spi_in    = "%#x"
    spi_out   = "%#x"
%s    integrity = %q
    key_file  = %q
  }
}
`, m.Name, m.Mode, m.Protocol, local, remote, m.Extra, m.SPI+uint32(in), m.SPI+uint32(out), cipher, m.Integrity, file)
	}
	return block("first", 0, m.Local, m.Remote), block("second", 1, m.Remote, m.Local)
}

func (l *Lab) hexKey(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand
	return hex.EncodeToString(b)
}
