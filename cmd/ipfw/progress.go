package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// progress draws a bar on a terminal while a file is read.
type progress struct {
	out   io.Writer // nil: nobody is looking
	now   func() time.Time
	start time.Time
	last  time.Time
	total int64 // bytes of the file, 0 when not known
	read  int64
}

const (
	progressEvery = 200 * time.Millisecond
	progressWidth = 30
)

// reader counts what is read from r.
func (p *progress) reader(r io.Reader) io.Reader { return &countingReader{r, &p.read} }

type countingReader struct {
	io.Reader
	n *int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	*c.n += int64(n)
	return n, err
}

// show draws the bar anew, unless it has just been drawn.
func (p *progress) show(packets uint64) {
	if p.out == nil {
		return
	}
	now := p.now()
	if now.Sub(p.last) < progressEvery {
		return
	}
	p.last = now
	fmt.Fprintf(p.out, "\r\x1b[K%s", p.text(packets, now.Sub(p.start)))
}

// text is the line: a bar and the time left, or only a count when the length
// of the input is not known.
func (p *progress) text(packets uint64, spent time.Duration) string {
	if p.total <= 0 || p.read <= 0 {
		return fmt.Sprintf("%d packets", packets)
	}
	part := min(1, float64(p.read)/float64(p.total))
	done := int(part * progressWidth)
	left := time.Duration(float64(spent) * (1 - part) / part).Round(time.Second)
	return fmt.Sprintf("[%s%s] %3.0f %%  %d packets, %s left",
		strings.Repeat("=", done), strings.Repeat(" ", progressWidth-done), part*100, packets, left)
}

// clear takes the bar away.
func (p *progress) clear() {
	if p.out != nil && !p.last.IsZero() {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
