package rules

import (
	"cmp"
	"fmt"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// loader is one run of Load.
type loader struct {
	opts  LoadOptions
	diags Diagnostics
	texts map[string]*unfolded // by file name
	dirs  map[string]source    // by file name
	// partial says that some text could not be parsed: then what is missing
	// may stand in that text, and is not reported.
	partial bool
	// unclosed says that a block has no closing brace, so that what follows it
	// looks like a part of it.
	unclosed bool

	ctx        *hcl.EvalContext
	budget     *budget
	suggested  int      // of unknown locals
	localNames []string // sorted
	localAttrs map[string]*hclsyntax.Attribute
	blocks     map[string][]*hclsyntax.Block // top-level blocks by type, in order

	lists   listFiles
	policy  *Policy
	places  map[string]hcl.Range // rule name -> where
	inbound hcl.Range            // the policy block's inbound argument
	uses    map[string]bool      // ipsec and ike blocks that something refers to
	ruleSet map[string]bool      // names of the rule blocks; see hasRule
}

// Load reads the files, folders, profiles ("profile:NAME") and standard input
// ("-") that the paths name as one policy. It gives either a policy and at
// most warnings, or nil and the errors there are, of which the first 20.
func Load(paths []string, o LoadOptions) (*Policy, Diagnostics) {
	l := &loader{
		opts:   o,
		diags:  Diagnostics{files: map[string]*hcl.File{}},
		texts:  map[string]*unfolded{},
		dirs:   map[string]source{},
		blocks: map[string][]*hclsyntax.Block{},
		policy: &Policy{},
		places: map[string]hcl.Range{},
		uses:   map[string]bool{},
	}
	l.budget = &budget{fail: func(r hcl.Range, why string) { l.fail(r, "Too much is made", "%s", why) }, readList: l.readList}
	sources, diags := readSources(paths, o.Stdin)
	l.diags.list = append(l.diags.list, diags...)
	l.partial = diags.HasErrors()
	order := map[string]int{}
	for i, s := range sources {
		order[s.name] = i
		l.parse(s)
	}
	l.locals()
	l.settings()
	l.ikeBlocks()
	l.ipsecBlocks()
	l.rules()
	l.evaluated()
	l.tests()
	if !l.diags.HasErrors() {
		l.warn()
		l.refusals()
	}
	l.diags.sortByPlace(order)
	l.diags.shorten()
	if l.diags.HasErrors() {
		return nil, l.diags
	}
	l.policy.Warnings = l.diags.All()
	return l.policy, l.diags
}

// refusals reports what LoadOptions.Check says.
func (l *loader) refusals() {
	if l.opts.Check == nil {
		return
	}
	for _, r := range l.opts.Check(l.policy) {
		at := l.defined(r.Kind, r.Name)
		for _, b := range l.blocks[r.Kind] {
			if len(b.Labels) == 0 && r.Name == "" || len(b.Labels) > 0 && b.Labels[0] == r.Name {
				at = block{l: l, b: b}.at(r.Argument)
				break
			}
		}
		sev := hcl.DiagError
		if r.Warning {
			sev = hcl.DiagWarning
		}
		l.add(sev, at, cmp.Or(r.Summary, "Policy refused"), upperFirst(r.Text)+".")
	}
}

// topLevel are the blocks a file may have, with their number of labels.
var topLevel = map[string]int{"policy": 0, "locals": 0, "rule": 1, "ipsec": 1, "ike": 1, "test": 1}

// parse takes one file apart into blocks.
func (l *loader) parse(s source) {
	if _, twice := l.texts[s.name]; twice {
		l.fail(hcl.Range{Filename: s.name, Start: hcl.InitialPos, End: hcl.InitialPos}, "File read twice",
			"%s is named twice, or is in a folder that is named too.", s.name)
		return
	}
	l.texts[s.name], l.dirs[s.name] = &unfolded{orig: s.src, src: s.src}, s
	shown := printable(s.src)
	l.diags.files[s.name] = &hcl.File{Bytes: shown}
	if err := notText(s.src); err != nil {
		l.partial = true
		l.diags.list = append(l.diags.list, noTextDiag(s.name, err))
		return
	}
	text, file := inPieces(s.name, s.src, pieceSize)
	if file == nil {
		var diags hcl.Diagnostics
		if text, diags = unfold(s.name, s.src); diags.HasErrors() {
			l.partial = true
			l.diags.list = append(l.diags.list, diags...)
			return
		}
		l.texts[s.name] = text
		file, diags = hclsyntax.ParseConfig(text.src, s.name, hcl.InitialPos)
		l.report(l.plainly(untilString(diags), file))
		l.partial = l.partial || diags.HasErrors()
		if file == nil {
			return
		}
	}
	l.texts[s.name] = text
	l.diags.files[s.name] = &hcl.File{Body: file.Body, Bytes: shown, Nav: file.Nav}
	body, ok := file.Body.(*hclsyntax.Body)
	if !ok {
		return
	}
	l.budget.body(body)
	normalizeLocals(body)
	for _, a := range sortedAttrs(body) {
		l.fail(a.NameRange, "Argument outside of a block", "%q stands outside of every block: values that several rules share belong in a locals block.", a.Name)
	}
	for _, b := range body.Blocks {
		labels, known := topLevel[b.Type]
		if !known {
			l.fail(b.TypeRange, "Unknown block", "There is no block %q: a file has policy, locals, rule, ipsec, ike and test blocks%s.", b.Type, didYouMean(b.Type, keys(topLevel)))
			continue
		}
		normalize(b)
		l.checkLabels(b, labels)
		l.blocks[b.Type] = append(l.blocks[b.Type], b)
	}
}

// untilString leaves out what follows a string without an end: HCL reads the
// rest of the file inside out, and complains of every line.
func untilString(diags hcl.Diagnostics) hcl.Diagnostics {
	for i, d := range diags {
		if d.Summary == "Invalid multi-line string" {
			short := *d
			short.Summary, short.Detail = "String without end", "The text that starts here has no closing quote in its line."
			return append(diags[:i:i], &short)
		}
	}
	return diags
}

// normalize writes the names of a block in Unicode's form NFC, as HCL does with
// strings: a letter with an accent is the same in one code point and in two.
func normalize(b *hclsyntax.Block) {
	for i, name := range b.Labels {
		b.Labels[i] = cty.NormalizeString(name)
	}
	for _, in := range b.Body.Blocks {
		normalize(in)
	}
}

// normalizeLocals does what normalize does, with the names of locals.
func normalizeLocals(body *hclsyntax.Body) {
	hclsyntax.VisitAll(body, func(n hclsyntax.Node) hcl.Diagnostics {
		switch n := n.(type) {
		case *hclsyntax.Attribute:
			n.Name = cty.NormalizeString(n.Name)
		case *hclsyntax.ScopeTraversalExpr:
			for i, step := range n.Traversal {
				switch step := step.(type) {
				case hcl.TraverseRoot: // a variable of a for expression
					step.Name = cty.NormalizeString(step.Name)
					n.Traversal[i] = step
				case hcl.TraverseAttr:
					step.Name = cty.NormalizeString(step.Name)
					n.Traversal[i] = step
				}
			}
		case *hclsyntax.ForExpr:
			n.KeyVar, n.ValVar = cty.NormalizeString(n.KeyVar), cty.NormalizeString(n.ValVar)
		}
		return nil
	})
}

// plainly says in fewer words what HCL says of braces.
func (l *loader) plainly(diags hcl.Diagnostics, file *hcl.File) hcl.Diagnostics {
	for i, d := range diags {
		short := *d
		switch d.Summary {
		case "Unclosed configuration block":
			l.unclosed = true
			short.Summary, short.Detail = "Brace missing", "A } is missing: this block has no end."
			if body, ok := file.Body.(*hclsyntax.Body); ok && d.Subject != nil {
				if at := follows(body, *d.Subject); at.Line > 0 {
					short.Detail = fmt.Sprintf("A } is missing before line %d: the block that begins here has no end.", at.Line)
				}
			}
		case "Invalid single-argument block definition":
			short.Summary = "Line break missing"
			short.Detail = "A block whose first argument stands in the line of its { ends in that line too: put a line break behind the {, or write all of it in one line, with commas between the arguments."
		default:
			continue
		}
		diags[i] = &short
	}
	return diags
}

// follows gives where the block begins that stands behind one without an end, and
// so inside of it: it is of a kind that stands by itself.
func follows(body *hclsyntax.Body, open hcl.Range) hcl.Pos {
	for _, b := range body.Blocks {
		if b.OpenBraceRange.Start == open.Start || b.TypeRange.Start == open.Start {
			for _, in := range b.Body.Blocks {
				if _, top := topLevel[in.Type]; top {
					return in.TypeRange.Start
				}
			}
		} else if at := follows(b.Body, open); at.Line > 0 {
			return at
		}
	}
	return hcl.Pos{}
}

// checkLabels reports a block with too many or too few names.
func (l *loader) checkLabels(b *hclsyntax.Block, want int) {
	switch {
	case len(b.Labels) < want:
		l.fail(b.TypeRange, "Name missing", `%s block has a name: %s "NAME" { ... }.`, article(b.Type), b.Type)
	case len(b.Labels) > want && want == 0:
		l.fail(b.LabelRanges[0], "Name not wanted", "%s block has no name.", article(b.Type))
	case len(b.Labels) > want:
		l.fail(b.LabelRanges[want], "One name too many", "%s block has one name only.", article(b.Type))
	}
}

// fail adds an error.
func (l *loader) fail(r hcl.Range, summary, detail string, args ...any) {
	l.add(hcl.DiagError, r, summary, fmt.Sprintf(detail, args...))
}

// missing adds an error about something that is not there, unless it may
// stand in text that could not be read.
func (l *loader) missing(r hcl.Range, summary, detail string, args ...any) {
	if !l.partial {
		l.fail(r, summary, detail, args...)
	}
}

// caution adds a warning.
func (l *loader) caution(r hcl.Range, summary, detail string, args ...any) {
	l.add(hcl.DiagWarning, r, summary, fmt.Sprintf(detail, args...))
}

func (l *loader) add(sev hcl.DiagnosticSeverity, r hcl.Range, summary, detail string) {
	detail = string(printable([]byte(strings.ReplaceAll(detail, "?.", "?")))) // a suggestion may stand at the end
	d := &hcl.Diagnostic{Severity: sev, Summary: summary, Detail: detail}
	if r.Filename != "" {
		r = l.back(r)
		d.Subject = &r
	}
	l.diags.list = append(l.diags.list, d)
}

// report adds HCL's own diagnostics.
func (l *loader) report(diags hcl.Diagnostics) {
	for _, d := range diags {
		if d.Subject == nil {
			l.diags.list = append(l.diags.list, d)
			continue
		}
		l.add(d.Severity, *d.Subject, d.Summary, d.Detail)
	}
}

// back gives the place in the file as the user wrote it.
func (l *loader) back(r hcl.Range) hcl.Range {
	if u := l.texts[r.Filename]; u != nil {
		return u.back(r)
	}
	return r
}

// place gives "file:line" as the user wrote it.
func (l *loader) place(r hcl.Range) string { return place(l.back(r)) }

// defined gives the place of the block of that kind and name.
func (l *loader) defined(kind, name string) hcl.Range {
	for _, b := range l.blocks[kind] {
		if len(b.Labels) > 0 && b.Labels[0] == name {
			return b.DefRange()
		}
	}
	return hcl.Range{}
}

// locals evaluates the locals blocks; a local may use others in any order.
func (l *loader) locals() {
	attrs := map[string]*hclsyntax.Attribute{}
	var names []string
	for _, b := range l.blocks["locals"] {
		for _, inner := range b.Body.Blocks {
			l.fail(inner.TypeRange, "Block not wanted", "A locals block has arguments only: %s = ...", inner.Type)
		}
		for _, a := range sortedAttrs(b.Body) {
			if first, twice := attrs[a.Name]; twice {
				l.fail(a.NameRange, "Local defined twice", "local.%s was defined at %s already.", a.Name, l.place(first.NameRange))
				continue
			}
			attrs[a.Name] = a
			names = append(names, a.Name)
		}
	}
	l.localNames, l.localAttrs = keys(attrs), attrs
	values := map[string]cty.Value{}
	l.ctx = &hcl.EvalContext{Functions: l.budget.functions()}
	const (
		fresh = iota
		busy
		done
	)
	state := map[string]int{}
	var visit func(name string, path []string)
	visit = func(name string, path []string) {
		state[name] = busy
		path = append(path, name)
		used := map[string]cty.Value{}
		for _, ref := range localRefs(attrs[name].Expr) {
			if _, ok := attrs[ref]; !ok {
				continue // eval reports it
			}
			switch {
			case state[ref] == busy:
				l.fail(attrs[name].NameRange, "Locals go in a circle", "%s.", circle(path, ref))
				values[name] = cty.DynamicVal
			case state[ref] == fresh && len(path) == maxLocalsIn:
				l.budget.exceed(attrs[name].NameRange, fmt.Sprintf("This uses a local that uses another, and so on, more than %d deep.", maxLocalsIn))
				values[name] = cty.DynamicVal
			case state[ref] == fresh:
				visit(ref, path)
			}
			if v, ok := values[ref]; ok {
				used[ref] = v
			}
		}
		if _, failed := values[name]; !failed {
			l.ctx.Variables = map[string]cty.Value{"local": cty.ObjectVal(used)}
			v, ok := l.eval(attrs[name].Expr)
			if !ok {
				v = cty.DynamicVal
			}
			values[name] = v
		}
		state[name] = done
	}
	sort.Strings(names)
	for _, n := range names {
		if state[n] == fresh {
			visit(n, nil)
		}
	}
	l.ctx.Variables = map[string]cty.Value{"local": cty.ObjectVal(values)}
}

// circle writes the way from a local back to itself.
func circle(path []string, back string) string {
	s := ""
	on := false
	for _, p := range path {
		on = on || p == back
		if on {
			s += "local." + p + " uses "
		}
	}
	return s + "local." + back
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// sortedAttrs gives the arguments of a body in the order of the file.
func sortedAttrs(b *hclsyntax.Body) []*hclsyntax.Attribute {
	out := make([]*hclsyntax.Attribute, 0, len(b.Attributes))
	for _, a := range b.Attributes {
		out = append(out, a)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].SrcRange.Start.Byte < out[j].SrcRange.Start.Byte })
	return out
}
