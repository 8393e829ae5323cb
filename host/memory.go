package host

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
)

// Reading a policy makes several times what stays of it, and by itself Go's heap grows
// to twice what was in use before garbage is collected. A host with little
// memory has it collected earlier; on others the limit is never met.

// memoryPart is the part of a host's memory, one in so many, up to which the daemon's
// may grow before garbage is collected earlier than Go would by itself. A quarter
// leaves a host of 256 MB three for its kernel, for the program's own text and for others; less than
// that is what 1,000 tunnels need, so that garbage would be collected all the
// time while a policy is read.
const memoryPart = 4

// memoryShare gives that part in bytes, of the smaller of what /proc/meminfo says
// that the host has and of what control groups may have (memory.max of cgroup v2);
// math.MaxInt64 where none of them says.
func memoryShare(meminfo []byte, groups ...[]byte) int64 {
	least := int64(math.MaxInt64)
	for line := range bytes.Lines(meminfo) {
		if f := bytes.Fields(line); len(f) == 3 && string(f[0]) == "MemTotal:" && string(f[2]) == "kB" {
			if kb, err := strconv.ParseInt(string(f[1]), 10, 64); err == nil && kb > 0 && kb < math.MaxInt64>>10 {
				least = kb << 10
			}
		}
	}
	for _, g := range groups {
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(g)), 10, 64); err == nil { // else "max"
			least = min(least, n)
		}
	}
	if least == math.MaxInt64 {
		return least
	}
	return least / memoryPart
}

// ownMemoryShare is memoryShare of this host, whose root folder is given, and of the
// control groups that this process is in: its own, and those above, for each
// limits what is in it.
func ownMemoryShare(root string) int64 {
	meminfo, _ := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	own, _ := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	var groups [][]byte
	for line := range bytes.Lines(own) {
		path, unified := bytes.CutPrefix(bytes.TrimSpace(line), []byte("0::"))
		if !unified {
			continue
		}
		for dir := filepath.Join("/", string(path)); ; dir = filepath.Dir(dir) {
			if text, err := os.ReadFile(filepath.Join(root, "sys/fs/cgroup", dir, "memory.max")); err == nil {
				groups = append(groups, text)
			}
			if dir == "/" {
				break
			}
		}
	}
	return memoryShare(meminfo, groups...)
}

// memoryLimit is the limit of Go's memory for a share of the host's, in bytes, when so
// much of the heap was in use after the last collection, and the runtime has so
// much beside the heap's objects. Near a limit Go collects garbage again and again,
// for up to half of the processor's time, and what is in use does not become less by
// that. So where the share is too small the limit is above it: a quarter of what is
// in use may be garbage, which has it collected four times as often as without
// a limit, and no oftener.
func memoryLimit(share, inUse, beside int64) int64 {
	return max(share, inUse+inUse/4+beside)
}

// limitMemory sets the limit of this process's memory, and again whenever garbage
// has been collected, until ctx ends.
func limitMemory(ctx context.Context, share int64) {
	if ctx.Err() != nil {
		return
	}
	sizes := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sizes)
	beside := int64(sizes[1].Value.Uint64())
	for _, s := range sizes[2:] {
		beside -= int64(s.Value.Uint64())
	}
	debug.SetMemoryLimit(memoryLimit(share, int64(sizes[0].Value.Uint64()), beside))
	// Nobody holds this, so the next collection finds it.
	runtime.AddCleanup(&struct{ _ *byte }{}, func(ctx context.Context) { limitMemory(ctx, share) }, ctx)
}

// giveBack returns to the system what reading a policy took and nobody needs
// any more, which of a long policy is far more than what stays. By itself it
// would stay until as much again has been allocated, and the packet path
// allocates nothing.
func giveBack() { debug.FreeOSMemory() }
