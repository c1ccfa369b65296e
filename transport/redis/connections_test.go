package redis

import (
	"context"
	"sync"
	"testing"
	"time"

	"usercast/hub"
	"usercast/internal/redistest"
)

// While Redis does not respond, a hub has all the connections that it may have.
func TestMaximumNumberOfConnections(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		want  int
		start func(*testing.T, *Server) (busy func())
	}{
		"pubsub": {MaxConnections, func(t *testing.T, s *Server) func() {
			h := start(t, s, func(c *PubSubConfig) { c.ProbeEvery = 20 * time.Millisecond })
			h.awaitGeneration(t, 1)
			return func() {}
		}},
		"stream": {MaxStreamConnections, func(t *testing.T, s *Server) func() {
			f := follow(t, s, func(c *StreamConfig) { c.ProbeEvery = 20 * time.Millisecond })
			return func() {
				for range 10 {
					f.add(query{[]hub.Recipient{hub.User("42")}, hub.ID{}, hub.ID{Ms: 1}, func([]hub.Entry, hub.ID, hub.Gap) {}, alive})
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			relay := redistest.StartRelay(t, server.Addr())
			s := parse(t, relay.URL(), ServerOptions{AnswerTimeout: patience})
			busy := test.start(t, s)
			commands := NewCommands(s)
			defer commands.Close()
			server.Freeze()
			busy()
			var publishing sync.WaitGroup
			defer publishing.Wait()
			defer server.Thaw()
			for range 2 * maxCommands {
				publishing.Go(func() { _, _ = commands.Publish(context.Background(), "user-42", "x") })
			}
			eventually(t, "all connections were made", func() bool { return relay.Open() >= test.want })
			if n := relay.Open(); n != test.want {
				t.Errorf("%d connections, want %d", n, test.want)
			}
		})
	}
}
