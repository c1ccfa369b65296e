package hub_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
)

// after returns the id of the position after n messages.
func after(h *hub.PubSub, n int) string { return fmt.Sprint(h.Boot(), "-", n) }

// resume returns what a client of user 42 receives that resumes after n messages as a member of groups.
func resume(t *testing.T, h *hub.PubSub, n int, groups ...string) []string {
	t.Helper()
	return texts(t, h, hub.Options{User: "42", Groups: groups, Resume: after(h, n)})
}

// texts returns what a client receives, and ends it.
func texts(t *testing.T, h *hub.PubSub, o hub.Options) []string {
	t.Helper()
	l := register(t, h, o)
	defer l.End(hub.ReasonClosed)
	got, _ := l.drain()
	return got
}

func wantTexts(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// Rule R14 of the protocol between hubs: what is published while a user has no client is replayed, once, whether the user's
// history is still kept or not.
func TestR14RingWhileRetained(t *testing.T) {
	publish := func(t *testing.T) *hub.PubSub {
		h := withHistory(t, nil)
		h.Publish(hub.User("42"), "", "1, before the first client")
		h.Publish(hub.User("7"), "", "2, of another")
		l := listen(t, h, hub.Options{User: "42"})
		h.Publish(hub.User("42"), "", "3, to a client")
		l.End(hub.ReasonClosed)
		h.Publish(hub.User("42"), "", "4, to a retained user")
		h.Publish(hub.User("*"), "", "5, to all")
		h.GapFor(hub.User("42"), "", hub.GapTooLarge) // 6
		return h
	}
	t.Run("retained", func(t *testing.T) {
		h := publish(t)
		want := []string{"1, before the first client", "3, to a client", "4, to a retained user", "5, to all", "gap too-large"}
		wantTexts(t, "from its history", resume(t, h, 3), want[2:]...)
		wantTexts(t, "from both", resume(t, h, 0), want...)
	})
	t.Run("forgotten", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := publish(t)
			time.Sleep(125 * time.Second)
			h.Publish(hub.User("*"), "", "7, to all")
			if n := h.Stats().HistoryEntries - hub.RingEntries(h); n != 1 {
				t.Fatalf("%d entries outside of the ring", n)
			}
			wantTexts(t, "complete", resume(t, h, 5), "gap too-large", "7, to all")
		})
	})
}

// A message whose routing ends the user's last client is kept for those who come later.
func TestR14RingHasTheMessageThatEndsTheLastClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := withHistory(t, func(c *hub.Config) { c.QueueFrames = 1 })
		slow := listen(t, h, hub.Options{User: "42"})
		h.Publish(hub.User("42"), "", "1")
		h.Publish(hub.User("42"), "", "2") // does not fit into the queue
		wantReason(t, slow, hub.ReasonSlow)
		time.Sleep(125 * time.Second)
		if n := h.Stats().HistoryEntries; n != 1 {
			t.Errorf("%d entries, want only that of the ring", n)
		}
		wantTexts(t, "after 1", resume(t, h, 1), "2")
		wantTexts(t, "after 0", resume(t, h, 0), "gap history-expired", "2")
	})
}

