package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/hubtest"
)

// Limits of docs/presence.md, with the time that a busy machine needs.
const (
	presenceArrival   = 10 * time.Second // after this time, a user with a stream is online
	presenceReload    = 10 * time.Second // a user without a stream for less than this stays online
	presenceLease     = 40 * time.Second // after this time, a user without a stream is offline
	presenceDeparture = 50 * time.Second // after this time, that is published
)

// A presenceWatch compares the set and the channel of online users in Redis with the streams of the pages. It does not use
// the code of the hub.
type presenceWatch struct {
	report func(format string, args ...any) // records a violation
	client *goredis.Client
	stop   context.CancelFunc
	done   sync.WaitGroup

	// Guarded by mu.
	mu      sync.Mutex
	visits  map[string][]*presenceVisit // by user, in order of asked
	events  map[string][]presenceEvent  // by user
	samples []presenceSample
	outages []outage // of Redis
	epoch   int      // number of subscriptions to the channel; messages between two of them may be missing
}

// A presenceVisit is one stream of a page.
type presenceVisit struct {
	asked        time.Time // before the request
	opened, read time.Time // when the first and the newest block were read; zero: none
	closed       time.Time // after the page closed the connection; zero: it is still open
}

// A presenceEvent is a message of the channel.
type presenceEvent struct {
	online bool
	at     time.Time
	epoch  int
}

// A presenceSample contains the members of the set whose score is not over.
type presenceSample struct {
	online   []string  // sorted
	from, to time.Time // before and after the request
	epoch    int
}

// An outage is a time in which Redis did not work.
type outage struct{ begin, end time.Time }

// watchPresence starts a watch. It ends with the test, or with finish.
func watchPresence(t *testing.T, addr string, report func(format string, args ...any)) *presenceWatch {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &presenceWatch{
		report: report, client: newRedisClient(addr), stop: cancel,
		visits: make(map[string][]*presenceVisit), events: make(map[string][]presenceEvent),
	}
	t.Cleanup(w.close)
	subscription, err := w.subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w.done.Go(func() { w.readEvents(ctx, subscription) })
	w.done.Go(func() { w.takeSamples(ctx) })
	return w
}

func (w *presenceWatch) close() {
	w.stop()
	w.done.Wait()
	_ = w.client.Close()
}

func (w *presenceWatch) subscribe(ctx context.Context) (*goredis.PubSub, error) {
	subscription := w.client.Subscribe(ctx, "usercast:user-presence")
	if _, err := subscription.Receive(ctx); err != nil {
		_ = subscription.Close()
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epoch++
	return subscription, nil
}

// readEvents reads from one subscription after the other.
func (w *presenceWatch) readEvents(ctx context.Context, subscription *goredis.PubSub) {
	for {
		for subscription == nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
			subscription, _ = w.subscribe(ctx)
		}
		unwatch := context.AfterFunc(ctx, func() { _ = subscription.Close() })
		m, err := subscription.ReceiveMessage(ctx)
		unwatch()
		if err != nil {
			_ = subscription.Close()
			subscription = nil
			continue
		}
		w.record(m.Payload)
	}
}

