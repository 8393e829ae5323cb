package main

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/ipfw/ipfw/packet"
)

// plainHandler writes log records for a person at a terminal: the sentence first,
// and nothing in it escaped but what a terminal would obey. Programs read the
// forms of log/slog.
//
//	15:04:05 WARN  ike "clients" with 192.0.2.2:4500 failed  kind=ike place=office.hcl:12
type plainHandler struct {
	out    io.Writer
	lock   *sync.Mutex
	prefix string // attributes of With, each with a space in front
	group  string // of WithGroup, with a dot behind
}

func newPlainHandler(out io.Writer) slog.Handler {
	return &plainHandler{out: out, lock: new(sync.Mutex)}
}

// Enabled lets through what log/slog's own handlers do.
func (h *plainHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// Handle writes one record.
func (h *plainHandler) Handle(_ context.Context, r slog.Record) error {
	var attrs strings.Builder
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "message" && h.group == "" { // the sentence of an event, whose kind is the record's
			text += ": " + a.Value.Resolve().String()
			return true
		}
		writeAttr(&attrs, h.group, a)
		return true
	})
	level := r.Level.String()
	line := r.Time.Format(time.TimeOnly) + " " + level + strings.Repeat(" ", max(1, 6-len(level))) + packet.Printable(text) + h.prefix + attrs.String() + "\n"
	h.lock.Lock()
	defer h.lock.Unlock()
	_, err := io.WriteString(h.out, line)
	return err
}

// WithAttrs adds attributes to every record.
func (h *plainHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range attrs {
		writeAttr(&b, h.group, a)
	}
	next := *h
	next.prefix += b.String()
	return &next
}

// WithGroup puts a name in front of those of the attributes that follow.
func (h *plainHandler) WithGroup(name string) slog.Handler {
	next := *h
	if name != "" {
		next.group += name + "."
	}
	return &next
}

// writeAttr writes " name=value", the value in quotes only where it has spaces.
func writeAttr(b *strings.Builder, group string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, in := range v.Group() {
			writeAttr(b, group, in)
		}
		return
	}
	if a.Equal(slog.Attr{}) {
		return
	}
	text := packet.Printable(v.String())
	if text == "" || strings.ContainsAny(text, " \t") {
		text = "'" + text + "'"
	}
	b.WriteString(" " + group + a.Key + "=" + text)
}