// Rule R15: when a user is forgotten, the messages that it received while it had a client are no longer stored. A page
// that missed them receives a gap.
func TestR15AgeLowWater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := withHistory(t, nil)
		for n, user := range []string{"42", "7"} {
			l := listen(t, h, hub.Options{User: user})
			h.Publish(hub.User(user), "", fmt.Sprint(n+1, ", to a client"))
			l.End(hub.ReasonClosed)
		}
		h.Publish(hub.User("42"), "", "3, to a retained user")
		time.Sleep(125 * time.Second)
		h.Publish(hub.User("42"), "", "4, to nobody")
		wantTexts(t, "after 0", resume(t, h, 0), "gap history-expired", "3, to a retained user", "4, to nobody")
		// The hub does not know whose message the second one was: user 7 left after it.
		wantTexts(t, "after 1", resume(t, h, 1), "gap history-expired", "3, to a retained user", "4, to nobody")
		wantTexts(t, "after 2", resume(t, h, 2), "3, to a retained user", "4, to nobody")
	})
	t.Run("without a history", func(t *testing.T) {
		for _, off := range []func(*hub.Config){
			func(c *hub.Config) { c.HistoryAge = hub.Off },
			func(c *hub.Config) { c.HistoryPerUser = hub.Off },
			func(c *hub.Config) { c.HistoryBytes = hub.Off },
		} {
			h := withHistory(t, off)
			l := listen(t, h, hub.Options{User: "42"})
			h.Publish(hub.User("42"), "", "1, to a client")
			l.End(hub.ReasonClosed)
			if s := h.Stats(); s.HistoryBytes != 0 || s.HistoryHere != 0 || s.HistoryElsewhere != 0 {
				t.Errorf("%d bytes of history, which reaches back %v and %v", s.HistoryBytes, s.HistoryHere, s.HistoryElsewhere)
			}
			wantTexts(t, "after 0", resume(t, h, 0), "gap history-expired")
			wantTexts(t, "after 1", resume(t, h, 1))
			h.Publish(hub.User("42"), "", "2, to nobody")
			wantTexts(t, "after 1, with a message", resume(t, h, 1), "gap history-expired")
		}
	})
}

// Rule R16: a replay is complete from the low-water mark of broadcasts, from that of the user, and either from the user's
// first client or from the low-water marks of the ring and of those who were forgotten. Each of them alone decides.
func TestR16Complete(t *testing.T) {
	const expired = "gap history-expired"
	filler := strings.Repeat("x", 200)
	tests := []struct {
		name    string
		config  hub.Config
		publish func(h *hub.PubSub, client func() *listener)
		after   int
		want    []string
	}{
		{"broadcasts", hub.Config{HistoryPerUser: 2}, func(h *hub.PubSub, client func() *listener) {
			client()
			h.Publish(hub.User("*"), "", "1")
			h.Publish(hub.User("*"), "", "2")
			h.Publish(hub.User("*"), "", "3")
		}, 0, []string{expired, "2", "3"}},
		{"broadcasts, of an absent user", hub.Config{HistoryPerUser: 2}, func(h *hub.PubSub, client func() *listener) {
			h.Publish(hub.User("42"), "", "1")
			h.Publish(hub.User("*"), "", "2")
			h.Publish(hub.User("*"), "", "3")
			h.Publish(hub.User("*"), "", "4")
		}, 0, []string{expired, "3", "4"}},
		{"user", hub.Config{HistoryPerUser: 2}, func(h *hub.PubSub, client func() *listener) {
			client()
			h.Publish(hub.User("42"), "", "1")
			h.Publish(hub.User("42"), "", "2")
			h.Publish(hub.User("42"), "", "3")
		}, 0, []string{expired, "2", "3"}},
		{"user, and the ring has the rest", hub.Config{HistoryPerUser: 2}, func(h *hub.PubSub, client func() *listener) {
			h.Publish(hub.User("42"), "", "1")
			client()
			h.Publish(hub.User("42"), "", "2")
			h.Publish(hub.User("42"), "", "3")
			h.Publish(hub.User("42"), "", "4")
		}, 0, []string{expired, "3", "4"}},
		{"ring", hub.Config{HistoryBytes: 4096}, func(h *hub.PubSub, client func() *listener) {
			h.Publish(hub.User("42"), "", "1")
			for range 50 {
				h.Publish(hub.User("7"), "", filler)
			}
			h.Publish(hub.User("42"), "", "52")
		}, 0, []string{expired, "52"}},
		{"ring, before the first client", hub.Config{HistoryBytes: 4096}, func(h *hub.PubSub, client func() *listener) {
			h.Publish(hub.User("42"), "", "1")
			client()
			for range 50 {
				h.Publish(hub.User("7"), "", filler)
			}
			h.Publish(hub.User("42"), "", "52")
		}, 0, []string{expired, "52"}},
		{"first client, without the ring", hub.Config{HistoryBytes: 4096}, func(h *hub.PubSub, client func() *listener) {
			h.Publish(hub.User("42"), "", "1")
			client()
			for range 50 {
				h.Publish(hub.User("7"), "", filler)
			}
			h.Publish(hub.User("42"), "", "52")
		}, 1, []string{"52"}},
		{"forgotten", hub.Config{HistoryBytes: 2000}, func(h *hub.PubSub, client func() *listener) {
			l := client()
			h.Publish(hub.User("42"), "", "1")
			l.End(hub.ReasonClosed)
			h.Publish(hub.User("42"), "", "2")
			for i := range 6 {
				listen(t, h, hub.Options{User: strings.Repeat("x", 200*i+1)}).End(hub.ReasonClosed)
			}
		}, 0, []string{expired}},
		{"nothing", hub.Config{}, func(h *hub.PubSub, client func() *listener) {
			h.Publish(hub.User("42"), "", "1")
			h.Publish(hub.User("*"), "", "2")
			client()
			h.Publish(hub.User("42"), "", "3")
			h.Publish(hub.User("*"), "", "4")
		}, 0, []string{"1", "2", "3", "4"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := withHistory(t, func(c *hub.Config) {
				if test.config.HistoryPerUser > 0 {
					c.HistoryPerUser = test.config.HistoryPerUser
				}
				if test.config.HistoryBytes > 0 {
					c.HistoryBytes = test.config.HistoryBytes
				}
			})
			test.publish(h, func() *listener { return listen(t, h, hub.Options{User: "42"}) })
			wantTexts(t, "resume", resume(t, h, test.after), test.want...)
		})
	}
}

