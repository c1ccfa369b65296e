package hub_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
)

func mark(h *hub.PubSub) string {
	name := hub.NewMarkerName()
	h.Mark(name)
	return name.String()
}

// takeIDs drains l and returns its frames with the texts of their ids: "text@id".
func takeIDs(h *hub.PubSub, l *listener) (got []string) {
	for {
		frames, _ := l.Take(nil)
		if frames == nil {
			return got
		}
		for _, f := range frames {
			got = append(got, string(f.Wire)+"@"+text(h.Hub, f.ID))
		}
		l.Settle(frames, len(frames))
	}
}

// position returns the text of a client's position.
func position(t *testing.T, h *hub.PubSub, l *listener) string {
	t.Helper()
	id, ok := l.Position()
	if !ok {
		t.Fatal("no position")
	}
	return text(h.Hub, id)
}

// R4: a client that opened, or left, before the first subscription may have missed something.
func TestR4FirstGenerationIsAGap(t *testing.T) {
	t.Parallel()
	h := withHistory(t, nil)
	open, left := listen(t, h, hub.Options{User: "42"}), listen(t, h, hub.Options{User: "42"})
	id := position(t, h, left)
	left.End(hub.ReasonClosed)
	h.Begin()
	h.Publish(hub.User("42"), "", "first")
	wantFrames(t, open, "gap redis-reconnect", "first")
	wantFrames(t, register(t, h, hub.Options{User: "42", Resume: id}), "gap redis-reconnect", "first")
}

// R4: what other hubs counted after the end of a generation of this hub is not known.
func TestR4OldIDsEndWithTheirGeneration(t *testing.T) {
	t.Parallel()
	h := withHistory(t, nil)
	listen(t, h, hub.Options{User: "42"})
	h.Begin()
	m := mark(h)
	for i := range 3 {
		h.Publish(hub.User("42"), "", fmt.Sprint(i+1))
	}
	h.Begin()
	h.Publish(hub.User("42"), "", "4")
	n := mark(h)
	h.Publish(hub.User("42"), "", "5")
	for id, want := range map[string][]string{
		m + "-2": {"3", "gap redis-reconnect", "4", "5"},
		m + "-3": {"gap redis-reconnect", "4", "5"}, // the end
		m + "-4": {"gap unknown-id"},
		m + "-5": {"gap unknown-id"},
		n + "-0": {"5"},
		n + "-1": nil,
		n + "-2": {"gap unknown-id"},
	} {
		if got, _ := register(t, h, hub.Options{User: "42", Resume: id}).drain(); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", id, got, want)
		}
	}
}

// R5: other hubs do not have the gaps of this one, and must count alike.
func TestR5GapTakesNoNumber(t *testing.T) {
	t.Parallel()
	h := withHistory(t, nil)
	l := listen(t, h, hub.Options{User: "42"})
	b := h.Boot()
	var got []string
	take := func() { got = append(got, takeIDs(h, l)...) }
	h.Begin()
	take()
	first := mark(h)
	at := []string{position(t, h, l)} // the gap is before the marker
	h.Publish(hub.User("42"), "", "1")
	take()
	m := mark(h)
	at = append(at, position(t, h, l))
	h.GapForAll(hub.GapMissed)
	take()
	h.Publish(hub.User("7"), "", "of another")
	h.GapForAll(hub.GapMissed)
	take()
	at = append(at, position(t, h, l))
	h.Skip()
	at = append(at, position(t, h, l))
	h.GapFor(hub.User("42"), "", hub.GapTooLarge)
	take()
	h.Publish(hub.User("42"), "", "2")
	take()
	want := []string{
		"gap redis-reconnect@" + b + "-0." + b + ".1", "1@" + first + "-1", "gap missed@" + m + "-0." + b + ".1",
		"gap missed@" + m + "-1." + b + ".1",
		"gap too-large@" + m + "-3", "2@" + m + "-4",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if want := []string{first + "-0", m + "-0", m + "-1." + b + ".1", m + "-2"}; !slices.Equal(at, want) {
		t.Errorf("positions %q, want %q", at, want)
	}
}

// R5: the suffix of an id tells which gaps of this hub its client has received. It has not received those of this hub if
// the suffix is another hub's.
func TestR5SuffixIsOursOnly(t *testing.T) {
	t.Parallel()
	h := withHistory(t, nil)
	listen(t, h, hub.Options{User: "42"})
	b := h.Boot()
	h.Publish(hub.User("42"), "", "1")
	h.GapForAll(hub.GapRedisReconnect)
	m := mark(h)
	h.GapForAll(hub.GapMissed)
	h.Publish(hub.User("42"), "", "2")
	h.GapForAll(hub.GapFeedReset)
	const first, second, third = "gap redis-reconnect", "gap missed", "gap feed-reset"
	for id, want := range map[string][]string{
		b + "-0":                      {"1", first, second, "2", third},
		b + "-1":                      {first, second, "2", third},
		b + "-1." + b + ".1":          {second, "2", third},
		m + "-0":                      {second, "2", third}, // the first gap is before the marker
		m + "-0." + b + ".1":          {second, "2", third},
		m + "-0." + b + ".2":          {"2", third},
		m + "-0.abcdefgh.2":           {second, "2", third},
		m + "-1":                      {third},
		m + "-1.abcdefgh.1":           {third},
		m + "-1.abcdefgh":             {third},
		m + "-1." + b + ".1":          nil,
		m + "-1." + b + ".99":         nil,
		m + "-1." + b + ".x":          {"gap unknown-id"},
		m + "-1." + b:                 {"gap unknown-id"},
		m + "-1." + b + ".01":         {"gap unknown-id"},
		m + "-1." + b + ".4294967296": {"gap unknown-id"},
		m + "-01":                     {"gap unknown-id"},
		m + "-2." + b + ".1":          {"gap unknown-id"},
		"abcdefghijklm-1":             {"gap unknown-id"},
		strings.ToUpper(m) + "-1":     {"gap unknown-id"},
	} {
		if got, _ := register(t, h, hub.Options{User: "42", Resume: id}).drain(); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", id, got, want)
		}
	}
}

