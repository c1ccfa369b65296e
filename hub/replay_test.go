package hub_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
)

// withHistory returns a hub with a history.
func withHistory(t testing.TB, change func(*hub.Config)) *hub.PubSub {
	cfg := hub.Config{BroadcastUser: "*", HistoryPerUser: 256, HistoryAge: 2 * time.Minute, HistoryBytes: 1 << 20}
	if change != nil {
		change(&cfg)
	}
	return newPubSub(t, cfg)
}

func TestReplayMergesMessagesBroadcastsAndGapsInOrder(t *testing.T) {
	for _, test := range []struct {
		topics, want []string
	}{
		{nil, []string{"1", "2", "gap redis-reconnect", "gap too-large", "3", "later", "later a"}},
		{[]string{"a"}, []string{"1", "gap redis-reconnect", "later a"}},
		{[]string{"b"}, []string{"2", "gap redis-reconnect", "gap too-large", "3"}},
		{[]string{""}, []string{"gap redis-reconnect", "later"}},
	} {
		h := withHistory(t, nil)
		first := listen(t, h, hub.Options{User: "42"})
		first.End(hub.ReasonClosed)
		h.Publish(hub.User("42"), "a", "1")
		h.Publish(hub.User("*"), "b", "2")
		h.Publish(hub.User("7"), "a", "of another")
		h.GapForAll(hub.GapRedisReconnect)
		h.GapFor(hub.User("42"), "b", hub.GapTooLarge)
		h.Publish(hub.User("42"), "b", "3")

		l := register(t, h, hub.Options{User: "42", Topics: test.topics, Resume: text(h.Hub, first.Opening())})
		if got, want := text(h.Hub, l.Opening()), text(h.Hub, first.Opening()); got != want {
			t.Errorf("opens with %v, want the client's own %v", got, want)
		}
		h.Publish(hub.User("42"), "", "later")
		h.Publish(hub.User("42"), "a", "later a")
		wantFrames(t, l, test.want...)
	}
}

// A replay of more entries than the queue can hold does not end the client.
func TestReplayDoesNotPassThroughTheQueue(t *testing.T) {
	h := withHistory(t, func(c *hub.Config) { c.QueueFrames = 4; c.HistoryPerUser = 1000 })
	first := listen(t, h, hub.Options{User: "42"})
	first.End(hub.ReasonClosed)
	var want []string
	for i := range 1000 {
		want = append(want, fmt.Sprint(i))
		h.Publish(hub.User("42"), "", fmt.Sprint(i))
	}
	l := register(t, h, hub.Options{User: "42", Resume: text(h.Hub, first.Opening())})
	frames, _ := l.Take(nil)
	if len(frames) == 0 || len(frames) == 1000 {
		t.Errorf("a replay of 1000 entries arrives as %d frames at once, want parts", len(frames))
	}
	l.Settle(frames, len(frames))
	rest, _ := l.drain()
	if got := len(frames) + len(rest); got != 1000 || !slices.Equal(rest, want[len(frames):]) {
		t.Errorf("%d frames, and not those that were published", got)
	}
	if s := h.Stats(); s.Replayed != 1000 || s.FramesEnqueued != 1000 || s.Deliveries != 1000 {
		t.Errorf("replayed %d, enqueued %d, delivered %d", s.Replayed, s.FramesEnqueued, s.Deliveries)
	}
}

// If the history drops entries during the replay of a slow reader, the reader receives a gap in their place.
func TestReplayOfDroppedEntriesHasAGap(t *testing.T) {
	h := withHistory(t, func(c *hub.Config) { c.HistoryPerUser = 100 })
	first := listen(t, h, hub.Options{User: "42"})
	first.End(hub.ReasonClosed)
	for i := range 100 {
		h.Publish(hub.User("42"), "", fmt.Sprint(i))
	}
	l := register(t, h, hub.Options{User: "42", Resume: text(h.Hub, first.Opening())})
	frames, _ := l.Take(nil)
	l.Settle(frames, len(frames))
	for i := range 80 {
		h.Publish(hub.User("42"), "", fmt.Sprint(100+i))
	}
	want := []string{"gap history-expired"}
	for i := 80; i < 180; i++ { // 80 to 99 from the history, the others from the queue
		want = append(want, fmt.Sprint(i))
	}
	if len(frames) >= 80 {
		t.Fatalf("%d frames at once", len(frames))
	}
	wantFrames(t, l, want...)
}

func TestUserIsForgottenAfterTheAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := withHistory(t, nil)
		l := listen(t, h, hub.Options{User: "42"})
		h.Publish(hub.User("42"), "", "kept")
		l.drain()
		l.End(hub.ReasonClosed)
		id := text(h.Hub, l.Opening())
		time.Sleep(119 * time.Second)
		h.Publish(hub.User("42"), "", "kept for one who was here")
		back := register(t, h, hub.Options{User: "42", Resume: id})
		wantFrames(t, back, "kept", "kept for one who was here")
		back.End(hub.ReasonClosed)

		time.Sleep(125 * time.Second)
		if s := h.Stats(); s.HistoryEntries != hub.RingEntries(h) || s.HistoryBytes != hub.RingBytes(h) || s.Users != 0 {
			t.Errorf("after the age: %+v", s)
		}
		h.Publish(hub.User("42"), "", "later")
		wantFrames(t, register(t, h, hub.Options{User: "42", Resume: id}), "gap history-expired", "later")
	})
}

// All users without a client together must not exceed the bound.
func TestInvariant14HistoryIsBoundedInBytes(t *testing.T) {
	const limit = 2 << 20
	h := withHistory(t, func(c *hub.Config) { c.HistoryBytes = limit })
	payload := strings.Repeat("x", 500)
	for i := range 12_500 {
		name := fmt.Sprint("user", i)
		l := register(t, h, hub.Options{User: name})
		h.Publish(hub.User(name), "", payload)
		l.drain()
		if i%2 > 0 { // the other clients stay open, and their history is bounded as well
			l.End(hub.ReasonClosed)
		}
		if s := h.Stats(); s.HistoryBytes > limit {
			t.Fatalf("%d bytes after %d users, want %d at most", s.HistoryBytes, i, limit)
		}
	}
	if s := h.Stats(); s.HistoryBytes < limit/2 {
		t.Errorf("only %d bytes of %d are used", s.HistoryBytes, limit)
	}
}

func TestDisconnectEndsAllStreamsOfAUser(t *testing.T) {
	h := withHistory(t, nil)
	a, b, other := listen(t, h, hub.Options{User: "42"}), listen(t, h, hub.Options{User: "42"}), listen(t, h, hub.Options{User: "7"})
	h.Publish(hub.User("42"), "", "before")
	if n := h.Disconnect("42"); n != 2 {
		t.Errorf("%d were disconnected, want 2", n)
	}
	for _, l := range []*listener{a, b} {
		if got, reason := l.drain(); reason != hub.ReasonKicked || !slices.Equal(got, []string{"before"}) {
			t.Errorf("got %q, reason %v", got, word(reason))
		}
	}
	wantReason(t, other, 0)
	if n := h.Disconnect("42") + h.Disconnect("unknown"); n != 0 {
		t.Errorf("%d were disconnected twice", n)
	}
}

// An oracle is a simple model of the history: what was sent to each user, and what is kept. It asks the hub only for the
// size of the ring, and up to where the ring has dropped entries.
type oracle struct {
	hub    *hub.PubSub
	limit  hub.Config
	seq    uint64        // place of the newest entry
	all    []oracleEntry // kept, oldest first
	absent []oracleEntry // sent to users without a client, oldest first
	users  map[string]*oracleUser
	gone   []string // users without a client, in the order in which they left
	common uint64   // low-water mark of broadcasts and gaps for all
	age    uint64   // when the last user left that was forgotten
}

// A place is the number of messages up to an entry and, in the lower half, that of gaps since the last message.
func place(id hub.ID) uint64 { return id.Ms<<32 | id.Seq>>32 }

func idAt(place uint64) hub.ID { return hub.ID{Ms: place >> 32, Seq: place << 32} }

type oracleEntry struct {
	seq         uint64
	user, topic string // user "*": for all
	text        string
	gapForAll   bool
}

type oracleUser struct {
	here               int
	since, floor, left uint64
}

