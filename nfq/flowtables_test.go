package nfq

import (
	"testing"

	"github.com/mdlayher/netlink"
)

// TestFlowtableWords: what the kernel tells of a flowtable, said to people; what is
// not whole is said as far as it goes.
func TestFlowtableWords(t *testing.T) {
	encode := func(attrs ...netlink.Attribute) []byte {
		b, err := netlink.MarshalAttributes(attrs)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	text := func(typ uint16, s string) netlink.Attribute {
		return netlink.Attribute{Type: typ, Data: append([]byte(s), 0)}
	}
	whole := encode(text(attrFlowtableTable, "fast"), text(attrFlowtableName, "ft"),
		netlink.Attribute{Type: attrFlowtableHook | netlink.Nested, Data: encode(
			netlink.Attribute{Type: 1, Data: []byte{0, 0, 0, 0}}, // its hook
			netlink.Attribute{Type: attrFlowtableDevs | netlink.Nested, Data: encode(text(1, "eth0"), text(1, "eth\x1b1"))})})
	for _, row := range []struct {
		b    []byte
		want string
	}{
		{whole, `ft of table fast (eth0, eth\x1b1)`},
		{whole[:20], "ft of table fast ()"},
		{nil, " of table  ()"},
	} {
		if got := flowtableWords(row.b); got != row.want {
			t.Errorf("%x: %q, want %q", row.b, got, row.want)
		}
	}
}
