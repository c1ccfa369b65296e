package main

import (
	"net/http"
	"strings"
	"testing"

	"usercast/internal/redistest"
)

func TestDisconnectReachesEveryHub(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		here, there := startHub(t, server, writer), startHub(t, server, writer)
		var theirs []*page
		for _, h := range []*liveHub{here, there} {
			theirs = append(theirs, h.openPage(t, "user=42"), h.openPage(t, "user=42&topic=a"))
		}
		other := there.openPage(t, "user=4")
		if a := ask(t, "DELETE", here.private("/api/users/42")); a.code != 200 || a.body != `{"user":"42","heard":2}`+"\n" {
			t.Errorf("answered with %d %s", a.code, a.body)
		}
		for _, p := range theirs {
			p.wantEvent(t, "bye", `{"reason":"kicked"}`)
			p.wantEnd(t)
		}
		app := newPublisher(t, server.Addr())
		app.publish(t, "user-4", "still there")
		other.want(t, "still there")

		// The app may send the order itself.
		app.publish(t, "usercast:user-control", `{"op":"disconnect","user":"4"}`)
		other.wantEvent(t, "bye", `{"reason":"kicked"}`)
		there.wantMetrics(t, map[string]float64{
			"usercast_disconnects_total" + reasonLabel("kicked"): 3,
			"usercast_control_received_total":                    2,
			"usercast_messages_received_total":                   1, // orders are no messages
		})
	})
}

func TestMalformedOrderIsCountedAndHurtsNobody(t *testing.T) {
	server := redistest.Start(t)
	h := startHub(t, server, "--control-channel", "orders")
	app := newPublisher(t, server.Addr())
	p := h.openPage(t, "user=42")
	for _, order := range []string{"", "null", `{"op":"disconnect"}`, `{"op":"stop","user":"42"}`, "\xff"} {
		app.publish(t, "orders", order)
	}
	h.wantMetrics(t, map[string]float64{"usercast_control_received_total": 5, "usercast_control_malformed_total": 5})
	app.publish(t, "user-42", "hello")
	p.want(t, "hello")
}

func TestUsersAPI(t *testing.T) {
	server := redistest.Start(t)
	h := startHub(t, server, "--max-payload", "100")
	p, odd := h.openPage(t, "user=42&topic=a&topic="), h.openPage(t, "user=a%2Fb%25")
	post := func(path, body string, headers ...string) (int, string) {
		t.Helper()
		r, err := http.NewRequest("POST", h.private(path), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			r.Header.Set(name, value)
		}
		resp, err := plainClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b := make([]byte, 1000)
		n, _ := resp.Body.Read(b)
		return resp.StatusCode, string(b[:n])
	}
	for _, test := range []struct {
		path, body string
		code       int
		answer     string
	}{
		{"/api/users/42/messages?topic=a", "hello\nworld", 200, `{"user":"42","heard":1}`},
		{"/api/users/42/messages", "", 200, `{"user":"42","heard":1}`},
		{"/api/users/a%2Fb%25/messages?topic=x%3Ay", "odd", 200, `{"user":"a/b%","heard":1}`},
		{"/api/users/*/messages?topic=a", "to all", 200, `{"user":"*","heard":1}`},
		{"/api/users/4:2/messages", "x", 400, "colon"},
		{"/api/users//messages", "x", 400, "empty"},
		{"/api/users/%FF/messages", "x", 400, "UTF-8"},
		{"/api/users/42/messages?topic=%zz", "x", 400, "malformed"},
		{"/api/users/42/messages?topic=a&topic=b", "x", 400, "one topic"},
		{"/api/users/42/messages", strings.Repeat("x", 101), 413, "--max-payload"},
	} {
		if code, answer := post(test.path, test.body); code != test.code || !strings.Contains(answer, test.answer) {
			t.Errorf("%s: %d %s, want %d %s", test.path, code, answer, test.code, test.answer)
		}
	}
	p.want(t, "hello\nworld", "", "to all")
	odd.want(t, "odd", "to all")
	// A form on another site's page can send such a request to this machine.
	if code, _ := post("/api/users/42/messages", "x", "Origin: https://evil.example"); code != 403 {
		t.Errorf("another site may publish: %d", code)
	}
	if a := ask(t, "GET", h.private("/api/users/42")); a.code != 200 || !strings.Contains(a.body, `"topics":["","a"]`) || strings.Count(a.body, `"since"`) != 1 {
		t.Errorf("GET is answered with %d %s", a.code, a.body)
	}
	// An order is JSON, which cannot say this user: it would hit another one.
	if a := ask(t, "DELETE", h.private("/api/users/%FF")); a.code != 400 {
		t.Errorf("DELETE of an id that is not UTF-8 is answered with %d %s", a.code, a.body)
	}
	if a := ask(t, "GET", h.private("/api/users/nobody")); a.code != 200 || a.body != `{"streams":[],"user":"nobody"}`+"\n" {
		t.Errorf("GET for nobody is answered with %d %s", a.code, a.body)
	}
	if a := ask(t, "GET", h.public("/api/users/42")); a.code != 404 {
		t.Errorf("the public listener has the API: %d", a.code)
	}
	server.Kill()
	if a := ask(t, "DELETE", h.private("/api/users/42")); a.code != 502 {
		t.Errorf("DELETE without Redis is answered with %d %s", a.code, a.body)
	}
}

// The app spreads its users over independent primaries.
func TestSeveralRedis(t *testing.T) {
	one, two := redistest.Start(t), redistest.Start(t)
	h := startHub(t, one, "--redis", two.URL())
	h.waitUntilSubscribed(t, 1)
	eventually(t, "the second is subscribed to", func() bool { return h.FeedStats()[1].Connected })
	a, b := newPublisher(t, one.Addr()), newPublisher(t, two.Addr())
	p := h.openPage(t, "user=42")
	a.publish(t, "user-42", "one")
	p.want(t, "one")
	b.publish(t, "user-42", "two")
	p.want(t, "two")
	h.wantMetrics(t, map[string]float64{
		`usercast_messages_received_total{feed="pubsub",redis="` + one.Addr() + `"}`: 1,
		`usercast_messages_received_total{feed="pubsub",redis="` + two.Addr() + `"}`: 1,
		"usercast_redis_connected": 2,
	})
	// One that is away takes nothing from the other.
	two.Kill()
	eventually(t, "the hub knows", func() bool { return !h.FeedStats()[1].Connected })
	a.publish(t, "user-42", "three")
	p.want(t, "three")
	two.Restart()
	eventually(t, "the second is subscribed to again", func() bool { return h.FeedStats()[1].Connected })
	newPublisher(t, two.Addr()).publish(t, "user-42", "four")
	p.wantGap(t, "redis-reconnect")
	p.want(t, "four")
}
