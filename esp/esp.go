// Package esp protects packets as RFC 4303 (ESP) and RFC 4302 (AH) say, in
// transport and tunnel mode, for IPv4 and IPv6 and every pairing of the two.
// It knows no policy, no sockets and no clock: bytes and the time go in, bytes
// or a Fault come out.
//
//	                 Seal                                      Open
//	IP | payload  -------->  IP | ESP | payload | ICV   -------->  IP | payload      transport
//	IP | payload  -------->  outer | ESP | IP | payload | ICV  -->  IP | payload     tunnel
//
// An SA is one direction of one association; whether its keys came from a
// file or from IKE makes no difference to it. The SAD holds them: inbound by
// SPI, outbound by owner. Suites come from one table (Algorithm), which also
// serves key exchange proposals and `ipfw` listings.
//
// Opening never changes an SA before the packet is proved authentic: a forged
// packet moves a counter of faults and nothing else.
//
// Limits:
//   - unicast SAs only; the SPI alone names an inbound SA within its protocol
//   - an ESN receiver does not resynchronize after losing 2^32 packets in one
//     run (RFC 4303, appendix A3)
//   - in transport mode TFC padding is not sent, and a packet with an IPv6
//     Fragment header is refused (RFC 4303 section 3.1.1 wants whole datagrams)
//   - no IPComp, no BEET mode, no XCBC or CMAC; no AES-CCM (docs/design.md says
//     why)
//   - Close wipes the keys that this package holds; the expanded keys inside
//     the standard library's ciphers are left to the garbage collector
package esp

// Protocol is the IPsec protocol of an SA, as its IANA protocol number.
type Protocol uint8

// The protocols.
const (
	ESP Protocol = 50 // RFC 4303
	AH  Protocol = 51 // RFC 4302
)

// String gives the word that a policy uses: esp or ah.
func (p Protocol) String() string {
	switch p {
	case ESP:
		return "esp"
	case AH:
		return "ah"
	}
	return "no protocol"
}

// Mode is the IPsec mode of an SA (RFC 4301 section 4.1). The zero value is
// none, and no SA has it.
type Mode uint8

// The modes.
const (
	Transport Mode = 1 + iota
	Tunnel
)

// String gives the word that a policy uses: transport or tunnel.
func (m Mode) String() string {
	switch m {
	case Transport:
		return "transport"
	case Tunnel:
		return "tunnel"
	}
	return "no mode"
}

// Direction says whether an SA opens what arrives or seals what leaves.
type Direction uint8

// The directions.
const (
	In Direction = iota
	Out
)

// String gives in or out.
func (d Direction) String() string {
	if d == Out {
		return "out"
	}
	return "in"
}
