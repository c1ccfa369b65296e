package stream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// A hub is ready when its first marker is back: then it knows all markers that are published later, and a page that a load
// balancer moves to it can resume. Without a marker it is ready after 5 s; a hub that will have none does not wait.
func TestR20ReadyAfterItsOwnMarker(t *testing.T) {
	t.Parallel()
	const within = 5 * time.Second
	t.Run("own marker", func(t *testing.T) {
		t.Parallel()
		arrived, release := make(chan struct{}, 10), make(chan struct{})
		h := hubtest.Run(t, hubtest.New(t, relayOfMarkers(t, func(reply []byte) []byte {
			arrived <- struct{}{}
			<-release
			return reply
		}).URL()))
		<-arrived
		h.AwaitSubscription(t, 1)
		if ready, why := readiness(t, h); ready || why != waiting {
			t.Errorf("before its marker: %v, %q", ready, why)
		}
		close(release)
		awaitReady(t, h)
		if id := h.Open(t, "user=42").LastID; !markerID.MatchString(id) {
			t.Errorf("a stream of a ready hub has the id %s, which does not count from a marker", id)
		}
	})
	t.Run("no marker arrives", func(t *testing.T) {
		t.Parallel()
		h := hubtest.Run(t, hubtest.New(t, relayOfMarkers(t, func([]byte) []byte { return nil }).URL()))
		h.AwaitSubscription(t, 1)
		began := time.Now()
		if why := awaitReady(t, h); why != waiting || time.Since(began) < within/2 {
			t.Errorf("ready after %v, before: %q", time.Since(began), why)
		}
	})
	t.Run("several redis", func(t *testing.T) {
		t.Parallel()
		h := hubtest.Run(t, hubtest.New(t, redistest.Start(t).URL(), "--redis", redistest.Start(t).URL()))
		if why := awaitReady(t, h); why == waiting {
			t.Error("it has waited for a marker")
		}
	})
	t.Run("stream feed", func(t *testing.T) {
		t.Parallel()
		h := hubtest.Run(t, hubtest.New(t, redistest.Start(t).URL(), "--feed", "stream"))
		if why := awaitReady(t, h); why == waiting {
			t.Error("it has waited for a marker")
		}
	})
}

const waiting = "waiting for the first marker"

var markerID = regexp.MustCompile(`^([a-z][a-z2-7]{12})-[0-9]+$`)

// relayOfMarkers starts a Redis and a relay to it that replaces what subscribers receive, if it contains a marker.
func relayOfMarkers(t *testing.T, replace func(reply []byte) []byte) *redistest.Relay {
	t.Helper()
	return redistest.StartDamagingRelay(t, redistest.Start(t).Addr(), func(reply []byte) []byte {
		if bytes.Contains(reply, []byte(`"op":"marker"`)) {
			return replace(reply)
		}
		return reply
	})
}

// readiness requests /readyz from both listeners.
func readiness(t *testing.T, h *hubtest.Hub) (ready bool, why string) {
	t.Helper()
	public := hubtest.Request(t, "GET", h.PublicURL("/readyz"))
	r := hubtest.Request(t, "GET", h.AdminURL("/readyz"))
	var status struct {
		Ready bool
		Why   string
	}
	if err := json.Unmarshal([]byte(r.Body), &status); err != nil || status.Ready != (r.Status == http.StatusOK) {
		t.Fatalf("status %d, %s, %v", r.Status, r.Body, err)
	}
	if public.Status == http.StatusOK && !status.Ready {
		t.Fatalf("the public listener says that the hub is ready, the other one: %s", r.Body)
	}
	return status.Ready, status.Why
}

// awaitReady waits until a hub is ready, and returns the last reason why it was not.
func awaitReady(t *testing.T, h *hubtest.Hub) (why string) {
	t.Helper()
	hubtest.Eventually(t, "the hub is ready", func() bool {
		ready, because := readiness(t, h)
		if !ready {
			why = because
		}
		return ready
	})
	return why
}

