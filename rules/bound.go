package rules

import (
	"errors"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// HCL evaluates whatever it is given: twenty lines, each a string or a list of
// two of the one before, or three `for` in one another, make more than any
// machine has. So what expressions make is counted while they make it. Every
// part of an expression that makes something, or goes through something, is
// wrapped in a guard, which asks the budget of the policy before and after.
//
// What is written out in the file costs nothing: the file's own length bounds it.

// What the expressions of a policy may make, and how much they may do for it.
const (
	maxElements = 1 << 20  // of lists, sets and objects, in all
	maxValue    = 1 << 18  // elements of one value, those of its elements included
	maxText     = 16 << 20 // bytes of text, in all
	maxSteps    = 8 << 20  // parts evaluated, elements looked at
	maxExponent = 1 << 10  // of a number, in bits: 10^308
	maxMistakes = 20       // in one expression: a `for` makes each of them again and again
	ofNumber    = 64       // bytes: numbers have 512 bits
	ofAddress   = 39       // bytes: the longest of IPv6
	ofMember    = 6        // a member of a set or an object takes as much as so many elements
	toLook      = 8        // elements looked at in one step
	toCompare   = 8        // steps for each element of what is compared
	toFail      = 64       // steps for an expression that is tried and has no value
	maxLocalsIn = 512      // locals that use each other, in one chain
)

// budget is what the expressions of one policy have used.
type budget struct {
	elements, text, steps int

	mistakes int       // of the expression in hand
	at       hcl.Range // the function call in hand
	over     bool      // too much was asked for: nothing is evaluated any more
	readList func(hcl.Range, string) (*addressList, error)
	fail     func(hcl.Range, string)
}

// spend takes from the budget. It is false, once and for all, when there is not
// enough left; what is at r is told then.
func (b *budget) spend(r hcl.Range, elements, text, steps int) bool {
	if b.over {
		return false
	}
	b.elements, b.text, b.steps = b.elements+elements, b.text+text, b.steps+steps
	switch {
	case b.elements > maxElements:
		b.exceed(r, "This makes too much: all expressions of a policy together may make a million elements of lists.")
	case b.text > maxText:
		b.exceed(r, "This makes too much: all expressions of a policy together may make 16 MiB of text.")
	case b.steps > maxSteps:
		b.exceed(r, "This takes too many steps: write a list out in place of what computes it.")
	}
	return !b.over
}

func (b *budget) exceed(r hcl.Range, why string) {
	if !b.over {
		b.over = true
		b.fail(r, why)
	}
}

// whole takes the steps it costs to look at all of a value, and gives its number
// of elements and its bytes of text. A value that is too large is told.
func (b *budget) whole(r hcl.Range, v cty.Value) (elements, text int, ok bool) {
	measure(v, &elements, &text)
	if elements > maxValue {
		b.exceed(r, "This makes too much: one value may have 262,144 elements, those of its elements included.")
	}
	return elements, text, b.spend(r, 0, 0, elements/toLook)
}

// measure counts the elements of a value, itself included, and their text, up to
// a little more than a value may have. Lists may share their elements, so that
// a value in memory is far smaller than its walk is long.
func measure(v cty.Value, elements, text *int) {
	if *elements > maxValue {
		return
	}
	*elements++
	if v.IsMarked() || !v.IsKnown() || v.IsNull() {
		return
	}
	switch t := v.Type(); {
	case t == cty.String:
		*text += len(v.AsString())
	case t == cty.Number:
		*text += digits(v)
	case t.IsPrimitiveType() || !v.CanIterateElements():
	default:
		for it := v.ElementIterator(); it.Next() && *elements <= maxValue; {
			k, e := it.Element()
			if t.IsObjectType() || t.IsMapType() {
				*text += len(k.AsString())
			}
			measure(e, elements, text)
		}
	}
}

// digits bounds how long a number is when it is written out.
func digits(v cty.Value) int {
	f := v.AsBigFloat()
	if f.IsInf() {
		return maxText + 1
	}
	exp := f.MantExp(nil)
	if f.IsInt() && exp <= 64 {
		return 20
	}
	return 160 + max(exp, -exp)/3 // 512 bits, and zeros
}

// shallow is the number of elements that a value itself has.
func shallow(v cty.Value) int {
	if v.IsMarked() || !v.IsKnown() || v.IsNull() || !v.CanIterateElements() {
		return 0
	}
	n := v.LengthInt()
	if t := v.Type(); t.IsSetType() || t.IsObjectType() || t.IsMapType() {
		n *= ofMember
	}
	return n
}

// role is what a guarded part is for.
type role uint8

const (
	asIs    role = iota
	made         // its elements are new
	remade       // so may be the elements of its elements
	piece        // becomes a piece of a new text
	pieces       // its elements become one new text
	walked       // its elements are gone through
	operand      // is compared, element by element
	call         // a function that counts by itself
	brought      // may be brought to another type
)

// guard evaluates a part of an expression within a budget. For whoever walks
// through the expression it is a pair of parentheses.
type guard struct {
	hclsyntax.ParenthesesExpr
	b    *budget
	role role
}

func (b *budget) guard(e hclsyntax.Expression, as role) *guard {
	return &guard{hclsyntax.ParenthesesExpr{Expression: e, SrcRange: e.Range()}, b, as}
}

// Value gives an unknown value when the budget is used up: HCL goes on with it
// and makes nothing of it.
func (g *guard) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	b, r := g.b, g.Range()
	if b.mistakes >= maxMistakes || !b.spend(r, 0, 0, 1) {
		return cty.DynamicVal, nil
	}
	if g.role == call {
		was := b.at
		b.at = r
		defer func() { b.at = was }()
	}
	v, diags := g.Expression.Value(ctx)
	if b.over {
		return cty.DynamicVal, nil
	}
	if diags.HasErrors() {
		b.mistakes++
		return v, diags
	}
	if !b.number(r, v) || !g.count(r, v) {
		return cty.DynamicVal, nil
	}
	if g.role == brought {
		return b.asList(r, v), diags
	}
	return v, diags
}