func (w *presenceWatch) record(payload string) {
	var e struct {
		User   string
		Online *bool
	}
	if err := json.Unmarshal([]byte(payload), &e); err != nil || e.User == "" || e.Online == nil {
		w.report("presence: message %q: %v", payload, err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events[e.User] = append(w.events[e.User], presenceEvent{*e.Online, time.Now(), w.epoch})
}

// online returns the users who are online, sorted.
func (w *presenceWatch) online(ctx context.Context) ([]string, error) {
	now, err := w.client.Time(ctx).Result()
	if err != nil {
		return nil, err
	}
	least := strconv.FormatFloat(float64(now.UnixMicro())/1e6, 'f', -1, 64)
	users, err := w.client.ZRangeArgs(ctx, goredis.ZRangeArgs{Key: "usercast:user-online", Start: least, Stop: "+inf", ByScore: true}).Result()
	slices.Sort(users)
	return users, err
}

func (w *presenceWatch) takeSamples(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		from := time.Now()
		if users, err := w.online(ctx); err == nil {
			w.mu.Lock()
			w.samples = append(w.samples, presenceSample{users, from, time.Now(), w.epoch})
			w.mu.Unlock()
		}
	}
}

// ask records that a page requests a stream.
func (w *presenceWatch) ask(user string) *presenceVisit {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := &presenceVisit{asked: time.Now()}
	w.visits[user] = append(w.visits[user], v)
	return v
}

// saw records that a page has read a block.
func (w *presenceWatch) saw(v *presenceVisit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v.read = time.Now()
	if v.opened.IsZero() {
		v.opened = v.read
	}
}

// left records that a page has closed its connection.
func (w *presenceWatch) left(v *presenceVisit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v.closed = time.Now()
}

// outage runs a fault of Redis.
func (w *presenceWatch) outage(fault func()) {
	begin := time.Now()
	fault()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outages = append(w.outages, outage{begin, time.Now()})
}

// isDisturbed reports whether there was an outage at some moment of a time. w.mu is held.
func (w *presenceWatch) isDisturbed(from, to time.Time) bool {
	return slices.ContainsFunc(w.outages, func(o outage) bool { return o.begin.Before(to) && o.end.After(from) })
}

// before returns the time that is d before at, where outages do not count. w.mu is held.
func (w *presenceWatch) before(at time.Time, d time.Duration) time.Time {
	for _, o := range slices.Backward(w.outages) {
		if o.begin.After(at) {
			continue
		}
		since := max(0, at.Sub(o.end))
		if since >= d {
			break
		}
		d -= since
		at = o.begin
	}
	return at.Add(-d)
}

// wasOpen reports whether one stream of a user was opened before a time and was read after another. w.mu is held.
func (w *presenceWatch) wasOpen(user string, opened, read time.Time) bool {
	return slices.ContainsFunc(w.visits[user], func(v *presenceVisit) bool {
		return !v.opened.IsZero() && v.opened.Before(opened) && v.read.After(read)
	})
}

// wasAbsent reports whether a user did not have a stream at any moment of a time. w.mu is held.
func (w *presenceWatch) wasAbsent(user string, from, to time.Time) bool {
	return !slices.ContainsFunc(w.visits[user], func(v *presenceVisit) bool {
		return v.asked.Before(to) && (v.closed.IsZero() || v.closed.After(from))
	})
}

// published returns the newest event of a user before a time. w.mu is held.
func (w *presenceWatch) published(user string, before time.Time) (e presenceEvent, ok bool) {
	events := w.events[user]
	i, _ := slices.BinarySearchFunc(events, before, func(e presenceEvent, t time.Time) int { return e.at.Compare(t) })
	if i == 0 {
		return e, false
	}
	return events[i-1], true
}

// awaitOnline waits until all users are online.
func (w *presenceWatch) awaitOnline(t *testing.T) {
	t.Helper()
	var offline []string
	defer func() {
		if len(offline) > 0 {
			t.Logf("users who are not online: %q", offline)
		}
	}()
	hubtest.Eventually(t, "all users are online", func() bool {
		online, err := w.online(t.Context())
		w.mu.Lock()
		defer w.mu.Unlock()
		offline = nil
		for user := range w.visits {
			if _, ok := slices.BinarySearch(online, user); !ok {
				offline = append(offline, user)
			}
		}
		return err == nil && len(offline) == 0
	})
}

// awaitOffline waits until all users are offline, and until this is published. Redis and the hubs work, and all pages
// have closed their streams.
func (w *presenceWatch) awaitOffline(t *testing.T) {
	t.Helper()
	hubtest.Within(t, presenceDeparture+hubtest.Patience, "all users are offline", func() bool {
		online, err := w.online(t.Context())
		w.mu.Lock()
		defer w.mu.Unlock()
		for user := range w.visits {
			if e, ok := w.published(user, time.Now()); ok && e.online {
				return false
			}
		}
		return err == nil && len(online) == 0
	})
}

// finish stops the watch, and compares what it has recorded with the streams of the pages. It returns the totals.
func (w *presenceWatch) finish() string {
	w.stop()
	w.done.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	var streams, online, offline, checks int
	for user, visits := range w.visits {
		streams += len(visits)
		on, off := w.checkEvents(user)
		online, offline = online+on, offline+off
		checks += w.checkSamples(user) + w.checkDepartures(user)
	}
	return fmt.Sprintf("presence: %d users, %d streams; published: %d online, %d offline; %d samples, %d checks; %d outages, %d subscriptions",
		len(w.visits), streams, online, offline, len(w.samples), checks, len(w.outages), w.epoch)
}

// checkEvents checks that each transition was published once, and that no user with a stream was published as offline.
func (w *presenceWatch) checkEvents(user string) (online, offline int) {
	var last presenceEvent
	for _, e := range w.events[user] {
		switch {
		case last.epoch == e.epoch && last.online == e.online:
			w.report("presence: user %s: online=%v is published twice, at %v and %v", user, e.online, last.at, e.at)
		case last.epoch == 0 && e.epoch == 1 && !e.online:
			w.report("presence: user %s is published as offline at %v, but was never online", user, e.at)
		}
		if last = e; e.online {
			online++
			continue
		}
		offline++
		if w.wasOpen(user, w.before(e.at, presenceArrival), e.at.Add(-presenceReload)) {
			w.report("presence: user %s with a stream is published as offline at %v", user, e.at)
		}
	}
	return online, offline
}

// checkSamples checks that the set contains a user with a stream, and does not contain one without.
func (w *presenceWatch) checkSamples(user string) (checks int) {
	for _, s := range w.samples {
		begin := s.from.Add(-presenceArrival)
		_, online := slices.BinarySearch(s.online, user)
		switch {
		case w.wasOpen(user, begin, s.to) && !w.isDisturbed(begin, s.to):
			checks++
			if !online {
				w.report("presence: user %s with a stream is not online at %v", user, s.to)
			}
			if e, ok := w.published(user, s.from); ok && e.epoch == s.epoch && !e.online {
				w.report("presence: user %s with a stream is not published as online at %v", user, s.to)
			}
		case w.wasAbsent(user, s.from.Add(-presenceLease), s.to):
			checks++
			if online {
				w.report("presence: user %s without a stream is online at %v", user, s.to)
			}
		}
	}
	return checks
}

// checkDepartures checks that the end of a user's last stream was published.
func (w *presenceWatch) checkDepartures(user string) (checks int) {
	for _, v := range w.visits[user] {
		due := v.closed.Add(presenceDeparture)
		if v.opened.IsZero() || v.closed.IsZero() || due.After(w.samples[len(w.samples)-1].to) ||
			!w.wasAbsent(user, v.closed, due) || w.isDisturbed(v.opened, due) {
			continue
		}
		checks++
		if e, ok := w.published(user, due); !ok || e.online {
			w.report("presence: user %s left at %v, which is not published: %+v", user, v.closed, e)
		}
	}
	return checks
}
