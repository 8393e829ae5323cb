package attack

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Keys do not get into core files.
func TestNoCoreFiles(t *testing.T) {
	a := attack(t, "G23", user, "makes the daemon dump core, or reads its memory")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		block, f := s.link("peer", 0x1001, native)
		d := s.run(closed(native) + v.gatewayRules() + block)
		f.fence()
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", d.Cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		none := false
		for line := range strings.Lines(string(limits)) {
			if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
				none = strings.Fields(rest)[0] == "0" && strings.Fields(rest)[1] == "0"
			}
		}
		if !none {
			t.Errorf("the daemon may write a core file:\n%s", limits)
		}
		a.saw(v.name, "a core file of the daemon can be written: %v", !none)
	})
}
