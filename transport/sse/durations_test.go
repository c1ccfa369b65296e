package sse_test

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"usercast/auth"
	"usercast/hub"
	"usercast/transport/sse"
)

// The maximum of a Duration is 292 years, and computing 4/5 of 100 years uses 400 years in between.
func TestLongDurationsDoNotOverflow(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, long := range []time.Duration{20 * year, 74 * year, 100 * year, math.MaxInt64} {
		c := config{sse: sse.Config{
			MaxAge: long, Retry: long, WriteTimeout: long,
			Authenticate: func(r *http.Request) (auth.Identity, error) {
				id, err := auth.Insecure(r)
				id.Expires = time.Unix(253402300799, 0) // the year 9999
				return id, err
			},
		}}
		bubble(t, c, func(t *testing.T, s *testServer, l *pipeListener) {
			p := open(t, l.dial(), request("user=42"))
			n := p.size()
			time.Sleep(time.Hour)
			s.hub.Publish(hub.User("42"), "", "still here")
			if got := p.since(n); !strings.Contains(got, "data: still here\n") || strings.Contains(got, "event: bye") {
				t.Errorf("an hour after the start of a stream with a maximum age of %v: %.300q", long, got)
			}
		})
	}
}
