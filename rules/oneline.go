package rules

import (
	"fmt"
	"sort"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// HCL lets a block stand in one line only when it has a single argument. The
// policy language also takes `limit { rate = "10/minute", burst = 20 }`:
// unfold writes such blocks over several lines before HCL sees them, and
// remembers how places in the new text lie in the old.

// maxNesting bounds how deep brackets and chains of operators go: HCL's parser
// calls itself for each level, and a stack that overflows ends the program.
const maxNesting = 64

// unfolded is the text that HCL parses, and the way back to the original.
type unfolded struct {
	orig, src []byte
	inserted  []int // offsets in src of bytes that orig does not have, ascending
}

// back gives the range in the original text of one in the new.
func (u *unfolded) back(r hcl.Range) hcl.Range {
	if len(u.inserted) == 0 {
		return r
	}
	r.Start = posAt(u.orig, u.offset(r.Start.Byte))
	r.End = posAt(u.orig, u.offset(r.End.Byte))
	return r
}

func (u *unfolded) offset(off int) int { return off - sort.SearchInts(u.inserted, off) }

// frame is one pair of brackets around the token in hand.
type frame struct {
	body   bool // a block's body; else part of an expression
	line   int  // where it opens
	after  int  // offset behind the opening brace
	inExpr bool // behind the "=" of an argument of the body
	commas []int
}

// unfold rewrites one-line blocks and refuses text nested too deep.
func unfold(name string, src []byte) (*unfolded, hcl.Diagnostics) {
	u := &unfolded{orig: src, src: src}
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos) // the parser reports what is wrong
	insert, replace := map[int]bool{}, map[int]bool{}
	stack := []frame{{body: true}}
	depth, chain := 0, 0
	for _, t := range tokens {
		top := &stack[len(stack)-1]
		switch t.Type {
		case hclsyntax.TokenBang, hclsyntax.TokenMinus, hclsyntax.TokenQuestion, hclsyntax.TokenTemplateControl:
			chain++
		case hclsyntax.TokenNewline:
			chain = 0
		}
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOParen, hclsyntax.TokenOBrack, hclsyntax.TokenOQuote,
			hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			body := t.Type == hclsyntax.TokenOBrace && top.body && !top.inExpr
			stack = append(stack, frame{body: body, line: t.Range.Start.Line, after: t.Range.End.Byte})
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCParen, hclsyntax.TokenCBrack, hclsyntax.TokenCQuote,
			hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
			if len(stack) > 1 {
				if len(top.commas) > 0 && t.Range.Start.Line == top.line {
					insert[top.after], insert[t.Range.Start.Byte] = true, true
					for _, c := range top.commas {
						replace[c] = true
					}
				}
				stack = stack[:len(stack)-1]
				depth--
			}
		case hclsyntax.TokenEqual:
			top.inExpr = true
		case hclsyntax.TokenNewline:
			top.inExpr = false
		case hclsyntax.TokenComma:
			if top.body && len(stack) > 1 && t.Range.Start.Line == top.line {
				top.commas = append(top.commas, t.Range.Start.Byte)
				top.inExpr = false
			}
		}
		if depth > maxNesting || chain > maxNesting {
			return nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Nested too deep",
				Detail:  fmt.Sprintf("An expression or block may be at most %d levels deep.", maxNesting),
				Subject: t.Range.Ptr()}}
		}
	}
	if len(replace) == 0 {
		return u, nil
	}
	u.src = make([]byte, 0, len(src)+len(insert))
	for i, c := range src {
		if insert[i] {
			u.inserted = append(u.inserted, len(u.src))
			u.src = append(u.src, '\n')
		}
		if replace[i] {
			c = '\n'
		}
		u.src = append(u.src, c)
	}
	return u, nil
}
