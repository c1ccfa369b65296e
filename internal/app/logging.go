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

// NewLogQueue returns a queue for all that a hub writes to its log, with or without a logger.
// Close it when nothing more is written.
func NewLogQueue(c *Config, w io.Writer) *logqueue.Writer {
	var text bytes.Buffer
	note := newHandler(c, slog.LevelInfo, &text)
	return logqueue.New(w, func(lines uint64) []byte {
		text.Reset()
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines dropped, standard error accepts data too slowly", 0)
		r.AddAttrs(slog.Uint64("lines", lines))
		note.Handle(context.Background(), r) // at any level: it replaces lines of that level
		return text.Bytes()
	})
}

func parseLevel(s string) (level slog.Level, err error) {
	return level, level.UnmarshalText([]byte(s))
}

// NewLog returns the logger of a config that has passed Check.
func NewLog(c *Config, w io.Writer) *slog.Logger {
	level, _ := parseLevel(c.LogLevel)
	return newLogFrom(c, level, w)
}

// newLogFrom is NewLog with another level, which can change.
func newLogFrom(c *Config, level slog.Leveler, w io.Writer) *slog.Logger {
	return slog.New(newHandler(c, level, w))
}

func newHandler(c *Config, level slog.Leveler, w io.Writer) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		// A number of nanoseconds would have no unit.
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

// RedirectLog sends what libraries write with package log to l, until restore is called: on stderr
// it would bypass the queue. It changes the state of the process.
func RedirectLog(l *slog.Logger) (restore func()) {
	flags := log.Flags()
	log.SetFlags(0)
	log.SetOutput(libraryLog{l})
	return func() {
		log.SetFlags(flags)
		log.SetOutput(os.Stderr)
	}
}

// A libraryLog receives the lines that libraries write with package log.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Write(line []byte) (int, error) {
	// After these words, the client of net/http quotes the response of the app, which may hold
	// a cookie.
	text, _, _ := strings.Cut(strings.TrimSpace(string(line)), " starting with ")
	l.log.Warn("library", slog.String("says", text))
	return len(line), nil
}

// A serverLog receives the lines that a net/http server logs.
type serverLog struct{ log *slog.Logger }

// peerErrors are the beginnings of lines that any peer can cause, in any number.
var peerErrors = []string{"http: TLS handshake error", "http2: server", "http2: received GOAWAY", "timeout waiting for "}

func (l serverLog) Write(line []byte) (int, error) {
	text, level := strings.TrimSpace(string(line)), slog.LevelWarn
	if slices.ContainsFunc(peerErrors, func(p string) bool { return strings.HasPrefix(text, p) }) {
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, "http server", slog.String("says", text))
	return len(line), nil
}
