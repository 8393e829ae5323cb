package rules

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// localRefs gives the names NAME of every local.NAME in the expression.
func localRefs(e hclsyntax.Expression) []string {
	var out []string
	for _, t := range e.Variables() {
		if name, _, ok := localRef(t); ok {
			out = append(out, name)
		}
	}
	return out
}

// localRef takes local.NAME apart.
func localRef(t hcl.Traversal) (string, hcl.Range, bool) {
	if t.RootName() != "local" || len(t) < 2 {
		return "", hcl.Range{}, false
	}
	switch step := t[1].(type) {
	case hcl.TraverseAttr:
		return step.Name, step.SrcRange, true
	case hcl.TraverseIndex:
		if step.Key.Type() == cty.String && step.Key.IsKnown() && !step.Key.IsNull() {
			return step.Key.AsString(), step.SrcRange, true
		}
	}
	return "", hcl.Range{}, false
}

// eval gives the value of an expression. It reports what is wrong with it,
// names that do not exist first.
func (l *loader) eval(e hclsyntax.Expression) (cty.Value, bool) {
	ok := true
	for _, t := range e.Variables() {
		if name, r, is := localRef(t); is {
			if l.localAttrs[name] == nil {
				l.missing(r, "Unknown local", "There is no local.%s%s.", name, l.didYouMeanLocal(name))
				ok = false
			}
			continue
		}
		switch root := t.RootName(); root {
		case "local":
		case "locals", "var":
			l.fail(t.SourceRange(), "Unknown name", "What a locals block defines is written local.NAME.")
			ok = false
		default:
			l.fail(t.SourceRange(), "Unknown name", "There is nothing called %q: a word in quotes is text, and local.NAME is what a locals block defines.", root)
			ok = false
		}
	}
	if !ok {
		return cty.DynamicVal, false
	}
	l.budget.mistakes = 0
	v, diags := e.Value(l.ctx)
	if l.budget.over {
		return cty.DynamicVal, false // that is told
	}
	l.report(diags)
	// A value that is not known comes from a local that is reported already.
	return v, !diags.HasErrors() && v.IsWhollyKnown()
}

func (l *loader) didYouMeanLocal(name string) string {
	// Each is compared with all that there are.
	if l.suggested++; l.suggested > maxMistakes {
		return ""
	}
	if s := suggestion(name, l.localNames); s != "" {
		return "; did you mean local." + s + "?"
	}
	return ""
}

// item is one element of a list argument and where it stands.
type item struct {
	v cty.Value
	r hcl.Range
}

// text gives the element as a string when it is one.
func (i item) text() (string, bool) {
	if i.v.Type() == cty.String {
		return i.v.AsString(), true
	}
	return "", false
}

// items gives the elements of an expression: of a list, or of lists in lists,
// or the value itself. Null gives isSet false, as if it were not written.
func (l *loader) items(e hclsyntax.Expression) (out []item, isSet, ok bool) {
	if t, is := unguarded(e).(*hclsyntax.TupleConsExpr); is {
		ok = true
		for _, x := range t.Exprs {
			in, _, good := l.items(x)
			out, ok = append(out, in...), ok && good
		}
		return out, true, ok
	}
	v, ok := l.eval(e)
	if !ok {
		return nil, true, false
	}
	if v.IsNull() {
		return nil, false, true
	}
	if !v.Type().IsPrimitiveType() {
		n, _, ok := l.budget.whole(e.Range(), v)
		if !ok || !l.budget.spend(e.Range(), n, 0, 0) {
			return nil, true, false
		}
		out = make([]item, 0, n)
	}
	return l.flatten(v, e.Range(), out)
}

// flatten adds the elements of a value to out.
func (l *loader) flatten(v cty.Value, r hcl.Range, out []item) (items []item, isSet, ok bool) {
	ok = true
	switch t := v.Type(); {
	case v.IsNull():
		return out, true, true
	case t.IsPrimitiveType(), t == addressListType:
		return append(out, item{v, r}), true, true
	case t.IsListType(), t.IsTupleType(), t.IsSetType():
		for it := v.ElementIterator(); it.Next(); {
			_, e := it.Element()
			var good bool
			out, _, good = l.flatten(e, r, out)
			ok = ok && good
		}
		return out, true, ok
	default:
		l.fail(r, "Wrong type of value", "A value or a list of values is wanted here, not %s.", t.FriendlyName())
		return out, true, false
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// asText turns numbers into text, so that `spi_in = 4097` and "0x1001" and
// `local_port = "22"` all work.
func asText(v cty.Value) (string, bool) {
	if v.Type() == cty.String {
		return v.AsString(), true
	}
	s, err := convert.Convert(v, cty.String)
	if err != nil || s.IsNull() || v.Type() == cty.Bool {
		return "", false
	}
	return s.AsString(), true
}
