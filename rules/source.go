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

// maxFile bounds what is read from one policy file or from standard input.
const maxFile = 64 << 20

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
	for _, p := range paths {
		s, err := readPath(p, stdin)
		if err != nil {
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Policy not read", Detail: err.Error() + "."})
		}
		out = append(out, s...)
	}
	if len(paths) == 0 {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Policy not read",
			Detail: "No path was given: name a file, a folder, - or profile:NAME."})
	}
	return out, diags
}

func readPath(p string, stdin io.Reader) ([]source, error) {
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
		src, err := readLimited(stdin, "standard input")
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
		s, err := readFile(p)
		if err != nil {
			return nil, err
		}
		return []source{s}, nil
	}
	entries, err := os.ReadDir(p)
	if err != nil {
		return nil, fileError(p, err)
	}
	var names []string
	for _, e := range entries {
		if n := e.Name(); !e.IsDir() && strings.HasSuffix(n, ".hcl") && !strings.HasPrefix(n, ".") {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the folder %s has no *.hcl file", p)
	}
	sort.Strings(names)
	var out []source
	var errs []string
	for _, n := range names {
		s, err := readFile(filepath.Join(p, n))
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

func readFile(p string) (source, error) {
	f, err := os.Open(p)
	if err != nil {
		return source{}, fileError(p, err)
	}
	defer f.Close()
	src, err := readLimited(f, p)
	if err != nil {
		return source{}, err
	}
	abs, err := filepath.Abs(p)
	if err != nil {
		return source{}, fmt.Errorf("the current folder is not known: %w", err)
	}
	return source{name: p, dir: filepath.Dir(abs), src: src}, nil
}

func readLimited(r io.Reader, name string) ([]byte, error) {
	src, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fileError(name, err)
	}
	if len(src) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d MiB: split it into the files of a folder", name, maxFile>>20)
	}
	return src, nil
}

// fileError says which file and why in one clause, without the call's name.
func fileError(p string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist: name a file, a folder, - or profile:NAME", p)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be read by this user", p)
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("%s cannot be read: %w", p, err)
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

// Profile gives the text of a profile; the error names the nearest one.
func Profile(name string) ([]byte, error) {
	src, err := fs.ReadFile(profiles.Files, name+".hcl")
	if err != nil {
		return nil, fmt.Errorf("there is no profile %q%s", name, didYouMean(name, Profiles()))
	}
	return src, nil
}
