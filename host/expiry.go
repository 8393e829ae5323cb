package host

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
	"github.com/ipfw/ipfw/rules"
)

// validity is for how long a certificate or a revocation list of an ike block
// holds.
type validity struct {
	block *rules.IKE
	arg   string
	what  string
	from  time.Time
	until time.Time // zero: for ever
	after string    // what is so outside of that time
	renew string    // what to do
}

// warnBefore is how long before the end of a certificate or a revocation list it is
// warned of.
const warnBefore = 30 * 24 * time.Hour

// warnAgain is how often it is.
const warnAgain = 24 * time.Hour

// validitiesOf lists what has an end among the files of an ike block, which have
// been read into p.
func validitiesOf(k *rules.IKE, p *ike.Peer) (list []validity) {
	for i, c := range p.Certificates {
		v := validity{block: k, arg: "certificate", what: "the certificate of " + nameOf(c), from: c.NotBefore, until: c.NotAfter,
			after: "no peer believes this host", renew: "make a new one, and reload"}
		if i > 0 {
			v.what = "in its chain, " + v.what
		}
		list = append(list, v)
	}
	for _, c := range p.CAs {
		list = append(list, validity{block: k, arg: "ca", what: "the certificate of the authority " + nameOf(c), from: c.NotBefore, until: c.NotAfter,
			after: "no peer with a certificate of it is believed", renew: "it takes a new one, and certificates by it"})
	}
	for _, c := range p.CRLs {
		list = append(list, validity{block: k, arg: "crl", what: "the revocation list of " + packet.Printable(cmp.Or(c.Issuer.String(), "an authority without a name")),
			from: c.ThisUpdate, until: c.NextUpdate,
			after: "no peer with a certificate of that authority is believed", renew: "take a new one (`ipfw pki crl` makes it), and reload"})
	}
	return list
}

// nameOf names a certificate for people.
func nameOf(c *x509.Certificate) string {
	name := c.Subject.String()
	for _, list := range [][]string{c.DNSNames, c.EmailAddresses} {
		if name == "" && len(list) > 0 {
			name = list[0]
		}
	}
	return packet.Printable(cmp.Or(name, "serial number "+c.SerialNumber.String()))
}

// warning says what is wrong with it now or will be soon; both empty: nothing.
func (v *validity) warning(now time.Time) (summary, text string) {
	day := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
	what, path := upperStart(v.what), v.path()
	switch {
	case now.Before(v.from):
		return "Not valid yet", fmt.Sprintf("%s (%s) is not valid before %s, and it is %s by this host's clock: until then %s. Is the clock right?",
			what, path, day(v.from), day(now), v.after)
	case v.until.IsZero():
	case !now.Before(v.until):
		return "No longer valid", fmt.Sprintf("%s (%s) has ended at %s, and it is %s by this host's clock: %s. %s",
			what, path, day(v.until), day(now), v.after, upperStart(v.renew))
	case now.Add(warnBefore).After(v.until):
		return "Ends soon", fmt.Sprintf("%s (%s) ends at %s, in %s; then %s. %s", what, path, day(v.until), daysUntil(v.until.Sub(now)), v.after, upperStart(v.renew))
	}
	return "", ""
}

func (v *validity) path() string {
	switch v.arg {
	case "certificate":
		return v.block.Certificate
	case "ca":
		return v.block.CA
	}
	return v.block.CRL
}

func daysUntil(d time.Duration) string {
	if days := int(d.Hours() / 24); days > 0 {
		return counted(days, "day")
	}
	return "less than a day"
}

func upperStart(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// maxEnding is of how many certificates of one file is warned one by one: a file
// of all authorities that a system knows has hundreds.
const maxEnding = 3

// ending is what is wrong now or will be soon, of each file the first few.
func ending(list []validity, now time.Time, yield func(v *validity, summary, text string)) {
	type file struct{ block, arg string }
	left := map[file]int{}
	for i := range list {
		v := &list[i]
		summary, text := v.warning(now)
		if text == "" {
			continue
		}
		f := file{v.block.Name, v.arg}
		if left[f]++; left[f] <= maxEnding {
			yield(v, summary, text)
		}
	}
	for i := range list {
		v := &list[i]
		f := file{v.block.Name, v.arg}
		if n := left[f] - maxEnding; n > 0 {
			yield(v, "More of the kind", fmt.Sprintf("So it is with %d more in %s", n, v.path()))
		}
		delete(left, f)
	}
}

// endingNow is ending as Diagnostics of the policy.
func endingNow(list []validity, now time.Time) (out []Diagnostic) {
	ending(list, now, func(v *validity, summary, text string) {
		d := Diagnostic{Severity: "warning", Summary: summary, Detail: text + "."}
		at := cmp.Or(v.block.Places[v.arg], v.block.Place)
		if i := strings.LastIndexByte(at, ':'); i >= 0 {
			d.File = at[:i]
			d.Line, _ = strconv.Atoi(at[i+1:])
			d.Column = 1
		}
		out = append(out, d)
	})
	return out
}

// ending is what is wrong, or will be soon, with the certificates in force.
func (x *exchange) ending(now time.Time) []Diagnostic {
	if list := x.valid.Load(); list != nil {
		return endingNow(*list, now)
	}
	return nil
}

// tellEnding writes an event if there is something to tell of certificates.
func (d *daemon) tellEnding(now time.Time) {
	d.toldEnding = now
	if list := d.exchange.ending(now); len(list) > 0 {
		d.ring.add(&Event{Kind: KindValidity, Count: uint64(len(list)), Diagnostics: rules.Shorten(list),
			Message: "certificates or revocation lists do not hold, or not for long"})
	}
}
