package rules

import (
	"strings"

	"github.com/ipfw/ipfw/esp"
)

// algorithm is one name that a policy may use, with what the checks have to
// know. ESP and AH know their own (package esp); the others are named as IANA
// does (Internet Key Exchange Version 2 Parameters), lower-case with dashes.
type algorithm struct {
	esp.Algorithm
	weak string // why it should go; a warning
}

// combined reports a cipher that protects integrity itself.
func (a algorithm) combined() bool { return a.Combined() }

// ofESP gives the algorithms of one type, with a word on those that RFC 8221
// wants out of use.
func ofESP(t esp.TransformType) map[string]algorithm {
	m := map[string]algorithm{}
	for _, a := range esp.Algorithms() {
		if a.Type != t {
			continue
		}
		row := algorithm{Algorithm: a}
		switch {
		case a.Name == "insecure-null":
			row.weak = "it encrypts nothing: everybody on the way can read along"
		case a.Status == esp.MustMinus:
			row.weak = "RFC 8221 keeps it for old peers only"
		}
		m[a.Name] = row
	}
	return m
}

var (
	encryptions = ofESP(esp.Encryption)
	integrities = ofESP(esp.Integrity)

	// ikeEncryptions and ikeIntegrities are those that IKE protects its own
	// messages with (RFC 8247 sections 2.1 and 2.3).
	ikeEncryptions = subset(encryptions, "aes-128-gcm-16", "aes-192-gcm-16", "aes-256-gcm-16", "chacha20-poly1305",
		"aes-128-cbc", "aes-192-cbc", "aes-256-cbc")
	ikeIntegrities = subset(integrities, "hmac-sha2-256-128", "hmac-sha2-384-192", "hmac-sha2-512-256", "hmac-sha1-96")
)

func subset(m map[string]algorithm, names ...string) map[string]algorithm {
	out := map[string]algorithm{}
	for _, n := range names {
		if a, ok := m[n]; ok {
			out[n] = a
		}
	}
	return out
}

// prfs are IKE's pseudo-random functions (RFC 8247 section 2.2).
var prfs = map[string]algorithm{
	"prf-hmac-sha2-256": {}, "prf-hmac-sha2-384": {}, "prf-hmac-sha2-512": {},
	"prf-hmac-sha1": {weak: "RFC 8247 keeps it for old peers only"},
}

// keyExchanges are groups and, after a "+", additional key exchanges that are
// run on top (RFC 9370).
var keyExchanges = map[string]algorithm{
	"x25519": {}, "p-256": {}, "p-384": {}, "p-521": {},
	"modp-2048": {weak: "RFC 8247 wants it for old peers; x25519 and p-256 are stronger and faster"},
	"modp-3072": {}, "modp-4096": {},
	"ml-kem-768":           {},
	"x25519+ml-kem-768":    {},
	"p-256+ml-kem-768":     {},
	"p-384+ml-kem-768":     {},
	"p-521+ml-kem-768":     {},
	"modp-3072+ml-kem-768": {},
	"modp-4096+ml-kem-768": {},
}

// algorithmHints answers the names of other programs and of older times.
var algorithmHints = map[string]string{
	"null": "encryption that does nothing has to be spelled \"insecure-null\"",
	"none": "ESP without encryption has to be spelled \"insecure-null\", and integrity cannot be left out",
	"3des": "3DES is out of use (RFC 8221 section 5); write \"aes-256-cbc\"", "des": "DES is out of use (RFC 8221 section 5); write \"aes-256-cbc\"",
	"3des-cbc": "3DES is out of use (RFC 8221 section 5); write \"aes-256-cbc\"",
	"md5":      "MD5 is out of use (RFC 8221 section 6); write \"hmac-sha2-256-128\"", "hmac-md5-96": "MD5 is out of use (RFC 8221 section 6); write \"hmac-sha2-256-128\"",
	"aes-gcm": "say the key length: \"aes-128-gcm-16\" or \"aes-256-gcm-16\"", "aes-cbc": "say the key length: \"aes-128-cbc\" or \"aes-256-cbc\"",
	"aes128gcm16": "write \"aes-128-gcm-16\"", "aes256gcm16": "write \"aes-256-gcm-16\"", "aes-128-gcm": "write \"aes-128-gcm-16\"",
	"aes-256-gcm": "write \"aes-256-gcm-16\"", "aes-192-gcm": "write \"aes-192-gcm-16\"", "aes128": "write \"aes-128-cbc\"", "aes256": "write \"aes-256-cbc\"",
	"sha1": "write \"hmac-sha1-96\"", "sha256": "write \"hmac-sha2-256-128\"", "sha2-256": "write \"hmac-sha2-256-128\"", "hmac-sha2-256": "write \"hmac-sha2-256-128\"",
	"hmac-sha256": "write \"hmac-sha2-256-128\"", "sha384": "write \"hmac-sha2-384-192\"", "sha512": "write \"hmac-sha2-512-256\"",
	"curve25519": "write \"x25519\"", "ecp-256": "write \"p-256\"", "ecp256": "write \"p-256\"", "ecp-384": "write \"p-384\"", "ecp384": "write \"p-384\"", "ecp-521": "write \"p-521\"",
	"mlkem768":  "write \"x25519+ml-kem-768\", or \"ml-kem-768\" for ML-KEM alone",
	"modp-1024": "groups below 2048 bits can be broken (RFC 8247 section 2.4); write \"x25519\"", "modp-1536": "groups below 2048 bits can be broken (RFC 8247 section 2.4); write \"x25519\"",
}

// algorithms reads a list of names out of a table, best first.
func (k block) algorithms(arg string, table map[string]algorithm) []string {
	names := keys(table)
	return k.words(arg, "the name of an algorithm, or a list of them", func(it item, s string) bool {
		a, ok := table[s]
		if !ok {
			hint := didYouMean(s, names)
			if h := algorithmHints[strings.ToLower(s)]; h != "" && arg != "prf" {
				hint = ": " + h
			}
			if hint == "" {
				hint = ": there are " + strings.Join(names, ", ")
			}
			k.l.fail(it.r, "Unknown algorithm", "There is no %s %q%s.", arg, s, hint)
			return false
		}
		if a.weak != "" {
			k.l.caution(it.r, "Weak algorithm", "%s: %s.", s, a.weak)
		}
		return true
	})
}
