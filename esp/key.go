package esp

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
)

// Key is secret bytes that do not let themselves be printed: every way to show
// one shows "[key]", and where fmt goes round these methods (a Key in an
// unexported field) it finds a pointer to a pointer. The zero value is an empty
// key. Copies of a Key are one key and are wiped together.
type Key struct{ p *secret }

// secret has a pointer of its own because fmt follows the first one when it is
// given a verb that does not suit pointers.
type secret struct{ b *[]byte }

// NewKey copies b into a Key. Wiping b is the caller's.
func NewKey(b []byte) Key {
	b = slices.Clone(b)
	return Key{&secret{&b}}
}

// Len is the length of the key in bytes; 0 once it is wiped.
func (k Key) Len() int { return len(k.bytes()) }

// Wipe overwrites the key, in every copy of k, with zeros.
func (k Key) Wipe() {
	if k.p != nil {
		clear(*k.p.b)
		*k.p.b = nil
	}
}

func (k Key) bytes() []byte {
	if k.p == nil {
		return nil
	}
	return *k.p.b
}

const hidden = "[key]"

// String, GoString, Format, MarshalText and LogValue show that there is a key
// and nothing of it.
func (k Key) String() string { return hidden }

// GoString is String.
func (k Key) GoString() string { return hidden }

// Format prints what String gives, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// MarshalText keeps keys out of JSON and the like.
func (k Key) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue keeps keys out of logs.
func (k Key) LogValue() slog.Value { return slog.StringValue(hidden) }

// KeyID tells the keys of an SA apart from others without telling what they
// are: a hash of SPI, direction, algorithms and keys. Equal IDs are the same SA
// under the same keys, also over a restart.
func (c *Config) KeyID() (id [32]byte) {
	h := sha256.New()
	fmt.Fprintf(h, "ipfw sa %d %d %d %s ", c.Suite.Protocol, c.SPI, c.Direction, c.Suite)
	for _, k := range []Key{c.EncryptionKey, c.IntegrityKey} {
		fmt.Fprintf(h, "%d ", k.Len())
		h.Write(k.bytes())
	}
	h.Sum(id[:0])
	return id
}