func (o *oracle) add(user, topic, text string, gapForAll bool) {
	if o.seq++; !gapForAll {
		o.seq = (o.seq>>32 + 1) << 32
	}
	e := oracleEntry{o.seq, user, topic, text, gapForAll}
	u := o.users[user]
	if user != "*" && (u == nil || u.here == 0) {
		o.absent = append(o.absent, e)
	}
	if user == "*" || u != nil {
		o.all = append(o.all, e)
		if first, n := o.count(user); n > o.limit.HistoryPerUser {
			o.drop(first)
		}
	}
	o.trim()
}

// count returns the index of the first entry of a user, and how many there are.
func (o *oracle) count(user string) (first, n int) {
	for i, e := range slices.Backward(o.all) {
		if e.user == user {
			first = i
			n++
		}
	}
	return first, n
}

func (o *oracle) trim() {
	for limit := o.limit.HistoryBytes - hub.RingBytes(o.hub); o.bytes() > limit; {
		if len(o.all) > 0 {
			o.drop(0)
			continue
		}
		if len(o.gone) == 0 {
			return
		}
		o.age = max(o.age, o.users[o.gone[0]].left)
		delete(o.users, o.gone[0])
		o.gone = o.gone[1:]
	}
}

func (o *oracle) bytes() (n int64) {
	for _, e := range o.all {
		n += int64(160 + len(e.topic))
		if !strings.HasPrefix(e.text, "gap ") {
			n += int64(len(e.text))
		}
		if e.user != "*" {
			n += int64(len(e.user))
		}
	}
	for _, name := range o.gone {
		n += int64(256 + len(name))
	}
	return n
}

func (o *oracle) drop(i int) {
	e := o.all[i]
	o.all = slices.Delete(o.all, i, i+1)
	if e.user == "*" {
		o.common = e.seq
	} else {
		o.users[e.user].floor = e.seq
	}
}

func (o *oracle) join(user string) {
	u := o.users[user]
	if u == nil {
		u = &oracleUser{since: o.seq >> 32 << 32}
		o.users[user] = u
	}
	u.here++
	o.gone = slices.DeleteFunc(o.gone, func(gone string) bool { return gone == user })
}

func (o *oracle) leave(user string) {
	u := o.users[user]
	if u.here--; u.here == 0 {
		u.left = o.seq >> 32 << 32
		o.gone = append(o.gone, user)
	}
	o.trim()
}

// missed returns what a client with a topic filter must receive when it reconnects.
func (o *oracle) missed(user string, topics []string, id uint64) (texts []string) {
	if id>>32 > o.seq>>32 {
		return []string{fmt.Sprint(o.seq, " gap unknown-id")}
	}
	u := o.users[user]
	floor := max(u.floor, o.common)
	if id < u.since {
		floor = max(floor, min(u.since, max(hub.RingLowWater(o.hub)<<32, o.age)))
	}
	if id < floor {
		texts = append(texts, fmt.Sprint(floor, " gap history-expired"))
		id = floor
	}
	list := slices.Clone(o.all)
	for _, e := range o.absent {
		if e.seq <= u.since {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b oracleEntry) int { return cmp.Compare(a.seq, b.seq) })
	for _, e := range list {
		if e.seq > id && (e.user == user || e.user == "*") && (e.gapForAll || topics == nil || slices.Contains(topics, e.topic)) {
			texts = append(texts, fmt.Sprint(e.seq, " ", e.text))
		}
	}
	return texts
}

// Random runs are compared with the oracle. They connect, disconnect and publish, exceed each bound, change filters
// and announce gaps.
func TestInvariant12ResumeWithoutLossOrDuplicate(t *testing.T) {
	runSeeds(t, 400, replayRun)
}

type replayClient struct {
	*listener
	user   string
	topics []string
	want   []string // not received yet
	last   uint64   // newest id that it has received
}

