package main

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
)

func parseLevel(s string) (level slog.Level, err error) {
	return level, level.UnmarshalText([]byte(s))
}

// newLog makes the logger that a checked config asks for.
func newLog(c *Config, w io.Writer) *slog.Logger {
	level, _ := parseLevel(c.LogLevel)
	return newLogFrom(c, level, w)
}

// newLogFrom is newLog with another level, which may change.
func newLogFrom(c *Config, level slog.Leveler, w io.Writer) *slog.Logger {
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

// A serverLog takes what a net/http server logs, a line at a time.
type serverLog struct{ log *slog.Logger }

// peersFaults begin lines that anybody who connects can bring about, as often as he likes.
var peersFaults = []string{"http: TLS handshake error", "http2: server", "http2: received GOAWAY", "timeout waiting for "}

func (l serverLog) Write(line []byte) (int, error) {
	text, level := strings.TrimSpace(string(line)), slog.LevelWarn
	if slices.ContainsFunc(peersFaults, func(p string) bool { return strings.HasPrefix(text, p) }) {
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, "http server", slog.String("says", text))
	return len(line), nil
}
