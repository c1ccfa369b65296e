package sse_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"usercast/auth"
	"usercast/hub"
	"usercast/transport/sse"
)

// answersAs returns an authenticator that always returns the same identity.
func answersAs(id auth.Identity) auth.Authenticator {
	return func(*http.Request) (auth.Identity, error) { return id, nil }
}

func TestIdentityLimitsTopics(t *testing.T) {
	tests := []struct {
		name    string
		allowed []string
		query   string
		want    []string // of the messages about "", a and b; nil: rejected
	}{
		{"all, of all", nil, "", []string{"none", "a", "b"}},
		{"one, of all", nil, "topic=a", []string{"a"}},
		{"all, of some", []string{"a", "b"}, "", []string{"a", "b"}},
		{"one, of some", []string{"a", "b"}, "topic=b", []string{"b"}},
		{"no topic", []string{""}, "topic=", []string{"none"}},
		{"none at all", []string{}, "", []string{}},
		{"another", []string{"a"}, "topic=b", nil},
		{"another, too", []string{"a"}, "topic=a&topic=b", nil},
		{"no topic, not allowed", []string{"a"}, "topic=", nil},
		{"one, of none", []string{}, "topic=a", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			config := config{hub: hub.Config{HistoryPerUser: 9, HistoryAge: time.Minute, HistoryBytes: 1 << 20}}
			config.sse.Authenticate = answersAs(auth.Identity{User: "42", Topics: test.allowed})
			s := serve(t, config)
			client := newClient(t, false, nil)
			if test.want == nil {
				resp, err := client.Get(s.url(test.query))
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "topic") || s.handler.Stats().Rejects["topic"] != 1 {
					t.Errorf("%s, %s, rejects %v", resp.Status, body, s.handler.Stats().Rejects)
				}
				return
			}
			publish := func() {
				for _, user := range []string{"42", "*"} {
					s.hub.Publish(hub.User(user), "", "none")
					s.hub.Publish(hub.User(user), "a", "a")
					s.hub.Publish(hub.User(user), "b", "b")
				}
				s.hub.GapForAll(hub.GapRedisReconnect) // which concerns them all
			}
			live := browse(t, client, s.url(test.query))
			start := live.LastID
			publish()
			replayed := browse(t, client, s.url(test.query+"&last-event-id="+start))
			for _, b := range []*browser{live, replayed} {
				for range 2 {
					for _, topic := range test.want {
						b.want("message", topic)
					}
				}
				b.want("gap", `{"reason":"redis-reconnect"}`)
			}
		})
	}
}

func TestRejectionByTheApp(t *testing.T) {
	s := serve(t, config{sse: sse.Config{Authenticate: func(*http.Request) (auth.Identity, error) {
		return auth.Identity{}, fmt.Errorf("%w: rejected by the app", auth.ErrForbidden)
	}}})
	resp, err := newClient(t, false, nil).Get(s.url(""))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden || s.handler.Stats().Rejects["unauthorized"] != 1 {
		t.Errorf("%s, rejects %v", resp.Status, s.handler.Stats().Rejects)
	}
}

// The stream does not end before the login expires either, because a reconnect would be accepted again.
func TestExpiredLoginEndsTheStreamOnTime(t *testing.T) {
	protocols(t, func(t *testing.T, http2 bool) {
		for _, c := range []sse.Config{
			{},
			{MaxAge: time.Hour}, // later
			{PingInterval: time.Hour},
			{PingInterval: time.Second},
		} {
			const life = 10*time.Minute + 123*time.Millisecond
			c.Authenticate = func(*http.Request) (auth.Identity, error) {
				return auth.Identity{User: "42", Expires: time.Now().Add(life)}, nil
			}
			bubble(t, config{sse: c}, func(t *testing.T, s *testServer, l *pipeListener) {
				start := time.Now()
				b := browse(t, newClient(t, http2, l.dial), s.url(""))
				b.want("bye", `{"reason":"expired"}`)
				b.wantEnd()
				s.wantEnd(hub.ReasonExpired)
				if late := time.Since(start) - life; late < 0 || late > time.Second {
					t.Errorf("%+v: the stream ended %v after its login", c, late)
				}
			})
		}
	})
}

