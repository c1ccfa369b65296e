package fleet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"usercast/internal/app"
	"usercast/internal/hubtest"

	goredis "github.com/redis/go-redis/v9"
)

// A soakApp is the app that publishes to the pages.
type soakApp struct {
	world  *soakWorld
	client *goredis.Client
	rng    *rand.Rand // owned by run

	mu  sync.Mutex
	log []message // guarded by mu

	// With the stream feed, at the end of the test: all entries of the stream, in order.
	entries []soakEntry
}

type soakEntry struct {
	id     string
	number int
	message
}

var soakTopics = []string{"", "a", "b", "chat:7"}

func (a *soakApp) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(a.rng.IntN(20)) * time.Millisecond):
		}
		n, next := 1, a.recipient
		switch a.rng.IntN(400) {
		case 0, 1: // more than fits into a queue or the history of a user or a group
			to := a.recipient()
			if a.rng.IntN(2) == 0 {
				to = message{group: everyone}
			}
			n, next = 300+a.rng.IntN(500), func() message { return to }
		case 2:
			n, next = 100, func() message { return message{user: "*"} }
		}
		messages := make([]message, n)
		for i := range messages {
			m := next()
			m.topic, m.large = soakTopics[a.rng.IntN(len(soakTopics))], a.rng.IntN(300) == 0
			messages[i] = m
		}
		a.publish(messages)
	}
}

// recipient returns a message for a random recipient.
func (a *soakApp) recipient() message {
	switch n := a.rng.IntN(100); {
	case n < 5:
		return message{user: "*"}
	case n < 10:
		return message{group: everyone}
	case n < 40:
		return message{group: randomGroup(a.rng, soakGroups)}
	case n < 45:
		return message{user: soakUser(a.rng.IntN(soakLone))}
	}
	return message{user: soakUser(soakLone + a.rng.IntN(soakUsers))}
}

// publish publishes or appends the messages in one pipeline, and returns the number of the first.
func (a *soakApp) publish(messages []message) (first int, err error) {
	a.mu.Lock()
	first = len(a.log)
	a.log = append(a.log, messages...)
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), hubtest.Patience)
	defer cancel()
	pipe := a.client.Pipeline()
	for i, m := range messages {
		channel := m.channel()
		text := fmt.Sprintf("%d %s", first+i, strings.Repeat("x", a.rng.IntN(400)))
		if m.large {
			text = fmt.Sprintf("%d %s", first+i, strings.Repeat("x", 17<<10))
		}
		if a.world.feed == app.FeedStream {
			pipe.XAdd(ctx, &goredis.XAddArgs{Stream: app.DefaultStreamKey, Values: []any{"ch", channel, "data", text}})
		} else {
			pipe.Publish(ctx, channel, text)
		}
	}
	results, err := pipe.Exec(ctx)
	a.mu.Lock()
	for i, r := range results {
		a.log[first+i].uncertain = r.Err() != nil
	}
	a.mu.Unlock()
	if err != nil {
		a.world.count("app received no reply from Redis")
	}
	return first, err
}

// publishLast publishes a message to all users, and retries until Redis confirms it.
func (a *soakApp) publishLast() (number int) {
	for {
		if n, err := a.publish([]message{{user: "*"}}); err == nil {
			return n
		}
	}
}

// size returns the number of the next message.
func (a *soakApp) size() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.log)
}

// between returns the messages from one number to before another.
func (a *soakApp) between(from, before int) []message {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.log[from:max(from, before)])
}

func (a *soakApp) message(number int) (message, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if number < 0 || number >= len(a.log) {
		return message{}, false
	}
	return a.log[number], true
}

// readStream reads all entries of the stream from Redis.
func (a *soakApp) readStream() {
	ctx := context.Background()
	for from := "-"; ; {
		page, err := a.client.XRangeN(ctx, app.DefaultStreamKey, from, "+", 1000).Result()
		if err != nil {
			a.world.t.Fatal(err)
		}
		for _, entry := range page {
			text, _ := entry.Values["data"].(string)
			number, err := soakNumber(text)
			if m, ok := a.message(number); err == nil && ok {
				a.entries = append(a.entries, soakEntry{entry.ID, number, m})
			}
		}
		if len(page) < 1000 {
			return
		}
		from = "(" + page[len(page)-1].ID
	}
}

// soakNumber returns the message number in a payload.
func soakNumber(text string) (int, error) {
	digits, _, _ := strings.Cut(text, " ")
	return strconv.Atoi(digits)
}
