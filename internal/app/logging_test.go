package app

import (
	"bytes"
	"log"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestDurationsInJSONLogsHaveAUnit(t *testing.T) {
	var log bytes.Buffer
	NewLog(&Config{LogLevel: "info", LogFormat: "json"}, &log).Info("stopping", slog.Duration("drain_delay", 1500*time.Millisecond))
	if !strings.Contains(log.String(), `"drain_delay":"1.5s"`) {
		t.Error(log.String())
	}
}

// Libraries write to package log, and the client of net/http quotes the response of the app.
func TestLibraryErrorsAreLoggedWithoutQuotedResponses(t *testing.T) {
	var text bytes.Buffer
	restore := RedirectLog(NewLog(&Config{LogLevel: "info", LogFormat: "text"}, &text))
	log.Printf("Unsolicited response received on idle HTTP channel starting with %q; err=%v", "Set-Cookie: session=secret", nil)
	restore()
	if line := text.String(); !strings.Contains(line, "level=WARN") || !strings.HasSuffix(line, "Unsolicited response received on idle HTTP channel\"\n") || strings.Count(line, "\n") != 1 {
		t.Error(line)
	}
}
