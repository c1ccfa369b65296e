package stream

import (
	"strings"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// Any hub knows who is online, with either feed.
func TestOnlineUsersOfTwoHubs(t *testing.T) {
	t.Parallel()
	forEachFeed(t, func(t *testing.T, server *redistest.Server, feed string) {
		a, b := hubtest.Start(t, server, "--presence", "--feed", feed), hubtest.Start(t, server, "--presence", "--feed", feed)
		a.Open(t, "user=42")
		a.Open(t, "user=42")
		b.Open(t, "user=a%26b")
		for _, h := range []*hubtest.Hub{a, b} {
			hubtest.Eventually(t, "both users are online", func() bool {
				return hubtest.Request(t, "GET", h.AdminURL("/api/online")).Body == `{"users":2}`+"\n"
			})
			got := hubtest.Request(t, "GET", h.AdminURL("/api/online?user=a%26b&user=43&user=42"))
			if want := `{"online":["a\u0026b","42"]}`; got.Status != 200 || strings.TrimSpace(got.Body) != want {
				t.Errorf("%d %s, want %s", got.Status, got.Body, want)
			}
			hubtest.Eventually(t, "the metric has the number", func() bool { return h.Scrape(t).Sum("usercast_online_users") == 2 })
			if stats := hubtest.Request(t, "GET", h.AdminURL("/api/stats")).Body; !strings.Contains(stats, `"online_users":2`) {
				t.Errorf("stats without online users: %.300s", stats)
			}
		}
		server.Kill()
		for _, query := range []string{"", "?user=42"} {
			got := hubtest.Request(t, "GET", a.AdminURL("/api/online"+query))
			if got.Status != 502 || !strings.Contains(got.Body, "reading from "+server.Addr()+" failed: ") {
				t.Errorf("without Redis: %d %s", got.Status, got.Body)
			}
		}
		server.Restart()
		hubtest.Eventually(t, "all users are online again", func() bool {
			return hubtest.Request(t, "GET", a.AdminURL("/api/online")).Body == `{"users":2}`+"\n"
		})
	})
}

func TestHubWithoutPresence(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	h.Open(t, "user=42")
	if got := hubtest.Request(t, "GET", h.AdminURL("/api/online?user=42")); got.Status != 404 || !strings.Contains(got.Body, "set --presence") {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	if text := hubtest.Request(t, "GET", h.AdminURL("/metrics")).Body; strings.Contains(text, "usercast_online_users") {
		t.Error("the metric is exported without --presence")
	}
	if keys := server.Do("keys", "*").([]any); len(keys) > 0 {
		t.Errorf("Redis has the keys %v", keys)
	}
}

// With several Redis servers, the set is on the first one, in the database of its URL.
func TestPresenceIsOnTheFirstRedis(t *testing.T) {
	t.Parallel()
	first, second := redistest.Start(t), redistest.Start(t)
	h := hubtest.Run(t, hubtest.New(t, first.URL()+"/2", "--presence", "--redis", second.URL()))
	h.AwaitReady(t)
	h.Open(t, "user=42")
	hubtest.Eventually(t, "the user is online", func() bool {
		return strings.TrimSpace(hubtest.Request(t, "GET", h.AdminURL("/api/online?user=42")).Body) == `{"online":["42"]}`
	})
	if keys := second.Do("keys", "*").([]any); len(keys) > 0 {
		t.Errorf("the second Redis has the keys %v", keys)
	}
	if info := first.Do("info", "keyspace").(string); !strings.Contains(info, "db2:keys=2") || strings.Contains(info, "db0:") {
		t.Errorf("the first Redis has %s", info)
	}
}
