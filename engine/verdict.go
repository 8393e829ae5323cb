package engine

// Verdict is what becomes of one packet (RFC 4301 section 4.4.1). The zero
// value discards, so that whatever forgets to decide has decided to drop.
type Verdict uint8

// The verdicts of RFC 4301.
const (
	Discard Verdict = iota
	Bypass
	Protect
)

var verdictNames = [...]string{"discard", "bypass", "protect"}

// String gives the word that a policy uses for the verdict.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return "discard"
}

// Direction says which way one packet crosses the host.
type Direction uint8

// The three ways, one for each hook. The zero value is In.
const (
	In Direction = iota
	Out
	Forward
	directionCount
)

var directionNames = [...]string{"in", "out", "forward"}

// String gives the word that a policy uses for the direction.
func (d Direction) String() string {
	if int(d) < len(directionNames) {
		return directionNames[d]
	}
	return "unknown"
}

// DefaultName is how the policy block's answer for a direction is called where
// the name of a rule would stand.
func DefaultName(d Direction) string {
	switch d {
	case In:
		return "(inbound default)"
	case Out:
		return "(outbound default)"
	}
	return "(forward default)"
}

// DefaultNameOf is DefaultName for the word of a direction.
func DefaultNameOf(direction string) string {
	for d := range directionCount {
		if d.String() == direction {
			return DefaultName(d)
		}
	}
	return DefaultName(Forward)
}
