package hub_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
)

func TestMessageToAGroupReachesEachMemberOnce(t *testing.T) {
	t.Parallel()
	h := newPubSub(t, hub.Config{})
	tabs := []*listener{
		listen(t, h, hub.Options{User: "1", Groups: []string{"other", "g", "other", "g"}}), // each name twice
		listen(t, h, hub.Options{User: "1", Groups: []string{"g"}, Topics: []string{"a"}}),
		listen(t, h, hub.Options{User: "1"}), // membership belongs to a stream
		listen(t, h, hub.Options{User: "2", Groups: []string{"other", "g"}, Named: true}),
	}
	if got := tabs[0].Groups(); !slices.Equal(got, []string{"g", "other"}) {
		t.Errorf("member of %q", got)
	}
	if got := tabs[2].Groups(); got != nil {
		t.Errorf("member of %q", got)
	}
	wantStats := func(users, groups int) {
		t.Helper()
		if s := h.Stats(); s.Users != users || s.Groups != groups {
			t.Errorf("%d users and %d groups, want %d and %d", s.Users, s.Groups, users, groups)
		}
	}
	wantStats(2, 2)
	for topic, want := range map[string]int{"a": 3, "b": 2} {
		if n := h.Publish(hub.Group("g"), topic, "hello"); n != want {
			t.Errorf("topic %s: reached %d clients, want %d", topic, n, want)
		}
		named := topic + "/hello"
		wantFrames(t, tabs[0], "hello")
		wantFrames(t, tabs[1], []string{"hello"}[:want-2]...)
		wantFrames(t, tabs[2])
		wantFrames(t, tabs[3], named)
	}
	if n := len(h.ClientsOf(hub.Group("g"))); n != 3 {
		t.Errorf("%d clients of the group, want 3", n)
	}
	tabs[0].End(hub.ReasonClosed) // its place in both lists is taken by others
	if n := h.Publish(hub.Group("other"), "", "one") + h.Publish(hub.Group("g"), "", "two"); n != 2 {
		t.Errorf("reached %d clients, want 2", n)
	}
	wantFrames(t, tabs[3], "/one", "/two")
	tabs[3].End(hub.ReasonClosed)
	wantStats(1, 1)
	if n := h.Publish(hub.Group("other"), "", "three") + len(h.ClientsOf(hub.Group("other"))); n != 0 {
		t.Errorf("a group without a member reaches %d clients", n)
	}
	tabs[1].End(hub.ReasonClosed)
	wantStats(1, 0)
	if got := tabs[0].Groups(); !slices.Equal(got, []string{"g", "other"}) {
		t.Errorf("after its end, the client was a member of %q", got)
	}
}

// Clients with many groups leave each of them, and receive the messages of each, small or large.
func TestClientsOfManyGroups(t *testing.T) {
	t.Parallel()
	const groups, clients = 500, 20
	h := newPubSub(t, hub.Config{FanOut: clients / 2})
	random := rand.New(rand.NewPCG(1, 2))
	members := make([]map[string]*listener, groups) // by user
	all := make(map[string]*listener)
	for c := range clients {
		o := hub.Options{User: fmt.Sprint(c)}
		var mine []int
		for g := range groups {
			if random.IntN(clients) >= c { // few groups, and many
				mine = append(mine, g)
			}
		}
		random.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
		for _, g := range mine {
			o.Groups = append(o.Groups, fmt.Sprint(g))
		}
		l := listen(t, h, o)
		if got := l.Groups(); !slices.Equal(got, slices.Sorted(slices.Values(o.Groups))) {
			t.Fatalf("a client of %q is a member of %q", o.Groups, got)
		}
		all[o.User] = l
		for _, g := range mine {
			if members[g] == nil {
				members[g] = make(map[string]*listener)
			}
			members[g][o.User] = l
		}
	}
	for len(all) > 0 {
		want := make(map[string][]string)
		for g := range members {
			h.Publish(hub.Group(fmt.Sprint(g)), "", fmt.Sprint(g))
			for user := range members[g] {
				want[user] = append(want[user], fmt.Sprint(g))
			}
		}
		hub.AwaitBroadcasts(h.Hub)
		for user, l := range all {
			wantFrames(t, l, want[user]...)
		}
		for user, l := range all { // one of them
			l.End(hub.ReasonClosed)
			delete(all, user)
			for g := range members {
				delete(members[g], user)
			}
			break
		}
	}
	if n := h.Stats().Groups; n != 0 {
		t.Errorf("%d groups have a client", n)
	}
}

