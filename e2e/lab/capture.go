package lab

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// capturedLine is what tcpdump says of itself: packets written, and those that the
// kernel has for it or has had.
var capturedLine = regexp.MustCompile(`(\d+) packets? captured, (\d+) packets? received by filter`)

// Capture is what passes one interface, written by tcpdump to a file.
type Capture struct {
	host *Host
	file string
	proc *Process
	done bool
}

// Capture begins to capture, with a filter of tcpdump's, and returns when it
// does.
func (h *Host) Capture(dev, filter string) *Capture {
	h.lab.Helper()
	Need(h.lab, "tcpdump")
	h.lab.captures++
	c := &Capture{host: h, file: filepath.Join(h.lab.Dir, "capture-"+strconv.Itoa(h.lab.captures)+".pcap")}
	c.proc = h.Start("tcpdump", "-i", dev, "-n", "-U", "-s", "0", "-Z", "root", "-B", "65536", "-w", c.file, filter)
	h.lab.Eventually(Patience, "tcpdump listens", func() bool { return strings.Contains(c.proc.Output(), "listening on") })
	return c
}

// Stop ends the capture, with all that has passed until now in its file.
func (c *Capture) Stop() string {
	c.host.lab.Helper()
	if c.done {
		return c.file
	}
	c.done = true
	// What should not pass has had its chance.
	time.Sleep(300 * time.Millisecond)
	// The kernel hands packets over in blocks, on a busy machine late, and
	// tcpdump forgets at its end what it has not read. Packet by packet
	// (--immediate-mode) there is room for a few hundred only, and some are lost.
	//
	// What came between the opening of its socket and its filter counts as
	// received, and may never be written. So it is enough, too, that tcpdump says
	// ten times the same, longer than the kernel keeps a block back (a second).
	passed, before, same := -1, -1, 0
	c.host.lab.Eventually(Patience, "tcpdump has read what has passed", func() bool {
		written, received := c.progress()
		if passed < 0 {
			passed = received
		}
		if written >= passed {
			return true
		}
		if same++; written != before {
			before, same = written, 0
		}
		time.Sleep(300 * time.Millisecond)
		return same == 10
	})
	c.proc.Signal(syscall.SIGINT)
	if err := c.proc.Wait(Patience); err != nil {
		c.host.lab.Fatalf("tcpdump: %v\n%s", err, c.proc.Output())
	}
	if out := c.proc.Output(); !strings.Contains(out, "0 packets dropped by kernel") {
		c.host.lab.Fatalf("the capture is not whole:\n%s", out)
	}
	return c.file
}

// progress asks tcpdump how many packets it has written, and how many the kernel
// has received for it.
func (c *Capture) progress() (written, received int) {
	c.host.lab.Helper()
	told := len(capturedLine.FindAllString(c.proc.Output(), -1))
	c.proc.Signal(syscall.SIGUSR1)
	var lines [][]string
	c.host.lab.Eventually(Patience, "tcpdump says how far it is", func() bool {
		lines = capturedLine.FindAllStringSubmatch(c.proc.Output(), -1)
		return len(lines) > told
	})
	last := lines[len(lines)-1]
	written, _ = strconv.Atoi(last[1])
	received, _ = strconv.Atoi(last[2])
	return written, received
}

// Count ends the capture and counts the packets that a filter of tcpdump's
// takes.
func (c *Capture) Count(filter string) int {
	c.host.lab.Helper()
	return strings.Count(c.read(filter), "\n")
}

// Text ends the capture and gives its first packets that a filter takes, a
// line each.
func (c *Capture) Text(filter string) string {
	c.host.lab.Helper()
	lines := strings.SplitAfterN(c.read(filter), "\n", 20)
	return strings.Join(lines[:min(len(lines), 19)], "")
}

// Contains ends the capture and says whether these bytes are anywhere in it.
func (c *Capture) Contains(text string) bool {
	c.host.lab.Helper()
	b, err := os.ReadFile(c.Stop())
	if err != nil {
		c.host.lab.Fatal(err)
	}
	return strings.Contains(string(b), text)
}

func (c *Capture) read(filter string) string {
	c.host.lab.Helper()
	file := c.Stop()
	out := filepath.Join(c.host.lab.Dir, "capture.txt")
	c.host.lab.run("sh", "-c", "tcpdump -n -r '"+file+"' '"+filter+"' >'"+out+"' 2>/dev/null || exit 1")
	b, err := os.ReadFile(out)
	if err != nil {
		c.host.lab.Fatal(err)
	}
	return string(b)
}