// A hub that drains publishes a marker at once, so that its pages take an id along that other hubs know, and one just
// before it exits: it may be the only one that knows what others have missed.
func TestR13DrainingHubTestifies(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	markers := markersOf(t, server)
	h := hubtest.Start(t, server, "--drain-delay", "2s", "--drain", "0s")
	p := h.Open(t, "user=42")
	awaitReady(t, h)
	hubtest.Eventually(t, "the first marker arrives", func() bool { return len(markers()) > 0 })
	first := len(markers())
	h.Terminate()
	p.WantEvent(t, "bye", `{"reason":"draining"}`)
	h.Wait(t)
	atBye := -1 // the marker that the page takes along
	hubtest.Eventually(t, "a marker was published before the exit", func() bool {
		all := markers()
		atBye = slices.IndexFunc(all, func(name string) bool { return strings.HasPrefix(p.LastID, name+"-") })
		return atBye >= 0 && len(all) > atBye+1
	})
	if atBye < first {
		t.Errorf("bye has the id %s, from before the drain", p.LastID)
	}
}

// markersOf subscribes to the control channel, and returns a function that returns the markers published so far.
func markersOf(t *testing.T, server *redistest.Server) func() []string {
	t.Helper()
	listener := hubtest.NewPublisher(t, server.Addr())
	if _, err := io.WriteString(listener.Conn, hubtest.RedisCommand("SUBSCRIBE", "usercast:user-control")); err != nil {
		t.Fatal(err)
	}
	var names atomic.Pointer[[]string]
	names.Store(new([]string))
	go func() {
		var received []byte
		for b := make([]byte, 64<<10); ; {
			n, err := listener.Conn.Read(b)
			received = append(received, b[:n]...)
			var found []string
			for _, m := range markerName.FindAllSubmatch(received, -1) {
				found = append(found, string(m[1]))
			}
			names.Store(&found)
			if err != nil {
				return
			}
		}
	}()
	hubtest.Eventually(t, "the subscription exists", func() bool {
		return strings.Contains(fmt.Sprint(server.Do("PUBSUB", "CHANNELS", "usercast:*")), "usercast:user-control")
	})
	return func() []string { return *names.Load() }
}

var markerName = regexp.MustCompile(`"op":"marker".*?"id":"([a-z2-7]{13})"`)

// The last marker must not delay the exit when Redis does not answer.
func TestDrainDoesNotWaitForRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	server.Freeze()
	defer server.Thaw()
	began := time.Now()
	h.Interrupt()
	h.Wait(t)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the hub exits after %v", took)
	}
}

