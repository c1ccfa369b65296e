package app

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"usercast/internal/logqueue"
)

// NewLogQueue queues what a hub writes to its log, also what is no record of a logger.
// Close it when nothing more is written.
func NewLogQueue(c *Config, w io.Writer) *logqueue.Writer {
	var text bytes.Buffer
	note := newHandler(c, slog.LevelInfo, &text)
	return logqueue.New(w, func(lines uint64) []byte {
		text.Reset()
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines dropped, standard error accepts data too slowly", 0)
		r.AddAttrs(slog.Uint64("lines", lines))
		note.Handle(context.Background(), r) // whatever the level: it stands for lines of that level
		return text.Bytes()
	})
}

func parseLevel(s string) (level slog.Level, err error) {
	return level, level.UnmarshalText([]byte(s))
}

// NewLog makes the logger that a checked config asks for.
func NewLog(c *Config, w io.Writer) *slog.Logger {
	level, _ := parseLevel(c.LogLevel)
	return newLogFrom(c, level, w)
}

// newLogFrom is NewLog with another level, which may change.
func newLogFrom(c *Config, level slog.Leveler, w io.Writer) *slog.Logger {
	return slog.New(newHandler(c, level, w))
}

func newHandler(c *Config, level slog.Leveler, w io.Writer) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		// A bare number of nanoseconds says nothing about its unit.
		options.ReplaceAttr = func(_ []string, a slog.Attr) slog.Attr {
			if a.Value.Kind() == slog.KindDuration {
				a.Value = slog.StringValue(a.Value.Duration().String())
			}
			return a
		}
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

// RedirectLog sends to l what libraries write with package log, which would go to stderr
// past the queue, until restore is called.
func RedirectLog(l *slog.Logger) (restore func()) {
	flags := log.Flags()
	log.SetFlags(0)
	log.SetOutput(libraryLog{l})
	return func() {
		log.SetFlags(flags)
		log.SetOutput(os.Stderr)
	}
}

// A libraryLog takes a line at a time of what libraries write with package log.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Write(line []byte) (int, error) {
	// What net/http's client quotes behind these words is the app's response, which may hold
	// a cookie.
	text, _, _ := strings.Cut(strings.TrimSpace(string(line)), " starting with ")
	l.log.Warn("library", slog.String("says", text))
	return len(line), nil
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
