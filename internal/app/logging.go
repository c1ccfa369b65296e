package app

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"usercast/internal/logqueue"
)

// NewLogQueue returns a queue for everything that a hub writes to its log, with or without a logger. Close it after the
// last line.
func NewLogQueue(c *Config, w io.Writer) *logqueue.Writer {
	var text bytes.Buffer
	note := newHandler(c, slog.LevelInfo, &text)
	return logqueue.New(w, func(lines uint64) []byte {
		text.Reset()
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines dropped, standard error accepts data too slowly", 0)
		r.AddAttrs(slog.Uint64("lines", lines))
		note.Handle(context.Background(), r) // regardless of the log level, because the dropped lines had that level
		return text.Bytes()
	})
}

// parseLevel parses the value of --log-level. The error names the valid values.
func parseLevel(s string) (level slog.Level, err error) {
	if level.UnmarshalText([]byte(s)) != nil {
		return 0, fmt.Errorf("unknown level %q; use debug, info, warn or error", s)
	}
	return level, nil
}

// NewLog returns a logger that writes to w. The config must have passed Check.
func NewLog(c *Config, w io.Writer) *slog.Logger {
	level, _ := parseLevel(c.LogLevel)
	return newLogFrom(c, level, w)
}

// newLogFrom is like NewLog, with a level that can change.
func newLogFrom(c *Config, level slog.Leveler, w io.Writer) *slog.Logger {
	return slog.New(newHandler(c, level, w))
}

func newHandler(c *Config, level slog.Leveler, w io.Writer) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		// By default, a duration would be a number of nanoseconds without a unit.
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

// RedirectLog redirects the output of package log, which libraries use, to l until restore is called. Otherwise that output
// would bypass the queue. It changes global state of the process.
func RedirectLog(l *slog.Logger) (restore func()) {
	flags := log.Flags()
	log.SetFlags(0)
	log.SetOutput(libraryLog{l})
	return func() {
		log.SetFlags(flags)
		log.SetOutput(os.Stderr)
	}
}

// A libraryLog logs the lines that libraries write with package log.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Write(line []byte) (int, error) {
	// After these words, the client of net/http quotes the response of the app, which may contain a cookie.
	text, _, _ := strings.Cut(strings.TrimSpace(string(line)), " starting with ")
	l.log.Warn("library error", slog.String("error", text))
	return len(line), nil
}

// A serverLog logs the lines that a net/http server writes to its log.
type serverLog struct{ log *slog.Logger }

// peerErrors are prefixes of lines that any peer can cause, in any number. They are logged at debug level.
var peerErrors = []string{"http: TLS handshake error", "http2: server", "http2: received GOAWAY", "timeout waiting for "}

func (l serverLog) Write(line []byte) (int, error) {
	text, level := strings.TrimSpace(string(line)), slog.LevelWarn
	if slices.ContainsFunc(peerErrors, func(p string) bool { return strings.HasPrefix(text, p) }) {
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, "http server error", slog.String("error", text))
	return len(line), nil
}