// If the ring drops entries before a slow reader has received them, the reader receives a gap in their place.
func TestReplayFromTheRingHasNoHole(t *testing.T) {
	h := withHistory(t, func(c *hub.Config) { c.HistoryBytes = 64 << 10 })
	for n := range 300 {
		h.Publish(hub.User("42"), "", fmt.Sprint(n+1))
	}
	l := register(t, h, hub.Options{User: "42", Resume: after(h, 0)})
	last, gaps := 0, 0
	for round := 0; ; round++ {
		frames, _ := l.Take(nil)
		if frames == nil {
			break
		}
		for _, f := range frames {
			switch text := string(f.Wire); {
			case text == "gap history-expired":
				last = int(f.ID.Ms)
				gaps++
			case text != fmt.Sprint(last+1):
				t.Fatalf("%s after %d", text, last)
			default:
				last++
			}
		}
		l.Settle(frames, len(frames))
		for range 150 * (round % 2) {
			h.Publish(hub.User("7"), "", strings.Repeat("x", 200))
		}
	}
	if last != 300 || gaps == 0 {
		t.Errorf("received up to %d, with %d gaps; the ring has dropped up to %d", last, gaps, hub.RingLowWater(h))
	}
}

// If the ring drops all the rest of a replay that was found in parts, the replay ends with one gap. It does not go back to
// the end of the part.
func TestReplayOfAPartThatTheRingDropsEnds(t *testing.T) {
	t.Parallel()
	h := withHistory(t, func(c *hub.Config) { c.HistoryBytes = 64 << 10 })
	hub.LimitRingSearch(h, 4)
	for n := range 20 {
		h.Publish(hub.User("42"), "", fmt.Sprint(n+1))
	}
	l := register(t, h, hub.Options{User: "42", Resume: after(h, 0)})
	frames, _ := l.Take(nil)
	l.Settle(frames, len(frames))
	if len(frames) == 0 || len(frames) > 4 {
		t.Fatalf("%d entries of a search for at most 4", len(frames))
	}
	for range 1000 {
		h.Publish(hub.User("7"), "", strings.Repeat("x", 200))
	}
	for _, want := range []string{"gap history-expired", ""} {
		frames, _ := l.Take(nil)
		if got := strings.Join(wires(frames), " "); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		l.Settle(frames, len(frames))
	}
	h.Publish(hub.User("42"), "", "live")
	wantFrames(t, l, "live")
}

