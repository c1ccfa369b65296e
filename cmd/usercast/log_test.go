package main

import (
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
