package stream

import (
	"strings"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

func TestDisconnectReachesEveryHub(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		here, there := hubtest.Start(t, server, writer), hubtest.Start(t, server, writer)
		var theirs []*ssetest.Stream
		for _, h := range []*hubtest.Hub{here, there} {
			theirs = append(theirs, h.Open(t, "user=42"), h.Open(t, "user=42&topic=a"))
		}
		other := there.Open(t, "user=4")
		if a := hubtest.Request(t, "DELETE", here.AdminURL("/api/users/42")); a.Status != 200 || a.Body != `{"user":"42","heard":2}`+"\n" {
			t.Errorf("status %d %s", a.Status, a.Body)
		}
		for _, p := range theirs {
			p.WantEvent(t, "bye", `{"reason":"kicked"}`)
			p.WantEnd(t)
		}
		app := hubtest.NewPublisher(t, server.Addr())
		app.Publish(t, "user-4", "still there")
		other.Want(t, "still there")

		// The app may publish the control command itself.
		app.Publish(t, "usercast:user-control", `{"op":"disconnect","user":"4"}`)
		other.WantEvent(t, "bye", `{"reason":"kicked"}`)
		there.WantMetrics(t, map[string]float64{
			"usercast_disconnects_total" + hubtest.Reason("kicked"): 3,
			"usercast_control_received_total":                       2,
			"usercast_messages_received_total":                      1, // control commands are not counted as messages
		})
	})
}

func TestMalformedCommandIsCountedAndHarmless(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--control-channel", "commands")
	app := hubtest.NewPublisher(t, server.Addr())
	p := h.Open(t, "user=42")
	for _, command := range []string{"", "null", `{"op":"disconnect"}`, `{"op":"stop","user":"42"}`, "\xff"} {
		app.Publish(t, "commands", command)
	}
	h.WantMetrics(t, map[string]float64{"usercast_control_received_total": 5, "usercast_control_malformed_total": 5})
	app.Publish(t, "user-42", "hello")
	p.Want(t, "hello")
}

func TestUsersAPI(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--max-payload", "100")
	p, odd := h.Open(t, "user=42&topic=a&topic="), h.Open(t, "user=a%2Fb%25")
	for _, test := range []struct {
		path, body string
		code       int
		answer     string
	}{
		{"/api/users/42/messages?topic=a", "hello\nworld", 200, `{"user":"42","heard":1}`},
		{"/api/users/42/messages", "", 200, `{"user":"42","heard":1}`},
		{"/api/users/a%2Fb%25/messages?topic=x%3Ay", "odd", 200, `{"user":"a/b%","heard":1}`},
		{"/api/users/*/messages?topic=a", "to all", 200, `{"user":"*","heard":1}`},
		{"/api/users/4:2/messages", "x", 400, "':'"},
		{"/api/users//messages", "x", 400, "empty"},
		{"/api/users/%FF/messages", "x", 400, "UTF-8"},
		{"/api/users/42/messages?topic=%zz", "x", 400, "malformed"},
		{"/api/users/42/messages?topic=a&topic=b", "x", 400, "one topic"},
		{"/api/users/42/messages", strings.Repeat("x", 101), 413, "--max-payload"},
	} {
		if code, answer := post(t, h, test.path, test.body); code != test.code || !strings.Contains(answer, test.answer) {
			t.Errorf("%s: %d %s, want %d %s", test.path, code, answer, test.code, test.answer)
		}
	}
	p.Want(t, "hello\nworld", "", "to all")
	odd.Want(t, "odd", "to all")
	// A form on another site's page can send such a request to this host.
	if code, _ := post(t, h, "/api/users/42/messages", "x", "Origin: https://evil.example"); code != 403 {
		t.Errorf("a publish request of another site: status %d", code)
	}
	if a := hubtest.Request(t, "GET", h.AdminURL("/api/users/42")); a.Status != 200 || !strings.Contains(a.Body, `"topics":["","a"]`) || strings.Count(a.Body, `"since"`) != 1 {
		t.Errorf("GET: status %d %s", a.Status, a.Body)
	}
	// A control command is JSON, which cannot represent this user ID: it would disconnect another user.
	if a := hubtest.Request(t, "DELETE", h.AdminURL("/api/users/%FF")); a.Status != 400 {
		t.Errorf("DELETE of an ID that is not UTF-8: status %d %s", a.Status, a.Body)
	}
	if a := hubtest.Request(t, "GET", h.AdminURL("/api/users/nobody")); a.Status != 200 || a.Body != `{"streams":[],"user":"nobody"}`+"\n" {
		t.Errorf("GET of a user without streams: status %d %s", a.Status, a.Body)
	}
	if a := hubtest.Request(t, "GET", h.PublicURL("/api/users/42")); a.Status != 404 {
		t.Errorf("the public listener serves the API: %d", a.Status)
	}
	server.Kill()
	if a := hubtest.Request(t, "DELETE", h.AdminURL("/api/users/42")); a.Status != 502 {
		t.Errorf("DELETE without Redis: status %d %s", a.Status, a.Body)
	}
}

// The app spreads its users over independent primaries.
func TestSeveralRedis(t *testing.T) {
	t.Parallel()
	one, two := redistest.Start(t), redistest.Start(t)
	h := hubtest.Start(t, one, "--redis", two.URL())
	hubtest.Eventually(t, "the hub has subscribed to the second Redis", func() bool { return h.FeedStats()[1].Connected })
	a, b := hubtest.NewPublisher(t, one.Addr()), hubtest.NewPublisher(t, two.Addr())
	p := h.Open(t, "user=42")
	a.Publish(t, "user-42", "one")
	p.Want(t, "one")
	b.Publish(t, "user-42", "two")
	p.Want(t, "two")
	h.WantMetrics(t, map[string]float64{
		`usercast_messages_received_total{feed="pubsub",redis="` + one.Addr() + `"}`: 1,
		`usercast_messages_received_total{feed="pubsub",redis="` + two.Addr() + `"}`: 1,
		"usercast_redis_connected": 2,
	})
	// If one is down, messages of the other still arrive.
	two.Kill()
	hubtest.Eventually(t, "the hub has detected that the second Redis is down", func() bool { return !h.FeedStats()[1].Connected })
	a.Publish(t, "user-42", "three")
	p.Want(t, "three")
	two.Restart()
	hubtest.Eventually(t, "the hub has resubscribed to the second Redis", func() bool { return h.FeedStats()[1].Connected })
	hubtest.NewPublisher(t, two.Addr()).Publish(t, "user-42", "four")
	p.WantGap(t, "redis-reconnect")
	p.Want(t, "four")
}