func wires(frames []*hub.Frame) (texts []string) {
	for _, f := range frames {
		texts = append(texts, string(f.Wire))
	}
	return texts
}

// A resume is counted by where the client was before.
func TestResumesAreCountedByOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := withHistory(t, nil)
		want := map[hub.Origin]uint64{hub.OriginThisHub: 0, hub.OriginOtherHub: 0, hub.OriginUnknown: 0}
		check := func(what string, o hub.Origin) {
			t.Helper()
			want[o]++
			if got := h.Stats().Resumes; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		resume(t, h, 0)
		check("a user who was not here, and missed nothing", hub.OriginOtherHub)
		h.Publish(hub.User("42"), "", "1")
		resume(t, h, 0)
		check("a retained user", hub.OriginThisHub)
		resume(t, h, 1)
		check("a retained user who missed nothing", hub.OriginThisHub)
		resume(t, h, 2)
		check("an id that is ahead", hub.OriginUnknown)
		time.Sleep(5 * time.Minute)
		h.Publish(hub.User("42"), "", "2")
		resume(t, h, 0)
		check("a user who was forgotten", hub.OriginOtherHub)
		register(t, h, hub.Options{User: "42", Resume: "strange"}).drain()
		check("a text that is not an id", hub.OriginUnknown)
		listen(t, h, hub.Options{User: "42"})
		resume(t, h, 1)
		check("a user with another client", hub.OriginThisHub)

		h.AwaitPlaces(func() {})
		name := hub.NewMarkerName()
		for _, o := range []hub.Origin{hub.OriginUnknown, hub.OriginOtherHub} {
			l := register(t, h, hub.Options{User: o.String(), Resume: name.String() + "-0"})
			l.drain()
			if got := h.Stats().Resumes; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("a client that waits: %v", got)
			}
			if o == hub.OriginOtherHub {
				h.Mark(name)
			}
			ticket := h.Waiting()
			h.Received(ticket)
			h.Confirmed(ticket)
			l.drain()
			check("a client that has waited", o)
		}
	})
	t.Run("log", func(t *testing.T) {
		var query *hub.Query
		h := newStreamFeed(t, hub.Config{BroadcastUser: "*", HistoryBytes: 1 << 20}, func(q *hub.Query) { query = q })
		h.Load(hub.ID{Ms: 5}, hub.ID{Ms: 5}, func(func(hub.Recipient, hub.Entry) bool) {})
		h.Append(hub.User("42"), hub.Entry{ID: hub.ID{Ms: 6}, Payload: "6"})
		counts := func() string {
			r := h.Stats().Resumes
			return fmt.Sprint(r[hub.OriginThisHub], r[hub.OriginOtherHub], r[hub.OriginUnknown])
		}
		l := register(t, h, hub.Options{User: "42", Resume: "5-0"})
		l.drain()
		if got := counts(); got != "0 1 0" {
			t.Errorf("from the window: %s", got)
		}
		register(t, h, hub.Options{User: "42", Resume: "6-0"})
		if got := counts(); got != "1 1 0" {
			t.Errorf("with another client: %s", got)
		}
		for n, gap := range []hub.Gap{0, hub.GapUnknownID} {
			l := register(t, h, hub.Options{User: fmt.Sprint(n), Resume: "1-0"})
			l.drain()
			if got := counts(); got != "1 "+fmt.Sprint(1+n)+" 0" {
				t.Errorf("before the answer: %s", got)
			}
			query.Answer(nil, query.UpTo, gap)
			l.drain()
		}
		if got := counts(); got != "1 2 1" {
			t.Errorf("after the answers: %s", got)
		}
	})
}

