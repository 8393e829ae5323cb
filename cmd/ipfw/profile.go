package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/rules"
)

func newProfileCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "List and show the hardening profiles in this binary",
		Long: `Profiles are policies that ship inside the binary, each with its own tests. Use
one as profile:NAME wherever a PATH stands, or copy it and make it yours:

  ipfw profile show web-server > /etc/ipfw/ipfw.hcl`,
	}
	cmd.AddCommand(newProfileListCmd(a), newProfileShowCmd(a))
	return cmd
}

func newProfileListCmd(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the profiles",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			list := []profileEntry{}
			for _, name := range rules.Profiles() {
				text, err := rules.Profile(name)
				if err != nil {
					return err
				}
				list = append(list, profileEntry{name, summary(text)})
			}
			if asJSON {
				return a.printJSON(list)
			}
			w := a.table()
			for _, e := range list {
				fmt.Fprintf(w, "%s\t%s\n", e.Name, e.Summary)
			}
			a.flushTable(w)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// profileEntry is one element of what `ipfw profile list --json` prints.
type profileEntry struct {
	Name    string `json:"name"`
	Summary string `json:"summary"` // its first sentence
}

func newProfileShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Print a profile",
		Args:  wants(1, 1, "the NAME of a profile: "+strings.Join(rules.Profiles(), ", ")),
		ValidArgsFunction: func(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return profilesLike("", word), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := rules.Profile(strings.TrimPrefix(args[0], "profile:"))
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(text)
			return err
		},
	}
}

// summary is the first sentence of the comment at the head of a policy file.
func summary(text []byte) string {
	var words []string
	for line := range strings.Lines(string(text)) {
		comment, ok := strings.CutPrefix(strings.TrimSpace(line), "#")
		if !ok || strings.TrimSpace(comment) == "" {
			break
		}
		words = append(words, strings.Fields(comment)...)
		if last := words[len(words)-1]; strings.HasSuffix(last, ".") {
			break
		}
	}
	first, _, _ := strings.Cut(strings.Join(words, " "), ". ")
	return strings.TrimSuffix(first, ".")
}

// completePolicy completes profile:NAME, and leaves files to the shell. A shell that is
// offered anything offers no files of its own, so where a word may become either, as
// the empty one, the files are offered here.
func completePolicy(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	const scheme = "profile:"
	profiles := profilesLike(scheme, word)
	switch {
	case strings.HasPrefix(word, scheme):
		return profiles, cobra.ShellCompDirectiveNoFileComp
	case len(profiles) == 0:
		return nil, cobra.ShellCompDirectiveDefault
	}
	return append(profiles, policiesLike(word)...), cobra.ShellCompDirectiveNoFileComp
}

// policiesLike gives the policy files here, and the folders, that a word may become.
func policiesLike(word string) []string {
	entries, err := os.ReadDir(".")
	if err != nil {
		return nil // the word can still be typed
	}
	var out []string
	for _, e := range entries {
		name := e.Name()
		if info, err := os.Stat(name); err == nil && info.IsDir() { // through symbolic links
			name += "/"
		} else if !strings.HasSuffix(name, ".hcl") {
			continue
		}
		if strings.HasPrefix(name, word) && !strings.HasPrefix(name, ".") {
			out = append(out, name)
		}
	}
	return out
}

// profilesLike gives the profiles that a word may become, each with a prefix.
func profilesLike(prefix, word string) []string {
	var out []string
	for _, name := range rules.Profiles() {
		if strings.HasPrefix(prefix+name, word) {
			out = append(out, prefix+name)
		}
	}
	return out
}
