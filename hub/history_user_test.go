package hub

import (
	"fmt"
	"math"
	"strconv"
	"testing"
	"time"
)

// Without the bound, the sum of an entry's time and the age overflows, and the sweep runs continuously.
func TestSweepOfALongHistoryAgeIsInTheFuture(t *testing.T) {
	h := NewPubSub(Config{
		Encode:         func(dst []byte, e Entry, _ bool) []byte { return append(dst, e.Payload...) },
		HistoryPerUser: 1, HistoryBytes: 1 << 20, HistoryAge: math.MaxInt64,
	})
	defer h.Close()
	c, err := h.Register(Options{User: "42", Consumer: idle{}})
	if err != nil {
		t.Fatal(err)
	}
	h.Publish(User("42"), "", "x")
	c.End(ReasonClosed) // now the user is retained as well
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.history.(*userHistory)
	if s.oldest == nil || s.retained.first == nil {
		t.Fatal("nothing is kept")
	}
	if due := s.sweeper.due(); time.Until(due) < 24*time.Hour {
		t.Errorf("the next sweep is due in %v", time.Until(due))
	}
}

// A replay of very many entries of an absent user releases the lock after a small part of the search, and after a small part
// of the entries. The search uses a bounded amount of memory.
func TestReplayOfALongChainIsDoneInParts(t *testing.T) {
	const messages = 2*maxFound + maxFound/4
	h := NewPubSub(Config{BroadcastUser: "*"})
	defer h.Close()
	for n := range messages {
		user, topic := "bot", "news"
		if n%10_000 == 9999 {
			user, topic = "*", "other"
		}
		h.Publish(User(user), topic, strconv.Itoa(n))
	}
	for _, test := range []struct {
		topics []string
		want   int
		steps  int // at least
	}{
		{nil, messages, 3*messages/ringLooks/2 + messages/replayBatch},
		{[]string{"other"}, messages / 10_000, 3*messages/ringLooks/2 + messages/(16*replayBatch)},
	} {
		c, err := h.Register(Options{User: "bot", Topics: test.topics, Consumer: idle{}, Resume: h.Boot() + "-0"})
		if err != nil {
			t.Fatal(err)
		}
		steps, last, got := 0, -1, 0
		step := func() (done bool) {
			h.mu.Lock()
			defer h.mu.Unlock()
			entries, _, _ := c.replay.next()
			if len(entries) > replayBatch {
				t.Fatalf("%d entries at once", len(entries))
			}
			if c.replay == nil {
				return true
			}
			if s := c.replay.absent; s != nil && cap(s.found) > 2*maxFound {
				t.Fatalf("the search uses memory for %d positions", cap(s.found))
			}
			for _, e := range entries {
				n, err := strconv.Atoi(e.Payload)
				if err != nil || n <= last || test.topics == nil && n != last+1 {
					t.Fatalf("%q after %d", e.Payload, last)
				}
				last = n
				got++
			}
			return false
		}
		for ; steps < messages && !step(); steps++ {
		}
		if got != test.want || steps < test.steps {
			t.Errorf("topics %q: %d entries in %d steps, want %d in at least %d", test.topics, got, steps, test.want, test.steps)
		}
		c.End(ReasonClosed)
	}
}

// Entries that are dropped while a replay has not sent any entry after its gap do not cause another gap: here while the ring
// is searched for the user, who came from another hub, or for nothing.
func TestReplayHasOneGapForOneLoss(t *testing.T) {
	t.Parallel()
	for messages, atLeast := range map[int]int{0: 2, 5 * ringLooks: 6} { // steps
		h := NewPubSub(Config{BroadcastUser: "*", HistoryPerUser: 100})
		defer h.Close()
		broadcasts := 0
		broadcast := func() {
			h.Publish(User("*"), "", "to all")
			broadcasts++
		}
		for range 150 {
			broadcast()
		}
		for range messages {
			h.Publish(User("42"), "", "to the user")
		}
		c, err := h.Register(Options{User: "42", Consumer: idle{}, Resume: h.Boot() + "-0"})
		if err != nil {
			t.Fatal(err)
		}
		var all []replayEntry
		steps := 0
		for ; len(all) < 100 && c.replay != nil; steps++ {
			broadcast()
			h.mu.Lock()
			entries, _, _ := c.replay.next()
			h.mu.Unlock()
			all = append(all, entries...)
		}
		if dropped := uint64(broadcasts - 100); all[0].Gap != GapHistoryExpired || all[0].ID.Ms < 50 || all[0].ID.Ms > dropped || all[1].ID.Ms != all[0].ID.Ms+1 {
			t.Errorf("%d messages: begins with %v at %v and %v, %d were dropped", messages, all[0].Gap, all[0].ID, all[1].ID, dropped)
		}
		for n, e := range all[1:] {
			if e.Gap != 0 && all[n].Gap != 0 {
				t.Errorf("%d messages: gap at %v after one at %v", messages, e.ID, all[n].ID)
			}
		}
		if steps < atLeast {
			t.Errorf("%d messages: %d steps, want at least %d", messages, steps, atLeast)
		}
		c.End(ReasonClosed)
	}
}

// A client with many groups does not hold the lock longer, and its search does not use more memory, than one without.
func TestReplayOfManyGroupsIsDoneInParts(t *testing.T) {
	t.Parallel()
	const messages, groups = 2*maxFound + maxFound/4, 64
	h := NewPubSub(Config{BroadcastUser: "*", HistoryBytes: 64 << 20})
	defer h.Close()
	o := Options{User: "bot", Consumer: idle{}, Resume: h.Boot() + "-0"}
	for i := range groups {
		o.Groups = append(o.Groups, fmt.Sprint("group ", i))
	}
	for n := range messages { // half of them to one group
		switch to := o.Groups[n%groups]; {
		case n%1000 == 0:
			h.Publish(User("*"), "", strconv.Itoa(n))
		case n%3 == 0:
			h.Publish(User("bot"), "", strconv.Itoa(n))
		case n%2 == 0:
			h.Publish(Group(o.Groups[0]), "", strconv.Itoa(n))
		default:
			h.Publish(Group(to), "", strconv.Itoa(n))
		}
	}
	c, err := h.Register(o)
	if err != nil {
		t.Fatal(err)
	}
	last, steps := -1, 0
	step := func() (done bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		entries, _, _ := c.replay.next()
		if c.replay == nil {
			return true
		}
		s := c.replay.absent
		if cap(s.found) > 2*maxFound || len(s.owners) > groups+1 {
			t.Fatalf("the search uses memory for %d positions and %d owners", cap(s.found), len(s.owners))
		}
		if len(entries) > replayBatch {
			t.Fatalf("%d entries at once", len(entries))
		}
		for _, e := range entries {
			if last++; e.Payload != strconv.Itoa(last) {
				t.Fatalf("%q, want %d", e.Payload, last)
			}
		}
		return false
	}
	for ; steps < messages && !step(); steps++ {
	}
	if last != messages-1 || steps < 3*messages/ringLooks/2+messages/replayBatch { // each step looks at few entries
		t.Errorf("up to %d of %d in %d steps", last, messages, steps)
	}
}

type idle struct{}

func (idle) Wake()      {}
func (idle) Interrupt() {}