// The statistics say how far back a replay reaches.
func TestHistorySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := withHistory(t, func(c *hub.Config) { c.HistoryBytes = 64 << 10; c.HistoryPerUser = 100 })
		check := func(what string, here, elsewhere time.Duration) {
			t.Helper()
			if s := h.Stats(); s.HistoryHere != here || s.HistoryElsewhere != elsewhere {
				t.Errorf("%s: %v here, %v elsewhere; want %v, %v", what, s.HistoryHere, s.HistoryElsewhere, here, elsewhere)
			}
		}
		check("at the start", 0, 0)
		time.Sleep(time.Second)
		check("without markers, ids of other hubs are unknown", time.Second, 0)
		h.Mark(hub.NewMarkerName())
		time.Sleep(10 * time.Second)
		check("the first marker", 11*time.Second, 10*time.Second)
		time.Sleep(200 * time.Second)
		check("nothing was dropped", 120*time.Second, 120*time.Second)

		for range 200 { // more than the ring has
			h.Publish(hub.User("7"), "", strings.Repeat("x", 200))
		}
		if hub.RingLowWater(h) == 0 {
			t.Fatal("the ring has dropped nothing")
		}
		time.Sleep(30 * time.Second)
		check("the ring was full 30 s ago", 120*time.Second, 30*time.Second)

		l := listen(t, h, hub.Options{User: "42"})
		for range 101 { // HistoryPerUser concerns one user
			h.Publish(hub.User("42"), "", "")
		}
		l.drain()
		check("the history of one user", 120*time.Second, 30*time.Second)
		time.Sleep(125 * time.Second)
		for i := range 200 { // retained users use all bytes
			listen(t, h, hub.Options{User: fmt.Sprint(i)}).End(hub.ReasonClosed)
		}
		check("users were forgotten early", 120*time.Second, 0)
		time.Sleep(10 * time.Second)
		check("10 s later", 120*time.Second, 10*time.Second)
		for range 90 { // the ring uses half of the bytes
			h.Publish(hub.User("42"), "", strings.Repeat("x", 200))
			l.drain()
		}
		time.Sleep(3 * time.Second)
		check("messages were dropped for lack of bytes", 3*time.Second, 3*time.Second)

		h = withHistory(t, func(c *hub.Config) { c.HistoryPerUser = 100 })
		h.Mark(hub.NewMarkerName())
		time.Sleep(50 * time.Second)
		for range 101 {
			h.Publish(hub.User("*"), "", "")
		}
		check("a broadcast was dropped", 0, 0)
		time.Sleep(7 * time.Second)
		check("7 s later", 7*time.Second, 7*time.Second)
	})
	t.Run("log", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			check := func(h *hub.StreamFeed, want time.Duration) {
				t.Helper()
				if s := h.Stats(); s.HistoryHere != want || s.HistoryElsewhere != want {
					t.Errorf("%v here, %v elsewhere; want %v", s.HistoryHere, s.HistoryElsewhere, want)
				}
			}
			at := func(ago time.Duration) hub.ID { return hub.ID{Ms: uint64(time.Now().Add(-ago).UnixMilli())} }
			h := newStreamFeed(t, hub.Config{BroadcastUser: "*", HistoryBytes: 1000}, func(*hub.Query) {})
			check(h, 0)
			h.Load(at(50*time.Second), at(10*time.Second), func(func(hub.Recipient, hub.Entry) bool) {})
			check(h, 50*time.Second)
			for range 10 {
				h.Append(hub.User("42"), hub.Entry{ID: at(0), Payload: strings.Repeat("x", 200)})
				time.Sleep(time.Second)
			}
			check(h, 3*time.Second) // entries of 362 bytes, and one user
			whole := newStreamFeed(t, hub.Config{BroadcastUser: "*", HistoryBytes: 1000}, func(*hub.Query) {})
			whole.Load(hub.ID{}, hub.ID{}, func(func(hub.Recipient, hub.Entry) bool) {})
			check(whole, 0)
			whole.Append(hub.User("42"), hub.Entry{ID: at(0)})
			time.Sleep(5 * time.Second)
			check(whole, 5*time.Second)
		})
	})
}
