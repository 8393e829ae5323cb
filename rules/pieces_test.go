package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// samePieces compares a text that is read in pieces with the same text read whole,
// places included: what is good is the same, and what is not is left to the other.
func samePieces(t *testing.T, src []byte, size int) (inPiecesToo bool) {
	t.Helper()
	var blocks hclsyntax.Blocks
	u, diags := unfold("x", src)
	good := len(diags) == 0
	if good {
		file, diags := hclsyntax.ParseConfig(u.src, "x", hcl.InitialPos)
		body := file.Body.(*hclsyntax.Body)
		good, blocks = len(diags) == 0 && len(body.Attributes) == 0, body.Blocks
	}
	all, file := inPieces("x", src, size)
	switch {
	case file == nil && (!good || len(src) <= size):
		return false
	case file == nil:
		t.Fatalf("good, but not read in pieces of %d: %q", size, src)
	case !good:
		t.Fatalf("read in pieces of %d, but not good: %q", size, src)
	}
	if got := file.Body.(*hclsyntax.Body).Blocks; !reflect.DeepEqual(got, blocks) || !slices.Equal(all.inserted, u.inserted) {
		t.Fatalf("other blocks in pieces of %d of %q:\n%+v\n%+v", size, src, got, blocks)
	}
	for _, b := range blocks {
		if got, want := file.Nav.(interface{ ContextString(int) string }).ContextString(b.TypeRange.Start.Byte), b.Type; !strings.HasPrefix(got, want) {
			t.Fatalf("a place in a %s block is said to be in %q", want, got)
		}
	}
	return true
}

// hidden are texts whose lines with a brace in front do not end a block.
var hidden = []string{
	"a \"x\" {\n  t = <<EOT\n}\nb {\n}\nEOT\n}\nc {\n}\n",
	"a {\n  t = <<-EOT\n  ${[for i in [1]: {\n}]}\n}\n  EOT\n}\nb {\n}\n",
	"/*\na {\n}\n*/\nb {\n}\n/* }\n} */ c {\n}\n# d {\n}\n",
	"a {\n  b = [{\n}, {\n}]\n  c {\n}\n}\nd {\n} // e\n} f {}\n",
	"a {\r\n  limit { b = 1, c = \"}\" }\r\n}\r\nd { e = 1, f = \"ä\n\" }\r\n}\r\n",
	"a {\n  limit { b = 1, c = 2 }\n}\n\nd {\n  e { f = \"é\", g = [1, 2] }\n} # h\n\ni {\n}",
	"a {\n}\nb = 1\nc {\n}\n",
	"a {\n}\n}\nb {\n}\n",
	"a {\n  b = \"\n}\n\"\n}\nc {\n}\n",
	"a {\n  b = \"${\n}\n}\"\n}\n",
	"a {\n  b = 1 /\n}\n* 2\n}\n*/\n",
	"a {\n}\n\"b\" {\n}\n",
}

func TestPieces(t *testing.T) {
	texts := slices.Clone(hidden)
	for _, pattern := range []string{"testdata/*/*.hcl", "../examples/rules/*.hcl"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no files %s (%v)", pattern, err)
		}
		for _, name := range files {
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, string(src))
		}
	}
	texts = append(texts, strings.Join(texts[12:], "\n"), manyRules(20))
	n := 0
	for _, text := range texts {
		for _, size := range []int{1, 7, 40, 200, 1000, 1 << 20} {
			if samePieces(t, []byte(text), size) {
				n++
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d texts were read in pieces", n)
	}
}

// No piece of a long policy is much longer than it has to be.
func TestPiecesAreShort(t *testing.T) {
	src := []byte(manyRules(1000))
	if !samePieces(t, src, pieceSize) {
		t.Error("not read in pieces")
	}
	for len(src) > 0 {
		p := wholeBlocks(src, pieceSize)
		if len(p) > pieceSize+1000 {
			t.Fatalf("a piece has %d bytes", len(p))
		}
		src = src[len(p):]
	}
}

// A mistake in a long policy is told as one in a short one, and where it is.
func TestMistakeBehindPieces(t *testing.T) {
	text := manyRules(200)
	for _, tt := range []struct{ more, want string }{
		{"rule \"a\" { action = \"bypass\", direction = \"inn\" }\n", `1:43: error: Wrong value: direction is in, out, both or forward, not "inn"; did you mean "in"?`},
		{"rule \"a\" {\n  action = \"bypass\"\n", `1:10: error: Brace missing: A } is missing: this block has no end.`},
	} {
		_, d := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(text + "rule \"one\" { action = \"bypass\", direction = \"in\" }\n" + tt.more)})
		var line int
		if all := d.All(); len(all) != 1 {
			t.Fatalf("%v", d.Err())
		} else {
			line = all[0].Line
		}
		want := fmt.Sprintf("<stdin>:%d:%s", strings.Count(text, "\n")+2, strings.TrimPrefix(tt.want, "1:"))
		if got := d.Err().Error(); got != want || line < 200 {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func FuzzPieces(f *testing.F) {
	for _, text := range hidden {
		f.Add([]byte(text), uint8(1))
		f.Add([]byte(text), uint8(20))
	}
	f.Fuzz(func(t *testing.T, src []byte, size uint8) {
		if notText(src) == nil {
			samePieces(t, src, int(max(size, 1)))
		}
	})
}
