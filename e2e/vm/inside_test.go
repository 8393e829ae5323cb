package vm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// inside runs a test in a guest of its own for each kernel that is chosen, and for
// each configuration: the machine boots the guest and starts this very test in it,
// which there gets to the function. What the kernel says of itself fails it too.
//
// Of tests that take long (short: false), and of all kernels but one, nothing is
// run unless they are asked for as rows of TestKernels are.
func inside(t *testing.T, short bool, test func(t *testing.T), configs ...Config) {
	t.Helper()
	if os.Getenv(lab.KernelVariable) != "" {
		test(t)
		return
	}
	share := ""
	for i, k := range Kernels() {
		if !wanted(t, k, short && i == middle) {
			continue
		}
		if share == "" {
			share = programs(t)
		}
		for _, c := range configs {
			c = c.withDefaults()
			t.Run(strings.TrimSpace(fmt.Sprintf("%s %d processors %d MB %s", k.Name, c.Processors, c.Memory, c.Parameters)), func(t *testing.T) {
				m := Boot(t, k, share, c)
				t.Logf("Linux %s, booted in %v", m.Release, m.Booted.Round(time.Second/10))
				m.again(t, nil)
			})
		}
	}
}

// wanted says whether a test of its own guest is to run on a kernel: with
// IPFW_KERNELS those that it names, else the short ones.
func wanted(t *testing.T, k Kernel, short bool) bool {
	c := chosen(t)
	if !matches(t, c.kernel, k.Name, true) {
		return false
	}
	if c.rows == "" {
		return short
	}
	name, _, _ := strings.Cut(t.Name(), "/")
	if c.rows == "all" {
		return !strings.HasPrefix(name, "TestFigure") // those want a quiet machine
	}
	return matches(t, c.rows, line("guest", "vm", name), true)
}

// programs makes the folder that guests see, with the ipfw under test.
func programs(t *testing.T) (share string) {
	t.Helper()
	share = t.TempDir()
	if out, err := exec.Command("cp", lab.Binary(t), filepath.Join(share, "ipfw")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return share
}

// again runs the test that this is a subtest of in the guest, and shows each line
// that it prints as it comes; line, if there is one, hears them too.
func (m *Machine) again(t *testing.T, line func(string)) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(t.Name(), "/")
	end := result{how: "FAIL", took: "no end"}
	out := newReading(func(r result) { end = r })
	out.each = func(l string) {
		t.Log("| " + l)
		if line != nil {
			line(l)
		}
	}
	err = m.Stream(suiteLimit, "/", []string{lab.KernelVariable + "=" + m.Kernel.Name, lab.BuiltEnv + "=" + m.Shared("ipfw")}, out.take,
		self, "-test.v", "-test.timeout", (suiteLimit - time.Minute).String(), "-test.run", "^"+name+"$")
	if f := m.Faults(); len(f) > 0 {
		t.Errorf("the kernel says of itself:\n%s", strings.Join(f, "\n"))
	}
	switch {
	case end.how == "FAIL":
		t.Errorf("the test in the guest failed, after %s: %v", end.took, err)
	case end.lacks():
		t.Skip(end.why())
	case end.how == "SKIP":
		lab.Skip(t, end.why())
	}
}
