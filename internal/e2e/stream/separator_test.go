package stream

import (
	"strings"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// The ids of identity providers may contain a colon. Everything that names a user must use the configured separator.
func TestTopicSeparatorAllowsUserIDsWithAColon(t *testing.T) {
	t.Parallel()
	const user, escaped = "f:0b1c:alice|x", "f:0b1c:alice%7Cx"
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--topic-separator", "/", "--channel-prefix", "u[s*r:")
	p, all := h.Open(t, "user="+escaped+"&topic=activity&event=topic"), h.Open(t, "user="+escaped)
	app := hubtest.NewPublisher(t, server.Addr())

	app.Publish(t, "u[s*r:"+user+"/activity", "app")
	app.Publish(t, "u[s*r:*/activity", "to all")
	app.Publish(t, "u[s*r:f/activity", "another user")
	if a := hubtest.Request(t, "POST", h.AdminURL("/api/users/"+escaped+"/messages?topic=activity")); a.Status != 200 {
		t.Errorf("POST: %d %s", a.Status, a.Body)
	}
	if code, out, errs := hubtest.RunCommand(t, "publish", "--redis", server.URL(), "--channel-prefix", "u[s*r:", "--topic-separator", "/", user+"/activity", "command"); code != 0 || !strings.Contains(out, "u[s*r:"+user+"/activity, received by 1 subscriber") {
		t.Errorf("publish: %d %s%s", code, out, errs)
	}
	for _, payload := range []string{"app", "to all", "", "command"} {
		p.WantEvent(t, "activity", payload)
		all.Want(t, payload)
	}

	if a := hubtest.Request(t, "GET", h.AdminURL("/api/users/a%2Fb")); a.Status != 400 || !strings.Contains(a.Body, "must not be empty or contain '/'") {
		t.Errorf("a user id with the separator: %d %s", a.Status, a.Body)
	}
	if a := hubtest.Request(t, "DELETE", h.AdminURL("/api/users/"+escaped)); a.Status != 200 || !strings.Contains(a.Body, `"heard":1`) {
		t.Errorf("DELETE: %d %s", a.Status, a.Body)
	}
	p.WantEvent(t, "bye", `{"reason":"kicked"}`)
	all.WantEvent(t, "bye", `{"reason":"kicked"}`)
}

func TestTopicSeparatorOfTheStreamFeed(t *testing.T) {
	t.Parallel()
	server := hubtest.DurableRedis(t)
	h := hubtest.StartStreamFeed(t, server, "--topic-separator", "|")
	p := h.Open(t, "user=a/b:c&topic=x")
	if a := hubtest.Request(t, "POST", h.AdminURL("/api/users/a%2Fb:c/messages?topic=x")); a.Status != 200 {
		t.Errorf("POST: %d %s", a.Status, a.Body)
	}
	hubtest.NewPublisher(t, server.Addr()).Append(t, "user-a/b:c|x", "app")
	p.Want(t, "", "app")
	if a := hubtest.Request(t, "DELETE", h.AdminURL("/api/users/a%2Fb:c")); a.Status != 200 {
		t.Errorf("DELETE: %d %s", a.Status, a.Body)
	}
	p.WantEvent(t, "bye", `{"reason":"kicked"}`)
}

// The operator must learn from one line which flag to set, and clients must not be able to fill the log.
func TestReservedUserIDIsLoggedOnceWithTheFlag(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, redistest.Start(t))
	for _, user := range []string{"f:1", "f:2", "f:3", "*", "*", "", ""} {
		a := hubtest.Request(t, "GET", h.PublicURL("/events?user="+user), "Accept: text/event-stream")
		if a.Status != 403 || strings.Contains(user, ":") && !strings.Contains(a.Body, "it contains ':', which separates user and topic (--topic-separator)") {
			t.Errorf("%q: %d %s", user, a.Status, a.Body)
		}
	}
	hubtest.Eventually(t, "three lines", func() bool { return len(h.Log.Lines("stream rejected")) == 3 })
	if lines := h.Log.Lines("stream rejected", "reason=bad-user", "hint=", "set --topic-separator to a character"); len(lines) != 1 {
		t.Errorf("lines about the separator: %q", lines)
	}
}

func TestUnusableSeparatorIsRefusedWithAnExample(t *testing.T) {
	t.Parallel()
	for _, test := range [][]string{
		{"--topic-separator", "", "not one ASCII character"},
		{"--topic-separator", "::", "not one ASCII character"},
		{"--topic-separator", "é", "not one ASCII character"},
		{"--topic-separator", "a", "such as : or /"},
		{"--topic-separator", "*", "such as : or /"},
		{"--topic-separator", " ", "such as : or /"},
		{"--topic-separator=/", "--broadcast-user=a/b", "--broadcast-user: a user id must not contain '/'"},
	} {
		flags, want := test[:2], test[2]
		code, _, errs := hubtest.RunCommand(t, append([]string{"serve", "--auth", "insecure"}, flags...)...)
		if code != 2 || !strings.Contains(errs, want) {
			t.Errorf("%q: %d %s", flags, code, errs)
		}
	}
}
