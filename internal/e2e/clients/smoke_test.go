package clients

import (
	"strconv"
	"strings"
	"syscall"
	"testing"

	"usercast/internal/need"
)

// All clients share the hub of a situation. Situations and clients run concurrently, because they mostly wait.
func TestEachMessageArrivesOnce(t *testing.T) {
	need.Program(t, "redis-server")
	pages := browsers(t)
	all := append(libraries(t), pages...)
	t.Run("hub killed before the first message", func(t *testing.T) {
		t.Parallel()
		killBeforeFirstMessage(t, all)
	})
	t.Run("connection cut inside an event", func(t *testing.T) {
		t.Parallel()
		cutInsideEvents(t, all, someCuts)
	})
	t.Run("busy", func(t *testing.T) {
		t.Parallel()
		rejectAsBusy(t, all)
	})
	t.Run("page reopens its stream after refused connections", func(t *testing.T) {
		t.Parallel()
		reopenAfterRefusal(t, pages)
	})
	t.Run("page reopens its stream after 502", func(t *testing.T) {
		t.Parallel()
		reopenAfterStatus(t, pages)
	})
}

// killBeforeFirstMessage publishes while no hub runs; the stream feed stores these messages.
func killBeforeFirstMessage(t *testing.T, all []client) {
	h := startHub(t, "--feed", "stream")
	sessions := startAll(t, h, all)
	for _, s := range sessions {
		s.relay.refuse()
	}
	h.Stop(t, syscall.SIGKILL)
	for _, s := range sessions {
		for n := 1; n <= 3; n++ {
			if err := s.publish(n); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.Start(t)
	each(t, sessions, func(s *session) error {
		if err := s.relay.start(); err != nil {
			return err
		}
		if err := s.awaitStream(2); err != nil {
			return err
		}
		return s.expect(4)
	})
}

// someCuts returns places to interrupt an event whose fields are data and id, in any order.
func someCuts(c client) (cuts []cut) {
	cuts = []cut{
		{at: func(e string) int { return strings.Index(e, messageText) }, reset: true},    // inside the data
		{at: func(e string) int { return strings.Index(e, messageText) }},                 // the same, with a clean end
		{at: func(e string) int { return strings.Index(e, "id: ") + len("id: ") + 3 }},    // inside the id
		{at: func(e string) int { return strings.Index(e, "\n") + 1 }},                    // after the first line
		{at: func(e string) int { return len(strings.TrimSuffix(e, "\n\n")) }},            // before the end of the last line
		{at: func(e string) int { return len(strings.TrimSuffix(e, "\n")) }, reset: true}, // before the blank line
	}
	switch {
	case c.truncates: // it delivers an incomplete event with complete data
		return cuts[:2]
	case c.idAtLine:
		return cuts[:5]
	}
	return cuts
}

// cutInsideEvents interrupts each message at its first attempt, except the first message, which gives
// the client a position, and the last.
func cutInsideEvents(t *testing.T, all []client, cuts func(client) []cut) {
	each(t, startAll(t, startHub(t), all), func(s *session) error {
		if err := s.expect(1); err != nil {
			return err
		}
		n := 1
		for _, c := range cuts(s.client) {
			s.relay.cutNext(c)
			n++
			if err := s.publish(n); err != nil {
				return err
			}
			if err := s.awaitStream(n); err != nil {
				return err
			}
		}
		return s.expect(n + 1)
	})
}

// rejectAsBusy rejects a client twice: when it is new, and when it has a position.
func rejectAsBusy(t *testing.T, all []client) {
	h := startHub(t, "--max-clients-per-user", "1")
	var sessions []*session
	for i, c := range all {
		sessions = append(sessions, newSession(t, h, c, "u"+strconv.Itoa(i)))
	}
	each(t, sessions, func(s *session) error {
		rejected := func(times int) error {
			return s.await("the client was rejected", func() bool { return s.relay.count(busy) >= times })
		}
		release, err := h.occupy(s.user)
		if err != nil {
			return err
		}
		if err := s.start(); err != nil {
			return err
		}
		if err := rejected(1); err != nil {
			return err
		}
		release()
		if err := s.awaitStream(1); err != nil {
			return err
		}
		if err := s.expect(1); err != nil {
			return err
		}
		before := s.relay.count(busy)
		s.relay.pause()
		s.relay.disconnect()
		if release, err = h.occupy(s.user); err != nil {
			return err
		}
		s.relay.resume()
		if err := rejected(before + 1); err != nil {
			return err
		}
		if err := s.publish(2); err != nil {
			return err
		}
		release()
		if err := s.awaitStream(2); err != nil {
			return err
		}
		return s.expect(3)
	})
}
