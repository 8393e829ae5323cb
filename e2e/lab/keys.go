package lab

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"path/filepath"
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
	if m.Encryption == "" || m.Encryption == "insecure-null" {
		m.KeySize = 0
	}
	files := [2]string{tag + "-first.keys", tag + "-second.keys"}
	l.KeyFiles(files[0], files[1], m.KeySize, m.MACKey)
	block := func(in int, local, remote string) string {
		out := 1 - in
		cipher := ""
		if m.Encryption != "" {
			cipher = fmt.Sprintf("    encryption = %q\n", m.Encryption)
		}
		file := filepath.Join(l.Dir, files[in])
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
	return block(0, m.Local, m.Remote), block(1, m.Remote, m.Local)
}

// KeyFiles writes the key files of both ends of a pair of manual SAs, with new
// keys of so many bytes; 0: the suite takes none.
func (l *Lab) KeyFiles(first, second string, enc, mac int) {
	l.Helper()
	var text [2]string
	for name, n := range map[string]int{"encryption": enc, "integrity": mac} {
		for in := range 2 {
			if n > 0 {
				key := l.hexKey(n)
				text[in] += fmt.Sprintf("%s_in = %s\n", name, key)
				text[1-in] += fmt.Sprintf("%s_out = %s\n", name, key)
			}
		}
	}
	l.File(first, text[0])
	l.File(second, text[1])
}

func (l *Lab) hexKey(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand
	return hex.EncodeToString(b)
}
