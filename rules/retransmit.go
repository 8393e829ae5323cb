package rules

import (
	"fmt"
	"strconv"
	"time"
)

// What holds for requests of the key exchange that get no answer, unless an ike block
// says otherwise: the peer is given up after 63 seconds.
const (
	DefaultRetransmitTimeout = time.Second
	DefaultRetransmitBase    = 2.0
	DefaultRetransmitTries   = 5

	// maxRetransmit is how long a peer may be waited for in all.
	maxRetransmit = time.Hour
)

// retransmit reads when a request is sent again, and when the peer is given up, in
// strongSwan's words: timeout, then base times as long each, tries times.
func (k block) retransmit(i *IKE) {
	i.RetransmitTimeout = k.duration("retransmit_timeout", 100*time.Millisecond, time.Minute)
	i.RetransmitBase = k.number("retransmit_base", 1, 10)
	i.RetransmitTries = int(k.integer("retransmit_tries", 1, 20, 0))
	if d := i.GiveUpAfter(); d > maxRetransmit {
		for _, arg := range []string{"retransmit_tries", "retransmit_base", "retransmit_timeout"} {
			if k.has(arg) {
				k.l.fail(k.at(arg), "Arguments do not fit", "With these retransmit arguments a peer that does not answer would be given up after more than %s: write fewer tries, a smaller base or a shorter timeout.",
					formatDuration(maxRetransmit))
				return
			}
		}
	}
}

// GiveUpAfter is how long a request of the key exchange goes without an answer until
// the peer is given up; more than an hour: at least that long.
func (i *IKE) GiveUpAfter() (d time.Duration) {
	timeout, base, tries := i.RetransmitTimeout, i.RetransmitBase, i.RetransmitTries
	if timeout == 0 {
		timeout = DefaultRetransmitTimeout
	}
	if base == 0 {
		base = DefaultRetransmitBase
	}
	if tries == 0 {
		tries = DefaultRetransmitTries
	}
	wait := float64(timeout)
	for n := 0; n <= tries && d <= maxRetransmit; n++ {
		d += time.Duration(min(wait, float64(2*maxRetransmit)))
		wait *= base
	}
	return d
}

// number gives a number from lo to hi, which may have decimals, or 0.
func (k block) number(arg string, lo, hi float64) float64 {
	want := fmt.Sprintf("a number from %s to %s", formatNumber(lo), formatNumber(hi))
	it, ok := k.one(arg, want)
	if !ok {
		return 0
	}
	s, _ := asText(it.v)
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || !(n >= lo && n <= hi) { // NaN is neither
		k.l.fail(it.r, "Wrong value", "%s is %s%s.", arg, want, notThis(it))
		return 0
	}
	return n
}

func formatNumber(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