// Users and groups do not share any names, not even "*": a group of that name is a group like all others.
func TestGroupsAndUsersAreSeparate(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) (h *hub.Hub, publish func(to hub.Recipient, payload string)){
		"pub/sub": func(t *testing.T) (*hub.Hub, func(hub.Recipient, string)) {
			h := withHistory(t, nil)
			return h.Hub, func(to hub.Recipient, payload string) { h.Publish(to, "", payload) }
		},
		"log": func(t *testing.T) (*hub.Hub, func(hub.Recipient, string)) {
			h := newStreamFeed(t, hub.Config{BroadcastUser: "*", HistoryBytes: 1 << 20}, func(*hub.Query) {})
			h.Load(hub.ID{Ms: 9}, hub.ID{Ms: 9}, func(func(hub.Recipient, hub.Entry) bool) {})
			id := hub.ID{Ms: 9}
			return h.Hub, func(to hub.Recipient, payload string) {
				id.Ms++
				h.Append(to, hub.Entry{ID: id, Payload: payload})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, publish := open(t)
			options := []hub.Options{
				{User: "42"},
				{User: "7", Groups: []string{"42"}},
				{User: "g", Groups: []string{"*"}},
				{User: "1", Groups: []string{"1"}}, // both: two messages
			}
			want := [][]string{
				{"user 42", "user *"},
				{"group 42", "user *"},
				{"group *", "user *"},
				{"user *", "user 1", "group 1"},
			}
			var live []*listener
			for _, o := range options {
				live = append(live, listen(t, h, o))
			}
			start := text(h, live[0].Opening())
			users, groups := h.Tap(hub.User("42")), h.Tap(hub.Group("42"))
			absent := options[:0:0]
			for _, o := range options { // the same without a stream here, for the ring
				o.User, o.Groups = "x"+o.User, slices.Clone(o.Groups)
				for i, g := range o.Groups {
					o.Groups[i] = strings.Replace("x"+g, "x*", "*", 1)
				}
				absent = append(absent, o)
			}
			for _, x := range []string{"", "x"} {
				for _, to := range []hub.Recipient{hub.User(x + "42"), hub.Group(x + "42"), hub.Group("*"), hub.User("*"), hub.User(x + "1"), hub.Group(x + "1"), hub.Group(x + "g")} {
					if x == "x" && to.Name == "*" {
						continue
					}
					publish(to, strings.Replace(describe(to), "x", "", 1))
				}
			}
			for i, l := range live {
				wantFrames(t, l, want[i]...)
				l.End(hub.ReasonClosed)
			}
			if got := received(t, users); got != "/user 42, all /user *" {
				t.Errorf("the tap of the user received %q", got)
			}
			if got := received(t, groups); got != "/group 42, all /user *" {
				t.Errorf("the tap of the group received %q", got)
			}
			for i, o := range append(options, absent...) { // the history, then the ring
				o.Resume = start
				back := register(t, h, o)
				got, _ := back.drain()
				slices.Sort(got)
				if want := slices.Sorted(slices.Values(want[i%len(want)])); !slices.Equal(got, want) {
					t.Errorf("user %s of %q: the replay is %q, want %q", o.User, o.Groups, got, want)
				}
				back.End(hub.ReasonClosed)
			}
		})
	}
}

