package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"testing"
	"time"

	"usercast/internal/redistest"
)

func TestKilledRedisEndsNoStreamAndIsAnnouncedToAll(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		const streams = 1000
		server := redistest.Start(t)
		h := startHub(t, server, writer)
		pages := h.openPages(t, streams, func(i int) string { return fmt.Sprintf("user=%d", i) })
		before := newPublisher(t, server.Addr())
		before.publish(t, "user-*", "before")
		each(t, streams, func(i int) error { return pages[i].expect("message", "before") })

		server.Kill()
		eventually(t, "the hub knows that Redis is away", func() bool { return !h.FeedStats()[0].Connected })
		if a := ask(t, "GET", h.public("/readyz")); a.code != 200 {
			t.Errorf("/readyz is %d while Redis is away: a balancer would end every EventSource for good", a.code)
		}
		if a := ask(t, "GET", h.private("/readyz")); a.code != 200 || a.feeds(t)[0].Connected {
			t.Errorf("the admin listener tells of no outage: %d %s", a.code, a.body)
		}
		h.wantMetrics(t, map[string]float64{"usercast_redis_connected": 0})

		server.Restart()
		within(t, 2*time.Second, "the hub has subscribed again", func() bool { return h.FeedStats()[0].Generation == 2 })
		after := newPublisher(t, server.Addr())
		after.publish(t, "user-*", "to all")
		for i := range streams {
			after.publish(t, fmt.Sprintf("user-%d", i), fmt.Sprint("after ", i))
		}
		each(t, streams, func(i int) error {
			if err := pages[i].expect("gap", `{"reason":"redis-reconnect"}`); err != nil {
				return err
			}
			if err := pages[i].expect("message", "to all"); err != nil {
				return err
			}
			return pages[i].expect("message", fmt.Sprint("after ", i))
		})
		h.wantMetrics(t, map[string]float64{
			"usercast_clients":        streams,
			"usercast_connects_total": streams, // nobody has left and come back
			"usercast_gaps_total" + reasonLabel("redis-reconnect"): streams,
			"usercast_redis_reconnects_total":                      1,
			"usercast_redis_connected":                             1,
		})
	})
}

// A stream with nothing else to get hears of the gap too, in time, and not at
// the same moment as all the others.
func TestGapReachesQuietStreamsSpreadOverAFewSeconds(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		t.Parallel() // mostly waits
		const streams = 600
		server := redistest.Start(t)
		h := startHub(t, server, writer)
		pages := h.openPages(t, streams, func(i int) string { return fmt.Sprintf("user=%d", i) })
		server.Restart()
		heard := make(chan time.Time, streams)
		for _, p := range pages {
			go func() {
				if err := p.expect("gap", `{"reason":"redis-reconnect"}`); err != nil {
					t.Error(err)
				}
				heard <- time.Now()
			}()
		}
		first := <-heard
		last := first
		for range streams - 1 {
			last = <-heard
		}
		if over := last.Sub(first); over < 300*time.Millisecond || over > gapSpread+2*time.Second {
			t.Errorf("%d pages refetch within %v", streams, over)
		}
	})
}

