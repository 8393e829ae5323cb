package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// suiteLimit is how long a package's tests may take in one guest.
const suiteLimit = 60 * time.Minute

// TestKernels runs tests of ipfw on the kernels of Debian's releases, and prints
// a table: make kernels all of them, make test-kernels the short ones.
func TestKernels(t *testing.T) {
	c := chosen(t)
	share, all := t.TempDir(), listed(t)
	command(t, "cp", lab.Binary(t), filepath.Join(share, "ipfw"))
	m, start := new(matrix), time.Now()
	for which, k := range Kernels() {
		if !matches(t, c.kernel, k.Name, true) {
			continue
		}
		n := 0
		t.Run(k.Name, func(t *testing.T) {
			for i, w := range ways() {
				if c.rows == "" && i > 0 && which != middle {
					continue // of the short ones, each way on some kernel
				}
				p := &play{kernel: k, way: w, share: share, matrix: m}
				for _, b := range all {
					if tests := c.tests(t, b, w, i == 0, &n); len(tests) > 0 {
						b.build(t, share)
						p.suites, p.tests = append(p.suites, b), append(p.tests, tests)
					}
				}
				if len(p.suites) > 0 {
					t.Run(w.name, p.run)
				}
			}
		})
	}
	m.print(t, time.Since(start))
}

// play is the tests of one way on one kernel.
type play struct {
	kernel Kernel
	way    way
	suites []*built
	tests  [][]string // of each suite
	share  string
	matrix *matrix
	m      *Machine // nil: none is running
	deaths int      // by the emulator's fault
}

func (p *play) run(t *testing.T) {
	for i, b := range p.suites {
		left := p.tests[i]
		if !slices.Contains(p.kernel.Has, p.way.needs) {
			p.give(t, b, left, result{how: "SKIP", took: "0", output: lacksPrefix + "t " + p.way.needs.String()})
			continue
		}
		for len(left) > 0 { // those that the crash of another has kept from running
			if p.m == nil {
				var err error
				if p.m, err = Start(t, p.kernel, p.share, Config{Without: p.way.without}); err != nil {
					p.give(t, b, left, result{how: "FAIL", took: "did not boot", output: err.Error()})
					p.m = nil
					break
				}
				t.Logf("Linux %s, booted in %v", p.m.Release, p.m.Booted.Round(time.Second))
			}
			before, deaths := len(left), p.deaths
			var why string
			if left, why = p.some(t, b, left); len(left) == before && p.deaths == deaths {
				p.give(t, b, left, result{how: "FAIL", took: "did not run", output: why})
				break
			}
		}
	}
	if p.m != nil {
		p.features(t)
		p.faults(t)
	}
}

// features holds Kernels to the kernel: it looks whether modules load and symbols
// are there. It comes last, for modules are to be loaded by those who need them.
func (p *play) features(t *testing.T) {
	if !strings.HasPrefix(p.m.Release, p.kernel.Major+".") {
		t.Errorf("Linux %s is not the %s that e2e/vm knows: see what it has, and change Kernels", p.m.Release, p.kernel.Major)
	}
	for _, f := range features() {
		want := slices.Contains(p.kernel.Has, f) && !slices.Contains(p.way.without, f.Module)
		if got := p.m.has(f); got != want {
			t.Errorf("%v: has it: %v, Kernels says %v", f, got, want)
		}
	}
}

// faults fails the test for what the kernel says of itself.
func (p *play) faults(t *testing.T) {
	if f := p.m.Faults(); len(f) > 0 {
		t.Errorf("the kernel says of itself:\n%s", strings.Join(f, "\n"))
	}
}

// some runs tests of one package, and gives those that have not begun, and what
// was said last.
func (p *play) some(t *testing.T, b *built, tests []string) (left []string, why string) {
	left = slices.Clone(tests)
	settle := func(r result) {
		if i := slices.Index(left, r.test); i >= 0 {
			left = slices.Delete(left, i, i+1)
			p.give(t, b, []string{r.test}, r)
		}
	}
	out := newReading(settle)
	if os.Getenv("IPFW_KERNELS") != "" { // make kernels, for hours
		out.each = func(l string) { t.Log("| " + l) }
	}
	err := p.m.Stream(suiteLimit, b.dir, []string{lab.KernelVariable + "=" + p.kernel.Name, p.ipfw()}, out.take,
		p.m.Shared(b.binary), "-test.v", "-test.parallel", strconv.Itoa(b.parallel()), "-test.timeout", (suiteLimit - time.Minute).String(), "-test.run", "^("+strings.Join(tests, "|")+")$")
	open := out.open()
	if err != nil {
		why = fmt.Sprintf("%s\n%v", strings.Join(out.loose, "\n"), err)
	}
	_, dead := p.m.Try(lab.Patience, "true")
	switch {
	case dead != nil && p.m.stale() && p.deaths < bootTries: // the emulator's fault, not the tests'
		p.deaths++
		t.Logf("once more from %d tests before the end of %s: %v", len(left), b.pkg, dead)
		open = nil
	case len(open) == 0 && len(left) > 0:
		t.Logf("%s ended before its last test: %s", b.pkg, why)
	case dead != nil:
		p.faults(t)
	}
	for _, r := range open {
		r.output += "\n" + why
		settle(r)
	}
	if dead != nil {
		p.m = nil
	}
	return left, why
}

// ipfw is the variable that tells tests which ipfw is under test.
func (p *play) ipfw() string {
	name := lab.BuiltEnv
	if os.Getenv(lab.BinaryEnv) != "" {
		name = lab.BinaryEnv
	}
	return name + "=" + p.m.Shared("ipfw")
}

// give puts one result for some tests into the table, and is it as a test.
func (p *play) give(t *testing.T, b *built, tests []string, r result) {
	for _, test := range tests {
		row := line(p.way.name, b.pkg, test)
		p.matrix.settle(p.kernel.Name, row, r)
		t.Run(b.pkg+"/"+test, func(t *testing.T) {
			switch {
			case r.how == "FAIL":
				t.Errorf("%s: %s\n%s", row, r.took, r.output)
			case r.how == "SKIP" && !r.lacks():
				lab.Skip(t, r.why())
			}
		})
	}
}
