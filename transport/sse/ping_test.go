package sse_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
	"usercast/transport/sse"
)

const ping = 10 * time.Second

// The time between pings never exceeds the interval, because timeouts of proxies are based on it, and is not
// much shorter.
func TestInvariant7IdleStreamIsPingedWithinTheInterval(t *testing.T) {
	bubble(t, config{sse: sse.Config{PingInterval: ping}}, func(t *testing.T, s *testServer, l *pipeListener) {
		p := ask(t, l.dial(), request("user=42"))
		p.head()
		var waits []time.Duration
		for range 100 {
			before := time.Now()
			if got := p.read(len(":\n")); got != ":\n" {
				t.Fatalf("got %q", got)
			}
			waits = append(waits, time.Since(before))
		}
		times := make(map[time.Duration]int)
		for _, wait := range waits {
			if wait > ping || wait < ping*9/10 {
				t.Fatalf("a ping after %v", wait)
			}
			times[wait]++
		}
		for wait, n := range times {
			if n > len(waits)/2 {
				t.Errorf("%d of %d pings after %v: not jittered", n, len(waits), wait)
			}
		}
	})
}

func TestPingsOnlyWhenIdle(t *testing.T) {
	bubble(t, config{sse: sse.Config{PingInterval: ping}}, func(t *testing.T, s *testServer, l *pipeListener) {
		p := open(t, l.dial(), request("user=42"))
		synctest.Wait()
		n := p.size()
		for range 50 { // each message is sent before a ping is due
			time.Sleep(ping*9/10 - time.Millisecond)
			s.hub.Publish(hub.User("42"), "", "x")
		}
		if got := p.since(n); strings.Contains(got, ":\n") || strings.Count(got, "data: x") != 50 {
			t.Errorf("got %q", got)
		}
		n = p.size()
		time.Sleep(ping)
		if got := p.since(n); got != ":\n" {
			t.Errorf("got %q after the stream became idle", got)
		}
	})
}

// A reader that stalled for longer than the interval receives the pending messages without an
// additional ping.
func TestNoPingRightAfterAWriteThatTookLong(t *testing.T) {
	bubble(t, config{sse: sse.Config{PingInterval: ping, WriteTimeout: 5 * ping}}, func(t *testing.T, s *testServer, l *pipeListener) {
		p := ask(t, l.dial(), request("user=42"))
		p.head()
		s.hub.Publish(hub.User("42"), "", "x")
		time.Sleep(2 * ping)
		go p.readAll()
		if got, want := p.since(0), "data: x\nid: BOOT-1\n\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		time.Sleep(ping)
		if got, want := p.since(0), "data: x\nid: BOOT-1\n\n:\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// An idle stream resumes from the newest position. Its last message may no longer be in the
// history.
func TestPingCarriesAPositionThatMoved(t *testing.T) {
	bubble(t, config{sse: sse.Config{PingInterval: ping}}, func(t *testing.T, s *testServer, l *pipeListener) {
		s.hub.Publish(hub.User("before"), "", "")
		p := open(t, l.dial(), request("user=42&topic=a"))
		n := p.size()
		for _, step := range []struct {
			user, topic, want string
		}{
			{"", "", ":\n"},
			{"another", "", "event: ping\ndata: {}\nid: BOOT-2\n\n"},
			{"", "", ":\n"},
			{"42", "filtered", "event: ping\ndata: {}\nid: BOOT-3\n\n"},
			{"42", "a", "data: x\nid: BOOT-4\n\n:\n"},
		} {
			if step.user != "" {
				s.hub.Publish(hub.User(step.user), step.topic, "x")
			}
			synctest.Wait()
			time.Sleep(ping)
			if got := p.since(n); got != step.want {
				t.Errorf("after a message to %q, topic %q: %q, want %q", step.user, step.topic, got, step.want)
			}
			n = p.size()
		}
	})
}

func TestPingsAsEvents(t *testing.T) {
	bubble(t, config{sse: sse.Config{PingInterval: ping}}, func(t *testing.T, s *testServer, l *pipeListener) {
		p := open(t, l.dial(), request("user=42&ping=event"))
		n := p.size()
		time.Sleep(ping)
		s.hub.Publish(hub.User("another"), "", "")
		time.Sleep(ping)
		if got, want := p.since(n), "event: ping\ndata: {}\nid: BOOT-0\n\nevent: ping\ndata: {}\nid: BOOT-1\n\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// Over HTTP/2, a deadline that was not cleared would reset an idle stream.
func TestPingsOverEachProtocol(t *testing.T) {
	protocols(t, func(t *testing.T, http2 bool) {
		bubble(t, config{sse: sse.Config{PingInterval: ping, WriteTimeout: time.Second}}, func(t *testing.T, s *testServer, l *pipeListener) {
			b := browse(t, newClient(t, http2, l.dial), s.url("user=42&ping=event"))
			for range 20 {
				before := time.Now()
				b.want("ping", "{}")
				if wait := time.Since(before); wait > ping || wait < ping*9/10 {
					t.Errorf("a ping after %v", wait)
				}
			}
		})
	})
}
