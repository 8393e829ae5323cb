package packet

// Fault says why bytes are not a packet ipfw is ready to judge. The zero
// value, OK, means that they are. The list is closed: each fault has a counter.
type Fault uint8

// The faults, in the order in which Parse can meet them.
const (
	OK              Fault = iota
	Truncated             // fewer bytes than the header in hand needs
	BadVersion            // neither IPv4 nor IPv6, or IPv4-mapped addresses in an IPv6 header
	BadHeaderLength       // IPv4 IHL below 5, TCP data offset below 5, an AH too short, ...
	BadLength             // a length field that says more, or less, than there is
	BadChain              // IPv6 extension headers too many, too long, or out of place (RFC 8200 section 4.1)
	BadFragment           // tiny, misaligned or over-long fragment (RFC 1858, 3128, 5722, 7112)
	BadTransport          // a transport header that no host may send (TCP SYN+FIN, SYN+RST, SPI 0)
	faultCount
)

var faultNames = [faultCount]string{
	"ok", "truncated", "bad-version", "bad-header-length", "bad-length",
	"bad-extension-chain", "bad-fragment", "bad-transport",
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
