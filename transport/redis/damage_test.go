package redis

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"usercast/internal/redistest"
)

// damaged is a server behind a relay that replaces the next reply that contains a text.
type damaged struct {
	*redistest.Server
	relay *redistest.Relay
	next  atomic.Pointer[damage]
}

type damage struct {
	in string // replace the reply that contains this text
	by func(old string) string
}

func startDamaged(t *testing.T) *damaged {
	d := &damaged{Server: redistest.Start(t)}
	d.relay = redistest.StartDamagingRelay(t, d.Addr(), func(reply []byte) []byte {
		if next := d.next.Load(); next != nil && bytes.Contains(reply, []byte(next.in)) && d.next.CompareAndSwap(next, nil) {
			return []byte(next.by(string(reply)))
		}
		return reply
	})
	return d
}

// replace waits until a reply that contains a text has been replaced.
func (d *damaged) replace(t *testing.T, in string, by func(old string) string, cause func()) {
	t.Helper()
	d.next.Store(&damage{in, by})
	cause()
	eventually(t, "a reply was damaged", func() bool { return d.next.Load() == nil })
}

// An invalid reply ends the subscription and is logged once. Messages that are published afterwards are delivered.
//
// Not parallel, so that the memory of other tests is not counted.
func TestMalformedReplyEndsTheSubscriptionOnly(t *testing.T) {
	server := startDamaged(t)
	for name, odd := range redistest.OddReplies {
		t.Run(name, func(t *testing.T) {
			h := start(t, parse(t, server.relay.URL(), ServerOptions{}), nil)
			h.awaitGeneration(t, 1)
			h.awaitDelivery(t, server.Server, "before")
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			server.replace(t, "to be damaged", func(string) string { return odd },
				func() { server.Do("publish", "user-42", "to be damaged") })
			// Later messages are not lost.
			server.Try("publish", "user-42", "just after")
			h.awaitGeneration(t, 2)
			runtime.ReadMemStats(&after)
			h.log.once(t, "WARN redis subscription lost", "reason=reply", "error=Redis sent an invalid reply")
			h.log.warnings(t, 1)
			h.log.mustNotContain(t, "user-42")
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20 {
				t.Errorf("%d MiB were allocated for it", grown>>20)
			}
			h.awaitDelivery(t, server.Server, "after")
			h.stop()
			eventually(t, "its connections were closed", func() bool { return len(connections(server.Server)) == 0 })
		})
	}
}

// A wrong but plausible length hides all later messages, and replies to PING count as a sign of life. Only the probe,
// which is not received, detects it.
func TestWrongLengthIsNoticedByTheProbe(t *testing.T) {
	t.Parallel()
	server := startDamaged(t)
	h := start(t, parse(t, server.relay.URL(), ServerOptions{}), func(c *PubSubConfig) {
		c.PingAfter = 50 * time.Millisecond
		c.ProbeEvery = 300 * time.Millisecond
		c.ProbeTimeout = 100 * time.Millisecond
	})
	h.awaitGeneration(t, 1)
	server.replace(t, "to be damaged", func(old string) string { return strings.Replace(old, "$13\r\n", "$300000000\r\n", 1) },
		func() { server.Do("publish", "user-42", "to be damaged") })
	h.awaitGeneration(t, 2)
	h.log.once(t, "WARN redis subscription lost", "reason=moved", "do not reach the subscription")
	h.awaitDelivery(t, server.Server, "after")
}

// The same without the permission to publish a probe: then the reply to a PING is missing.
func TestWrongLengthIsNoticedWithoutProbe(t *testing.T) {
	t.Parallel()
	server := startDamaged(t)
	server.Do("acl", "setuser", "app", "on", ">secret", "+@all", "-publish", "&*")
	h := start(t, parse(t, "redis://app:secret@"+server.relay.Addr(), ServerOptions{}), func(c *PubSubConfig) {
		c.PingAfter = 50 * time.Millisecond
		c.ProbeEvery = 300 * time.Millisecond
		c.ProbeTimeout = 100 * time.Millisecond
	})
	h.awaitGeneration(t, 1)
	server.replace(t, "to be damaged", func(old string) string { return strings.Replace(old, "$13\r\n", "$300000000\r\n", 1) },
		func() { server.Do("publish", "user-42", "to be damaged") })
	h.awaitGeneration(t, 2)
	h.log.once(t, "WARN redis subscription lost", "reason=silent")
	h.awaitDelivery(t, server.Server, "after")
}

// A payload over --max-payload is announced as a gap, but not kept in memory. Not parallel, so that the memory of
// other tests is not counted.
func TestTooLargePayloadIsNotHeld(t *testing.T) {
	const size = 40 << 20
	server := redistest.Start(t, "--client-output-buffer-limit", "pubsub 0 0 0")
	h := start(t, parse(t, server.URL(), ServerOptions{AnswerTimeout: patience}), func(c *PubSubConfig) { c.MaxPayload = 5 << 20 })
	h.awaitGeneration(t, 1)
	publish := func(payload any) {
		t.Helper()
		if n := server.Do("publish", "user-42:t", payload); n != int64(1) {
			t.Fatalf("published to %v", n)
		}
	}
	full := strings.Repeat("x", 5<<20)
	publish(full)
	h.awaitEvent(t, "42/t/"+full)
	large := bytes.Repeat([]byte("x"), size) // bytes, because Do does not copy them
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	publish(large)
	h.awaitEvent(t, "too large 42/t")
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > size/2 {
		t.Errorf("%d MiB were allocated to drop %d MiB", grown>>20, size>>20)
	}
	publish(full + "x")
	h.awaitDelivery(t, server, "after")
	if s := h.conserved(t); s.TooLarge != 2 || s.Generation != 1 {
		t.Errorf("stats %+v, want two that were too large and no new generation", s)
	}
	h.log.warnings(t, 0)
}