// A gap in place of a message to a group is announced to its members only. They receive it spread over a time, like a gap
// for all, and the consumers of other clients are not woken.
func TestGapForAGroup(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fanOut int
		spread time.Duration
	}{
		"small":      {1000, 2 * time.Second},
		"large":      {10, 2 * time.Second},
		"not spread": {1000, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const members = 400
				h := newPubSub(t, hub.Config{FanOut: test.fanOut, GapSpread: test.spread, BroadcastUser: "*"})
				add := func(groups ...string) *gapListener {
					l := &gapListener{listener: listen(t, h, hub.Options{User: "42", Groups: groups, Topics: []string{"a"}})}
					l.onWake = func() { go l.take() }
					return l
				}
				var all, others gapListeners
				for range members {
					all, others = append(all, add("other", "g")), append(others, add("other"))
				}
				h.GapFor(hub.Group("g"), "a", hub.GapTooLarge)
				h.GapFor(hub.Group("g"), "b", hub.GapTooLarge) // no topic filter accepts it
				synctest.Wait()
				hub.AwaitBroadcasts(h.Hub)
				time.Sleep(test.spread / 2)
				synctest.Wait()
				if half := all.count(); test.spread > 0 && (half < members*4/10 || half > members*6/10) {
					t.Errorf("%d of %d members have received it after half of the time", half, members)
				}
				time.Sleep(test.spread/2 + 10*time.Millisecond)
				synctest.Wait()
				for i, l := range all {
					if got := fmt.Sprint(l.received()); got != "[gap too-large]" {
						t.Fatalf("member %d received %s", i, got)
					}
				}
				for i, l := range others {
					if n := l.wakes.Load(); n != 0 || len(l.received()) != 0 {
						t.Fatalf("a client that is not a member, %d, was woken %d times and received %q", i, n, l.received())
					}
				}
			})
		})
	}
}

// While a gap for a group is spread, another one does not wake clients that have nothing to receive.
func TestSecondGapForAGroupReachesItsMembersOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newPubSub(t, hub.Config{FanOut: 10, GapSpread: time.Second})
		var one, two gapListeners
		for i := range 400 {
			for _, list := range []*gapListeners{&one, &two} {
				l := &gapListener{listener: listen(t, h, hub.Options{User: fmt.Sprint(i), Groups: []string{map[bool]string{true: "one", false: "two"}[list == &one]}})}
				l.onWake = func() { go l.take() }
				*list = append(*list, l)
			}
		}
		h.GapFor(hub.Group("one"), "", hub.GapTooLarge)
		synctest.Wait()
		time.Sleep(500 * time.Millisecond)
		h.GapFor(hub.Group("two"), "", hub.GapTooLarge)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for i, l := range append(one, two...) {
			if n := l.wakes.Load(); n != 1 || fmt.Sprint(l.received()) != "[gap too-large]" {
				t.Fatalf("client %d was woken %d times and received %q", i, n, l.received())
			}
		}
	})
}

// The number of a broadcast wraps around. A client that has not been visited for a long time, because all messages were for
// groups of others, receives the next ones.
func TestNumberOfABroadcastWrapsAround(t *testing.T) {
	t.Parallel()
	h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: 1})
	idle := listen(t, h, hub.Options{User: "idle", Groups: []string{"late"}})
	member := listen(t, h, hub.Options{User: "42", Groups: []string{"g", "late"}})
	listen(t, h, hub.Options{User: "42", Groups: []string{"g"}})
	var want []string
	for i := 1; i <= 15; i++ {
		hub.SkipBroadcasts(h.Hub, 1<<29)
		h.Publish(hub.Group("g"), "", fmt.Sprint(i))
		want = append(want, fmt.Sprint(i))
		hub.AwaitBroadcasts(h.Hub)
		if i%5 == 0 { // after more than half of all numbers
			h.Publish(hub.Group("late"), "", "late")
			hub.AwaitBroadcasts(h.Hub)
			wantFrames(t, idle, "late")
			wantFrames(t, member, append(want, "late")...)
			want = nil
		}
	}
}

// A groupEntry is what was published in TestLargeGroupsWhileMembersComeAndGo.
type groupEntry struct {
	to  hub.Recipient
	gap bool
}

// A groupLife is one client of that test.
type groupLife struct {
	user     string
	groups   []string
	start    uint64   // number of the newest entry before it registered
	got      []string // texts of frames
	complete uint64   // number up to which it has received everything
	reason   hub.Reason
}

