package rules

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// functions are what expressions may call: those of other HCL programs that
// make lists out of lists. None reads files or the environment.
func functions() map[string]function.Function {
	return map[string]function.Function{
		"coalesce": stdlib.CoalesceFunc, "compact": stdlib.CompactFunc, "concat": stdlib.ConcatFunc,
		"contains": stdlib.ContainsFunc, "distinct": stdlib.DistinctFunc, "element": stdlib.ElementFunc,
		"flatten": stdlib.FlattenFunc, "join": stdlib.JoinFunc, "keys": stdlib.KeysFunc,
		"length": stdlib.LengthFunc, "lookup": stdlib.LookupFunc, "lower": stdlib.LowerFunc,
		"max": stdlib.MaxFunc, "merge": stdlib.MergeFunc, "min": stdlib.MinFunc,
		"range": stdlib.RangeFunc, "replace": stdlib.ReplaceFunc, "reverse": stdlib.ReverseListFunc,
		"setintersection": stdlib.SetIntersectionFunc, "setsubtract": stdlib.SetSubtractFunc,
		"setunion": stdlib.SetUnionFunc, "slice": stdlib.SliceFunc, "sort": stdlib.SortFunc,
		"split": stdlib.SplitFunc, "trimspace": stdlib.TrimSpaceFunc, "upper": stdlib.UpperFunc,
		"values":   stdlib.ValuesFunc,
		"tolist":   stdlib.MakeToFunc(cty.List(cty.DynamicPseudoType)),
		"toset":    stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)),
		"tostring": stdlib.MakeToFunc(cty.String), "tonumber": stdlib.MakeToFunc(cty.Number),
	}
}

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
// names that do not exist first; known are the locals there are.
func (l *loader) eval(e hclsyntax.Expression, known []string) (cty.Value, bool) {
	ok := true
	for _, t := range e.Variables() {
		if name, r, is := localRef(t); is {
			if !contains(known, name) {
				l.missing(r, "Unknown local", "There is no local.%s%s.", name, didYouMeanLocal(name, known))
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
	v, diags := e.Value(l.ctx)
	l.report(diags)
	// A value that is not known comes from a local that is reported already.
	return v, !diags.HasErrors() && v.IsWhollyKnown()
}

func didYouMeanLocal(name string, known []string) string {
	if s := suggestion(name, known); s != "" {
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
	if t, is := e.(*hclsyntax.TupleConsExpr); is {
		ok = true
		for _, x := range t.Exprs {
			in, _, good := l.items(x)
			out, ok = append(out, in...), ok && good
		}
		return out, true, ok
	}
	v, ok := l.eval(e, l.localNames)
	if !ok {
		return nil, true, false
	}
	if v.IsNull() {
		return nil, false, true
	}
	return l.flatten(v, e.Range(), out)
}

// flatten adds the elements of a value to out.
func (l *loader) flatten(v cty.Value, r hcl.Range, out []item) (items []item, isSet, ok bool) {
	ok = true
	switch t := v.Type(); {
	case v.IsNull():
		return out, true, true
	case t.IsPrimitiveType():
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
