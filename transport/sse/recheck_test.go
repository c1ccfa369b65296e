package sse_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"usercast/auth"
	"usercast/hub"
	"usercast/transport/sse"
)

// A loginApp authenticates user 42 and offers a recheck of each stream.
type loginApp struct {
	rechecks atomic.Int64 // number of rechecks
	recent   atomic.Bool  // the user was disconnected a moment ago
	bytes    int
	first    auth.Identity                                             // of each request, besides the user
	answer   func(ctx context.Context, n int64) (auth.Identity, error) // result of the n-th recheck, from 1
}

func (a *loginApp) authenticate(*http.Request) (auth.Identity, error) {
	id := a.first
	id.User = "42"
	id.Recheck = &auth.Recheck{Due: a.recent.Load(), Bytes: a.bytes, Ask: func(ctx context.Context) (auth.Identity, error) {
		return a.answer(ctx, a.rechecks.Add(1))
	}}
	return id, nil
}

func (a *loginApp) config() config {
	return config{sse: sse.Config{Authenticate: a.authenticate, PingInterval: time.Hour}}
}

// A stream that is opened shortly after a disconnect is rechecked 15 s later: the first session check may have
// happened before the app had destroyed the session.
func TestStreamIsRecheckedAfterADisconnect(t *testing.T) {
	type identity = auth.Identity
	for name, test := range map[string]struct {
		first, answer identity
		err           error
		kicked        bool
	}{
		"still logged in":  {identity{}, identity{User: "42"}, nil, false},
		"logged out":       {identity{}, identity{}, auth.ErrUnauthorized, true},
		"forbidden":        {identity{}, identity{}, auth.ErrForbidden, true},
		"another user":     {identity{}, identity{User: "43"}, nil, true},
		"same groups":      {identity{Groups: []string{"b", "a"}}, identity{User: "42", Groups: []string{"a", "b", "a"}}, nil, false},
		"left a group":     {identity{Groups: []string{"a", "b"}}, identity{User: "42", Groups: []string{"b"}}, nil, true},
		"joined a group":   {identity{}, identity{User: "42", Groups: []string{"a"}}, nil, true},
		"same topics":      {identity{Topics: []string{"x", "y"}}, identity{User: "42", Topics: []string{"y", "x"}}, nil, false},
		"topic withdrawn":  {identity{Topics: []string{"x", "y"}}, identity{User: "42", Topics: []string{"x"}}, nil, true},
		"topics withdrawn": {identity{}, identity{User: "42", Topics: []string{"x"}}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			app := &loginApp{first: test.first, answer: func(context.Context, int64) (auth.Identity, error) { return test.answer, test.err }}
			app.recent.Store(true)
			bubble(t, app.config(), func(t *testing.T, s *testServer, l *pipeListener) {
				b := browse(t, newClient(t, false, l.dial), s.url(""))
				synctest.Wait()
				time.Sleep(15*time.Second - 1)
				synctest.Wait()
				if n := app.rechecks.Load(); n != 0 || s.ended() != "" {
					t.Fatalf("checked %d times before 15 s", n)
				}
				time.Sleep(time.Second)
				if test.kicked {
					b.want("bye", `{"reason":"kicked"}`)
					b.wantEnd()
					s.wantEnd(hub.ReasonKicked)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if n := app.rechecks.Load(); n != 1 {
					t.Errorf("checked %d times, want once", n)
				}
				if !test.kicked {
					s.hub.Publish(hub.User("42"), "x", "hello")
					b.want("message", "hello")
				}
			})
		})
	}
}

func TestStreamIsNotRecheckedWithoutADisconnect(t *testing.T) {
	app := &loginApp{answer: func(context.Context, int64) (auth.Identity, error) { return auth.Identity{}, auth.ErrUnauthorized }}
	bubble(t, app.config(), func(t *testing.T, s *testServer, l *pipeListener) {
		b := browse(t, newClient(t, false, l.dial), s.url(""))
		time.Sleep(10 * time.Minute)
		s.hub.Publish(hub.User("42"), "", "hello")
		b.want("message", "hello")
		if n := app.rechecks.Load(); n != 0 {
			t.Errorf("checked %d times", n)
		}
	})
}

// If a recheck fails temporarily, the hub repeats it at intervals of at most 15 s until it succeeds.
func TestRecheckIsRepeatedUntilThereIsAnAnswer(t *testing.T) {
	var last time.Time
	longest := time.Duration(0)
	app := &loginApp{answer: func(_ context.Context, n int64) (auth.Identity, error) {
		if n > 1 {
			longest = max(longest, time.Since(last))
		}
		last = time.Now()
		time.Sleep(2 * time.Second) // until the timeout
		if n < 20 {
			return auth.Identity{}, errors.New("the app does not respond")
		}
		return auth.Identity{}, auth.ErrUnauthorized
	}}
	app.recent.Store(true)
	bubble(t, app.config(), func(t *testing.T, s *testServer, l *pipeListener) {
		b := browse(t, newClient(t, false, l.dial), s.url(""))
		b.want("bye", `{"reason":"kicked"}`)
		b.wantEnd()
		s.wantEnd(hub.ReasonKicked)
		if n := app.rechecks.Load(); n != 20 || longest > 15*time.Second {
			t.Errorf("%d rechecks, up to %v apart", n, longest)
		}
	})
}

