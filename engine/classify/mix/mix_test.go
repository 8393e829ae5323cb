package mix

import (
	"slices"
	"testing"

	"github.com/ipfw/ipfw/engine/classify"
)

func TestRules(t *testing.T) {
	for _, kind := range Kinds {
		for _, f := range []classify.Family{classify.IPv4, classify.IPv6} {
			boxes := Rules(kind, 2000, f, 1)
			if again := Rules(kind, 2000, f, 1); !slices.Equal(boxes, again) {
				t.Errorf("%v IPv%d: the same seed gives another set", kind, f)
			}
			if other := Rules(kind, 2000, f, 2); slices.Equal(boxes, other) {
				t.Errorf("%v IPv%d: another seed gives the same set", kind, f)
			}
			for i, k := range Trace(boxes, 2000, 1) {
				if classify.Linear(boxes).First(&k, 0) < 0 {
					t.Fatalf("%v IPv%d: header %d is in no rule: %+v", kind, f, i, k)
				}
			}
			for i, b := range boxes {
				if b.Rule != int32(i) || b.LocalLast.Less(b.LocalFirst) || f.Last().Less(b.RemoteLast) {
					t.Fatalf("%v IPv%d: bad box %d: %+v", kind, f, i, b)
				}
			}
		}
	}
}