// R6: the place is compared without an addition, which would overflow.
func TestR6HugeCountIsUnknown(t *testing.T) {
	t.Parallel()
	h := withHistory(t, nil)
	listen(t, h, hub.Options{User: "42"})
	for range 5 {
		h.Publish(hub.User("42"), "", "")
	}
	m := mark(h)
	h.Publish(hub.User("42"), "", "")
	for _, digits := range []string{"2", "18446744073709551611", "18446744073709551612", "18446744073709551615", "18446744073709551616"} {
		wantFrames(t, register(t, h, hub.Options{User: "42", Resume: m + "-" + digits}), "gap unknown-id")
	}
}

// R6: a hub that is behind does not know yet what is published between the client's place and its own.
func TestR6ClientWaitsUntilTheHubHasCaughtUp(t *testing.T) {
	t.Parallel()
	for name, setUp := range map[string]func(h *hub.PubSub, m hub.MarkerName){
		"unknown marker": func(h *hub.PubSub, m hub.MarkerName) {},
		"ahead":          func(h *hub.PubSub, m hub.MarkerName) { h.Mark(m) },
	} {
		t.Run(name, func(t *testing.T) {
			h := withHistory(t, nil)
			wakes := 0
			h.AwaitPlaces(func() { wakes++ })
			if h.Waiting() != 0 {
				t.Error("a ticket without clients")
			}
			h.Begin()
			m := hub.NewMarkerName()
			setUp(h, m)
			id := m.String() + "-2"
			l := register(t, h, hub.Options{User: "42", Resume: id})
			other := register(t, h, hub.Options{User: "42", Resume: id}) // ends while it waits
			ticket := h.Waiting()
			late := register(t, h, hub.Options{User: "42", Resume: id})
			if l.Opening() != hub.UnknownID || wakes != 3 || ticket == 0 {
				t.Fatalf("opening %v, %d calls of wake, ticket %d", l.Opening(), wakes, ticket)
			}
			waits := func(l *listener) {
				t.Helper()
				if frames, reason := l.Take(nil); frames != nil || reason != 0 {
					t.Fatalf("took %v, %v", frames, reason)
				}
				if id, ok := l.Position(); ok {
					t.Fatalf("position %v", id)
				}
			}
			waits(l)
			h.Mark(m) // no effect if it is known
			h.Publish(hub.User("42"), "", "1")
			h.Publish(hub.User("42"), "", "2")
			h.GapForAll(hub.GapMissed)
			h.Publish(hub.User("42"), "", "3")
			waits(l)
			waits(late)
			other.Finish(hub.ReasonDrain)
			if got, reason := other.drain(); got != nil || reason != hub.ReasonDrain {
				t.Errorf("took %q, %v", got, reason)
			}
			if id, ok := other.Position(); ok { // bye repeats the client's own id
				t.Errorf("position %v at the end", id)
			}
			if h.Received(ticket) {
				t.Error("a marker is unknown")
			}
			if l.wakes.Load() != 1 {
				t.Errorf("woken %d times", l.wakes.Load())
			}
			h.Publish(hub.User("42"), "", "4")
			wantFrames(t, l, "gap missed", "3", "4")
			waits(late)
			h.Received(h.Waiting())
			wantFrames(t, late, "gap missed", "3", "4")
			if h.Waiting() != 0 {
				t.Error("a ticket without clients")
			}
		})
	}
}

