package actions

import (
	"context"
	"log/slog"
	"strings"
)

// Handler returns a handler of diagnostics: warnings and errors annotate the
// run, the rest is text in the log, from the level on.
func (s *Step) Handler(level slog.Leveler) slog.Handler {
	return split{
		low:  slog.NewTextHandler(s, &slog.HandlerOptions{Level: level}),
		high: slog.NewTextHandler(warner{s}, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: bare}),
	}
}

// bare leaves out what an annotation says by itself.
func bare(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

// warner makes a warning of each record: the handler of package slog writes a
// record by one call.
type warner struct{ s *Step }

// Write implements [io.Writer].
func (w warner) Write(b []byte) (int, error) {
	w.s.Warning("keyturn", strings.TrimSpace(string(b)), "")
	return len(b), nil
}

// split hands warnings to one handler and the rest to the other.
type split struct{ low, high slog.Handler }

func (h split) of(level slog.Level) slog.Handler {
	if level >= slog.LevelWarn {
		return h.high
	}
	return h.low
}

// Enabled implements [slog.Handler].
func (h split) Enabled(ctx context.Context, level slog.Level) bool {
	return h.of(level).Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (h split) Handle(ctx context.Context, r slog.Record) error { return h.of(r.Level).Handle(ctx, r) }

// WithAttrs implements [slog.Handler].
func (h split) WithAttrs(attrs []slog.Attr) slog.Handler {
	return split{h.low.WithAttrs(attrs), h.high.WithAttrs(attrs)}
}

// WithGroup implements [slog.Handler].
func (h split) WithGroup(name string) slog.Handler {
	return split{h.low.WithGroup(name), h.high.WithGroup(name)}
}
