package sse_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"usercast/auth"
	"usercast/hub"
)

// rejecting returns a config with which every client is rejected temporarily.
func rejecting() (c config) {
	c.sse.Authenticate = func(*http.Request) (auth.Identity, error) { return auth.Identity{}, errors.New("away") }
	return c
}

// A client that ignores the retry field and reconnects as soon as a stream ends can do so only once per second.
func TestRejectionsOfAnImpatientClientAreHeld(t *testing.T) {
	t.Parallel()
	s := serve(t, rejecting())
	begun := time.Now()
	const requests = 4
	for range requests {
		p := dial(t, s, request("user=42", "Connection: close"))
		if text := p.read(10_000); !strings.Contains(text, "event: busy") {
			t.Fatalf("got %q", text)
		}
	}
	if took := time.Since(begun); took < (requests-1)*time.Second {
		t.Errorf("%d rejections in %v", requests, took)
	}
}

// Rejections of another address or user, or of the same one after a second, are not held.
func TestRejectionOfAnotherClientIsNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config{hub: hub.Config{MaxClientsPerUser: 1}}
		s := newTestServer(t, c)
		for _, user := range []string{"1", "2"} {
			client, err := s.hub.Register(hub.Options{User: user, Consumer: idle{}})
			if err != nil {
				t.Fatal(err)
			}
			defer client.End(hub.ReasonClosed)
		}
		for i, step := range []struct {
			user, address string
			after         time.Duration
			held          bool
		}{
			{"1", "10.0.0.1:1", 0, false},
			{"2", "10.0.0.2:1", 0, false},
			{"1", "10.0.0.3:1", 0, true}, // the user
			{"2", "10.0.0.3:2", 0, true}, // the address, right after the end of the one before
			{"2", "[2001:db8::1]:1", 900 * time.Millisecond, true},
			{"1", "[2001:db8::2]:1", 0, false},
			{"2", "10.0.0.4:1", 1001 * time.Millisecond, false},
		} {
			time.Sleep(step.after)
			begun := time.Now()
			r := httptest.NewRequest(http.MethodGet, "/events?user="+step.user, nil)
			r.RemoteAddr = step.address
			r.Header.Set("Accept", "text/event-stream")
			s.handler.ServeHTTP(httptest.NewRecorder(), r)
			if took := time.Since(begun); (took == time.Second) != step.held || (took == 0) == step.held {
				t.Errorf("step %d: %+v: it ends after %v", i, step, took)
			}
		}
	})
}

// The number of held rejections is limited. They do not need a goroutine if their connection was taken over from
// net/http, and they end when Handler.Wait is called.
func TestInvariant14HeldRejectionsAreBounded(t *testing.T) {
	for most, want := range map[int]int{0: 40, 10: 10, -1: 0, 5000: 40} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			c := rejecting()
			c.sse.MaxHeld, c.maxConns = most, 100
			eachHTTP1Transport(t, c, func(t *testing.T, s *testServer) {
				dial(t, s, request("user=42", "Connection: close")).read(10_000)
				before := runtime.NumGoroutine()
				var peers []*peer
				for range 40 {
					peers = append(peers, dial(t, s, request("user=42", "Connection: close")))
				}
				for _, p := range peers {
					for text := ""; !strings.HasSuffix(text, "\n\n"); {
						text += p.read(1)
					}
				}
				if held := s.handler.Stats().Held; held > want || want > 0 && held == 0 { // some may have ended already
					t.Errorf("%d are held, want %d", held, want)
				}
				if n := settled(before + 3); n > before+3 { // allows for a writer and goroutines that are about to end
					t.Errorf("%d goroutines more", n-before)
				}
				s.hub.Refuse()
				s.handler.Wait()
				if n := s.handler.Stats().Held; n != 0 {
					t.Errorf("%d are held after the end", n)
				}
			})
		})
	}
}
