package ike

import (
	"testing"
	"time"
)

// Of many IKE SAs a step ends some; messages of others come between, and in the
// end none is left, also of those that were rekeyed meanwhile.
func TestTerminateMany(t *testing.T) {
	n := newBenchNet(t, benchKinds[0].change(t))
	const count = 3*partStep + 10
	for i := range count {
		if !n.client(i) {
			t.Fatal("no child")
		}
	}
	if up, children := n.y.Holds("a"); up != count || !children["net"] || len(children) != 1 {
		t.Fatalf("%d are up, with %v", up, children)
	}
	spis := n.y.SPIs()
	if list := n.y.StatusOf(spis[10:20]); len(list) != 10 || list[0].ID >= list[9].ID || len(list[0].Children) != 1 {
		t.Fatalf("a part of the status: %v", list)
	}
	last := n.y.sas[spis[count-1]]
	o := n.y.Terminate(n.now, "a", "")
	if len(o.Send) != partStep || len(o.Events) != partStep {
		t.Errorf("the first step sends %d messages and tells %d events, want %d", len(o.Send), len(o.Events), partStep)
	}
	for _, sa := range n.y.sas {
		if !sa.surplus {
			t.Fatal("one that is to end may be used for another child")
		}
	}
	if !n.client(count) { // who comes meanwhile is not meant
		t.Error("nobody can come while others end")
	}
	// One is rekeyed before its turn: its heir ends too.
	heir := *last
	heir.id, heir.spiR, heir.children, heir.index, heir.spots, heir.next = 1<<40, 77, nil, -1, [2]spot{}, nil
	n.y.sas[heir.spiR] = &heir
	last.next = &heir
	n.y.settle(&heir)
	steps := 0
	for at, _ := n.y.Next(); len(n.y.partings) > 0; at, _ = n.y.Next() {
		if at.After(n.now) {
			t.Fatal("the rest is put off")
		}
		if o := n.y.Tick(n.now); len(o.Send) > 2*partStep {
			t.Errorf("a step sends %d messages", len(o.Send))
		}
		steps++
	}
	if steps < 3 || last.state == stUp || heir.state != stDeleting {
		t.Errorf("%d steps; the last is in state %d, its heir in %d", steps, last.state, heir.state)
	}
	if up, _ := n.y.Holds("a"); up != 1 {
		t.Errorf("%d are up, want the one that came later", up)
	}
	for range 20 { // nobody answers
		at, _ := n.y.Next()
		n.y.Tick(at.Add(time.Minute))
	}
	if len(n.y.sas) > 1 {
		t.Errorf("%d are left", len(n.y.sas))
	}
}
