package rules

import (
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/customdecode"
	"github.com/ipfw/ipfw/engine"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// Tests of a policy want addresses out of the networks that its rules name, and
// addresses that are in none of them, so that whoever changes a local need not change
// the tests. cidrhost and try are Terraform's functions of those names, cidrcontains
// is OpenTofu's. Where those take a network, these take whatever an address argument
// takes: an address, a network, a range, "any", and what file gives.

// cidrhost gives the address of a network that has that number, from 0; a negative
// number counts from the end, -1 is the last address.
var cidrhost = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "prefix", Type: cty.DynamicPseudoType}, {Name: "hostnum", Type: cty.Number}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		var in engine.AddrRange
		if t := args[0].Type(); !t.IsPrimitiveType() && t != addressListType {
			return cty.NilVal, function.NewArgErrorf(0, "one network is wanted here, not %s: [for a in flatten([LIST]) : cidrhost(a, 0)] gives an address of each", t.FriendlyName())
		}
		err := eachRange(args[0], func(r engine.AddrRange) bool {
			in = r
			return false
		})
		if err != nil {
			return cty.NilVal, function.NewArgError(0, err)
		}
		if !in.First.IsValid() {
			return cty.NilVal, function.NewArgErrorf(0, "the file holds no address")
		}
		a, err := addressAt(in, args[1].AsBigFloat())
		if err != nil {
			return cty.NilVal, function.NewArgError(1, err)
		}
		return cty.StringVal(a.String()), nil
	},
})

// addressAt gives the address of a range that has that number.
func addressAt(r engine.AddrRange, number *big.Float) (netip.Addr, error) {
	n, accuracy := number.Int(nil)
	if n == nil || accuracy != big.Exact {
		return netip.Addr{}, fmt.Errorf("the number of an address is a whole number, not %s", number.Text('g', 10))
	}
	first, last := new(big.Int).SetBytes(r.First.AsSlice()), new(big.Int).SetBytes(r.Last.AsSlice())
	at := new(big.Int).Add(first, n)
	if n.Sign() < 0 {
		at.Add(last, n).Add(at, big.NewInt(1))
	}
	if at.Cmp(first) < 0 || at.Cmp(last) > 0 {
		if first.Cmp(last) == 0 {
			return netip.Addr{}, fmt.Errorf("%s is one address, which has the number 0, and -1 from the end; there is none with %s", r, number.Text('g', 10))
		}
		most := new(big.Int).Sub(last, first)
		return netip.Addr{}, fmt.Errorf("the addresses of %s have the numbers 0 to %d, or -1 to -%d from the end; there is none with %s",
			r, most, new(big.Int).Add(most, big.NewInt(1)), number.Text('g', 10))
	}
	a, _ := netip.AddrFromSlice(at.FillBytes(r.First.AsSlice()))
	return a, nil
}

// cidrcontains says whether all addresses of one value are among those of another. A
// list is all that is in it; one family is never in the other.
var cidrcontains = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "containing", Type: cty.DynamicPseudoType}, {Name: "contained", Type: cty.DynamicPseudoType}},
	Type:   function.StaticReturnType(cty.Bool),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		var want, near []engine.AddrRange
		err := eachRange(args[1], func(r engine.AddrRange) bool {
			want = append(want, r)
			return true
		})
		if err != nil {
			return cty.NilVal, function.NewArgError(1, err)
		}
		if len(want) == 0 {
			return cty.NilVal, function.NewArgErrorf(1, "an address, a network or a range is wanted here, or a list that holds one")
		}
		err = eachRange(args[0], func(r engine.AddrRange) bool {
			if len(want) > 1 || r.First.Is4() == want[0].First.Is4() && !want[0].Last.Less(r.First) && !r.Last.Less(want[0].First) {
				near = append(near, r)
			}
			return true
		})
		if err != nil {
			return cty.NilVal, function.NewArgError(0, err)
		}
		return cty.BoolVal(engine.Within(want, near)), nil
	},
})

// eachRange calls f with the addresses that a value names, until f gives false: those
// of a text, of what file gives, and of all that is in a list.
func eachRange(v cty.Value, f func(engine.AddrRange) bool) error {
	_, err := walkRanges(v, f)
	return err
}

func walkRanges(v cty.Value, f func(engine.AddrRange) bool) (goOn bool, err error) {
	switch t := v.Type(); {
	case v.IsNull():
		return true, nil
	case t == addressListType:
		list := v.EncapsulatedValue().(*addressList).ranges
		return !slices.ContainsFunc(list, func(r engine.AddrRange) bool { return !f(r) }), nil
	case t.IsListType(), t.IsTupleType(), t.IsSetType():
		for it := v.ElementIterator(); it.Next(); {
			_, e := it.Element()
			if goOn, err := walkRanges(e, f); err != nil || !goOn {
				return false, err
			}
		}
		return true, nil
	}
	s, ok := asText(v)
	if !ok {
		return false, fmt.Errorf("an address, a network or a range is wanted here, not %s", v.Type().FriendlyName())
	}
	if s == "any" {
		all := engine.Everywhere()
		return f(all[0]) && f(all[1]), nil
	}
	r, err := parseAddrRange(s)
	if err != nil {
		return false, err
	}
	return f(r), nil
}

// try gives the value of the first of its expressions that has one.
func (b *budget) tryFunction() function.Function {
	return function.New(&function.Spec{
		VarParam: &function.Parameter{Name: "expressions", Type: customdecode.ExpressionClosureType},
		Type:     function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			var diags hcl.Diagnostics
			mistakes := b.mistakes
			for _, a := range args {
				var v cty.Value
				if v, diags = customdecode.ExpressionClosureFromVal(a).Value(); !diags.HasErrors() {
					return v, nil
				}
				b.mistakes = mistakes // they are not told, and the next expression is another try
				if !b.spend(b.at, 0, 0, toFail) {
					return cty.NilVal, errOver
				}
			}
			if len(args) == 0 {
				return cty.NilVal, errors.New("an expression is wanted, and what stands for it where it has no value")
			}
			d := diags[slices.IndexFunc(diags, func(d *hcl.Diagnostic) bool { return d.Severity == hcl.DiagError })]
			return cty.NilVal, fmt.Errorf("none of its expressions has a value; of the last: %s", strings.TrimSuffix(d.Detail, "."))
		},
	})
}

// flatten is stdlib's function of that name. What file gives is a list as well, and one
// without an address adds nothing.
var flatten = function.New(&function.Spec{
	Params: stdlib.FlattenFunc.Params(),
	Type: func(args []cty.Value) (cty.Type, error) {
		v, err := flattened(args)
		return v.Type(), err
	},
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return flattened(args) },
})

func flattened(args []cty.Value) (cty.Value, error) {
	v, err := stdlib.FlattenFunc.Call(args)
	if err != nil || !v.IsKnown() || v.IsMarked() {
		return v, err
	}
	list := slices.DeleteFunc(v.AsValueSlice(), func(e cty.Value) bool {
		return e.Type() == addressListType && e.IsKnown() && !e.IsNull() && len(e.EncapsulatedValue().(*addressList).ranges) == 0
	})
	return cty.TupleVal(list), nil
}
