package cli

import (
	"strings"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// With several Redis servers, messages have no common order: hubs do not share ids, and the log contains a warning.
func TestSeveralRedisServersAreNamed(t *testing.T) {
	t.Parallel()
	one, other := redistest.Start(t), redistest.Start(t)
	p, _, admin := hubtest.Serve(t, one, nil, "--redis", other.URL())
	const line = "several redis servers, ids are valid on this hub only"
	if n := strings.Count(p.Stderr.String(), line); n != 1 {
		t.Errorf("the log has %d lines %q, want 1:\n%s", n, line, &p.Stderr)
	}
	if got := hubtest.Scrape(t, admin).Sum("usercast_hubs"); got != 1 {
		t.Errorf("usercast_hubs is %v, want 1", got)
	}
	p, _, _ = hubtest.Serve(t, one, nil)
	if strings.Contains(p.Stderr.String(), line) {
		t.Errorf("one server is reported as several:\n%s", &p.Stderr)
	}
}