func TestLoginThatHasJustExpired(t *testing.T) {
	s := serve(t, config{sse: sse.Config{Authenticate: func(*http.Request) (auth.Identity, error) {
		return auth.Identity{User: "42", Expires: time.Now().Add(-time.Second)}, nil
	}}})
	client := newClient(t, false, nil)
	b := browse(t, client, s.url(""))
	b.want("bye", `{"reason":"expired"}`)
	b.wantEnd()
	s.wantEnd(hub.ReasonExpired)
}

func TestLoginWithoutExpiry(t *testing.T) {
	config := config{sse: sse.Config{Authenticate: answersAs(auth.Identity{User: "42", Expires: time.Unix(1<<60, 0)})}}
	bubble(t, config, func(t *testing.T, s *testServer, l *pipeListener) {
		time.Sleep(time.Minute) // handler.clock begins with the handler
		b := browse(t, newClient(t, false, l.dial), s.url(""))
		time.AfterFunc(24*time.Hour, func() { s.hub.Publish(hub.User("42"), "", "hello") })
		b.want("message", "hello")
	})
}

// A disconnect command during authentication ends the stream that is then opened, because the identity may
// be older than the command.
func TestDisconnectDuringAuthentication(t *testing.T) {
	called, answer := make(chan bool), make(chan bool)
	s := serve(t, config{sse: sse.Config{Authenticate: func(*http.Request) (auth.Identity, error) {
		called <- true
		<-answer
		return auth.Identity{User: "42"}, nil
	}}})
	client := newClient(t, false, nil)
	opened := make(chan *browser)
	go func() { opened <- browse(t, client, s.url("")) }()
	<-called
	s.hub.Disconnect("42")
	answer <- true
	b := <-opened
	b.want("bye", `{"reason":"kicked"}`)
	b.wantEnd()
	s.wantEnd(hub.ReasonKicked)

	go func() { opened <- browse(t, client, s.url("")) }()
	<-called
	answer <- true
	b = <-opened
	s.hub.Publish(hub.User("42"), "", "hello")
	b.want("message", "hello")
}

// A stream receives the messages of the groups of its identity, and no others.
func TestIdentityHasGroups(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		groups []string
		limit  int
		text   string // of the rejection; "": accepted
	}{
		{[]string{"a", "b"}, 2, ""},
		{[]string{"a", "b", "c"}, 2, "a member of 3 groups, and at most 2 are allowed"},
		{names(64), 0, ""},
		{names(65), 0, "at most 64"},
		{names(100), hub.NoLimit, ""},
		{[]string{"a", "b/c"}, 0, `invalid group \"b/c\": it contains '/'`},
		{[]string{"a", "b:c"}, 0, ""}, // : is not the separator
	} {
		config := config{sse: sse.Config{Authenticate: answersAs(auth.Identity{User: "42", Groups: test.groups}), MaxGroups: test.limit, TopicSeparator: '/'}}
		s := serve(t, config)
		if test.text != "" {
			resp, err := newClient(t, false, nil).Get(s.url(""))
			if err != nil {
				t.Fatal(err)
			}
			var body []byte
			if resp.StatusCode != http.StatusOK { // a stream does not end
				body, _ = io.ReadAll(resp.Body)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusForbidden || !strings.Contains(string(body), test.text) || s.handler.Stats().Rejects["bad-user"] != 1 {
				t.Errorf("%.50q: %s, %s, rejects %v", test.groups, resp.Status, body, s.handler.Stats().Rejects)
			}
			continue
		}
		b := browse(t, newClient(t, false, nil), s.url(""))
		for _, group := range append([]string{"other", "42"}, test.groups...) {
			s.hub.Publish(hub.Group(group), "", group)
		}
		s.hub.Publish(hub.User("42"), "", "end")
		for _, group := range test.groups {
			b.want("message", group)
		}
		b.want("message", "end")
	}
}

// The topics of an identity also limit the messages of its groups.
func TestTopicsLimitGroups(t *testing.T) {
	t.Parallel()
	config := config{sse: sse.Config{Authenticate: answersAs(auth.Identity{User: "42", Topics: []string{"a"}, Groups: []string{"g"}})}}
	s := serve(t, config)
	b := browse(t, newClient(t, false, nil), s.url(""))
	for _, topic := range []string{"b", "", "a"} {
		s.hub.Publish(hub.Group("g"), topic, "about "+topic)
	}
	b.want("message", "about a")
}

func names(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprint("team-", i)
	}
	return all
}
