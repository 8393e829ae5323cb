package capture

import (
	"bytes"
	"fmt"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// otherPayload leaves the rarer kinds of link (802.11 with and without
// Radiotap, FDDI, PF log, ...) to gopacket: it decodes down to the IP header,
// and survives its own decoders' panics. Slow, and allocates.
func otherPayload(link uint16, b []byte) ([]byte, error) {
	typ := layers.LinkType(link)
	if link > 255 || !known(typ) {
		return nil, fmt.Errorf("%w %d", ErrLinkType, link)
	}
	p := gopacket.NewPacket(b, typ, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	// Asking a lazy packet for a layer decodes as far as that layer only.
	ip := p.Layer(layers.LayerTypeIPv4)
	if ip == nil {
		ip = p.Layer(layers.LayerTypeIPv6)
	}
	if ip == nil {
		return nil, ErrNotIP
	}
	// Some decoders work on a copy, so count where the header must be in b,
	// and look.
	at := 0
	for _, l := range p.Layers() {
		if l == ip {
			break
		}
		at += len(l.LayerContents())
	}
	if at > len(b) || !bytes.HasPrefix(b[at:], ip.LayerContents()) {
		return nil, ErrNotIP
	}
	return rawIP(b[at:])
}

// known says whether gopacket has a decoder for the link type.
func known(t layers.LinkType) bool {
	m := layers.LinkTypeMetadata[t]
	return m.DecodeWith != nil && m.Name != "UnknownLinkType"
}
