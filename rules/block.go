package rules

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// block reads the arguments of one block, reporting what is wrong with them.
type block struct {
	l    *loader
	b    *hclsyntax.Block
	kind string // "rule", "policy", ...
	name string // the label; empty for blocks without
	// meant holds arguments that are there under a wrong name.
	meant map[string]bool
}

// open checks that a block holds only what its kind may hold. Blocks of inner
// are handed to it; each kind of them may stand once.
func (l *loader) open(b *hclsyntax.Block, args []string, inner map[string]func(*hclsyntax.Block)) block {
	k := block{l: l, b: b, kind: b.Type, meant: map[string]bool{}}
	if len(b.Labels) > 0 {
		k.name = b.Labels[0]
	}
	for _, a := range sortedAttrs(b.Body) {
		if contains(args, a.Name) {
			continue
		}
		if _, is := inner[a.Name]; is {
			l.fail(a.NameRange, "Block wanted", "%s is a block: %s { ... }, without the equals sign.", a.Name, a.Name)
			continue
		}
		k.meant[suggestion(a.Name, args)] = true
		l.fail(a.NameRange, "Unknown argument", "%s block has no argument %q%s.", article(b.Type), a.Name, didYouMean(a.Name, append(keys(inner), args...)))
	}
	seen := map[string]hcl.Range{}
	for _, in := range b.Body.Blocks {
		read, ok := inner[in.Type]
		if !ok {
			if _, top := topLevel[in.Type]; top && l.unclosed {
				continue // that a } is missing has been told
			}
			if contains(args, in.Type) {
				l.fail(in.TypeRange, "Argument wanted", "%s is an argument: %s = ...", in.Type, in.Type)
			} else {
				l.fail(in.TypeRange, "Unknown block", "%s block has no block %q%s.", article(b.Type), in.Type, didYouMean(in.Type, append(keys(inner), args...)))
			}
			continue
		}
		if first, twice := seen[in.Type]; twice && in.Type != "expect" {
			l.fail(in.TypeRange, "Block written twice", "The %s block at %s has a %s block already.", b.Type, l.place(first), in.Type)
			continue
		}
		seen[in.Type] = in.TypeRange
		read(in)
	}
	return k
}

// title names the block for people: rule "ssh".
func (k block) title() string {
	if k.name == "" {
		return "the " + k.kind + " block"
	}
	return fmt.Sprintf("%s %q", k.kind, k.name)
}

// subject is title at the start of a sentence.
func (k block) subject() string {
	if k.name == "" {
		return upperFirst(k.title())
	}
	return k.title()
}

// article puts the right one before the kind of a block.
func article(kind string) string {
	if strings.ContainsAny(kind[:1], "aeiou") {
		return "An " + kind
	}
	return "A " + kind
}

// places gives the place of each argument that is written.
func (k block) places() map[string]string {
	m := map[string]string{}
	for name, a := range k.b.Body.Attributes {
		m[name] = k.l.place(a.NameRange)
	}
	return m
}

// at is where an argument's name stands, or the block's head without it.
func (k block) at(arg string) hcl.Range {
	if a := k.b.Body.Attributes[arg]; a != nil {
		return a.NameRange
	}
	return k.b.DefRange()
}

// has reports whether the argument is written and is not null.
func (k block) has(arg string) bool {
	a := k.b.Body.Attributes[arg]
	if a == nil {
		return false
	}
	v, diags := a.Expr.Value(k.l.ctx)
	return diags.HasErrors() || !v.IsNull()
}

// require reports an argument that has to be there and is not.
func (k block) require(arg, why string) bool {
	if k.has(arg) {
		return true
	}
	if k.meant[arg] {
		return false
	}
	k.l.missing(k.b.DefRange(), "Argument missing", "%s has no %s: %s.", k.subject(), arg, why)
	return false
}

// wrong reports a value of the wrong kind.
func (k block) wrong(r hcl.Range, arg, want string) {
	k.l.fail(r, "Wrong value", "%s is %s.", arg, want)
}

// list gives the elements of an argument. set is false when the argument is
// not there; ok is false when its value was reported as wrong.
func (k block) list(arg string) (items []item, set, ok bool) {
	a := k.b.Body.Attributes[arg]
	if a == nil {
		return nil, false, true
	}
	return k.l.items(a.Expr)
}

// one gives the only element of an argument.
func (k block) one(arg, want string) (item, bool) {
	items, set, ok := k.list(arg)
	if !set || !ok {
		return item{}, false
	}
	if len(items) != 1 {
		k.wrong(k.b.Body.Attributes[arg].Expr.Range(), arg, want+", and one only")
		return item{}, false
	}
	return items[0], true
}

