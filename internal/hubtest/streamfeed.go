package hubtest

import (
	"testing"

	"usercast/internal/app"
	"usercast/internal/redistest"
)

// StartStreamFeed is Start for a hub with --feed stream.
func StartStreamFeed(tb testing.TB, server *redistest.Server, flags ...string) *Hub {
	tb.Helper()
	return Start(tb, server, append([]string{"--feed", app.FeedStream}, flags...)...)
}

// DurableRedis starts a Redis that does not lose data when it is killed.
func DurableRedis(tb testing.TB) *redistest.Server {
	tb.Helper()
	return redistest.Start(tb, "--appendonly", "yes", "--appendfsync", "always")
}