func replayRun(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	limits := hub.Config{
		Encode: encode, BroadcastUser: "*", HistoryPerUser: 1 + random.IntN(8), HistoryAge: time.Hour,
		HistoryBytes: int64(1000 + random.IntN(4000)), FanOut: random.IntN(3),
	}
	h := newPubSub(t, limits)
	o := &oracle{hub: h, limit: limits, users: map[string]*oracleUser{}}
	var clients []*replayClient
	ids := map[string][]uint64{} // that clients of the user have received
	filters := [][]string{nil, {"a"}, {"b", ""}}

	connect := func() {
		user := fmt.Sprint(random.IntN(3))
		c := &replayClient{user: user, topics: filters[random.IntN(len(filters))]}
		o.join(user)
		options := hub.Options{User: user, Topics: c.topics}
		c.last = o.seq
		if seen := ids[user]; len(seen) > 0 && random.IntN(4) > 0 {
			c.last = seen[random.IntN(len(seen))]
			if random.IntN(10) == 0 {
				c.last = o.seq + (1+random.Uint64N(3))<<32
			}
			options.Resume = text(h.Hub, idAt(c.last))
			c.want = o.missed(user, c.topics, c.last)
		}
		c.listener = register(t, h, options)
		ids[user] = append(ids[user], min(c.last, o.seq))
		clients = append(clients, c)
		// Take the replay immediately: later, the history may have dropped entries.
		c.take(t, h)
	}
	concerns := func(c *replayClient, user, topic string) bool {
		return (user == "*" || user == c.user) && (c.topics == nil || slices.Contains(c.topics, topic))
	}
	for range 60 {
		user, topic := []string{"0", "1", "2", "*"}[random.IntN(4)], []string{"", "a", "b"}[random.IntN(3)]
		switch random.IntN(8) {
		case 0, 1:
			if len(clients) < 8 {
				connect()
			}
		case 2:
			if len(clients) > 0 {
				i := random.IntN(len(clients))
				c := clients[i]
				c.take(t, h)
				ids[c.user] = append(ids[c.user], c.last)
				c.End(hub.ReasonClosed)
				o.leave(c.user)
				clients = slices.Delete(clients, i, i+1)
			}
		case 3:
			h.GapForAll(hub.GapRedisReconnect)
			o.add("*", "", "gap redis-reconnect", true)
			for _, c := range clients {
				c.want = append(c.want, fmt.Sprint(o.seq, " gap redis-reconnect"))
			}
		case 4:
			c := clients
			if len(c) > 0 {
				c[random.IntN(len(c))].take(t, h)
			}
		default:
			text := strings.Repeat("x", random.IntN(300))
			h.Publish(hub.User(user), topic, text)
			o.add(user, topic, text, false)
			for _, c := range clients {
				if concerns(c, user, topic) {
					c.want = append(c.want, fmt.Sprint(o.seq, " ", text))
				}
			}
		}
		entries, bytes := len(o.all)+hub.RingEntries(h), o.bytes()+hub.RingBytes(h)
		if s := h.Stats(); s.HistoryEntries != entries || s.HistoryBytes != bytes || bytes > limits.HistoryBytes {
			t.Fatalf("history of %d entries, %d bytes; want %d, %d", s.HistoryEntries, s.HistoryBytes, entries, bytes)
		}
	}
	for _, c := range clients {
		c.take(t, h)
		c.End(hub.ReasonClosed)
	}
	h.Close()
}

// take compares all received frames. Afterwards the position is known.
func (c *replayClient) take(t *testing.T, h *hub.PubSub) {
	hub.AwaitBroadcasts(h.Hub)
	var got []string
	var last *hub.Frame
	for {
		frames, _ := c.Take(nil)
		if frames == nil {
			break
		}
		for _, f := range frames {
			got = append(got, fmt.Sprint(place(f.ID), " ", string(f.Wire)))
			c.last = place(f.ID)
			last = f
		}
		c.Settle(frames, len(frames))
	}
	id, ok := c.Position()
	if !ok {
		t.Fatal("no position although the queue is empty")
	}
	if last != nil && last.Gap == hub.GapRedisReconnect && !last.Replayed { // it has waited: its id is the position
		c.want[len(c.want)-1] = fmt.Sprint(place(id), " gap redis-reconnect")
	}
	if !slices.Equal(got, c.want) {
		t.Fatalf("user %s, topics %q: got %q, want %q", c.user, c.topics, got, c.want)
	}
	c.want, c.last = nil, place(id)
}

