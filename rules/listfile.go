package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/ipfw/ipfw/engine"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// Block lists are files of others, with up to a million lines. As values of HCL
// they would take a kilobyte for each, so file("drop.txt") gives one value, which
// holds the list as the engine takes it. Lists often come from the Internet, so
// they have bounds of their own.

// What the list files of one policy may have.
const (
	MaxListBytes = 64 << 20 // bytes, all files together
	MaxListed    = 2 << 20  // addresses, networks and ranges, all files together
	maxListUses  = 4 << 20  // the same, counted again in each list that has them
)

// addressList is what file("...") gives.
type addressList struct {
	path   string // absolute
	ranges []engine.AddrRange
}

// addressListType is the type of addressList in expressions.
var addressListType = cty.Capsule("list of addresses from a file", reflect.TypeFor[addressList]())

// listFiles are the list files of one policy. Each is read once.
type listFiles struct {
	byPath map[string]listFile
	bytes  int
	ranges int
	uses   int
}

type listFile struct {
	list *addressList
	err  error
}

// fileFunction is file("...").
func (b *budget) fileFunction() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "path", Type: cty.String}},
		Type:   function.StaticReturnType(addressListType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			list, err := b.readList(b.at, args[0].AsString())
			if err != nil {
				return cty.NullVal(addressListType), err
			}
			return cty.CapsuleVal(addressListType, list), nil
		},
	})
}

// readList reads the list file that an expression at r names.
func (l *loader) readList(r hcl.Range, name string) (*addressList, error) {
	path := filepath.Clean(name)
	if !filepath.IsAbs(path) {
		path = filepath.Join(l.dirs[r.Filename].dir, path)
	}
	f, ok := l.lists.byPath[path]
	if !ok {
		f.list, f.err = l.lists.read(path)
		if l.lists.byPath == nil {
			l.lists.byPath = map[string]listFile{}
		}
		l.lists.byPath[path] = f
	}
	return f.list, f.err
}

func (f *listFiles) read(path string) (*addressList, error) {
	src, err := f.text(path)
	if err != nil {
		return nil, err
	}
	ranges, err := parseList(src, MaxListed-f.ranges)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shown(path), err)
	}
	f.ranges += len(ranges)
	return &addressList{path, ranges}, nil
}

// text reads a file within what all of them may have.
func (f *listFiles) text(path string) ([]byte, error) {
	in, info, err := openFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist: name a file with one address, network or range a line", shown(path))
	}
	if err != nil {
		return nil, fileError(path, err)
	}
	defer in.Close()
	left := MaxListBytes - f.bytes
	var b bytes.Buffer
	b.Grow(int(min(info.Size(), int64(left))) + bytes.MinRead)
	if _, err := b.ReadFrom(io.LimitReader(in, int64(left)+1)); err != nil {
		return nil, fileError(path, err)
	}
	if b.Len() > left {
		return nil, fmt.Errorf("%s is not read to its end: the list files of a policy have at most %d MiB in all", shown(path), MaxListBytes>>20)
	}
	f.bytes += b.Len()
	return b.Bytes(), nil
}

// parseList reads a list: an address, a network or a range a line, with comments
// that begin with # or ;. A comma at the end of a line is passed over. Errors
// quote nothing that is no address: it may be the wrong file.
func parseList(src []byte, most int) ([]engine.AddrRange, error) {
	src = bytes.TrimPrefix(src, []byte("\ufeff"))
	n := bytes.Count(src, []byte("\n")) + 1
	out := make([]engine.AddrRange, 0, min(n, most))
	var bad []string
	var why error
	for at := 1; len(src) > 0; at++ {
		line, rest, _ := bytes.Cut(src, []byte("\n"))
		src = rest
		if i := bytes.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		line = bytes.TrimRight(bytes.TrimSpace(line), ", \t")
		if len(line) == 0 {
			continue
		}
		const longest = 2*len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255") + 4 // a range
		r, err := engine.AddrRange{}, errNoAddress
		if len(line) <= longest {
			r, err = parseAddrRange(string(line))
		}
		switch {
		case err != nil:
			if bad = append(bad, strconv.Itoa(at)); len(bad) == 1 {
				why = errNoAddress
				if i := bytes.IndexAny(line, "/-"); i > 0 && len(line) <= longest {
					if _, noAddr := parseAddr(string(bytes.TrimSpace(line[:i]))); noAddr == nil {
						why = err
					}
				}
			}
		case len(out) == most:
			return nil, fmt.Errorf("the list files of a policy have at most %d addresses, networks and ranges in all", MaxListed)
		default:
			out = append(out, r)
		}
	}
	switch {
	case len(bad) == 1:
		return nil, fmt.Errorf("line %s: %w", bad[0], why)
	case len(bad) > 1:
		const few = 5
		more := ""
		if len(bad) > few {
			more = fmt.Sprintf(" (and %d more)", len(bad)-few)
			bad = bad[:few]
		}
		return nil, fmt.Errorf("lines %s%s cannot be read, the first because %w", strings.Join(bad, ", "), more, why)
	}
	return out, nil
}

// errNoAddress says what a line of a list may be.
var errNoAddress = errors.New("a line is one address, network or range, as in 192.0.2.1, 2001:db8::/32 or 192.0.2.1-192.0.2.9, and comments begin with # or ;")

// addressArgument is how a list of addresses was written: what stands in the
// policy itself, and the files.
type addressArgument struct {
	written []engine.AddrRange
	files   []*addressList
}

// addresses gives what parses one element of an address list: an address, or the
// value of file("...").
func (k block) addresses(arg *addressArgument) func(item) bool {
	written := into(k, &arg.written, parseAddrRange)
	return func(it item) bool {
		if it.v.Type() != addressListType || it.v.IsNull() {
			return written(it)
		}
		list := it.v.EncapsulatedValue().(*addressList)
		if slices.Contains(arg.files, list) {
			return true
		}
		arg.files = append(arg.files, list)
		if k.l.lists.uses += len(list.ranges); k.l.lists.uses > maxListUses {
			k.l.fail(it.r, "Too many addresses", "All rules together may name %d addresses from files, those of a file counted again in each rule that names it.", maxListUses)
			return false
		}
		return true
	}
}

// nothing says that there are files, all of them without an address: such a list
// must not be taken for one that was not written, which is any address.
func (a *addressArgument) nothing() bool { return len(a.files) > 0 && len(a.all()) == 0 }

// all gives the whole list; that of one file alone is not copied.
func (a *addressArgument) all() []engine.AddrRange {
	if len(a.files) == 1 && len(a.written) == 0 {
		return slices.Clip(a.files[0].ranges)
	}
	n := 0
	for _, f := range a.files {
		n += len(f.ranges)
	}
	out := slices.Grow(a.written, n)
	for _, f := range a.files {
		out = append(out, f.ranges...)
	}
	return out
}
