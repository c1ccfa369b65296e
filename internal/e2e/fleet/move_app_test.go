package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/hubtest"
)

func newRedisClient(addr string) *goredis.Client {
	return goredis.NewClient(&goredis.Options{
		Addr: addr, Protocol: 2, MaxRetries: -1, DialerRetries: 1, ReadTimeout: hubtest.Patience, DisableIdentity: true,
	})
}

// publish publishes numbered messages until stop is closed, and then a last one to all pages.
func (w *moveWorld) publish(client *goredis.Client, random *rand.Rand, stop <-chan struct{}) {
	for {
		m := message{user: w.users[random.IntN(len(w.users))], topic: []string{"", "", "a", "b"}[random.IntN(4)]}
		switch random.IntN(100) {
		case 0:
			m.user = "*"
		case 1:
			m.user, m.group = "", everyone
		default:
			if random.IntN(2) == 0 {
				m.user, m.group = "", randomGroup(random, w.groups)
			}
		}
		select {
		case <-stop:
			// No topic filter of a page excludes the topic "".
			if err := w.send(client, message{user: "*"}, true); err != nil {
				w.violation("publish: %v", err)
			}
			return
		case <-time.After(time.Duration(random.IntN(10)) * time.Millisecond):
		}
		if err := w.send(client, m, false); err != nil {
			w.violation("publish: %v", err)
			return
		}
	}
}

func (w *moveWorld) send(client *goredis.Client, m message, last bool) error {
	w.mu.Lock()
	number := len(w.sent)
	w.sent = append(w.sent, m)
	w.done = last
	w.mu.Unlock()
	return client.Publish(w.ctx, m.channel(), fmt.Sprint(number, " ", strings.Repeat("x", number%300))).Err()
}

// An observer is subscribed to the control channel, to know the order of all markers. It does not use the code of the
// hub.
type observer struct {
	mu          sync.Mutex
	markers     map[string]int // guarded by mu: position in the order of all markers
	generations map[string][]generation
	froms       map[string]bool // guarded by mu: publishers of which a marker was received
}

// A generation is a subscription of a hub.
type generation struct {
	first int       // position of its first marker
	at    time.Time // when it was received
}

// observe starts an observer, which ends with the test.
func observe(t *testing.T, addr string) *observer {
	t.Helper()
	o := &observer{markers: make(map[string]int), generations: make(map[string][]generation), froms: make(map[string]bool)}
	client := newRedisClient(addr)
	subscription := client.Subscribe(context.Background(), "usercast:user-control")
	if _, err := subscription.Receive(context.Background()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := subscription.ReceiveMessage(ctx)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				err = o.received(m.Payload)
			}
			if err != nil {
				t.Errorf("control channel: %v", err)
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		_ = subscription.Close()
		_ = client.Close()
		<-done
	})
	return o
}

func (o *observer) received(payload string) error {
	var m struct {
		Op, ID, From string
		Hub          struct{ Name string }
	}
	if err := json.Unmarshal([]byte(payload), &m); err != nil || m.Op != "marker" {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.markers[m.ID]; ok || m.ID == "" {
		return fmt.Errorf("marker %q was published twice", m.ID)
	}
	o.markers[m.ID] = len(o.markers)
	if !o.froms[m.From] {
		o.froms[m.From] = true
		o.generations[m.Hub.Name] = append(o.generations[m.Hub.Name], generation{o.markers[m.ID], time.Now()})
	}
	return nil
}

// knew reports whether a hub was subscribed since before the marker of an id, and until after a time. For a stream
// that was opened without an id, that is the time at which it was opened.
func (o *observer) knew(hub, id string, opened, until time.Time) bool {
	// A new generation announces its gap up to a few seconds before its first marker is received.
	const early = 10 * time.Second
	o.mu.Lock()
	defer o.mu.Unlock()
	list := o.generations[hub]
	for len(list) > 0 && list[len(list)-1].at.After(until.Add(early)) {
		list = list[:len(list)-1]
	}
	if len(list) == 0 {
		return false
	}
	newest := list[len(list)-1]
	if newest.at.After(until) {
		return false
	}
	if id == "" {
		return newest.at.Before(opened)
	}
	name, _, _ := strings.Cut(id, "-")
	position, ok := o.markers[name]
	return ok && position > newest.first
}

// generationsOf returns how many generations a hub has had.
func (o *observer) generationsOf(hub string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.generations[hub])
}
