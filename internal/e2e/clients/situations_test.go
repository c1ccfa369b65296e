//go:build clients

package clients

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"usercast/internal/hubtest"
)

// Runs all situations, which takes a few minutes, and prints the results as a table.
func TestLibrariesInAllSituations(t *testing.T) { allSituations(t, libraries(t)) }

// Runs all situations with the browsers, and with pages that reopen a closed stream.
func TestBrowsersInAllSituations(t *testing.T) {
	all := browsers(t)
	allSituations(t, all)
	for _, situation := range []struct {
		name string
		run  func(t *testing.T, all []client)
	}{
		{"reopen after refusal", reopenAfterRefusal},
		{"reopen after 502", reopenAfterStatus},
		{"reopen behind a worker", reopenBehindWorker},
		{"reopen after network change", reopenAfterNetworkChange},
		{"network change, ping 2 s", surviveNetworkChange},
		{"network change, HTTP-2", surviveNetworkChangeOverHTTP2},
	} {
		t.Run(situation.name, func(t *testing.T) { situation.run(t, all) })
	}
}

func allSituations(t *testing.T, all []client) {
	t.Cleanup(func() { fmt.Println(markdown()) }) // not t.Log, which indents
	for _, situation := range []struct {
		name string
		run  func(t *testing.T, all []client)
	}{
		{"receives", receive},
		{"killed early", killBeforeFirstMessage},
		{"killed early, pubsub", killBeforeFirstMessagePubSub},
		{"cut early", cutBeforeFirstMessage},
		{"kill -9", func(t *testing.T, all []client) { restart(t, all, syscall.SIGKILL) }},
		{"drain", func(t *testing.T, all []client) { restart(t, all, syscall.SIGTERM) }},
		{"cut at every byte", cutAtEveryByte},
		{"busy", rejectAsBusy},
		{"busy for 5 s", rejectForSeconds},
		{"502, 503", answerWithStatus},
		{"idle for 36 s", idle},
	} {
		t.Run(situation.name, func(t *testing.T) { situation.run(t, all) })
	}
}

// receive publishes all kinds of payloads.
func receive(t *testing.T, all []client) {
	payloads := map[string]string{
		"1 MiB":      strings.Repeat("0123456789abcdef", 1<<16),
		"unicode":    "grüße, 日本, 🎉",
		"multi-line": "one\ntwo\n\nfour",
		"spaces":     " a b ",
	}
	each(t, startAll(t, startHub(t), all), func(s *session) error {
		for _, payload := range payloads {
			if err := s.hub.publish(s.user, payload); err != nil {
				return err
			}
		}
		if err := s.hub.publish(s.user, ""); err != nil {
			return err
		}
		if err := s.publish(1); err != nil {
			return err
		}
		if err := s.await("all messages have arrived", func() bool { return slices.Contains(s.received("message"), message(1)) }); err != nil {
			return err
		}
		got := s.received("message")
		for name, payload := range payloads {
			if !slices.Contains(got, payload) {
				return s.explain(fmt.Errorf("the message %q has not arrived unchanged", name))
			}
		}
		if len(got) != len(payloads)+1 {
			return s.explain(fmt.Errorf("%d messages arrived, want %d", len(got), len(payloads)+1))
		}
		s.note = "all"
		return nil
	})
}

// killBeforeFirstMessagePubSub publishes while no hub runs, so the messages are lost: the client
// must receive a gap.
func killBeforeFirstMessagePubSub(t *testing.T, all []client) {
	h := startHub(t)
	sessions := startAll(t, h, all)
	for _, s := range sessions {
		s.relay.refuse()
	}
	h.Stop(t, syscall.SIGKILL)
	for _, s := range sessions {
		if err := s.publish(1); err != nil {
			t.Fatal(err)
		}
	}
	h.Start(t)
	each(t, sessions, func(s *session) error {
		if err := s.relay.start(); err != nil {
			return err
		}
		// The gap stands for everything that was published before it.
		if err := s.await("the gap has arrived", func() bool { return len(s.received("gap")) > 0 }); err != nil {
			return err
		}
		if err := s.publish(2); err != nil {
			return err
		}
		if err := s.await("message 2 has arrived", func() bool { return slices.Contains(s.messages(), "2") }); err != nil {
			return err
		}
		if messages := s.messages(); len(messages) != 1 {
			return s.explain(&wrongMessages{messages, []string{"2"}})
		}
		s.note = "gap"
		return nil
	})
}

// cutBeforeFirstMessage publishes while the client is not connected.
func cutBeforeFirstMessage(t *testing.T, all []client) {
	each(t, startAll(t, startHub(t), all), func(s *session) error {
		s.relay.pause()
		s.relay.disconnect()
		for n := 1; n <= 3; n++ {
			if err := s.publish(n); err != nil {
				return err
			}
		}
		s.relay.resume()
		if err := s.awaitStream(2); err != nil {
			return err
		}
		return s.expect(4)
	})
}

