package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"usercast/hub"
	"usercast/internal/redistest"
)

// One connection to Redis, whatever the number of browsers.
func TestOneSubscriptionForFiveThousandStreams(t *testing.T) {
	if testing.Short() {
		t.Skip("opens 5,000 streams")
	}
	server := redistest.Start(t)
	h := startHub(t, server, "--max-clients-per-user", "0")
	app := newPublisher(t, server.Addr())
	pages := h.openPages(t, 5000, func(i int) string { return fmt.Sprintf("user=%d", i%1000) })

	if n := app.publish(t, "user-*", "to all"); n != 1 {
		t.Errorf("%d subscribers heard a message, want 1", n)
	}
	each(t, len(pages), func(i int) error { return pages[i].expect("message", "to all") })

	var ours []string
	for line := range strings.Lines(app.do(t, "CLIENT", "LIST")) {
		if strings.Contains(line, " name=usercast ") {
			ours = append(ours, line)
		}
	}
	if len(ours) != 1 || !strings.Contains(ours[0], " psub=1 ") {
		t.Errorf("want one connection, with one pattern, got:\n%s", strings.Join(ours, ""))
	}
	h.wantMetrics(t, map[string]float64{"usercast_clients": 5000, "usercast_users": 1000})
}

func TestTwentyThousandMessagesArriveInOrderOnce(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		const users, perUser = 200, 100
		server := redistest.Start(t)
		h := startHub(t, server, writer)
		app := newPublisher(t, server.Addr())
		pages := h.openPages(t, users, func(i int) string { return fmt.Sprintf("user=%d", i) })

		received := expectNumbers(pages, perUser)
		app.burst(t, users*perUser, func(i int) (string, string) {
			return fmt.Sprintf("user-%d:n", i%users), strconv.Itoa(i / users)
		})
		received(t)
		// What comes next is new: nothing came twice.
		app.publish(t, "user-*", "last")
		for _, p := range pages {
			p.want(t, "last")
		}
		h.wantMetrics(t, map[string]float64{
			"usercast_messages_received_total": users*perUser + 1,
			"usercast_deliveries_total":        users * (perUser + 1),
			"usercast_disconnects_total":       0,
		})
	})
}

// A stream's queue has room for what a pipelining app sends at once.
func TestBurstEndsNoHealthyStream(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		const streams, burst = 50, 1000
		server := redistest.Start(t)
		for name, channel := range map[string]func(i int) string{
			"one user after the other": func(i int) string { return fmt.Sprintf("user-%d", i/burst) },
			"all users in turn":        func(i int) string { return fmt.Sprintf("user-%d", i%streams) },
		} {
			t.Run(name, func(t *testing.T) {
				h := startHub(t, server, writer)
				app := newPublisher(t, server.Addr())
				pages := h.openPages(t, streams, func(i int) string { return fmt.Sprintf("user=%d", i) })
				received := expectNumbers(pages, burst)
				sent := make(map[string]int)
				app.burst(t, streams*burst, func(i int) (string, string) {
					c := channel(i)
					sent[c]++
					return c, strconv.Itoa(sent[c] - 1)
				})
				received(t)
				h.wantMetrics(t, map[string]float64{"usercast_clients": streams, "usercast_deliveries_total": streams * burst})
			})
		}
	})
}

// The same when each message goes to all: a broadcast is work for every stream.
func TestBurstOfBroadcastsEndsNoHealthyStream(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		const streams, burst = 50, 1000
		server := redistest.Start(t)
		h := startHub(t, server, writer)
		app := newPublisher(t, server.Addr())
		pages := h.openPages(t, streams, func(i int) string { return fmt.Sprintf("user=%d", i) })
		received := expectNumbers(pages, burst)
		app.burst(t, burst, func(i int) (string, string) { return "user-*", strconv.Itoa(i) })
		received(t)
	})
}

// A page that stops reading costs its own stream, not its neighbours'.
func TestReaderThatStopsIsEndedAloneAndOnTime(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the write timeout")
	}
	writers(t, func(t *testing.T, writer string) {
		t.Parallel() // mostly waits
		server := redistest.Start(t)
		h := startHub(t, server, writer, "--write-timeout", "2s", "--send-buffer", "4096")
		app := newPublisher(t, server.Addr())
		healthy := h.openPage(t, "user=42")
		stopped := h.openPage(t, "user=42")

		// More than the kernel's buffers take, far less than the queue's bound.
		const messages, length = 40, 20_000
		large := strings.Repeat("x", length)
		go func() {
			for range messages {
				healthy.expect("message", large)
			}
		}()
		for range messages {
			app.publish(t, "user-42", large)
		}
		eventually(t, "the stopped stream has ended", func() bool { return h.Hub().Stats().Clients == 1 })
		if s := h.Hub().Stats(); s.Disconnects[hub.ReasonSlow] != 1 {
			t.Errorf("disconnects: %v, want one slow", s.Disconnects)
		}
		for {
			_, err := stopped.next()
			if err == nil {
				continue
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection of the stopped stream was not closed")
			}
			break
		}
	})
}

// expectNumbers reads all pages at once; what it returns waits for them.
func expectNumbers(pages []*page, n int) (wait func(*testing.T)) {
	received := make(chan error, len(pages))
	for _, p := range pages {
		go func() { received <- p.expectNumbers(n) }()
	}
	return func(t *testing.T) {
		t.Helper()
		for range pages {
			if err := <-received; err != nil {
				t.Error(err)
			}
		}
	}
}

// expectNumbers wants the messages 0…n-1 with growing ids.
func (p *page) expectNumbers(n int) error {
	var last uint64
	for i := range n {
		if err := p.expect("message", strconv.Itoa(i)); err != nil {
			return err
		}
		_, digits, _ := strings.Cut(p.lastID, "-")
		seq, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || seq <= last {
			return fmt.Errorf("message %d has the id %q, after %d", i, p.lastID, last)
		}
		last = seq
	}
	return nil
}
