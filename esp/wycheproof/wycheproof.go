// Package wycheproof gives tests the vectors of Project Wycheproof.
//
// They come as a Go module of 28 MB, which holds no package: it is fetched when
// a test asks, as Go's own tests fetch theirs, and is no dependency of ipfw.
//
// Limits: of a group and of a vector it knows what the caller's types name.
package wycheproof

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const (
	module = "github.com/C2SP/wycheproof@v0.0.0-20250901140545-b51abcfb8daf"
	sum    = "h1:5BKKVVVj676FUWirLcouEEL6GCYR9X0opkMlEUck8FY="
)

// Vectors is the folder with the vectors.
type Vectors string

// Fetch fetches the vectors. Without CI in the environment, a test that cannot
// have them is skipped.
func Fetch(t *testing.T) Vectors {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: Wycheproof's vectors are not fetched")
	}
	cmd := exec.Command("go", "mod", "download", "-json", module)
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	var got struct{ Dir, Sum, Error string }
	if jsonErr := json.Unmarshal(out, &got); jsonErr != nil || err != nil || got.Error != "" {
		why := fmt.Sprintf("Wycheproof's vectors cannot be fetched: %v %s", err, got.Error)
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	if got.Sum != sum {
		t.Fatalf("%s has sum %s, want %s", module, got.Sum, sum)
	}
	return Vectors(filepath.Join(got.Dir, "testvectors_v1"))
}

func (v Vectors) path(file string) string { return filepath.Join(string(v), file+"_test.json") }

// Has says whether there is such a file, named without "_test.json".
func (v Vectors) Has(file string) bool {
	_, err := os.Stat(v.path(file))
	return err == nil
}

// Each calls f for each vector of a file with the group that it is in. f says
// whether it has tried the vector; fewer than least is an error.
func Each[Group, Vector any](t *testing.T, from Vectors, file string, least int, f func(*Group, *Vector) (tried bool)) {
	t.Helper()
	text, err := os.ReadFile(from.path(file))
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ TestGroups []json.RawMessage }
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, raw := range all.TestGroups {
		var group Group
		var vectors struct{ Tests []Vector }
		for _, into := range []any{&group, &vectors} {
			if err := json.Unmarshal(raw, into); err != nil {
				t.Fatal(err)
			}
		}
		for i := range vectors.Tests {
			if f(&group, &vectors.Tests[i]) {
				ran++
			}
		}
	}
	t.Logf("%s: %d vectors of a form that we have", file, ran)
	if ran < least {
		t.Errorf("%s: only %d vectors were tried, want %d at least", file, ran, least)
	}
}

// Bytes are written in hexadecimal.
type Bytes []byte

// UnmarshalJSON reads them.
func (b *Bytes) UnmarshalJSON(text []byte) (err error) {
	var s string
	if err = json.Unmarshal(text, &s); err == nil {
		*b, err = hex.DecodeString(s)
	}
	return err
}
