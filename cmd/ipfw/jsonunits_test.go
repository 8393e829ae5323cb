package main

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/host"
)

var (
	timeSaid  = regexp.MustCompile(`(?i)\b(nano|micro|milli)?seconds?\b|\b(minutes?|hours?|days?)\b`)
	bytesSaid = regexp.MustCompile(`\b(bytes?|octets?|KiB|MiB)\b`)
)

// Words of a name that speak of time, and of a size.
var (
	timeWords = []string{"age", "ago", "confirm", "deadline", "delay", "duration", "elapsed", "every", "expires", "expiry", "idle", "interval", "latency",
		"lifetime", "period", "rekey", "reloading", "remaining", "timeout", "took", "uptime", "wait"}
	sizeWords = []string{"length", "size", "len", "window", "limit"}
	sizeUnits = []string{"bytes", "packets", "mtu", "mss"} // an MTU and an MSS are bytes everywhere
)

// unitMissing says what is wrong with the name of a number in JSON, if anything: a
// number of time is seconds and says so, and a size says of what.
func unitMissing(f field) string {
	name := f.path[strings.LastIndexByte(f.path, '.')+1:]
	if name = strings.TrimSuffix(name, "[]"); f.kind != "number" || name == "NAME" {
		return ""
	}
	words := strings.Split(name, "_")
	has := func(list []string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(list, w) })
	}
	isTime := f.typ.Kind() == reflect.Float32 || f.typ.Kind() == reflect.Float64 || f.typ == reflect.TypeFor[time.Duration]() || has(timeWords)
	switch {
	case (isTime || timeSaid.MatchString(f.about)) && words[len(words)-1] != "seconds":
		return "is a number of time, and does not end in _seconds"
	case (has(sizeWords) || bytesSaid.MatchString(f.about)) && !has(sizeUnits):
		return "is a size, and does not say of what"
	}
	return ""
}

// TestJSONUnits: the names of numbers say their unit, in what commands print and in what
// they ask the daemon.
func TestJSONUnits(t *testing.T) {
	comments := fieldComments(t, "../..")
	var all []any
	for _, f := range jsonForms() {
		all = append(all, f.types...)
	}
	times, sizes := 0, 0
	for _, v := range append(all, host.ReloadRequest{}, host.IKERequest{}) {
		typ := reflect.TypeOf(v)
		for _, f := range fieldsOf(typ, "", "", comments) {
			if wrong := unitMissing(f); wrong != "" {
				t.Errorf("%s: %s %s", typ, f.path, wrong)
			}
			if strings.HasSuffix(f.path, "_seconds") {
				times++
			}
			if strings.Contains(f.path, "bytes") {
				sizes++
			}
		}
	}
	if times < 15 || sizes < 15 {
		t.Errorf("%d numbers of time and %d of bytes: the search finds too little", times, sizes)
	}
}

// TestUnitMissing: the test above finds what it looks for.
func TestUnitMissing(t *testing.T) {
	type sample struct {
		Age     float64       `json:"age"`
		Since   float64       `json:"since"`
		Held    time.Duration `json:"held"`
		Grace   int           `json:"grace"`
		Timeout int           `json:"login_timeout"`
		Length  int           `json:"length"`
		Room    int           `json:"room"`
		Good    float64       `json:"age_seconds"`
		Nested  []struct {
			Idle  int `json:"idle"`
			Bytes int `json:"room_bytes"`
		} `json:"nested"`
		Count uint64 `json:"count"`
		MTU   int    `json:"path_mtu"`
	}
	comments := map[string]string{"sample.Grace": "how many seconds it may take", "sample.Room": "in bytes", "sample.MTU": "in bytes"}
	var found []string
	for _, f := range fieldsOf(reflect.TypeFor[sample](), "", "", comments) {
		if unitMissing(f) != "" {
			found = append(found, f.path)
		}
	}
	if got := strings.Join(found, " "); got != "age since held grace login_timeout length room nested[].idle" {
		t.Errorf("found %s", got)
	}
}
