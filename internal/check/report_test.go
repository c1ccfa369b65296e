package check

import (
	"bytes"
	"testing"
)

// Servers choose parts of the texts of findings.
func TestReportEscapesWhatIsNotPrintable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := newPrinter(&out, false)
	p.section("redis \x1b[2J").Warn("x", "first\x07\nsecond\r\xff", "server \x1b[31m\n  ok    forged")
	if err := p.end("1"); err != nil {
		t.Fatal(err)
	}
	const want = "redis \\x1b[2J\n  warn  server \\x1b[31m\\n  ok    forged\n        → first\\a\n        → second\\r\\xff\n\n0 failed, 1 warning, 0 notes\n"
	if got := out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