// Invalid replies to commands, of every kind.
var oddAnswers = map[string]func(old string) string{
	"empty array":      func(string) string { return "*0\r\n" },
	"nil array":        func(string) string { return "*-1\r\n" },
	"array of nothing": func(string) string { return "*1\r\n$-1\r\n" },
	"array of integer": func(string) string { return "*1\r\n:1\r\n" },
	"array of 10^9":    func(string) string { return "*1000000000\r\n" },
	"deep arrays":      func(string) string { return strings.Repeat("*1\r\n", 100) + ":1\r\n" },
	"wide arrays":      func(string) string { return strings.Repeat("*1048576\r\n", 8) },
	"integer":          func(string) string { return ":7\r\n" },
	"string":           func(string) string { return "$1\r\nx\r\n" },
	"string of 600 MB": func(string) string { return "$629145600\r\nx\r\n" },
	"set":              func(old string) string { return "~" + old[1:] },
	"null of RESP3":    func(string) string { return "_\r\n" },
	"map of arrays":    func(string) string { return "%1\r\n*0\r\n*0\r\n" },
	"one too many":     func(old string) string { return old + ":1\r\n" },
	"half":             func(old string) string { return old[:len(old)/2] + "\r\n" },
	"other lengths":    func(old string) string { return strings.ReplaceAll(old, "$1", "$2") },
	"no lengths":       func(old string) string { return strings.ReplaceAll(old, "$", "+") },
	"integers":         func(old string) string { return strings.ReplaceAll(old, "$", ":") },
	"arrays":           func(old string) string { return strings.ReplaceAll(old, "$", "*") },
}

// An invalid reply to the stream feed ends the connection, but does not lose an entry.
func TestMalformedReplyCostsTheStreamFeedNoEntry(t *testing.T) {
	t.Parallel()
	answers := map[string]string{"XREAD": "*1\r\n*2\r\n$3\r\nlog\r\n", "XRANGE": "*1\r\n*2\r\n$", "XINFO": "last-generated-id", "INFO": "run_id:"}
	for command, in := range answers {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			server := startDamaged(t)
			for name, odd := range oddAnswers {
				t.Run(name, func(t *testing.T) {
					server.Do("del", "log")
					xadd(server.Server, "user-1", "one")
					server.next.Store(&damage{in, odd})
					f := follow(t, parse(t, server.relay.URL(), ServerOptions{}), func(c *StreamConfig) {
						c.Block = 20 * time.Millisecond
						c.BackoffMax = 50 * time.Millisecond
						c.ProbeEvery = 50 * time.Millisecond
					})
					var ids []string
					for i := range 3 {
						ids = append(ids, xadd(server.Server, "user-1", fmt.Sprint(i)))
					}
					eventually(t, "a reply was damaged", func() bool { return server.next.Load() == nil })
					last := xadd(server.Server, "user-1", "last")
					f.await(t, "the last entry", func() bool {
						f.mu.Lock()
						defer f.mu.Unlock()
						return strings.Contains(strings.Join(f.events, ","), "last")
					})
					f.mu.Lock()
					defer f.mu.Unlock()
					received := strings.Join(f.events, ",")
					if strings.Contains(received, "lost") || strings.Contains(received, "reset") {
						return // announced: an invalid reply may look like a loss
					}
					for i := range 3 {
						if want := fmt.Sprintf(" %d", i); !strings.Contains(received, want) {
							t.Errorf("entry %s is missing in %q after %s, and last is %s", want, received, ids[i], last)
						}
					}
				})
			}
		})
	}
}

func TestMalformedReplyToACommandIsAnError(t *testing.T) {
	t.Parallel()
	server := startDamaged(t)
	c := NewCommands(parse(t, server.relay.URL(), ServerOptions{AnswerTimeout: 3 * time.Second})) // some answers are incomplete
	defer c.Close()
	for name, odd := range oddAnswers {
		t.Run(name, func(t *testing.T) {
			if _, err := c.Append(context.Background(), "log", "user-42", "x"); err != nil {
				t.Fatal(err) // the reply after the damaged one as well
			}
			server.next.Store(&damage{"$15\r\n", odd})
			id, err := c.Append(context.Background(), "log", "user-42", "x")
			if could := map[string]string{"integer": "7", "string": "x", "no lengths": "15", "integers": "15"}; err == nil && could[name] != id && name != "one too many" {
				t.Errorf("Append = %q without an error", id)
			}
			if server.next.Swap(nil) != nil {
				t.Error("no reply was damaged")
			}
		})
	}
}
