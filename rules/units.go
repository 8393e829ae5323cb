package rules

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// sizeUnits are the units of bytes, longest first where one ends another.
var sizeUnits = []struct {
	name  string
	bytes uint64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

// parseSize reads "64GiB", "500 MB" or "1000".
func parseSize(s string) (uint64, bool) {
	unit := uint64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			s, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > math.MaxUint64/unit {
		return 0, false
	}
	return n * unit, true
}

// formatSize writes n so that parseSize reads it back.
func formatSize(n uint64) string {
	for _, u := range sizeUnits[:4] {
		if n >= u.bytes && n%u.bytes == 0 {
			return fmt.Sprintf("%d%s", n/u.bytes, u.name)
		}
	}
	return strconv.FormatUint(n, 10)
}

// parseDuration reads what time.ParseDuration reads, and whole days: "1d".
func parseDuration(s string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err == nil
	}
	d, err := time.ParseDuration(s)
	return d, err == nil
}

// formatDuration writes d so that parseDuration reads it back.
func formatDuration(d time.Duration) string {
	for _, u := range []struct {
		name string
		d    time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		if d >= u.d && d%u.d == 0 {
			return fmt.Sprintf("%d%s", d/u.d, u.name)
		}
	}
	return d.String()
}

// rateUnits are the units of a rate, first the one that is printed.
var rateUnits = []struct {
	names []string
	d     time.Duration
}{
	{[]string{"second", "s", "sec", "seconds"}, time.Second},
	{[]string{"minute", "m", "min", "minutes"}, time.Minute},
	{[]string{"hour", "h", "hours"}, time.Hour},
	{[]string{"day", "d", "days"}, 24 * time.Hour},
}

// parseRate reads "10/minute".
func parseRate(s string) (events uint32, per time.Duration, ok bool) {
	num, unit, found := strings.Cut(s, "/")
	n, err := strconv.ParseUint(strings.TrimSpace(num), 10, 32)
	if !found || err != nil || n == 0 {
		return 0, 0, false
	}
	for _, u := range rateUnits {
		if contains(u.names, strings.TrimSpace(unit)) {
			return uint32(n), u.d, true
		}
	}
	return 0, 0, false
}

// formatRate writes a rate so that parseRate reads it back.
func formatRate(events uint32, per time.Duration) string {
	for _, u := range rateUnits {
		if per == u.d {
			return fmt.Sprintf("%d/%s", events, u.names[0])
		}
	}
	return fmt.Sprintf("%d/%s", events, per) // no such Per comes out of parseRate
}
