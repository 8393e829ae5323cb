package esp

import (
	"fmt"
	"strings"
)

// Suite is what an SA does to each packet: an encryption and an integrity
// algorithm that fit together. The zero value is no suite and is refused.
type Suite struct {
	Protocol Protocol
	// Encryption is empty for AH, Integrity for combined algorithms. One of
	// the two always makes an ICV: no integrity at all cannot be written.
	Encryption, Integrity Algorithm
}

// NewSuite finds a suite by the names a policy uses. For AH encryption is "";
// for ESP integrity is "" exactly when the encryption algorithm is combined
// (AES-GCM, ChaCha20-Poly1305, AES-GMAC).
func NewSuite(p Protocol, encryption, integrity string) (Suite, error) {
	s := Suite{Protocol: p}
	var ok bool
	if encryption != "" {
		if s.Encryption, ok = FindAlgorithm(Encryption, encryption); !ok {
			hint := ""
			if encryption == "null" {
				hint = `; no encryption is written "insecure-null"`
			}
			return Suite{}, fmt.Errorf("encryption %q is not known%s; use one of %s", encryption, hint,
				strings.Join(names(Encryption, func(Algorithm) bool { return true }), ", "))
		}
	}
	if integrity != "" {
		if s.Integrity, ok = FindAlgorithm(Integrity, integrity); !ok {
			return Suite{}, fmt.Errorf("integrity %q is not known; use one of %s", integrity,
				strings.Join(names(Integrity, func(Algorithm) bool { return true }), ", "))
		}
	}
	return s, s.Check()
}

// SuiteOf makes a suite of two algorithms, as IKE has negotiated them; either
// may be empty where NewSuite allows it.
func SuiteOf(p Protocol, encryption, integrity Algorithm) (Suite, error) {
	s := Suite{p, encryption, integrity}
	return s, s.Check()
}

// Check says in one sentence what is wrong with a suite.
func (s Suite) Check() error {
	e, i := s.Encryption, s.Integrity
	switch {
	case s.Protocol != ESP && s.Protocol != AH:
		return fmt.Errorf("protocol %d is neither esp (50) nor ah (51)", s.Protocol)
	case e.method != 0 && e.Type != Encryption:
		return fmt.Errorf("%s is not an encryption algorithm", e.Name)
	case i.method != 0 && i.Type != Integrity:
		return fmt.Errorf("%s is not an integrity algorithm", i.Name)
	case s.Protocol == AH && e.method != 0:
		return fmt.Errorf("ah does not encrypt: drop encryption %q or use esp", e.Name)
	case s.Protocol == AH && i.method == 0:
		return fmt.Errorf("ah needs an integrity algorithm; use one of %s",
			strings.Join(names(Integrity, func(Algorithm) bool { return true }), ", "))
	case s.Protocol == AH:
		return nil
	case e.method == 0:
		return fmt.Errorf("esp needs an encryption algorithm; use one of %s",
			strings.Join(names(Encryption, func(Algorithm) bool { return true }), ", "))
	case e.Combined() && i.method != 0:
		return fmt.Errorf("%s makes its own integrity value: drop integrity %q", e.Name, i.Name)
	case !e.Combined() && i.method == 0:
		return fmt.Errorf("%s without integrity protects nothing (RFC 8221 section 4): add integrity, one of %s", e.Name,
			strings.Join(names(Integrity, func(a Algorithm) bool { return a.method != aesGMAC }), ", "))
	case i.method == aesGMAC:
		return fmt.Errorf("integrity %s is for ah; in esp write encryption = %q without integrity", i.Name, i.Name)
	}
	return nil
}

// ManualKeys says why a suite takes no keys set by hand; nil if it does.
func (s Suite) ManualKeys() error {
	for _, a := range [...]Algorithm{s.Encryption, s.Integrity} {
		if a.Counter {
			return fmt.Errorf("%s takes no manual keys: after a restart it would use a nonce twice, "+
				"which gives the key away (RFC 8221 section 3, RFC 4106 section 2); use aes-256-cbc with hmac-sha2-256-128, or ike", a.Name)
		}
	}
	return nil
}

// KeyMaterial is how many bytes of key material one direction takes.
func (s Suite) KeyMaterial() int { return s.Encryption.KeyMaterial() + s.Integrity.KeyMaterial() }

// Keys cuts the key material of one direction into the two keys, encryption
// first (RFC 7296 section 2.17). The material is copied; wiping it is the
// caller's.
func (s Suite) Keys(material []byte) (encryption, integrity Key, err error) {
	if len(material) != s.KeyMaterial() {
		return Key{}, Key{}, fmt.Errorf("%s takes %d bytes of key material, not %d", s, s.KeyMaterial(), len(material))
	}
	n := s.Encryption.KeyMaterial()
	return NewKey(material[:n]), NewKey(material[n:]), nil
}

// IV is how many bytes of initialization vector each packet carries.
func (s Suite) IV() int { return s.Encryption.IV + s.Integrity.IV }

// ICV is how many bytes of integrity check value each packet carries.
func (s Suite) ICV() int { return s.Encryption.ICV + s.Integrity.ICV }

// String names the suite: the encryption algorithm, and the integrity
// algorithm after a slash where it is another one.
func (s Suite) String() string {
	switch {
	case s.Encryption.method == 0 && s.Integrity.method == 0:
		return "no suite"
	case s.Encryption.method == 0:
		return s.Integrity.Name
	case s.Integrity.method == 0:
		return s.Encryption.Name
	}
	return s.Encryption.Name + "/" + s.Integrity.Name
}
