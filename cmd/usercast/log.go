package main

import (
	"io"
	"log/slog"
)

func parseLevel(s string) (level slog.Level, err error) {
	return level, level.UnmarshalText([]byte(s))
}

// newLog makes the logger that a checked config asks for.
func newLog(c *Config, w io.Writer) *slog.Logger {
	level, _ := parseLevel(c.LogLevel)
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		// A bare number of nanoseconds says nothing about its unit.
		options.ReplaceAttr = func(_ []string, a slog.Attr) slog.Attr {
			if a.Value.Kind() == slog.KindDuration {
				a.Value = slog.StringValue(a.Value.Duration().String())
			}
			return a
		}
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
