package host

import (
	"context"
	"log/slog"
	"slices"
)

// warner is the log of the daemon's parts. What they warn of is an event as well, so
// that `ipfw events` has all that an administrator should know.
type warner struct {
	slog.Handler
	ring  *ring
	attrs []slog.Attr // of With
}

func newWarner(log *slog.Logger, r *ring) *slog.Logger {
	return slog.New(&warner{Handler: log.Handler(), ring: r})
}

// Handle logs a record, and makes an event of a warning.
func (w *warner) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		text := r.Message
		add := func(a slog.Attr) bool {
			text += "; " + a.Key + ": " + a.Value.Resolve().String()
			return true
		}
		for _, a := range w.attrs {
			add(a)
		}
		r.Attrs(add)
		w.ring.add(&Event{Time: r.Time, Kind: KindWarning, Message: text, logged: true})
	}
	return w.Handler.Handle(ctx, r)
}

// WithAttrs adds attributes to every record.
func (w *warner) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &warner{Handler: w.Handler.WithAttrs(attrs), ring: w.ring, attrs: slices.Concat(w.attrs, attrs)}
}

// WithGroup puts a name in front of those of the attributes that follow. Events have
// none.
func (w *warner) WithGroup(name string) slog.Handler {
	return &warner{Handler: w.Handler.WithGroup(name), ring: w.ring, attrs: w.attrs}
}
