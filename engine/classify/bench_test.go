package classify_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine/classify"
	"github.com/ipfw/ipfw/engine/classify/mix"
)

var sizes = []int{10, 100, 1000, 10000, 100000}

// traceLen headers fit the second-level cache no better than real traffic.
const traceLen = 50000

func name(kind mix.Kind, f classify.Family, n int) string {
	return fmt.Sprintf("%v%d/%d", kind, f, n)
}

func forMixes(b *testing.B, sizes []int, do func(b *testing.B, boxes []classify.Box, keys []classify.Key, f classify.Family)) {
	for _, f := range []classify.Family{classify.IPv4, classify.IPv6} {
		for _, kind := range mix.Kinds {
			for _, n := range sizes {
				b.Run(name(kind, f, n), func(b *testing.B) {
					boxes := mix.Rules(kind, n, f, 1)
					do(b, boxes, mix.Trace(boxes, traceLen, 1), f)
				})
			}
		}
	}
}

// run looks up keys in turn and tells the rate.
func run(b *testing.B, keys []classify.Key, first func(*classify.Key, int32) int32) {
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		first(&keys[i], 0)
		if i++; i == len(keys) {
			i = 0
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "M/s")
}

func BenchmarkFirst(b *testing.B) {
	forMixes(b, sizes, func(b *testing.B, boxes []classify.Box, keys []classify.Key, f classify.Family) {
		c := classify.Build(boxes, f)
		run(b, keys, c.First)
		b.ReportMetric(float64(c.Bytes())/float64(len(boxes)), "B/rule")
	})
}

func BenchmarkLinear(b *testing.B) {
	forMixes(b, sizes[:4], func(b *testing.B, boxes []classify.Box, keys []classify.Key, f classify.Family) {
		run(b, keys, classify.Linear(boxes).First)
	})
}

func BenchmarkBuild(b *testing.B) {
	forMixes(b, sizes[2:], func(b *testing.B, boxes []classify.Box, _ []classify.Key, f classify.Family) {
		var c *classify.Classifier
		for b.Loop() {
			c = classify.Build(boxes, f)
		}
		b.ReportMetric(float64(b.Elapsed())/float64(time.Millisecond)/float64(b.N), "ms/build")
		b.ReportMetric(float64(c.Bytes())/float64(len(boxes)), "B/rule")
	})
}
