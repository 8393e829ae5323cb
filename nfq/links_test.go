package nfq

import (
	"fmt"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
)

// Where policy names interfaces, the name of an interface is never an old one,
// and an index that goes to another interface is the other one at once.
func TestLinkNamesAreNeverOld(t *testing.T) {
	t.Parallel()
	_, server := pair(t)
	var l *linkNames
	var err error
	var index uint32
	server.do(func() {
		if l, err = openLinkNames(); err == nil {
			var dev *net.Interface
			if dev, err = net.InterfaceByName("eth0"); err == nil {
				index = uint32(dev.Index)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	l.strict.Store(true)
	was := "eth0"
	for i := range 300 {
		name := fmt.Sprintf("wan%d", i)
		server.rename(was, name)
		if got := l.link(index).name; got != name {
			t.Fatalf("renamed to %s, and called %q", name, got)
		}
		was = name
	}
	const again = 4711
	for i := range 20 {
		name := fmt.Sprintf("veth%d", i)
		dev := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, Index: again}, PeerName: "peer"}
		server.try(func() error { return netlink.LinkAdd(dev) })
		if got := l.link(again).name; got != name {
			t.Fatalf("index %d is %s, and called %q", again, name, got)
		}
		server.try(func() error { return netlink.LinkDel(dev) })
		if got := l.link(again).name; got != "" {
			t.Fatalf("index %d is nobody, and called %q", again, got)
		}
	}
}

// To look whether there is news allocates nothing.
func TestLinkNamesAllocateNothing(t *testing.T) {
	_, server := pair(t)
	var l *linkNames
	var err error
	server.do(func() { l, err = openLinkNames() })
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	l.strict.Store(true)
	l.link(1)
	if n := testing.AllocsPerRun(100, func() { l.link(1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLinkNames(b *testing.B) {
	_, server := pair(b)
	var l *linkNames
	var err error
	server.do(func() { l, err = openLinkNames() })
	if err != nil {
		b.Fatal(err)
	}
	defer l.close()
	for _, strict := range []bool{false, true} {
		b.Run(fmt.Sprintf("strict %v", strict), func(b *testing.B) {
			l.strict.Store(strict)
			for b.Loop() {
				l.link(1)
			}
		})
	}
}
