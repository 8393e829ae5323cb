//go:build classbench

package classify_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/engine/classify"
)

// classBenchSets are read from the directory CLASSBENCH_DIR, when it is set:
// filter sets and traces made by the tools of Taylor and Turner, which are
// not ours to ship.
var classBenchSets = []string{"acl1_1k", "fw1_1k", "ipc1_1k"}

func readClassBench(tb testing.TB, set string) (boxes []classify.Box, keys []classify.Key) {
	dir := os.Getenv("CLASSBENCH_DIR")
	if dir == "" {
		tb.Skip("CLASSBENCH_DIR is not set: no ClassBench filter sets to read")
	}
	lines(tb, filepath.Join(dir, set), func(s string) error {
		b := classify.IPv4.Any(int32(len(boxes)))
		var local, remote [4]uint64
		var localLen, remoteLen int
		var proto, protoMask uint8
		_, err := fmt.Sscanf(strings.Join(strings.Fields(s), " "), "@%d.%d.%d.%d/%d %d.%d.%d.%d/%d %d : %d %d : %d 0x%x/0x%x",
			&local[0], &local[1], &local[2], &local[3], &localLen, &remote[0], &remote[1], &remote[2], &remote[3], &remoteLen,
			&b.LocalPortFirst, &b.LocalPortLast, &b.RemotePortFirst, &b.RemotePortLast, &proto, &protoMask)
		prefix := func(a [4]uint64, n int) (first, last classify.Addr) {
			x, host := a[0]<<24|a[1]<<16|a[2]<<8|a[3], uint64(1)<<(32-n)-1
			return classify.Addr{Lo: x &^ host}, classify.Addr{Lo: x | host}
		}
		b.LocalFirst, b.LocalLast = prefix(local, localLen)
		b.RemoteFirst, b.RemoteLast = prefix(remote, remoteLen)
		if protoMask == 0xff {
			b.ProtoFirst, b.ProtoLast = proto, proto
		} else if err == nil && protoMask != 0 {
			err = fmt.Errorf("protocol mask %#x", protoMask)
		}
		boxes = append(boxes, b)
		return err
	})
	lines(tb, filepath.Join(dir, set+"_trace"), func(s string) error {
		var k classify.Key
		_, err := fmt.Sscan(s, &k.Local.Lo, &k.Remote.Lo, &k.LocalPort, &k.RemotePort, &k.Proto)
		keys = append(keys, k)
		return err
	})
	return boxes, keys
}

func lines(tb testing.TB, name string, do func(string) error) {
	f, err := os.Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for n := 1; sc.Scan(); n++ {
		if err := do(sc.Text()); err != nil {
			tb.Fatalf("%s:%d: %v", name, n, err)
		}
	}
	if err := sc.Err(); err != nil {
		tb.Fatal(err)
	}
}

// TestClassBench compares every line of the traces with the slow twin.
func TestClassBench(t *testing.T) {
	for _, set := range classBenchSets {
		t.Run(set, func(t *testing.T) {
			boxes, keys := readClassBench(t, set)
			c, slow := classify.Build(boxes, classify.IPv4), classify.Linear(boxes)
			for i, k := range keys {
				for from := int32(0); from >= 0; from++ {
					want := slow.First(&k, from)
					if got := c.First(&k, from); got != want {
						t.Fatalf("line %d, from %d: %d, want %d", i+1, from, got, want)
					}
					if from = want; from < 0 {
						break
					}
				}
			}
		})
	}
}

func BenchmarkClassBench(b *testing.B) {
	for _, set := range classBenchSets {
		boxes, keys := readClassBench(b, set)
		b.Run(set, func(b *testing.B) {
			c := classify.Build(boxes, classify.IPv4)
			run(b, keys, c.First)
			b.ReportMetric(float64(c.Bytes())/float64(len(boxes)), "B/rule")
		})
		b.Run(set+"/linear", func(b *testing.B) { run(b, keys, classify.Linear(boxes).First) })
	}
}