// Replayed frames do not count towards the budget of all queues, because the history limits them.
func TestReplaysOfManyEndNoClient(t *testing.T) {
	h := withHistory(t, func(c *hub.Config) { c.QueueTotalBytes = 1 << 20; c.HistoryBytes = 64 << 20 })
	first := listen(t, h, hub.Options{User: "42"})
	payload := strings.Repeat("x", 4096)
	for range 64 {
		h.Publish(hub.User("*"), "", payload) // 256 KiB of history
		first.drain()
	}
	var all []*listener
	for range 20 {
		l := register(t, h, hub.Options{User: "42", Resume: text(h.Hub, first.Opening())})
		l.Take(nil) // its writer is writing
		all = append(all, l)
	}
	listen(t, h, hub.Options{User: "7"})
	h.Publish(hub.User("7"), "", "x")
	n := 0
	for _, l := range all {
		if l.Reason() != 0 {
			n++
		}
	}
	if bytes := h.Stats().QueueBytes; bytes > 100 {
		t.Errorf("%d bytes count as queued, and one small message is", bytes)
	}
	if n > 0 {
		t.Errorf("%d of %d healthy clients that are being replayed were ended as slow", n, len(all))
	}
}

// A user whose last client has ended twice at the same time is removed once, not again after it has returned as a new
// user.
func TestUserIsForgottenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const overhead = 256 // of a user without entries
		h := withHistory(t, func(c *hub.Config) { c.HistoryBytes = overhead + overhead/2 })
		leave := func(user string) { listen(t, h, hub.Options{User: user}).End(hub.ReasonClosed) }
		leave("42")
		leave("42")
		leave("7") // there is room for one user: the first entry for 42 in the list is removed
		back := listen(t, h, hub.Options{User: "42"})
		leave("8")
		leave("9") // and the second one
		h.Publish(hub.User("42"), "", "hello")
		wantFrames(t, back, "hello")
		back.End(hub.ReasonClosed)
		time.Sleep(5 * time.Minute)
		if s := h.Stats(); s.HistoryBytes != 0 {
			t.Errorf("%d bytes of history", s.HistoryBytes)
		}
	})
}

func TestReplaysShareTheirFrames(t *testing.T) {
	h := withHistory(t, nil)
	first := listen(t, h, hub.Options{User: "42"})
	h.Publish(hub.User("42"), "a", "one")
	h.Publish(hub.User("*"), "", "two")
	first.drain()
	var plain, named [][]*hub.Frame
	for i := range 6 {
		l := register(t, h, hub.Options{User: "42", Resume: text(h.Hub, first.Opening()), Named: i%2 == 1})
		frames, _ := l.Take(nil)
		if i%2 == 1 {
			named = append(named, frames)
		} else {
			plain = append(plain, frames)
		}
		defer l.Settle(frames, len(frames))
	}
	for i := range plain {
		for k := range 2 {
			if plain[i][k] != plain[0][k] || named[i][k] != named[0][k] || plain[i][k] == named[i][k] {
				t.Errorf("client %d does not share frame %d", i, k)
			}
		}
	}
}

// Messages that arrive during a long replay wait in the queue and may exceed its bounds. This does not end the client
// while the replay makes progress.
func TestQueueWaitsForTheReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const grace = 250 * time.Millisecond
		h := withHistory(t, func(c *hub.Config) {
			c.QueueFrames, c.QueueGrace, c.HistoryPerUser = 10, grace, 1000
		})
		first := listen(t, h, hub.Options{User: "42"})
		for i := range 500 {
			h.Publish(hub.User("42"), "", fmt.Sprint(i))
			first.drain()
		}
		l := register(t, h, hub.Options{User: "42", Resume: text(h.Hub, first.Opening())})
		for i := range 30 {
			h.Publish(hub.User("42"), "", fmt.Sprint(500+i))
			first.drain()
		}
		for range 500 / 64 {
			time.Sleep(grace * 4 / 5) // a slow reader
			frames, _ := l.Take(nil)
			l.Settle(frames, len(frames))
		}
		texts, reason := l.drain()
		if reason != 0 || len(texts) == 0 || texts[len(texts)-1] != "529" {
			t.Errorf("reason %v, the last is %q", word(reason), texts[max(0, len(texts)-1):])
		}

		stopped := register(t, h, hub.Options{User: "42", Resume: text(h.Hub, first.Opening())})
		stopped.Take(nil)
		for range 30 {
			h.Publish(hub.User("42"), "", "more")
			first.drain()
		}
		time.Sleep(2 * grace)
		if stopped.Reason() != hub.ReasonSlow {
			t.Errorf("a reader that stopped in its replay is not ended: %v", word(stopped.Reason()))
		}
	})
}
