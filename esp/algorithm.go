package esp

import "slices"

// TransformType is the IKEv2 transform type of an algorithm (RFC 7296 section
// 3.3.2).
type TransformType uint8

// The two transform types that make a suite.
const (
	Encryption TransformType = 1
	Integrity  TransformType = 3
)

// Status is what RFC 8221 asks of implementations (sections 5 and 6). An
// algorithm it does not name has status May, and one that it forbids is not
// here.
type Status uint8

// The statuses, weakest first.
const (
	May       Status = iota
	MustMinus        // MUST-: still mandatory, on its way out
	Should
	Must
)

// String gives the word of RFC 8221 section 2.
func (s Status) String() string {
	return [...]string{"MAY", "MUST-", "SHOULD", "MUST"}[s&3]
}

// method is how an algorithm is computed: what the ciphers of Go's library
// have to be asked.
type method uint8

const (
	nullCipher method = iota + 1
	aesGCM
	chachaPoly
	aesGMAC
	aesCBC
	aesCTR
	hmacSHA1
	hmacSHA256
	hmacSHA384
	hmacSHA512
)

// Algorithm is one row of the table of transforms. It is a plain value;
// changing a copy changes nothing else.
type Algorithm struct {
	Name string        // as policies and listings write it
	Type TransformType // Encryption or Integrity
	ID   uint16        // IANA "IKEv2 Transform Type 1" or "Type 3" number
	// KeyBits is the IKEv2 Key Length attribute in bits, 0 when the
	// algorithm is sent without one (RFC 7296 section 3.3.5).
	KeyBits int

	Key   int // bytes of key, without salt
	Salt  int // bytes of salt that follow the key in the key material
	IV    int // bytes of IV in each packet
	Block int // plaintext is padded to a multiple of this many bytes
	ICV   int // bytes of ICV in each packet; 0 when another algorithm makes it

	Status Status // RFC 8221
	// Counter says that the IV must never repeat under one key, in any
	// life of the key: such algorithms take no keys set by hand.
	Counter bool

	method method
}

// Combined reports an encryption algorithm that makes the ICV itself.
func (a Algorithm) Combined() bool { return a.Type == Encryption && a.ICV > 0 }

// KeyMaterial is how many bytes of key material the algorithm takes, key and
// salt (RFC 4106 section 8.1, RFC 7634 section 2, RFC 3686 section 5.1).
func (a Algorithm) KeyMaterial() int { return a.Key + a.Salt }

// Names are those of RFC 8221 and the IANA registry, in lower case. AES with
// 192-bit keys is MAY (RFC 8221 section 5, note 1).
var algorithms = [...]Algorithm{
	{"aes-128-gcm-16", Encryption, 20, 128, 16, 4, 8, 1, 16, Must, true, aesGCM}, // RFC 4106
	{"aes-192-gcm-16", Encryption, 20, 192, 24, 4, 8, 1, 16, May, true, aesGCM},
	{"aes-256-gcm-16", Encryption, 20, 256, 32, 4, 8, 1, 16, Must, true, aesGCM},
	{"chacha20-poly1305", Encryption, 28, 0, 32, 4, 8, 1, 16, Should, true, chachaPoly}, // RFC 7634
	{"aes-128-cbc", Encryption, 12, 128, 16, 0, 16, 16, 0, Must, false, aesCBC},         // RFC 3602
	{"aes-192-cbc", Encryption, 12, 192, 24, 0, 16, 16, 0, May, false, aesCBC},
	{"aes-256-cbc", Encryption, 12, 256, 32, 0, 16, 16, 0, Must, false, aesCBC},
	{"aes-128-ctr", Encryption, 13, 128, 16, 4, 8, 1, 0, May, true, aesCTR}, // RFC 3686
	{"aes-192-ctr", Encryption, 13, 192, 24, 4, 8, 1, 0, May, true, aesCTR},
	{"aes-256-ctr", Encryption, 13, 256, 32, 4, 8, 1, 0, May, true, aesCTR},
	{"aes-128-gmac", Encryption, 21, 128, 16, 4, 8, 1, 16, May, true, aesGMAC}, // RFC 4543: no encryption
	{"aes-192-gmac", Encryption, 21, 192, 24, 4, 8, 1, 16, May, true, aesGMAC},
	{"aes-256-gmac", Encryption, 21, 256, 32, 4, 8, 1, 16, May, true, aesGMAC},
	{"insecure-null", Encryption, 11, 0, 0, 0, 0, 1, 0, Must, false, nullCipher}, // RFC 2410

	{"hmac-sha2-256-128", Integrity, 12, 0, 32, 0, 0, 1, 16, Must, false, hmacSHA256}, // RFC 4868
	{"hmac-sha2-384-192", Integrity, 13, 0, 48, 0, 0, 1, 24, May, false, hmacSHA384},
	{"hmac-sha2-512-256", Integrity, 14, 0, 64, 0, 0, 1, 32, Should, false, hmacSHA512},
	{"hmac-sha1-96", Integrity, 2, 0, 20, 0, 0, 1, 12, MustMinus, false, hmacSHA1}, // RFC 2404
	{"aes-128-gmac", Integrity, 9, 0, 16, 4, 8, 1, 16, May, true, aesGMAC},         // RFC 4543 section 4: AH only
	{"aes-192-gmac", Integrity, 10, 0, 24, 4, 8, 1, 16, May, true, aesGMAC},
	{"aes-256-gmac", Integrity, 11, 0, 32, 4, 8, 1, 16, May, true, aesGMAC},
}

// Algorithms gives the whole table, encryption first, each part in the order
// in which a proposal should list it.
func Algorithms() []Algorithm { return slices.Clone(algorithms[:]) }

// FindAlgorithm looks an algorithm up by type and name.
func FindAlgorithm(t TransformType, name string) (Algorithm, bool) {
	for i := range algorithms {
		if a := &algorithms[i]; a.Type == t && a.Name == name {
			return *a, true
		}
	}
	return Algorithm{}, false
}

// FindTransform looks an algorithm up as IKEv2 names it: transform type, ID
// and Key Length attribute in bits (0: not sent).
func FindTransform(t TransformType, id uint16, keyBits int) (Algorithm, bool) {
	for i := range algorithms {
		if a := &algorithms[i]; a.Type == t && a.ID == id && a.KeyBits == keyBits {
			return *a, true
		}
	}
	return Algorithm{}, false
}

// names lists the algorithms of one type, for messages.
func names(t TransformType, keep func(Algorithm) bool) (list []string) {
	for _, a := range algorithms {
		if a.Type == t && keep(a) {
			list = append(list, a.Name)
		}
	}
	return list
}
