package topology

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"usercast/transport/redis/internal/resp"
)

func TestFaultTexts(t *testing.T) {
	t.Parallel()
	tcp, err := Parse("redis://127.0.0.1:6379", Options{})
	if err != nil {
		t.Fatal(err)
	}
	unix, err := Parse("unix:///nope.sock", Options{})
	if err != nil {
		t.Fatal(err)
	}
	reply := func(text string) error { return &resp.ReplyError{Command: "PUBLISH", Text: text} }
	for _, c := range []struct {
		server      *Server
		err         error
		error, text string
	}{
		{tcp, reply("READONLY You can't write against a read only replica."),
			"this server is a replica and rejects writes; use the address of the primary",
			"this server is a replica and rejects writes (READONLY You can't write against a read only replica.)"},
		{tcp, reply("MISCONF Redis is configured to save"), "Redis returned an error: MISCONF Redis is configured to save", "Redis returned an error: MISCONF Redis is configured to save"},
		{tcp, reply("OOM \x1b[31m" + strings.Repeat("é", 200)), "Redis returned an error: OOM \uFFFD[31m" + strings.Repeat("é", 95) + "…", ""},
		{tcp, syscall.ECONNREFUSED, "connection refused; check that Redis is running and listens on this address", "connection refused (connection refused)"},
		{unix, os.ErrNotExist, "the Redis socket does not exist; check that Redis is running and that unixsocket in its configuration is this path", ""},
		{tcp, errors.New("odd"), "the connection failed: odd", "the connection failed: odd"},
	} {
		f := c.server.Fault(c.err, false)
		if got := f.Error(); got != c.error {
			t.Errorf("error of %v: %q, want %q", c.err, got, c.error)
		}
		if got := f.Text(); c.text != "" && got != c.text {
			t.Errorf("text of %v: %q, want %q", c.err, got, c.text)
		}
	}
}