// count takes what the value of a guarded part costs.
func (g *guard) count(r hcl.Range, v cty.Value) bool {
	b := g.b
	switch g.role {
	case made:
		if v.Type() == cty.Number {
			return b.spend(r, 0, ofNumber, 0)
		}
		if !b.spend(r, shallow(v), 0, 0) {
			return false
		}
		_, _, ok := b.whole(r, v)
		return ok
	case remade:
		n, _, ok := b.whole(r, v)
		return ok && (v.Type().IsPrimitiveType() || b.spend(r, n, 0, 0))
	case piece, pieces:
		_, text, ok := b.whole(r, v)
		return ok && b.spend(r, 0, text, 0)
	case walked:
		return b.spend(r, 0, 0, shallow(v))
	case operand:
		n, _, ok := b.whole(r, v)
		if n > 1 { // each level of it is gone through again and again
			n *= toCompare
		}
		return ok && b.spend(r, 0, 0, n)
	}
	return true
}

// asList makes a list of a long value that is written or computed as a tuple. HCL
// would do so where a list is wanted, and compare the type of each element with that
// of each other one.
func (b *budget) asList(r hcl.Range, v cty.Value) cty.Value {
	const long = 64
	if v.IsMarked() || !v.Type().IsTupleType() || !v.IsWhollyKnown() || v.IsNull() || v.LengthInt() < long {
		return v
	}
	list := v.AsValueSlice()
	for _, e := range list {
		if !e.Type().Equals(list[0].Type()) {
			if !b.spend(r, 0, 0, len(list)*len(list)/long) {
				return cty.DynamicVal
			}
			return v
		}
	}
	return cty.ListVal(list)
}

// number refuses a number that has more digits than anybody writes: as text it
// would fill the memory.
func (b *budget) number(r hcl.Range, v cty.Value) bool {
	if v.IsMarked() || v.Type() != cty.Number || !v.IsKnown() || v.IsNull() {
		return true
	}
	f := v.AsBigFloat()
	if exp := f.MantExp(nil); f.IsInf() || exp > maxExponent || exp < -maxExponent {
		b.exceed(r, "This number is too large, or too small: numbers go from 1e-308 to 1e308.")
		return false
	}
	return true
}

// making puts a guard for what an expression makes inside of that for what it is
// for.
func (b *budget) making(e hclsyntax.Expression, what, as role) (hclsyntax.Expression, role) {
	if as == asIs {
		return e, what
	}
	return b.guard(e, what), as
}