func (l *groupLife) check(t *testing.T, entries []groupEntry) {
	n := 0
	for i, e := range entries[l.start:] {
		number := l.start + uint64(i) + 1
		if n == len(l.got) && number > l.complete {
			break
		}
		if e.to != hub.User("*") && e.to != hub.User(l.user) && (!e.to.Group || !slices.Contains(l.groups, e.to.Name)) {
			continue
		}
		want := fmt.Sprint(number)
		if e.gap {
			want = "gap too-large"
		}
		if n == len(l.got) {
			t.Fatalf("a client of user %s and %q that ended with %s is complete from %d to %d, but has not received %s, for %s", l.user, l.groups, word(l.reason), l.start, l.complete, want, describe(e.to))
		}
		if l.got[n] != want {
			t.Fatalf("a client of user %s and %q received %s after %d others since %d, want %s, for %s", l.user, l.groups, l.got[n], n, l.start, want, describe(e.to))
		}
		n++
	}
	if n != len(l.got) {
		t.Fatalf("a client of user %s and %q received %q in addition", l.user, l.groups, l.got[n:])
	}
}

// live registers a client, and ends it in one of all possible ways, or stalls until its queue is full.
func (l *groupLife) live(t *testing.T, h *hub.PubSub, random *rand.Rand) {
	l.user = fmt.Sprint("user", random.IntN(20))
	for name, percent := range map[string]int{"large": 80, "larger": 95, "small": 2, "smaller": 1, "*": 5, "user1": 20} {
		if random.IntN(100) < percent {
			l.groups = append(l.groups, name)
		}
	}
	client := register(t, h, hub.Options{User: l.user, Groups: l.groups})
	l.start = client.Opening().Ms
	l.complete = l.start
	stalls := random.IntN(10) == 0
	for turns := random.IntN(30); turns > 0 || stalls; turns-- {
		if stalls && client.Reason() == 0 {
			runtime.Gosched()
			continue
		}
		texts, reason := client.drain()
		l.got = append(l.got, texts...)
		if l.reason = reason; reason != 0 {
			return
		}
		if id, ok := client.Position(); ok {
			l.complete = id.Ms
		}
		for range random.IntN(20) {
			runtime.Gosched()
		}
	}
	if random.IntN(2) == 0 {
		client.End(hub.ReasonClosed)
		_, l.reason = client.drain()
		return
	}
	client.Finish(hub.ReasonKicked)
	var texts []string
	texts, l.reason = client.drain()
	l.got = append(l.got, texts...)
	if id, ok := client.Position(); ok {
		l.complete = id.Ms
	} else if l.reason == hub.ReasonKicked {
		t.Error("a client that has taken everything is not complete")
	}
}

// Clients of large and small groups receive messages to users, groups and all, and gaps, in the order of Publish, each once,
// while others register, disconnect, and are ended because their queue is full.
func TestLargeGroupsWhileMembersComeAndGo(t *testing.T) {
	t.Parallel()
	const actors, lives = 100, 10
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: 10, QueueFrames: 300, GapSpread: time.Millisecond})
	var entries []groupEntry // entry i has the number i+1
	var all [actors * lives]groupLife
	var living sync.WaitGroup
	for actor := range actors {
		random := rand.New(rand.NewPCG(seed, uint64(actor)))
		living.Go(func() {
			for i := range lives {
				all[actor*lives+i].live(t, h, random)
			}
		})
	}
	done := make(chan struct{})
	go func() { living.Wait(); close(done) }()
	random := rand.New(rand.NewPCG(seed, actors))
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		to := []hub.Recipient{
			hub.Group("large"), hub.Group("larger"), hub.Group("small"), hub.Group("smaller"), hub.Group("*"),
			hub.Group("user1"), hub.User("user1"), hub.User(fmt.Sprint("user", random.IntN(25))), hub.Group("nobody"), hub.User("*"),
		}[random.IntN(10)]
		e := groupEntry{to, random.IntN(20) == 0}
		entries = append(entries, e)
		if e.gap {
			h.GapFor(to, "", hub.GapTooLarge)
		} else {
			h.Publish(to, "", fmt.Sprint(len(entries)))
		}
	}
	hub.AwaitBroadcasts(h.Hub)
	ends := make(map[hub.Reason]int)
	for i := range all {
		all[i].check(t, entries)
		ends[all[i].reason]++
	}
	if ends[hub.ReasonSlow] == 0 || ends[hub.ReasonClosed] == 0 || ends[hub.ReasonKicked] == 0 {
		t.Errorf("this run did not cover all reasons: %v", ends)
	}
	if s := h.Stats(); s.Clients != 0 || s.Users != 0 || s.Groups != 0 || s.FramesQueued != 0 || s.QueueBytes != 0 {
		t.Errorf("at rest: %+v", s)
	}
}
