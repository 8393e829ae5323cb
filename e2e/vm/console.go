package vm

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"
)

// console takes what qemu and the guest's kernel say.
type console struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write takes a part of it.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

// lines are those until now, without what moves a cursor.
func (c *console) lines() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := controls.ReplaceAllString(c.b.String(), "")
	return strings.Split(strings.TrimRight(text, "\n"), "\n")
}

var (
	controls = regexp.MustCompile(`\x1b\[[0-9;?]*[a-zA-Z]|\x1bc|\r`)
	stamp    = regexp.MustCompile(`^(<\d+>)?\[ *\d+\.\d+\] *`)
	panicked = regexp.MustCompile(`Kernel panic - not syncing: (.*)`)
	noMemory = regexp.MustCompile(`(?i)out of memory`)
	// faults are what a kernel says of itself and never should. A stall or lockup
	// is no fault where the emulator is starved.
	faults = regexp.MustCompile(`\bBUG: (unable|kernel|scheduling|sleeping|KASAN)|\bOops\b|general protection fault|\bWARNING: |UBSAN|refcount_t|list_(add|del) corruption`)
)

// endLimit is how long qemu may take to end once the line is cut.
const endLimit = 5 * time.Second

// storyLines is how much of the console a story shows.
const storyLines = 30

// story says why a guest does not answer: one sentence, and what the console said
// last.
func (m *Machine) story() string {
	end := ""
	select {
	case <-m.ended:
		end = "its kernel said no word of it; qemu: exit status 0"
		if m.exit != nil {
			end = "its kernel said no word of it; qemu: " + m.exit.Error()
		}
	case <-time.After(endLimit):
	}
	lines := m.console.lines()
	return tell(lines, m.config, end) + "; last on its console:\n" + strings.Join(lines[max(0, len(lines)-storyLines):], "\n")
}

// tell is the sentence, with what is said where the machine has ended; "": it has
// not.
func tell(lines []string, c Config, end string) string {
	for _, l := range lines {
		if p := panicked.FindStringSubmatch(l); p != nil {
			if noMemory.MatchString(p[1]) {
				return fmt.Sprintf("its memory of %d MB is exhausted: give it more (vm.Config.Memory), or find out what takes it", c.Memory)
			}
			return "its kernel panicked: " + strings.TrimSpace(p[1])
		}
	}
	if end != "" {
		return "it ended: " + end
	}
	return "it runs and does not answer: its kernel hangs, or the agent's line is lost"
}

// Faults are lines in which the kernel says that something is wrong with itself
// (BUG, Oops, WARNING), until now.
func (m *Machine) Faults() []string {
	var found []string
	for _, l := range m.console.lines() {
		if faults.MatchString(l) {
			found = append(found, stamp.ReplaceAllString(l, ""))
		}
	}
	return found
}
