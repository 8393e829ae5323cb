package rules

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	profiles "github.com/ipfw/ipfw/examples/rules"
)

// MaxPolicy bounds what is read of a policy, all its files together, in bytes:
// twice what 10,000 rules take.
const MaxPolicy = 4 << 20

// profileDir is the folder to which the paths in a profile are relative:
// where a copy of it would be put to use.
const profileDir = "/etc/ipfw"

// source is one file of a policy.
type source struct {
	name    string // as people see it
	dir     string // relative paths in the file start here; absolute
	src     []byte
	profile bool
}

// readSources reads the files that the paths name, folders in name order.
func readSources(paths []string, stdin io.Reader) ([]source, hcl.Diagnostics) {
	var out []source
	var diags hcl.Diagnostics
	left := MaxPolicy
	for _, p := range paths {
		s, err := readPath(p, stdin, &left)
		if err != nil {
			detail := err.Error()
			if !strings.HasSuffix(detail, "?") {
				detail += "."
			}
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Policy not read", Detail: detail})
		}
		out = append(out, s...)
	}
	if len(paths) == 0 {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Policy not read",
			Detail: "No path was given: name a file, a folder, - or profile:NAME."})
	}
	return out, diags
}

// readPath reads what one path names, and takes what it has read off what may be
// read yet.
func readPath(p string, stdin io.Reader, left *int) ([]source, error) {
	if name, ok := strings.CutPrefix(p, "profile:"); ok {
		src, err := Profile(name)
		if err != nil {
			return nil, err
		}
		return []source{{name: p, dir: profileDir, src: src, profile: true}}, nil
	}
	if p == "-" {
		if stdin == nil {
			return nil, errors.New("there is no standard input to read a policy from")
		}
		src, err := readPolicy(stdin, "standard input", left)
		if err != nil {
			return nil, err
		}
		dir, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("the current folder is not known: %w", err)
		}
		return []source{{name: "<stdin>", dir: dir, src: src}}, nil
	}
	info, err := os.Stat(p)
	if err != nil {
		return nil, fileError(p, err)
	}
	if !info.IsDir() {
		s, err := readFile(p, left)
		if err != nil {
			return nil, err
		}
		return []source{s}, nil
	}
	names, err := FilesIn(p, ".hcl")
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the folder %s has no *.hcl file", shown(p))
	}
	var out []source
	var errs []string
	for _, n := range names {
		s, err := readFile(n, left)
		if err != nil {
			errs = append(errs, err.Error())
			continue
		}
		out = append(out, s)
	}
	if errs != nil {
		return out, errors.New(strings.Join(errs, "; "))
	}
	return out, nil
}

func readFile(p string, left *int) (source, error) {
	f, _, err := openFile(p)
	if err != nil {
		return source{}, fileError(p, err)
	}
	defer f.Close()
	src, err := readPolicy(f, p, left)
	if err != nil {
		return source{}, err
	}
	abs, err := filepath.Abs(p)
	if err != nil {
		return source{}, fmt.Errorf("the current folder is not known: %w", err)
	}
	return source{name: p, dir: filepath.Dir(abs), src: src}, nil
}

// readPolicy reads one file of a policy, within what all of them may have.
func readPolicy(r io.Reader, name string, left *int) ([]byte, error) {
	src, err := io.ReadAll(io.LimitReader(r, int64(*left)+1))
	if err != nil {
		return nil, fileError(name, err)
	}
	if len(src) > *left {
		*left = 0
		return nil, fmt.Errorf("%s is not read to its end: a policy has at most %d MiB in all, its files together", shown(name), MaxPolicy>>20)
	}
	*left -= len(src)
	return src, nil
}

// fileError says which file and why in one clause, without the call's name.
func fileError(p string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist: name a file, a folder, - or profile:NAME", shown(p))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be read by this user", shown(p))
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return fmt.Errorf("%s cannot be read: %w", shown(p), pe.Err)
	}
	return err // it says which
}

// Profiles gives the names of the profiles in the binary, sorted.
func Profiles() []string {
	entries, err := fs.ReadDir(profiles.Files, ".")
	if err != nil {
		return nil // an embedded folder can always be read
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".hcl"))
	}
	sort.Strings(names)
	return names
}

// Profile gives the text of a profile; the error names the nearest one, or all.
func Profile(name string) ([]byte, error) {
	src, err := fs.ReadFile(profiles.Files, name+".hcl")
	if err != nil {
		near := didYouMean(name, Profiles())
		if near == "" {
			near = ": there is " + oneOf(Profiles())
		}
		return nil, fmt.Errorf("there is no profile %q%s", name, near)
	}
	return src, nil
}