// restart stops the hub while messages are published, and starts a new one.
func restart(t *testing.T, all []client, signal syscall.Signal) {
	h := startHub(t, "--feed", "stream", "--drain-delay", "0", "--drain", "1s")
	sessions := startAll(t, h, all)
	publish := func(from, to int) {
		for n := from; n <= to; n++ {
			for _, s := range sessions {
				if err := s.publish(n); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	publish(1, 5)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.Stop(t, signal)
	}()
	publish(6, 10)
	<-ended
	publish(11, 15)
	before := make([]int, len(sessions))
	for i, s := range sessions {
		before[i] = s.relay.count(opened)
	}
	h.Start(t)
	each(t, sessions, func(s *session) error {
		if err := s.awaitStream(before[slices.Index(sessions, s)] + 1); err != nil {
			return err
		}
		return s.expect(16)
	})
}

// cutAtEveryByte closes the connection after each byte of a message.
func cutAtEveryByte(t *testing.T, all []client) {
	each(t, startAll(t, startHub(t), all), func(s *session) error {
		if err := s.expect(1); err != nil {
			return err
		}
		n, streams := 1, 1
		for at := 1; ; at++ {
			length := make(chan int, 1)
			s.relay.cutNext(cut{reset: at%2 == 0, at: func(event string) int {
				end := len(event)
				switch {
				case s.truncates:
					end = strings.Index(event, "}") // an incomplete event with complete data is delivered
				case s.idAtLine:
					end--
				}
				length <- end
				if at >= end {
					return len(event)
				}
				return at
			}})
			n++
			if err := s.publish(n); err != nil {
				return err
			}
			var end int
			select {
			case end = <-length:
			case <-time.After(hubtest.Patience):
				return s.explain(fmt.Errorf("the hub has not sent message %d", n))
			}
			if at >= end {
				break
			}
			streams++
			if err := s.awaitStream(streams); err != nil {
				return err
			}
		}
		switch {
		case s.truncates:
			s.note = "ok inside the data"
		case s.idAtLine:
			s.note = "ok except for one byte"
		}
		return s.expect(n + 1)
	})
}

// rejectForSeconds counts the requests of a client that receives only busy events.
func rejectForSeconds(t *testing.T, all []client) {
	h := startHub(t, "--max-clients-per-user", "1", "--retry", "3s")
	var sessions []*session
	for i, c := range all {
		sessions = append(sessions, newSession(t, h, c, "u"+strconv.Itoa(i)))
	}
	each(t, sessions, func(s *session) error {
		release, err := h.occupy(s.user)
		if err != nil {
			return err
		}
		defer release()
		if err := s.start(); err != nil {
			return err
		}
		if err := s.await("the client was rejected", func() bool { return s.relay.count(busy) > 0 }); err != nil {
			return err
		}
		<-time.After(5 * time.Second)
		n := s.relay.count(requests)
		s.note = fmt.Sprintf("%d requests", n)
		if n > 25 {
			return s.explain(fmt.Errorf("%d requests in 5 s", n))
		}
		return nil
	})
}

// answerWithStatus simulates a proxy whose hub is temporarily down.
func answerWithStatus(t *testing.T, all []client) {
	each(t, startAll(t, startHub(t), all), func(s *session) error {
		if err := s.expect(1); err != nil {
			return err
		}
		for i, status := range []int{502, 503} {
			s.relay.answer(status)
			before := s.relay.count(requests)
			s.relay.disconnect()
			if err := s.await("the client has reconnected", func() bool { return s.relay.count(requests) > before }); err != nil {
				return err
			}
			if err := s.publish(i + 2); err != nil {
				return err
			}
			s.relay.answer(0)
			if s.standardStatus {
				after := s.relay.count(requests)
				<-time.After(5 * time.Second) // longer than the reconnection delay of every client
				if n := s.relay.count(requests); n != after {
					return s.explain(fmt.Errorf("the client has sent %d more requests", n-after))
				}
				s.note = "ends"
				return nil
			}
			if err := s.awaitStream(i + 2); err != nil {
				return err
			}
		}
		s.note = "survives"
		return s.expect(4)
	})
}

// idle waits longer than two ping intervals.
func idle(t *testing.T, all []client) {
	each(t, startAll(t, startHub(t), all), func(s *session) error {
		<-time.After(36 * time.Second)
		if n := s.relay.count(requests); n != 1 {
			return s.explain(fmt.Errorf("the client has sent %d requests, want 1", n))
		}
		return s.expect(1)
	})
}

// markdown returns the results as a Markdown table.
func markdown() string {
	table.mu.Lock()
	defer table.mu.Unlock()
	text := "| client | " + strings.Join(table.situations, " | ") + " |\n|---" + strings.Repeat("|---", len(table.situations)) + "|\n"
	for _, client := range table.clients {
		text += "| " + client
		for _, situation := range table.situations {
			text += " | " + table.results[[2]string{situation, client}]
		}
		text += " |\n"
	}
	return text
}