// R6: once everything has arrived, a place that this hub does not have is unknown. A new generation begins the wait again.
func TestR6WaitEnds(t *testing.T) {
	t.Parallel()
	h := withHistory(t, nil)
	wakes := 0
	h.AwaitPlaces(func() { wakes++ })
	h.Begin()
	m := mark(h)
	h.Publish(hub.User("42"), "", "1")
	ahead := register(t, h, hub.Options{User: "42", Resume: m + "-2"})
	first := h.Waiting()
	h.Begin()
	if wakes != 2 {
		t.Errorf("%d calls of wake", wakes)
	}
	h.Received(first)
	h.Confirmed(first)
	wantFrames(t, ahead)
	h.Received(h.Waiting())
	if got, want := takeIDs(h, ahead), []string{"gap unknown-id@" + h.Boot() + "-1." + h.Boot() + ".1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// A client with an id that no hub can have given does not wait.
	for _, id := range []string{"strange", "1526919030474-0", "kq3abcde", h.Boot() + "-99", m + "-18446744073709551616", m + "-"} {
		wantFrames(t, register(t, h, hub.Options{User: "42", Resume: id}), "gap unknown-id")
	}
}

// R6: a generation that begins while clients are located makes the others wait again: what lies between the two generations
// is not known. Many clients are located in parts, with the lock released in between.
func TestR6GenerationBeginsWhileClientsAreLocated(t *testing.T) {
	t.Parallel()
	h := withHistory(t, func(c *hub.Config) { c.MaxClientsPerUser = hub.NoLimit })
	h.AwaitPlaces(func() {})
	h.Begin()
	id := hub.NewMarkerName().String() + "-1"
	var begin sync.Once
	var began sync.WaitGroup
	var all []*listener
	for range 5000 {
		l := &listener{onWake: func() { begin.Do(func() { began.Go(h.Begin) }) }}
		c, err := h.Register(hub.Options{User: "42", Resume: id, Consumer: l})
		if err != nil {
			t.Fatal(err)
		}
		l.Client = c
		l.Take(nil) // nothing so far
		all = append(all, l)
	}
	ticket := h.Waiting()
	h.Received(ticket)
	h.Confirmed(ticket)
	began.Wait()
	hub.AwaitBroadcasts(h.Hub)
	for _, l := range all {
		if got, _ := l.drain(); got != nil && !slices.Equal(got, []string{"gap unknown-id", "gap redis-reconnect"}) {
			t.Fatalf("got %q in the new generation", got)
		}
	}
}

// R7: a marker that is still unknown may be one of another server.
func TestR7UnknownMarkerWaitsForConfirmed(t *testing.T) {
	t.Parallel()
	h := withHistory(t, nil)
	h.AwaitPlaces(func() {})
	h.Begin()
	known := mark(h)
	h.Publish(hub.User("42"), "", "1")
	m := hub.NewMarkerName()
	l := register(t, h, hub.Options{User: "42", Resume: m.String() + "-1"})
	foreign := register(t, h, hub.Options{User: "42", Resume: "abcdefgh-1"}) // by a hub that does not know a marker
	found := register(t, h, hub.Options{User: "42", Resume: known + "-9"})
	ticket := h.Waiting()
	if !h.Received(ticket) {
		t.Fatal("no marker is unknown")
	}
	wantFrames(t, found, "gap unknown-id")
	late := register(t, h, hub.Options{User: "42", Resume: m.String() + "-1"})
	for _, l := range []*listener{l, foreign, late} {
		wantFrames(t, l)
	}
	h.Publish(hub.User("42"), "", "2")
	h.Confirmed(ticket)
	for _, l := range []*listener{l, foreign} {
		if got, want := takeIDs(h, l), []string{"gap unknown-id@" + known + "-2"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	wantFrames(t, late)
	h.Publish(hub.User("42"), "", "3")
	for _, l := range []*listener{l, foreign} {
		wantFrames(t, l, "3")
	}
	late.End(hub.ReasonClosed)
	if h.Waiting() != 0 {
		t.Error("a client that has ended waits")
	}
}

// R17: a gap that has waited for its turn is written with the position of that moment, because its own id does not count from a
// marker: a client that moves would receive a second gap. Before the next message of its stream, it has its own id.
func TestR17WaitingGapHasTheIDOfItsMoment(t *testing.T) {
	t.Parallel()
	for _, fanOut := range []int{hub.NoLimit, 1} { // at once, in parts
		h := withHistory(t, func(c *hub.Config) { c.FanOut = fanOut })
		idle, busy := listen(t, h, hub.Options{User: "42"}), listen(t, h, hub.Options{User: "7"})
		left := listen(t, h, hub.Options{User: "43"})
		h.Begin()
		left.Finish(hub.ReasonDrain)
		m, b := mark(h), h.Boot()
		h.Publish(hub.User("7"), "", "1")
		h.Skip()
		own := "gap redis-reconnect@" + b + "-0." + b + ".1"
		hub.AwaitBroadcasts(h.Hub)
		for l, want := range map[*listener][]string{idle: {"gap redis-reconnect@" + m + "-2"}, busy: {own, "1@" + m + "-1"}, left: {own}} {
			if got := takeIDs(h, l); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if s := h.Stats(); s.QueueBytes != 0 || s.Gaps[hub.GapRedisReconnect] != 3 {
			t.Errorf("%d bytes queued, %d gaps written", s.QueueBytes, s.Gaps[hub.GapRedisReconnect])
		}
		if got := position(t, h, idle); got != m+"-2" {
			t.Errorf("position %s", got)
		}
	}
}

// R18: what is published between the end of a stream and its last block is not before the id of that block.
func TestR18ByeIsWhereTheStreamLeft(t *testing.T) {
	t.Parallel()
	h := withHistory(t, nil)
	h.Begin()
	m := mark(h)
	quiet, pending := listen(t, h, hub.Options{User: "42"}), listen(t, h, hub.Options{User: "42"})
	h.GapForAll(hub.GapMissed)
	quiet.drain()
	h.Publish(hub.User("7"), "", "of another")
	for _, l := range []*listener{quiet, pending} {
		l.Finish(hub.ReasonDrain)
	}
	h.Publish(hub.User("42"), "", "after")
	mark(h)
	h.Publish(hub.User("7"), "", "of another")
	for _, l := range []*listener{quiet, pending} {
		l.drain()
		if got := position(t, h, l); got != m+"-1" {
			t.Errorf("position %s, want %s-1", got, m)
		}
		wantFrames(t, register(t, h, hub.Options{User: "42", Resume: position(t, h, l)}), "after")
	}
}

// A server publishes to several hubs in one order. Each receives it at its own pace.
type server struct {
	mu    sync.Mutex
	hubs  []*hub.PubSub
	links []chan func(*hub.PubSub)
}

// newServer starts hubs that are subscribed and connected to the server until the end of the test.
func newServer(t *testing.T, hubs ...*hub.PubSub) *server {
	s := &server{hubs: hubs}
	var receivers, locators sync.WaitGroup
	ended := make(chan struct{})
	for _, h := range hubs {
		link, wake := make(chan func(*hub.PubSub), 100), make(chan struct{}, 1)
		s.links = append(s.links, link)
		h.AwaitPlaces(func() {
			select {
			case wake <- struct{}{}:
			default:
			}
		})
		h.Begin()
		receivers.Go(func() {
			for receive := range link {
				receive(h)
			}
		})
		locators.Go(func() {
			for {
				select {
				case <-wake:
				case <-ended:
					return
				}
				ticket := h.Waiting()
				s.mu.Lock()
				link <- func(h *hub.PubSub) { // the reply to PING
					if h.Received(ticket) {
						t.Error("a marker is unknown")
					}
				}
				s.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() {
		close(ended)
		locators.Wait()
		for _, link := range s.links {
			close(link)
		}
		receivers.Wait()
	})
	return s
}

func (s *server) publish(receive func(*hub.PubSub)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, link := range s.links {
		link <- receive
	}
}

// R19: locating, replay and registration are one step. Clients move between two hubs while messages are published, with ids
// that the other hub may not know yet. Each receives every message once, and no gap.
func TestR19NothingBetweenReplayAndLive(t *testing.T) {
	t.Parallel()
	const messages, visitors = 10_000, 6
	limits := func(c *hub.Config) { c.HistoryPerUser = 2 * messages; c.HistoryBytes = 1 << 30 }
	s := newServer(t, withHistory(t, limits), withHistory(t, limits))
	open := func(h *hub.PubSub, resume string) (*listener, chan struct{}) {
		woken := make(chan struct{}, 1)
		l := &listener{onWake: func() { woken <- struct{}{} }}
		c, err := h.Register(hub.Options{User: "42", Resume: resume, Consumer: l})
		if err != nil {
			t.Fatal(err)
		}
		l.Client = c
		woken <- struct{}{} // a new client is awake
		return l, woken
	}
	var group sync.WaitGroup
	for i := range visitors {
		at := i % 2
		l, woken := open(s.hubs[at], "")
		group.Go(func() {
			for next, stay := 0, 0; ; stay++ {
				h, id := s.hubs[at], ""
				for n := 0; id == "" || n < stay%20; {
					<-woken
					for frames, _ := l.Take(nil); frames != nil; frames, _ = l.Take(nil) {
						for _, f := range frames {
							if string(f.Wire) != strconv.Itoa(next) {
								t.Errorf("got %q, want %d", f.Wire, next)
								return
							}
							next++
						}
						n += len(frames)
						id = text(h.Hub, frames[len(frames)-1].ID)
						l.Settle(frames, len(frames))
					}
					if next == messages {
						l.End(hub.ReasonClosed)
						return
					}
				}
				if position, ok := l.Position(); ok && stay%2 == 0 {
					id = text(h.Hub, position)
				}
				l.End(hub.ReasonClosed)
				at = 1 - at
				l, woken = open(s.hubs[at], id)
			}
		})
	}
	for i := range messages {
		if i%50 == 0 {
			name := hub.NewMarkerName()
			s.publish(func(h *hub.PubSub) { h.Mark(name) })
		}
		s.publish(func(h *hub.PubSub) { h.Publish(hub.User("42"), "", strconv.Itoa(i)) })
	}
	group.Wait()
}

// R21: an id stays known as long as the history reaches back.
func TestR21MarkersOutliveTheHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := withHistory(t, func(c *hub.Config) { c.HistoryAge = 2 * time.Minute; c.MarkerAge = 150 * time.Second })
		l := listen(t, h, hub.Options{User: "42"})
		h.Begin()
		m := mark(h)
		l.drain()
		for range 15 {
			time.Sleep(10 * time.Second)
			mark(h)
		}
		wantFrames(t, register(t, h, hub.Options{User: "42", Resume: m + "-0"}))
		time.Sleep(time.Second)
		last := mark(h)
		wantFrames(t, register(t, h, hub.Options{User: "42", Resume: m + "-0"}), "gap unknown-id")
		// The newest marker is kept: ids count from it.
		time.Sleep(time.Hour)
		wantFrames(t, register(t, h, hub.Options{User: "42", Resume: last + "-0"}))
		l.End(hub.ReasonClosed)
		h.Close()
	})
}

// R21: a client that is allowed to publish on the control channel can send any number of markers.
func TestR21MarkersAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	h := withHistory(t, nil)
	listen(t, h, hub.Options{User: "42"})
	h.Publish(hub.User("42"), "", "1")
	names := make([]string, 10_000)
	for i := range names {
		names[i] = mark(h)
	}
	h.Publish(hub.User("42"), "", "2")
	known := 0
	for i, name := range slices.Backward(names) {
		l := register(t, h, hub.Options{User: "42", Resume: name + "-0"})
		got, _ := l.drain()
		l.End(hub.ReasonClosed)
		if fmt.Sprint(got) != "[2]" {
			break
		}
		known = len(names) - i
	}
	if known < 5000 || known > 1<<20/160 {
		t.Errorf("%d markers are kept", known)
	}
	// An entry of a marker that was dropped has another text for its place.
	l := register(t, h, hub.Options{User: "42", Resume: h.Boot() + "-0"})
	if got, want := takeIDs(h, l), []string{"1@" + h.Boot() + "-1", "2@" + names[len(names)-1] + "-1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