// A stream that has ended is not rechecked, and a recheck in progress is canceled.
func TestRecheckEndsWithItsStream(t *testing.T) {
	app := &loginApp{answer: func(ctx context.Context, _ int64) (auth.Identity, error) {
		<-ctx.Done()
		return auth.Identity{}, ctx.Err()
	}}
	app.recent.Store(true)
	bubble(t, app.config(), func(t *testing.T, s *testServer, l *pipeListener) {
		before := open(t, l.dial(), request(""))
		before.conn.Close()
		<-s.ends
		time.Sleep(time.Minute)
		if n := app.rechecks.Load(); n != 0 {
			t.Errorf("a stream that has ended was checked %d times", n)
		}
		during := open(t, l.dial(), request(""))
		time.Sleep(16 * time.Second)
		synctest.Wait()
		during.conn.Close()
		<-s.ends
		if n := app.rechecks.Load(); n != 1 {
			t.Errorf("checked %d times, want once", n)
		}
		if n := s.handler.Rechecks(); n != 0 {
			t.Errorf("%d rechecks are left", n)
		}
	})
}

// The memory for the headers of rechecks is bounded. A stream that would exceed the limit is ended, and the page
// reconnects later.
func TestInvariant14RechecksAreBounded(t *testing.T) {
	app := &loginApp{bytes: 8 << 20, answer: func(context.Context, int64) (auth.Identity, error) { return auth.Identity{User: "42"}, nil }}
	app.recent.Store(true)
	bubble(t, app.config(), func(t *testing.T, s *testServer, l *pipeListener) {
		client := newClient(t, false, l.dial)
		for range 3 {
			browse(t, client, s.url(""))
		}
		b := browse(t, client, s.url(""))
		b.want("bye", `{"reason":"kicked"}`)
		b.wantEnd()
		s.wantEnd(hub.ReasonKicked)
		time.Sleep(16 * time.Second)
		b = browse(t, client, s.url(""))
		s.hub.Publish(hub.User("42"), "", "hello")
		b.want("message", "hello")
	})
}

// A page that requests a topic must not be rejected permanently because of a cached identity from before the app granted
// the topic.
func TestTopicRejectionDoesNotUseTheCache(t *testing.T) {
	for _, granted := range []bool{true, false} {
		rechecks := 0
		authenticate := func(*http.Request) (auth.Identity, error) {
			id := auth.Identity{User: "42", Topics: []string{"a"}, Cached: true}
			id.Recheck = &auth.Recheck{Ask: func(context.Context) (auth.Identity, error) {
				rechecks++
				if granted {
					return auth.Identity{User: "42", Topics: []string{"a", "b"}}, nil
				}
				return auth.Identity{User: "42", Topics: []string{"a"}}, nil
			}}
			return id, nil
		}
		s := newTestServer(t, config{sse: sse.Config{Authenticate: authenticate}})
		if w := openAndClose(s, "topic=a"); w.Code != 200 || rechecks != 0 {
			t.Errorf("a topic that is allowed: %d, %d rechecks", w.Code, rechecks)
		}
		w := openAndClose(s, "topic=b")
		if want := map[bool]int{true: 200, false: 403}[granted]; w.Code != want || rechecks != 1 {
			t.Errorf("granted %v: %d, want %d; %d rechecks, want 1", granted, w.Code, want, rechecks)
		}
	}
}

// The same holds for groups: the app may have removed the user from those that are too many, or cannot be used.
func TestGroupRejectionDoesNotUseTheCache(t *testing.T) {
	t.Parallel()
	for _, cached := range [][]string{{"a", "b", "c"}, {"a", "b:c"}} {
		for _, removed := range []bool{true, false} {
			rechecks := 0
			authenticate := func(*http.Request) (auth.Identity, error) {
				id := auth.Identity{User: "42", Groups: cached, Cached: true}
				id.Recheck = &auth.Recheck{Ask: func(context.Context) (auth.Identity, error) {
					rechecks++
					if removed {
						return auth.Identity{User: "42", Groups: []string{"a", "b"}}, nil
					}
					return auth.Identity{User: "42", Groups: cached}, nil
				}}
				return id, nil
			}
			s := newTestServer(t, config{sse: sse.Config{Authenticate: authenticate, MaxGroups: 2}})
			w := openAndClose(s, "")
			if want := map[bool]int{true: 200, false: 403}[removed]; w.Code != want || rechecks != 1 {
				t.Errorf("groups %q, removed %v: %d, want %d; %d rechecks, want 1", cached, removed, w.Code, want, rechecks)
			}
			if n := s.handler.Stats().Rejects["bad-user"]; n != map[bool]uint64{true: 0, false: 1}[removed] {
				t.Errorf("groups %q, removed %v: %d rejections", cached, removed, n)
			}
		}
	}
}
