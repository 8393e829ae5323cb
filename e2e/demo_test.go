package e2e

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// jsonNames gives the part of docs/json.md that is about a command.
func jsonNames(t *testing.T, command string) string {
	t.Helper()
	text, err := os.ReadFile("../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, ok := strings.Cut(string(text), "\n## "+command+"\n")
	if !ok {
		t.Fatalf("docs/json.md says nothing of %s", command)
	}
	part, _, _ = strings.Cut(part, "\n## ")
	return part
}

// TestDemo runs the demo as a user would, on a machine without a network, and
// looks at what it says and leaves behind.
func TestDemo(t *testing.T) {
	l := lab.New(t)
	h := l.Host("machine")
	out, err := h.Try(5*lab.Patience, "env", "TMPDIR="+l.Dir, lab.Binary(t), "demo", "--json")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	type line struct {
		Disagree  []string
		Through   bool
		Protected *struct {
			Expected, Answer, Clear, Wire string
			Through                       bool
			ESPPackets                    uint64 `json:"esp_packets"`
			ClearPackets                  uint64 `json:"clear_packets"`
			Refused                       []struct {
				Reason           string
				Through          bool
				Packets, Counted uint64
			}
			Disagree []string
		}
	}
	known := jsonNames(t, "ipfw demo")
	var web, through int
	var last line
	for text := range strings.Lines(strings.TrimSpace(out)) {
		last = line{}
		if err := json.Unmarshal([]byte(text), &last); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &fields); err != nil {
			t.Fatal(err)
		}
		prefix := ""
		if in := fields["protected"]; in != nil {
			prefix, fields = "protected.", nil
			if err := json.Unmarshal(in, &fields); err != nil {
				t.Fatal(err)
			}
		}
		for name := range fields {
			if !strings.Contains(known, "`"+prefix+name+"`") && !strings.Contains(known, "`"+prefix+name+"[]") {
				t.Errorf("docs/json.md has no %s%s", prefix, name)
			}
		}
		if len(last.Disagree) > 0 {
			t.Error(text)
		}
		if last.Protected == nil {
			web++
			if last.Through {
				through++
			}
		}
	}
	p := last.Protected
	if web < 5 || through == 0 || through == web || p == nil {
		t.Fatalf("%d of %d connections got through; the protected flow is %+v", through, web, p)
	}
	clear, err1 := hex.DecodeString(p.Clear)
	wire, err2 := hex.DecodeString(p.Wire)
	if err1 != nil || err2 != nil || len(wire) <= len(clear) || !bytes.HasPrefix(clear, []byte("GET /")) || bytes.Contains(wire, clear[:8]) {
		t.Errorf("clear %q, on the wire %q", clear, wire)
	}
	if p.Expected != "protect" || !p.Through || p.ESPPackets < 6 || p.ClearPackets != 0 || len(p.Disagree) > 0 || len(p.Refused) != 3 {
		t.Errorf("%+v", p)
	}
	for _, r := range p.Refused {
		if r.Through || r.Packets == 0 || r.Packets != r.Counted {
			t.Errorf("%+v", r)
		}
	}
	if left, err := os.ReadDir(l.Dir); err != nil || len(left) > 0 {
		t.Errorf("the demo left %v behind (%v)", left, err)
	}
}
