package host

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestMemoryShare(t *testing.T) {
	const mib = 1 << 20
	host := "MemTotal:         262144 kB\nMemFree:           9999 kB\nMemAvailable:     77777 kB\n"
	for _, tt := range []struct {
		name    string
		meminfo string
		groups  []string
		want    int64
	}{
		{"host", host, nil, 64 * mib},
		{"host, groups without a limit", host, []string{"max\n", "max\n"}, 64 * mib},
		{"group", host, []string{"134217728\n"}, 32 * mib},
		{"smallest of groups in one another", host, []string{"max\n", "134217728\n", "67108864\n"}, 16 * mib},
		{"group with more than the host has", host, []string{"1073741824\n"}, 64 * mib},
		{"group that nobody can be in", host, []string{"0\n"}, 0},
		{"no /proc/meminfo", "", []string{"134217728\n"}, 32 * mib},
		{"MemTotal missing", "MemFree: 9999 kB\n", nil, math.MaxInt64},
		{"another unit", "MemTotal: 256 MB\n", nil, math.MaxInt64},
		{"no number", "MemTotal: much kB\n", []string{"much\n", ""}, math.MaxInt64},
		{"more than a number holds", "MemTotal: 9223372036854775807 kB\n", []string{"9223372036854775808\n"}, math.MaxInt64},
		{"neither", "", nil, math.MaxInt64},
	} {
		var groups [][]byte
		for _, g := range tt.groups {
			groups = append(groups, []byte(g))
		}
		if got := memoryShare([]byte(tt.meminfo), groups...); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// The control group of this process is found, and those above it.
func TestOwnMemoryShare(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		name, text string
		want       int64
	}{
		{"proc/meminfo", "MemTotal: 1048576 kB\n", 256 << 20},
		{"sys/fs/cgroup/memory.max", "134217728\n", 256 << 20}, // the process is in none yet
		{"proc/self/cgroup", "4:memory:/a\n0::/\n", 32 << 20},
		{"proc/self/cgroup", "4:memory:/a\n0::/system.slice/ipfw.service\n", 32 << 20},
		{"sys/fs/cgroup/system.slice/memory.max", "max\n", 32 << 20},
		{"sys/fs/cgroup/system.slice/ipfw.service/memory.max", "67108864\n", 16 << 20},
		{"sys/fs/cgroup/system.slice/memory.max", "33554432\n", 8 << 20},
		{"sys/fs/cgroup/user.slice/memory.max", "1048576\n", 8 << 20},
		{"proc/self/cgroup", "0::/../other\n", 32 << 20}, // above the root of its namespace
	} {
		write(step.name, step.text)
		if got := ownMemoryShare(root); got != step.want {
			t.Errorf("%s %q: %d, want %d", step.name, step.text, got, step.want)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct{ share, inUse, beside, want int64 }{
		{64 * mib, 0, 0, 64 * mib},
		{64 * mib, 40 * mib, 14 * mib, 64 * mib},
		{64 * mib, 64 * mib, 14 * mib, 94 * mib},   // no less can be had
		{64 * mib, 200 * mib, 20 * mib, 270 * mib}, // nor here
		{0, 4 * mib, 3 * mib, 8 * mib},
		{math.MaxInt64, 200 * mib, 20 * mib, math.MaxInt64},
	} {
		if got := memoryLimit(tt.share, tt.inUse, tt.beside); got != tt.want {
			t.Errorf("share %d, %d in use, %d beside: %d, want %d", tt.share, tt.inUse, tt.beside, got, tt.want)
		}
	}
}

// The limit of the process grows with what is in use, and falls with it.
func TestLimitMemory(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	const share = 1 << 20
	limitMemory(ctx, share)
	live := func() int64 {
		s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(s)
		return int64(s[0].Value.Uint64())
	}
	await := func(what string, ok func(limit int64) bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(debug.SetMemoryLimit(-1)); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: the limit is %d, %d are in use", what, debug.SetMemoryLimit(-1), live())
			}
		}
	}
	const much = 64 << 20
	small := func(l int64) bool { return l > share && l < much }
	await("at first", small)
	b := make([]byte, much)
	debug.FreeOSMemory()
	await("with 64 MiB in use", func(l int64) bool { return l > much+much/4 && l < 2*much })
	clear(b)
	b = nil
	debug.FreeOSMemory()
	await("without", small)
}
