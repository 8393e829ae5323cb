package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"unicode/utf8"
)

// ReadFile reads a file that a policy or a command names, of at most so many
// bytes. It never waits: a pipe, a socket or a device is refused unread, and a
// file that grows ends at the bound. Errors say which file and why, and quote
// nothing of it.
func ReadFile(path string, most int) ([]byte, error) {
	f, _, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readUpTo(f, path, most)
}

// openFile opens a regular file. It looks before, because to open some devices
// does something, and again at what is open, so that nobody swaps it in between;
// O_NONBLOCK, because to open a pipe waits for its other end (fifo(7)).
func openFile(path string) (*os.File, fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if err := checkRegular(path, info); err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err == nil {
		err = checkRegular(path, info)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// checkRegular refuses what is no regular file.
func checkRegular(path string, info fs.FileInfo) error {
	what := "no regular file"
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		what = "a folder"
	case mode&fs.ModeNamedPipe != 0:
		what = "a pipe"
	case mode&fs.ModeSocket != 0:
		what = "a socket"
	case mode&fs.ModeDevice != 0:
		what = "a device"
	}
	return fmt.Errorf("%s is not a file but %s: name a regular file", shown(path), what)
}

// readUpTo reads all there is, up to a bound.
func readUpTo(r io.Reader, name string, most int) ([]byte, error) {
	src, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	if err != nil {
		clear(src)
		return nil, err
	}
	if len(src) > most {
		clear(src)
		return nil, tooLarge(name, most)
	}
	return src, nil
}

func tooLarge(name string, most int) error {
	return fmt.Errorf("%s is too large: at most %d KiB are read; is it the right file?", shown(name), most>>10)
}

// maxEntries is how many files a folder may have that is read: none of ours
// has nearly as many, and the names of more take time and memory.
const maxEntries = 10000

// FilesIn gives the paths of the files in a folder whose names end in suffix, in
// name order, without hidden ones and folders. A folder of more than 10,000
// entries is refused.
func FilesIn(dir, suffix string) ([]string, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fileError(dir, err)
	}
	if !info.IsDir() { // not opened: it may be a pipe
		return nil, fmt.Errorf("%s is not a folder", shown(dir))
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, fileError(dir, err)
	}
	defer d.Close()
	entries, err := d.ReadDir(maxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fileError(dir, err)
	}
	if len(entries) > maxEntries {
		return nil, fmt.Errorf("the folder %s has more than %d entries: name one that holds only what ipfw is to read", shown(dir), maxEntries)
	}
	var out []string
	for _, e := range entries {
		if n := e.Name(); !e.IsDir() && strings.HasSuffix(n, suffix) && !strings.HasPrefix(n, ".") {
			out = append(out, filepath.Join(dir, n))
		}
	}
	sort.Strings(out)
	return out, nil
}

// shown is a path as it can be shown: a file name may hold what a terminal obeys.
func shown(path string) string { return strings.ReplaceAll(string(printable([]byte(path))), "\n", "?") }

// notText says where a file is no text, for a policy is UTF-8 and has no NUL;
// nil if it is.
func notText(src []byte) error {
	at := bytes.IndexByte(src, 0)
	if !utf8.Valid(src) {
		for i := 0; i < len(src) && (at < 0 || i < at); {
			r, n := utf8.DecodeRune(src[i:])
			if r == utf8.RuneError && n == 1 {
				at = i
			}
			i += n
		}
	}
	if at < 0 {
		return nil
	}
	return fmt.Errorf("this is not text: byte %d is 0x%02x, where a policy is UTF-8; name a policy file, or save this one as UTF-8", at+1, src[at])
}
