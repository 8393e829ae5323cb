package rules

import (
	"bytes"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// HCL takes all of a text apart into tokens before it looks at the first of them:
// a hundred bytes for each, in one list that is copied as it grows. Of a policy
// with 1,000 tunnels that is more than the policy in force and the new one are
// together. So a long text is read in pieces, each of which is some whole blocks.

// pieceSize is the least length of a piece, in bytes: its tokens take 100 KB,
// and a longer piece makes more garbage.
const pieceSize = 2 << 10

// inPieces reads a text as unfold and hclsyntax.ParseConfig do, in pieces of size
// bytes and some more; a piece that is no whole number of blocks becomes longer.
// It gives no file where a piece is not good up to the end of the text, or has
// arguments outside of blocks: what is wrong is told of the text as a whole.
//
// What ends as a block may end, in a line that begins with a brace, may still be
// the inside of a string or a comment. But a piece that ends there is not good:
// what is open in it has no end.
func inPieces(name string, src []byte, size int) (*unfolded, *hcl.File) {
	if len(src) <= size {
		return nil, nil
	}
	all := &unfolded{orig: src}
	var whole *hcl.File
	for at, pos := 0, hcl.InitialPos; at < len(src); {
		var part *unfolded
		var file *hcl.File
		for least := size; file == nil; least *= 2 {
			piece := wholeBlocks(src[at:], least)
			var diags hcl.Diagnostics
			if part, diags = unfold(name, piece); !diags.HasErrors() {
				file, diags = hclsyntax.ParseConfig(part.src, name, pos)
			}
			if len(diags) > 0 {
				file = nil
			}
			if file == nil && at+len(piece) == len(src) {
				return nil, nil
			}
		}
		body, ok := file.Body.(*hclsyntax.Body)
		if !ok || len(body.Attributes) > 0 {
			return nil, nil
		}
		for _, off := range part.inserted {
			all.inserted = append(all.inserted, pos.Byte+off)
		}
		at += len(part.orig)
		pos.Byte += len(part.src)
		pos.Line += bytes.Count(part.src, []byte{'\n'})
		if whole == nil {
			whole = file // HCL's answer to which block a place is in looks into its body
			continue
		}
		first := whole.Body.(*hclsyntax.Body)
		first.Blocks = append(first.Blocks, body.Blocks...)
	}
	return all, whole
}

// wholeBlocks gives the first piece of a text: at least so many bytes, up to the
// end of a line that begins with a closing brace.
func wholeBlocks(src []byte, least int) []byte {
	if least >= len(src) {
		return src
	}
	brace := bytes.Index(src[least:], []byte("\n}"))
	if brace < 0 {
		return src
	}
	end := least + brace + len("\n}")
	line := bytes.IndexByte(src[end:], '\n')
	if line < 0 {
		return src
	}
	return src[:end+line+1]
}