func TestHubStartsWithoutRedis(t *testing.T) {
	server := redistest.Start(t)
	relay := redistest.StartRelay(t, server.Addr()) // it counts the attempts
	server.Kill()
	h := runHub(t, newHub(t, relay.URL()))

	eventually(t, "the hub has tried often", func() bool { return relay.Accepted() > 3 })
	if n := len(h.log.lines("level=WARN")); n != 1 {
		t.Errorf("%d warnings about one fault:\n%s", n, h.log)
	}
	if a := ask(t, "GET", h.public("/readyz")); a.code != 503 || a.body != "not ready\n" {
		t.Errorf("public /readyz before the first subscription: %d %q", a.code, a.body)
	}
	if a := ask(t, "GET", h.private("/readyz")); a.code != 503 || a.feeds(t)[0].Connected {
		t.Errorf("admin /readyz before the first subscription: %d %q", a.code, a.body)
	}
	if a := ask(t, "GET", h.public("/livez")); a.code != 200 {
		t.Errorf("/livez without Redis: %d", a.code)
	}
	early := h.openPage(t, "user=42") // a 200 and a position, and then nothing

	server.Restart()
	eventually(t, "the hub is ready", func() bool { return ask(t, "GET", h.public("/readyz")).code == 200 })
	late := h.openPage(t, "user=42")
	newPublisher(t, server.Addr()).publish(t, "user-42", "hello")
	early.wantGap(t, "redis-reconnect")
	early.want(t, "hello")
	late.want(t, "hello")
	if a := ask(t, "GET", h.private("/readyz")); a.code != 200 || !a.feeds(t)[0].Connected {
		t.Errorf("admin /readyz after the first subscription: %d %q", a.code, a.body)
	}
	h.wantMetrics(t, map[string]float64{"usercast_redis_reconnects_total": 0})

	// Nor does a later outage turn it red.
	server.Kill()
	eventually(t, "the hub knows that Redis is away", func() bool { return !h.FeedStats()[0].Connected })
	if a := ask(t, "GET", h.public("/readyz")); a.code != 200 {
		t.Errorf("public /readyz in an outage: %d", a.code)
	}
}

// The promise: whatever happens to the subscription, what a page has not got is
// announced, in its place.
func TestNothingIsMissedUnannounced(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		const streams, cuts = 30, 4
		server := redistest.Start(t)
		h := startHub(t, server, writer)
		app := newPublisher(t, server.Addr())
		pages := h.openPages(t, streams, func(i int) string { return fmt.Sprintf("user=%d", i) })
		missed := make(chan int, streams)
		for _, p := range pages {
			go func() {
				n, err := p.countMissed()
				if err != nil {
					t.Error(err)
				}
				missed <- n
			}()
		}
		n := 0
		number := func() string { n++; return fmt.Sprint(n - 1) }
		for generation := range cuts {
			// Redis does in one go what comes in one piece: nobody hears this one.
			app.conn.SetDeadline(time.Now().Add(patience))
			if _, err := io.WriteString(app.conn, command("CLIENT", "KILL", "TYPE", "pubsub")+command("PUBLISH", "user-*", number())); err != nil {
				t.Fatal(err)
			}
			for _, what := range []string{"cut", "heard"} {
				if got, err := app.reply(); err != nil || what == "heard" && got != "0" {
					t.Fatalf("%s: %s, %v", what, got, err)
				}
			}
			for h.FeedStats()[0].Generation < uint64(generation+2) {
				app.do(t, "PUBLISH", "user-*", number()) // perhaps to nobody
			}
			app.publish(t, "user-*", number()) // else it would not show that one is missing
		}
		h.waitUntilSubscribed(t, cuts+1)
		app.publish(t, "user-*", "last")
		total := 0
		for range pages {
			total += <-missed
		}
		if total < streams*cuts {
			t.Errorf("only %d are missing: this proves nothing", total)
		}
		h.wantMetrics(t, map[string]float64{
			"usercast_gaps_total":             streams * cuts,
			"usercast_clients":                streams,
			"usercast_redis_reconnects_total": cuts,
		})
	})
}

// countMissed reads numbers up to "last" and returns how many were left out. It is
// an error if that was not announced before the next number.
func (p *page) countMissed() (missed int, err error) {
	next, announced := 0, false
	for {
		e, err := p.next()
		switch {
		case err != nil:
			return missed, err
		case e.name == "gap":
			announced = true
			continue
		case e.data == "last":
			return missed, nil
		}
		n, err := strconv.Atoi(e.data)
		if err != nil || n < next || n > next && !announced {
			return missed, fmt.Errorf("got %s %q after %d, gap announced: %v", e.name, e.data, next-1, announced)
		}
		missed += n - next
		next, announced = n+1, false
	}
}

// feeds reads the body of the admin listener's /readyz.
func (a answer) feeds(t *testing.T) []struct{ Connected bool } {
	t.Helper()
	var status struct{ Feeds []struct{ Connected bool } }
	if err := json.Unmarshal([]byte(a.body), &status); err != nil || len(status.Feeds) == 0 {
		t.Fatalf("/readyz says %q: %v", a.body, err)
	}
	return status.Feeds
}