// within puts guards into an expression, and one around it. In a loop also what
// is written out is made anew each time.
func (b *budget) within(e hclsyntax.Expression, as role, loop bool) hclsyntax.Expression {
	to := func(e *hclsyntax.Expression, as role, loop bool) {
		if *e != nil {
			*e = b.within(*e, as, loop)
		}
	}
	leaf := false
	switch t := e.(type) {
	case *hclsyntax.LiteralValueExpr:
		if !b.number(t.Range(), t.Val) {
			return &hclsyntax.LiteralValueExpr{Val: cty.DynamicVal, SrcRange: t.SrcRange}
		}
		leaf = true
	case *hclsyntax.ScopeTraversalExpr, *hclsyntax.AnonSymbolExpr, *hclsyntax.ExprSyntaxError:
		leaf = true
	case *hclsyntax.ParenthesesExpr:
		to(&t.Expression, asIs, loop)
	case *hclsyntax.TemplateExpr:
		if t.IsStringLiteral() && !loop {
			return e
		}
		for i := range t.Parts {
			if _, written := t.Parts[i].(*hclsyntax.LiteralValueExpr); !written || loop {
				to(&t.Parts[i], piece, loop)
			}
		}
	case *hclsyntax.TemplateJoinExpr:
		to(&t.Tuple, pieces, loop)
	case *hclsyntax.TemplateWrapExpr:
		to(&t.Wrapped, asIs, loop)
	case *hclsyntax.TupleConsExpr:
		for i := range t.Exprs {
			to(&t.Exprs[i], asIs, loop)
		}
		what := operand // what is written out: only its size is looked at
		if loop {
			what = made
		}
		e, as = b.making(e, what, as)
	case *hclsyntax.ObjectConsExpr:
		for i := range t.Items {
			if k, is := t.Items[i].KeyExpr.(*hclsyntax.ObjectConsKeyExpr); is && hcl.ExprAsKeyword(k.Wrapped) == "" {
				to(&k.Wrapped, piece, loop)
			}
			to(&t.Items[i].ValueExpr, asIs, loop)
		}
		e, as = b.making(e, made, as)
	case *hclsyntax.ForExpr:
		to(&t.CollExpr, walked, loop)
		to(&t.KeyExpr, piece, true)
		to(&t.ValExpr, asIs, true)
		to(&t.CondExpr, asIs, true)
		e, as = b.making(e, made, as)
	case *hclsyntax.SplatExpr:
		to(&t.Source, walked, loop)
		to(&t.Each, asIs, true)
		e, as = b.making(e, made, as)
	case *hclsyntax.FunctionCallExpr:
		for i := range t.Args {
			to(&t.Args[i], brought, loop)
		}
		e, as = b.making(e, call, as)
	case *hclsyntax.ConditionalExpr:
		to(&t.Condition, asIs, loop)
		to(&t.TrueResult, brought, loop)
		to(&t.FalseResult, brought, loop)
		e, as = b.making(e, remade, as) // both results are brought to one type
	case *hclsyntax.BinaryOpExpr:
		to(&t.LHS, operand, loop)
		to(&t.RHS, operand, loop)
		e, as = b.making(e, made, as)
	case *hclsyntax.UnaryOpExpr:
		to(&t.Val, asIs, loop)
		e, as = b.making(e, made, as)
	case *hclsyntax.IndexExpr:
		to(&t.Collection, asIs, loop)
		to(&t.Key, asIs, loop)
	case *hclsyntax.RelativeTraversalExpr:
		to(&t.Source, asIs, loop)
	}
	if leaf && as == asIs {
		return e
	}
	return b.guard(e, as)
}

// unguarded takes a guard off.
func unguarded(e hclsyntax.Expression) hclsyntax.Expression {
	if g, is := e.(*guard); is {
		return g.Expression
	}
	return e
}

// body puts guards into all expressions of a body.
func (b *budget) body(body *hclsyntax.Body) {
	for _, a := range body.Attributes {
		a.Expr = b.within(a.Expr, asIs, false)
	}
	for _, in := range body.Blocks {
		b.body(in.Body)
	}
}

// errOver ends a function call; what is wrong has been told.
var errOver = errors.New("the budget is used up")
