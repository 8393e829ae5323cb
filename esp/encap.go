package esp

// Datagram says what a UDP datagram on port 4500 holds (RFC 3948 section 2,
// RFC 7296 section 3.1).
type Datagram uint8

// The kinds. The zero value is none of them.
const (
	Garbage      Datagram = iota // too short for any of the others
	IKEMessage                   // behind a non-ESP marker of four zero bytes
	ESPPacket                    // begins with an SPI
	NATKeepalive                 // one byte of 255: to be forgotten
)

// NonESPMarker is how many zero bytes stand in front of an IKE message on port
// 4500.
const NonESPMarker = 4

// Classify says what the payload of a UDP datagram on port 4500 is.
func Classify(b []byte) Datagram {
	switch {
	case len(b) == 1 && b[0] == 0xff:
		return NATKeepalive
	case len(b) > NonESPMarker && be.Uint32(b) == 0:
		return IKEMessage
	case len(b) >= espHeader && be.Uint32(b) != 0:
		return ESPPacket
	}
	return Garbage
}
