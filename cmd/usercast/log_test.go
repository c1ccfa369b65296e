package main

import (
	"log"
	"log/slog"
	"strings"
	"testing"
	"time"

	"usercast/internal/redistest"
)

func TestDurationsInJSONLogsHaveAUnit(t *testing.T) {
	var log output
	newLog(&Config{LogLevel: "info", LogFormat: "json"}, &log).Info("stopping", slog.Duration("delay", 1500*time.Millisecond))
	if !strings.Contains(log.String(), `"delay":"1.5s"`) {
		t.Error(log.String())
	}
}

// Under insecure any stranger names the user.
func TestLongUserDoesNotFillTheLog(t *testing.T) {
	h := startHub(t, redistest.Start(t))
	h.openPage(t, "user="+strings.Repeat("u", 7000)).close()
	eventually(t, "the stream's end is logged", func() bool { return len(h.log.lines("stream ended")) == 1 })
	if n := len(h.log.lines("stream ended")[0]); n > 500 {
		t.Errorf("a line of %d bytes", n)
	}
}

// Libraries write to package log, and net/http's client quotes what the app sent.
func TestLibrariesWriteToTheHubsLog(t *testing.T) {
	var text output
	restore := redirectLog(newLog(&Config{LogLevel: "info", LogFormat: "text"}, &text))
	log.Printf("Unsolicited response received on idle HTTP channel starting with %q; err=%v", "Set-Cookie: session=secret", nil)
	restore()
	if lines := text.lines(`level=WARN`, `Unsolicited response received on idle HTTP channel"`); len(lines) != 1 || strings.Contains(lines[0], "secret") {
		t.Errorf("%q", text.String())
	}
}
