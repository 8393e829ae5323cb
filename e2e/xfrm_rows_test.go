package e2e

import (
	"cmp"
	"fmt"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/esp"
)

// xfrmRow is one way for ipfw and the Linux kernel to protect what runs
// between them.
type xfrmRow struct {
	suite    esp.Suite
	mode     esp.Mode
	inner6   bool // family of what is protected
	outer6   bool // family of the sealed packets; in transport mode the same
	esn      bool
	udp      bool // ESP in UDP
	ahAlign8 bool // AH on IPv4 padded to 8 bytes, as Linux has it by default
}

func (r xfrmRow) String() string { return strings.Join(r.values(), " ") }

// xfrmDimensions are the dimensions of the matrix, in the order of values.
var xfrmDimensions = [...]string{"protocol", "mode", "inner", "outer", "encryption", "integrity", "esn", "udp", "align"}

// values gives the row's value in each dimension.
func (r xfrmRow) values() []string {
	say := func(b bool, yes, no string) string {
		if b {
			return yes
		}
		return no
	}
	return []string{r.suite.Protocol.String(), r.mode.String(), say(r.inner6, "v6", "v4"), say(r.outer6, "v6", "v4"),
		cmp.Or(r.suite.Encryption.Name, "-"), cmp.Or(r.suite.Integrity.Name, "-"),
		say(r.esn, "esn", "-"), say(r.udp, "udp", "-"), say(r.ahAlign8, "align8", "-")}
}

// xfrmRows is the whole product: every suite that ipfw has, in every shape.
func xfrmRows() (rows []xfrmRow) {
	for _, suite := range allSuites() {
		for _, mode := range []esp.Mode{esp.Transport, esp.Tunnel} {
			for shape := range 1 << 5 {
				bit := func(n int) bool { return shape>>n&1 == 1 }
				r := xfrmRow{suite, mode, bit(0), bit(1), bit(2), bit(3), bit(4)}
				switch {
				case r.mode == esp.Transport && r.inner6 != r.outer6:
				case r.udp && suite.Protocol != esp.ESP:
				case r.ahAlign8 && (suite.Protocol != esp.AH || r.outer6):
				default:
					rows = append(rows, r)
				}
			}
		}
	}
	return rows
}

// allSuites gives every suite that esp.NewSuite takes.
func allSuites() (list []esp.Suite) {
	none := esp.Algorithm{}
	for _, p := range []esp.Protocol{esp.ESP, esp.AH} {
		for _, e := range append(esp.Algorithms(), none) {
			for _, i := range append(esp.Algorithms(), none) {
				if s, err := esp.NewSuite(p, e.Name, i.Name); err == nil && s.Encryption == e && s.Integrity == i {
					list = append(list, s)
				}
			}
		}
	}
	return list
}

// pairwise chooses rows that contain every value of every dimension together
// with every value of every other one, as far as there is a row that does; in
// each step the row that brings most.
func pairwise(rows []xfrmRow) (chosen []xfrmRow) {
	type pair struct {
		a, b   int
		va, vb string
	}
	pairs := func(r xfrmRow) (list []pair) {
		v := r.values()
		for a := range v {
			for b := range a {
				list = append(list, pair{a, b, v[a], v[b]})
			}
		}
		return list
	}
	missing := map[pair]bool{}
	for _, r := range rows {
		for _, p := range pairs(r) {
			missing[p] = true
		}
	}
	for len(missing) > 0 {
		best, most := 0, 0
		for i, r := range rows {
			n := 0
			for _, p := range pairs(r) {
				if missing[p] {
					n++
				}
			}
			if n > most {
				best, most = i, n
			}
		}
		for _, p := range pairs(rows[best]) {
			delete(missing, p)
		}
		chosen = append(chosen, rows[best])
	}
	return chosen
}

// The rows chosen must be rows, and hold what pairwise promises.
func TestXFRMRows(t *testing.T) {
	t.Parallel()
	rows := xfrmRows()
	chosen := pairwise(rows)
	if len(chosen) >= len(rows)/3 {
		t.Errorf("%d rows chosen of %d", len(chosen), len(rows))
	}
	seen := func(rows []xfrmRow) map[string]bool {
		m := map[string]bool{}
		for _, r := range rows {
			v := r.values()
			for a := range v {
				for b := range v {
					m[fmt.Sprint(a, v[a], b, v[b])] = true
				}
			}
		}
		return m
	}
	all, some := seen(rows), seen(chosen)
	for p := range all {
		if !some[p] {
			t.Errorf("pair %s is in no chosen row", p)
		}
	}
	t.Logf("%d suites, %d rows, %d chosen for %d pairs", len(allSuites()), len(rows), len(chosen), len(all))
}
