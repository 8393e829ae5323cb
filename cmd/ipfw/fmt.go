package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/rules"
)

func newFmtCmd(a *app) *cobra.Command {
	var check, asJSON bool
	cmd := &cobra.Command{
		Use:   "fmt [-check] PATH...",
		Short: "Write policy files in the canonical form",
		Long: `Fmt rewrites policy files (of a folder, its *.hcl files) in the one canonical form
and prints the names of those it changed. With "-" it writes the standard input
to the standard output. With -check it changes nothing, prints the names of the
files that would change, and exits with status 2 when there are any.`,
		Args: wants(1, 0, `a PATH: a file, a folder, or "-"`),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.fmt(args, check, asJSON)
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "change nothing; exit with 2 when a file would change")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the names as JSON")
	return cmd
}

// formatted is what `ipfw fmt --json` prints.
type formatted struct {
	Changed     []string           `json:"changed"` // files that are, or would be, different
	Errors      []string           `json:"errors,omitempty"`
	Diagnostics []rules.Diagnostic `json:"diagnostics,omitempty"`
}

func (a *app) fmt(paths []string, check, asJSON bool) error {
	files, err := policyFiles(paths)
	if err != nil {
		return err
	}
	f, failed := formatted{Changed: []string{}}, false
	for _, name := range files {
		different, err := a.fmtFile(name, check)
		var bad *policyError
		switch {
		case a.written() != nil:
			return a.written()
		case err != nil && asJSON:
			failed = true
			if errors.As(err, &bad) {
				f.Diagnostics = append(f.Diagnostics, bad.diags.All()...)
				err = errors.New(name + " is not good")
			}
			f.Errors = append(f.Errors, err.Error())
		case errors.As(err, &bad):
			failed = true
			a.diagnose(bad.diags)
		case err != nil:
			failed = true
			a.warnf("%s", err)
		case different:
			f.Changed = append(f.Changed, name)
		}
	}
	if asJSON {
		if err := a.printJSON(f); err != nil {
			return err
		}
	} else {
		for _, name := range f.Changed {
			if name != "-" || check { // else the text itself is the output
				a.printf("%s\n", name)
			}
		}
	}
	switch {
	case failed:
		return exitWith(exitError)
	case check && len(f.Changed) > 0:
		return exitWith(exitChanges)
	}
	return nil
}

// policyFiles opens folders; everything else stays as it is.
func policyFiles(paths []string) ([]string, error) {
	var out []string
	for _, p := range paths {
		if strings.HasPrefix(p, "profile:") {
			return nil, usagef("%s is inside the binary and cannot be rewritten", p)
		}
		info, err := os.Stat(p)
		if p == "-" || err != nil || !info.IsDir() {
			out = append(out, p) // a missing file is reported with the others
			continue
		}
		files, err := rules.FilesIn(p, ".hcl")
		if err != nil {
			return nil, err
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("the folder %s has no *.hcl file", p)
		}
		out = append(out, files...)
	}
	return out, nil
}

// fmtFile formats one file, or the standard input, and says whether the text
// became different.
func (a *app) fmtFile(name string, check bool) (changed bool, err error) {
	var src []byte
	if name == "-" {
		src, err = io.ReadAll(io.LimitReader(a.stdin, rules.MaxPolicy+1))
		if err == nil && len(src) > rules.MaxPolicy {
			err = fmt.Errorf("standard input is not read to its end: a policy has at most %d MiB", rules.MaxPolicy>>20)
		}
	} else {
		src, err = rules.ReadFile(name, rules.MaxPolicy)
	}
	if err != nil {
		return false, fileTrouble(name, err)
	}
	out, diags := rules.Format(src, name)
	if diags.HasErrors() {
		return false, &policyError{diags}
	}
	changed = !bytes.Equal(src, out)
	switch {
	case check:
		return changed, nil
	case name == "-":
		_, err = a.stdout.Write(out)
		return changed, err
	case changed:
		return true, replaceFile(name, out)
	}
	return false, nil
}

// replaceFile puts new text in the place of a file in one step, so that a
// daemon that reloads never sees half a policy. Mode and owner stay; a
// symbolic link stays one.
func replaceFile(name string, text []byte) (err error) {
	target, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	info, err := os.Stat(target)
	if err != nil {
		return err
	}
	// Not *.hcl: a folder that is read meanwhile must not see it.
	tmp, err := os.CreateTemp(filepath.Dir(target), "."+filepath.Base(target)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
			err = fmt.Errorf("%s stays as it was: %w", name, err)
		}
	}()
	if _, err = tmp.Write(text); err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if err = tmp.Chown(int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if err = tmp.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	if err = tmp.Sync(); err != nil {
		return err
	}
	if err = tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), target)
}
