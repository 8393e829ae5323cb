package esp

// Fault says why a packet was not sealed or not opened. The zero value, OK,
// means that it was. The list is closed: each fault has a counter in the SA
// (or in the SAD, when there was no SA to blame).
type Fault uint8

// The faults. Those down to Unauthentic can be met by a packet that nobody
// vouches for; the ones after it only by one that is authentic, or by us.
const (
	OK          Fault = iota
	Short             // fewer bytes than the headers, the IV and the ICV need
	Malformed         // IP header, extension headers or lengths that do not hold together, or not of the SA's kind
	Fragment          // a fragment: IPsec opens and seals whole datagrams (RFC 4303 section 3.4.1)
	UnknownSPI        // no SA has this SPI, protocol and destination (RFC 4303 section 3.4.2)
	NoSA              // no outbound SA serves this owner
	WrongWay          // an inbound SA was asked to seal or an outbound one to open
	Closed            // the SA is dead
	Expired           // hard lifetime over (RFC 4301 section 4.4.2.1)
	TooOld            // sequence number left of the replay window
	Replay            // sequence number seen before (RFC 4303 section 3.4.3)
	Unauthentic       // the ICV is wrong: another key, or altered on the way
	BadPadding        // padding that is not 1, 2, 3, ... or longer than the packet (RFC 4303 section 2.4)
	BadPayload        // opened, but what it holds is no packet that the SA's mode allows
	BadECN            // congestion mark over a packet that cannot bear one (RFC 6040 section 4.2)
	Dummy             // a dummy packet, rightly sent and to be forgotten (RFC 4303 section 2.6)
	Exhausted         // no sequence number left (RFC 4303 section 3.3.3)
	TooBig            // more than 65,535 bytes when sealed
	NoRoom            // the caller's buffer has no room around the packet
	faultCount
)

var faultNames = [faultCount]string{
	"ok", "short", "malformed", "fragment", "unknown-spi", "no-sa", "wrong-way", "closed", "expired",
	"too-old", "replay", "unauthentic", "bad-padding", "bad-payload", "bad-ecn", "dummy",
	"sequence-exhausted", "too-big", "no-room",
}

// String gives the fault's name as counters and events print it.
func (f Fault) String() string {
	if int(f) < len(faultNames) {
		return faultNames[f]
	}
	return "unknown-fault"
}

// Faults is how many faults there are, OK included; for tables by fault.
const Faults = int(faultCount)