// Two hubs without affinity: a page goes to the other hub whenever its stream ends, and some pages also by themselves. The
// hubs are restarted one after the other, while the app publishes. Each page receives every message exactly once and in
// order, and no gap. As behind a load balancer, no page comes to a hub that is stopping, or that has just started: the
// page could have an id from before.
func TestRollingRestartOfTwoHubsHasNoGap(t *testing.T) {
	t.Parallel()
	const users, pages, rounds = 10, 40, 2
	server := redistest.Start(t)
	var site balancedHubs
	for i := range site.hubs {
		site.hubs[i] = hubtest.StartInstance(t, server, "--retry", "100ms", "--drain-delay", "300ms", "--drain", "700ms", "--ping-interval", "500ms")
	}
	walkers := make([]*walker, pages)
	ended := make(chan error, pages)
	for i := range walkers {
		w := &walker{site: &site, user: i % users, next: i, polls: i%5 == 0, wanders: i%7 == 0}
		walkers[i] = w
		go func() { ended <- w.run() }()
	}
	// awaitIDs waits until each page has received another id than it has now.
	awaitIDs := func() {
		t.Helper()
		for i, w := range walkers {
			before := w.ids.Load()
			hubtest.Eventually(t, fmt.Sprintf("page %d receives an id", i), func() bool { return w.ids.Load() > before || w.failed.Load() })
		}
	}
	for i, w := range walkers {
		hubtest.Eventually(t, fmt.Sprintf("page %d has a position", i), func() bool { return w.ids.Load() > 0 })
	}

	app := hubtest.NewPublisher(t, server.Addr())
	stop, stopped := make(chan struct{}), make(chan struct{})
	sent := make([][]string, users)
	go func() {
		defer close(stopped)
		for n := 0; ; n++ {
			user, text := n%(users-1), fmt.Sprint(n) // the last user receives no messages of its own
			select {
			case <-time.After(5 * time.Millisecond):
			case <-stop:
				return
			}
			channel := fmt.Sprint("user-", user)
			if n%100 == 0 {
				channel = "user-*"
			}
			app.Publish(t, channel, text)
			for u := range sent {
				if u == user || n%100 == 0 {
					sent[u] = append(sent[u], text)
				}
			}
		}
	}()
	for range rounds {
		for i, h := range site.hubs {
			site.out[i].Store(true)
			if code := h.Stop(t, syscall.SIGTERM); code != 0 {
				t.Errorf("exit code %d", code)
			}
			h.Start(t)
			awaitIDs()
			site.out[i].Store(false)
		}
	}
	close(stop)
	<-stopped
	app.Publish(t, "user-*", last)
	for range walkers {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	moves := 0
	for i, w := range walkers {
		moves += w.moves
		if want := append(slices.Clone(sent[w.user]), last); !t.Failed() && !slices.Equal(w.received, want) {
			t.Errorf("page %d of user %d received %d messages, want %d:\n%s\n%s", i, w.user, len(w.received), len(want), w.received, want)
		}
	}
	if moves < pages*rounds {
		t.Errorf("%d pages have moved %d times", pages, moves)
	}
	t.Logf("%d pages moved %d times", pages, moves)
}

// last is the final message.
const last = "last"

// balancedHubs are two hubs. A page comes to those that are not out.
type balancedHubs struct {
	hubs [2]*hubtest.Instance
	out  [2]atomic.Bool
}

// A walker is a page that goes to the other hub with each new stream. It receives all its messages up to the last one.
type walker struct {
	site    *balancedHubs
	user    int
	next    int  // hub of the next stream
	polls   bool // poll=1
	wanders bool // also leaves a hub that does not drain

	lastID   string
	received []string
	moves    int          // streams after the first one
	ids      atomic.Int32 // ids that were received
	failed   atomic.Bool
}

func (w *walker) run() (err error) {
	defer func() { w.failed.Store(err != nil) }()
	for deadline := time.Now().Add(2 * hubtest.Patience); time.Now().Before(deadline); w.next++ {
		if w.site.out[w.next%2].Load() {
			continue
		}
		query := fmt.Sprint("user=", w.user)
		if w.polls {
			query += "&poll=1"
		}
		var headers []string
		if w.lastID != "" {
			headers = append(headers, "Last-Event-ID: "+w.lastID)
		}
		s, err := ssetest.Request(w.site.hubs[w.next%2].Public, query, headers...)
		if err != nil {
			continue // it has just stopped
		}
		s.LastID = w.lastID
		done, err := w.read(s)
		s.Close()
		if done || err != nil {
			return err
		}
		w.moves++
		time.Sleep(s.Retry)
	}
	return fmt.Errorf("a page of user %d has not received the last message; it moved %d times, its last id is %s", w.user, w.moves, w.lastID)
}

// read reads a stream up to its end, or to the last message.
func (w *walker) read(s *ssetest.Stream) (done bool, err error) {
	if s.Response.StatusCode != http.StatusOK {
		return false, fmt.Errorf("the response to a page is %s", s.Response.Status)
	}
	for {
		s.Conn.SetReadDeadline(time.Now().Add(ssetest.Patience))
		e, dispatched, err := s.Block()
		if s.LastID != w.lastID {
			w.lastID = s.LastID
			w.ids.Add(1)
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false, fmt.Errorf("a page of user %d receives nothing any more", w.user)
		case err != nil:
			return false, nil
		case !dispatched:
			continue
		}
		switch e.Type {
		case "message":
			w.received = append(w.received, e.Data)
			if e.Data == last {
				return true, nil
			}
			if w.wanders && len(w.received)%10 == 0 {
				return false, nil
			}
		case "busy", "bye":
		default:
			return false, fmt.Errorf("a page of user %d received %s %s at %s after %d streams", w.user, e.Type, e.Data, w.lastID, w.moves+1)
		}
	}
}
