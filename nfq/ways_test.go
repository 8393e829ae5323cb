package nfq

import (
	"strings"
	"testing"
)

// The ways are those that are in use, and where all of them are nftables' own, nft
// can read the table.
func TestWays(t *testing.T) {
	t.Parallel()
	_, b := pair(t)
	for _, c := range []Config{{}, {Protect: true}, {Protect: true, noHook: true}, {Protect: true, noIntake: true}, {noOwner: true}} {
		fw, stop, err := b.run(c, &arrivals{ways: map[uint32][]string{}, last: map[uint32][]byte{}})
		if err != nil {
			t.Fatal(err)
		}
		w := fw.Ways()
		t.Logf("protect %v: Linux %s: packets come up by %s, ESP by %q, the table is %s", c.Protect, w.Kernel, w.Queue, w.ESP, w.Table)
		if (w.ESP != "") != c.Protect || (c.noHook || c.noIntake) && w.ESP == "hook" || c.noIntake && w.ESP != "queue" || c.noOwner && w.Table != "watched" {
			t.Errorf("%+v: %+v", c, w)
		}
		if list, err := b.nft("list table inet " + fw.cfg.Table); err == nil {
			native := w.Queue == "queue" && w.ESP != "rule"
			if native && (strings.Contains(list, "xt ") || strings.Contains(list, "libxtables")) {
				t.Errorf("%+v: nft cannot read the table:\n%s", w, list)
			}
		}
		stop()
		if err := fw.Close(false); err != nil {
			t.Fatal(err)
		}
	}
}