// str gives a string argument, or "".
func (k block) str(arg, want string) string {
	it, ok := k.one(arg, want)
	if !ok {
		return ""
	}
	s, is := it.text()
	if !is || strings.TrimSpace(s) == "" {
		k.wrong(it.r, arg, want)
		return ""
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		k.wrong(it.r, arg, want+", in one line and in quotes, without line breaks and other control characters")
		return ""
	}
	return s
}

// word gives one of the words allowed, as an index, or def.
func (k block) word(arg string, words []string, def int) int {
	it, ok := k.one(arg, "a word, "+oneOf(words))
	if !ok {
		return def
	}
	s, is := it.text()
	if i := indexOf(words, s); is && i >= 0 {
		return i
	}
	hint := ""
	if is {
		hint = didYouMean(s, words)
	}
	k.l.fail(it.r, "Wrong value", "%s is %s%s%s.", arg, oneOf(words), notThis(it), hint)
	return def
}

// notThis quotes the value that was written.
func notThis(it item) string {
	if s, ok := asText(it.v); ok && len(s) < 64 {
		return fmt.Sprintf(", not %q", s)
	}
	return ""
}

// flag gives a true or false argument, or def.
func (k block) flag(arg string, def bool) bool {
	it, ok := k.one(arg, "true or false")
	if !ok {
		return def
	}
	if it.v.Type() != cty.Bool {
		k.wrong(it.r, arg, "true or false, without quotes")
		return def
	}
	return it.v.True()
}

// integer gives a whole number from lo to hi, or def. Text such as "0x1001"
// is a number too.
func (k block) integer(arg string, lo, hi, def uint64) uint64 {
	want := fmt.Sprintf("a whole number from %d to %d", lo, hi)
	it, ok := k.one(arg, want)
	if !ok {
		return def
	}
	s, _ := asText(it.v)
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil || n < lo || n > hi {
		k.l.fail(it.r, "Wrong value", "%s is %s%s.", arg, want, notThis(it))
		return def
	}
	return n
}

// size gives a number of bytes: a number, or text with a unit, "64GiB".
func (k block) size(arg string) uint64 {
	const want = `a number of bytes, or text with a unit: "500MB", "64GiB"`
	it, ok := k.one(arg, want)
	if !ok {
		return 0
	}
	s, _ := asText(it.v)
	if n, ok := parseSize(s); ok && n > 0 {
		return n
	}
	k.wrong(it.r, arg, want)
	return 0
}

// duration gives a time: "30s", "10m", "8h", "1d".
func (k block) duration(arg string, lo, hi time.Duration) time.Duration {
	want := fmt.Sprintf(`a time from %s to %s: "30s", "10m", "8h", "1d"`, formatDuration(lo), formatDuration(hi))
	it, ok := k.one(arg, want)
	if !ok {
		return 0
	}
	s, _ := it.text()
	if d, ok := parseDuration(s); ok && d >= lo && d <= hi {
		return d
	}
	k.l.fail(it.r, "Wrong value", "%s is %s%s.", arg, want, notThis(it))
	return 0
}

// words gives a list of strings, each checked by check (nil: anything).
func (k block) words(arg, want string, check func(item, string) bool) []string {
	items, set, ok := k.list(arg)
	if !set {
		return nil
	}
	if len(items) == 0 && ok {
		k.wrong(k.b.Body.Attributes[arg].Expr.Range(), arg, want+"; an empty list says nothing, leave it out")
		return nil
	}
	return k.wordsOf(items, arg, want, check)
}

// wordsOf is words for elements that are there already.
func (k block) wordsOf(items []item, arg, want string, check func(item, string) bool) []string {
	var out []string
	have := map[string]bool{}
	for _, it := range items {
		s, is := it.text()
		if !is || s == "" {
			k.wrong(it.r, arg, want)
			continue
		}
		if (check == nil || check(it, s)) && !have[s] {
			have[s] = true
			out = append(out, s)
		}
	}
	return out
}

// path gives a path argument, made absolute from the policy file's folder.
func (k block) path(arg string) string {
	s := k.str(arg, "the path of a file, from the folder of this policy file")
	if s == "" {
		return ""
	}
	if !filepath.IsAbs(s) {
		s = filepath.Join(k.l.dirs[k.b.TypeRange.Filename].dir, s)
	}
	return filepath.Clean(s)
}

func indexOf(list []string, s string) int {
	for i, x := range list {
		if x == s {
			return i
		}
	}
	return -1
}

// upperFirst makes a sentence of an error's text.
func upperFirst(s string) string {
	if first, _, _ := strings.Cut(s, " "); s == "" || strings.Contains(first, "_") { // an argument's name stays as it is
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
