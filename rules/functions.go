package rules

import (
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// functions are what expressions may call: those of other HCL programs that
// make lists out of lists, those that take networks apart, and file, which reads a list
// of addresses. None reads anything else, or the environment, and none makes more than
// the budget has left.
func (b *budget) functions() map[string]function.Function {
	all := map[string]function.Function{
		"cidrcontains": cidrcontains, "cidrhost": cidrhost,
		"coalesce": stdlib.CoalesceFunc, "compact": stdlib.CompactFunc, "concat": concat,
		"contains": stdlib.ContainsFunc, "distinct": distinct, "element": stdlib.ElementFunc,
		"flatten": flatten, "join": stdlib.JoinFunc, "keys": stdlib.KeysFunc,
		"length": stdlib.LengthFunc, "lookup": stdlib.LookupFunc, "lower": stdlib.LowerFunc,
		"max": stdlib.MaxFunc, "merge": stdlib.MergeFunc, "min": stdlib.MinFunc,
		"range": stdlib.RangeFunc, "replace": stdlib.ReplaceFunc, "reverse": stdlib.ReverseListFunc,
		"setintersection": stdlib.SetIntersectionFunc, "setsubtract": stdlib.SetSubtractFunc,
		"setunion": stdlib.SetUnionFunc, "slice": stdlib.SliceFunc, "sort": stdlib.SortFunc,
		"split": stdlib.SplitFunc, "trimspace": stdlib.TrimSpaceFunc, "upper": stdlib.UpperFunc,
		"values": stdlib.ValuesFunc, "file": b.fileFunction(), "try": b.tryFunction(),
		"tolist":   stdlib.MakeToFunc(cty.List(cty.DynamicPseudoType)),
		"toset":    stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)),
		"tostring": stdlib.MakeToFunc(cty.String), "tonumber": stdlib.MakeToFunc(cty.Number),
	}
	for name, f := range all {
		all[name] = b.bounded(name, f)
	}
	return all
}

// bounded gives a function that takes what it makes from the budget before it
// makes it. Some make it to find their type, so it is asked for there.
func (b *budget) bounded(name string, f function.Function) function.Function {
	return function.New(&function.Spec{
		Params: f.Params(), VarParam: f.VarParam(),
		Type: func(args []cty.Value) (cty.Type, error) {
			if !b.call(name, args) {
				return cty.DynamicPseudoType, errOver
			}
			return f.ReturnTypeForValues(args)
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return f.Call(args) },
	})
}

// concat is stdlib's function of that name, to which what file gives is a list.
var concat = function.New(&function.Spec{
	VarParam: stdlib.ConcatFunc.VarParam(),
	Type:     func(args []cty.Value) (cty.Type, error) { return stdlib.ConcatFunc.ReturnTypeForValues(listed(args)) },
	Impl:     func(args []cty.Value, _ cty.Type) (cty.Value, error) { return stdlib.ConcatFunc.Call(listed(args)) },
})

// listed puts each list that a file gave into a list.
func listed(args []cty.Value) []cty.Value {
	out := slices.Clone(args)
	for i, v := range out {
		if v.Type() == addressListType {
			out[i] = cty.TupleVal([]cty.Value{v})
		}
	}
	return out
}

// call takes what a function is going to make out of its arguments. Hardly any
// makes more than it is given, text and elements.
func (b *budget) call(name string, args []cty.Value) bool {
	elements, text := 0, 0
	for _, a := range args {
		n, t, ok := b.whole(b.at, a)
		if !ok {
			return false
		}
		elements, text = elements+n, text+t
	}
	switch name {
	case "contains", "cidrcontains":
		return b.spend(b.at, 0, 0, elements*toCompare+listedIn(args)/toLook)
	case "element", "length", "lookup", "max", "min", "try":
		return true // they make nothing
	case "cidrhost":
		elements, text = 0, ofAddress
	case "range":
		elements, text = 1024, 1024*ofNumber // at most
		if n := rangeLength(args); n >= 0 {
			elements, text = n, n*ofNumber
		}
	case "tonumber":
		text = ofNumber
	case "join":
		if sep, ok := known(args, 0); ok {
			text += len(sep) * elements
		}
	case "split":
		sep, ok1 := known(args, 0)
		s, ok2 := known(args, 1)
		if ok1 && ok2 {
			elements = strings.Count(s, sep) + 2
		}
	case "replace":
		s, ok1 := known(args, 0)
		old, ok2 := known(args, 1)
		with, ok3 := known(args, 2)
		if ok1 && ok2 && ok3 {
			text = len(s) + grown(strings.Count(s, old), len(with))
		}
	case "toset", "setintersection", "setsubtract", "setunion", "merge":
		elements *= ofMember
	}
	return b.spend(b.at, elements, text, 0)
}

// listedIn is how many addresses from files are in values.
func listedIn(values []cty.Value) int {
	n := 0
	for _, v := range values {
		switch t := v.Type(); {
		case v.IsMarked() || !v.IsKnown() || v.IsNull():
		case t == addressListType:
			n += len(v.EncapsulatedValue().(*addressList).ranges)
		case t.IsListType(), t.IsTupleType(), t.IsSetType():
			n += listedIn(v.AsValueSlice())
		}
	}
	return n
}

// grown is n texts of that length, or more than there may be.
func grown(n, length int) int {
	if length > 0 && n > maxText/length {
		return maxText + 1
	}
	return n * length
}

// known gives an argument that is text.
func known(args []cty.Value, i int) (string, bool) {
	if i >= len(args) || args[i].IsMarked() || args[i].Type() != cty.String || !args[i].IsKnown() || args[i].IsNull() {
		return "", false
	}
	return args[i].AsString(), true
}

// rangeLength is how many numbers range(n) gives, or -1 if it is not that simple.
func rangeLength(args []cty.Value) int {
	if len(args) != 1 || args[0].IsMarked() || args[0].Type() != cty.Number || !args[0].IsKnown() || args[0].IsNull() {
		return -1
	}
	n, _ := args[0].AsBigFloat().Int64()
	return int(min(max(n, -n)+1, 1024))
}

// distinct is stdlib's function of that name, which compares each element with
// each other one.
var distinct = function.New(&function.Spec{
	Params: stdlib.DistinctFunc.Params(),
	Type:   func(args []cty.Value) (cty.Type, error) { return args[0].Type(), nil },
	Impl: func(args []cty.Value, t cty.Type) (cty.Value, error) {
		if !args[0].IsWhollyKnown() {
			return cty.UnknownVal(t), nil
		}
		have := map[int][]cty.Value{}
		var list []cty.Value
		for it := args[0].ElementIterator(); it.Next(); {
			_, v := it.Element()
			h, seen := v.Hash(), false
			for _, x := range have[h] {
				seen = seen || x.RawEquals(v)
			}
			if !seen {
				have[h], list = append(have[h], v), append(list, v)
			}
		}
		if len(list) == 0 {
			return cty.ListValEmpty(t.ElementType()), nil
		}
		return cty.ListVal(list), nil
	},
})
