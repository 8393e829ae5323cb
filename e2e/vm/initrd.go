package vm

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// firstInit is the first program of the guest: it mounts the machine's files below
// a layer in memory, and hands over to the script.
const firstInit = `#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
for m in /first/*; do $b insmod $m; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose host /host &&
$b mount -t tmpfs -o size=90%% layer /layer &&
$b mkdir -p /layer/up /layer/work /layer/root &&
$b mount -t overlay -o lowerdir=/host,upperdir=/layer/up,workdir=/layer/work root /layer/root || $b poweroff -f
$b umount /dev /proc
exec $b switch_root /layer/root /bin/sh %s
`

// writeInitrd writes the first root of a guest: modules, busybox and firstInit.
func writeInitrd(path string, k Kernel, script string) error {
	var a archive
	for _, dir := range []string{"bin", "proc", "dev", "host", "layer", "first"} {
		a.add(dir, 0o040755, nil)
	}
	busybox, err := os.ReadFile(filepath.Join(k.folder(), "busybox"))
	if err != nil {
		return err
	}
	a.add("bin/busybox", 0o100755, busybox)
	a.add("init", 0o100755, fmt.Appendf(nil, firstInit, script))
	modules, err := filepath.Glob(filepath.Join(k.folder(), "first", "*"))
	if err != nil {
		return err
	}
	slices.Sort(modules)
	for _, m := range modules {
		b, err := os.ReadFile(m)
		if err != nil {
			return err
		}
		a.add("first/"+filepath.Base(m), 0o100644, b)
	}
	return os.WriteFile(path, a.end(), 0o600)
}

// archive is a cpio archive in the "newc" format, which the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst): a header of fields
// in hexadecimal, a name, and a body, each padded to four bytes.
type archive struct {
	b     bytes.Buffer
	files int
}

func (a *archive) add(name string, mode int, body []byte) {
	a.files++
	fmt.Fprintf(&a.b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", a.files, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(name)+1, 0)
	a.b.WriteString(name + "\x00")
	a.pad()
	a.b.Write(body)
	a.pad()
}

func (a *archive) pad() {
	for a.b.Len()%4 != 0 {
		a.b.WriteByte(0)
	}
}

// end closes the archive and gives it, compressed.
func (a *archive) end() []byte {
	a.add("TRAILER!!!", 0, nil)
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed) // the level is valid
	_, _ = z.Write(a.b.Bytes())                       // to memory
	_ = z.Close()
	return out.Bytes()
}
