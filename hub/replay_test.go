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

// A page that was away for long receives one gap, also if more entries are dropped while it connects.
func TestReplayOfExpiredEntriesHasOneGap(t *testing.T) {
	for _, groups := range [][]string{nil, {"g"}} {
		h := withHistory(t, nil)
		id, _ := h.Position("42")
		for i := range 300 {
			h.Publish(hub.User("42"), "", fmt.Sprint(i))
		}
		l := register(t, h, hub.Options{User: "42", Groups: groups, Resume: id})
		frames, _ := l.Take(nil)
		l.Settle(frames, len(frames))
		want := []string{"gap history-expired"}
		for i := 44; i < 301; i++ { // the newest 256, and one that is dropped after it was taken
			want = append(want, fmt.Sprint(i))
		}
		h.Publish(hub.User("42"), "", "300")
		var texts []string
		for _, f := range frames {
			texts = append(texts, string(f.Wire))
		}
		rest, _ := l.drain()
		wantTexts(t, fmt.Sprint("groups ", groups), append(texts, rest...), want...)
	}
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

// An oracle is a simple model of the history: what was sent to each user and group, and what is kept. It asks the hub only for
// the size of the ring, and up to where the ring has dropped entries.
type oracle struct {
	hub    *hub.PubSub
	limit  hub.Config
	seq    uint64        // place of the newest entry
	all    []oracleEntry // kept, oldest first
	absent []oracleEntry // sent to owners without a client, oldest first
	owners map[hub.Recipient]*oracleOwner
	gone   []hub.Recipient // owners without a client, in the order in which they left or were held
	common uint64          // low-water mark of broadcasts and gaps for all
	age    uint64          // when the last client of an owner left that was forgotten
}

// A place is the number of messages up to an entry and, in the lower half, that of gaps since the last message.
func place(id hub.ID) uint64 { return id.Ms<<32 | id.Seq>>32 }

func idAt(place uint64) hub.ID { return hub.ID{Ms: place >> 32, Seq: place << 32} }

// all is the recipient of broadcasts and of gaps for all.
var all = hub.User("*")

type oracleEntry struct {
	seq       uint64
	to        hub.Recipient
	topic     string
	text      string
	gapForAll bool
}

type oracleOwner struct {
	here               int
	since, floor, left uint64
}

func (o *oracle) add(to hub.Recipient, topic, text string, gapForAll bool) {
	if o.seq++; !gapForAll {
		o.seq = (o.seq>>32 + 1) << 32
	}
	e := oracleEntry{o.seq, to, topic, text, gapForAll}
	u := o.owners[to]
	if to != all && (u == nil || u.here == 0) {
		o.absent = append(o.absent, e)
	}
	if to == all || u != nil {
		o.all = append(o.all, e)
		if first, n := o.count(to); n > o.limit.HistoryPerUser {
			o.drop(first)
		}
	}
	o.trim()
}

// count returns the index of the first entry of an owner, and how many there are.
func (o *oracle) count(to hub.Recipient) (first, n int) {
	for i, e := range slices.Backward(o.all) {
		if e.to == to {
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
		o.age = max(o.age, o.owners[o.gone[0]].left)
		delete(o.owners, o.gone[0])
		o.gone = o.gone[1:]
	}
}

func (o *oracle) bytes() (n int64) {
	for _, e := range o.all {
		n += int64(160 + len(e.topic))
		if !strings.HasPrefix(e.text, "gap ") {
			n += int64(len(e.text))
		}
		if e.to != all {
			n += int64(len(e.to.Name))
		}
	}
	for _, to := range o.gone {
		n += int64(256 + len(to.Name))
	}
	return n
}

func (o *oracle) drop(i int) {
	e := o.all[i]
	o.all = slices.Delete(o.all, i, i+1)
	if e.to == all {
		o.common = e.seq
	} else {
		o.owners[e.to].floor = e.seq
	}
}

func (o *oracle) join(list []hub.Recipient) {
	for _, to := range list {
		u := o.owners[to]
		if u == nil {
			u = &oracleOwner{since: o.seq >> 32 << 32}
			o.owners[to] = u
		}
		u.here++
		o.gone = slices.DeleteFunc(o.gone, func(gone hub.Recipient) bool { return gone == to })
	}
}

func (o *oracle) leave(list []hub.Recipient) {
	for _, to := range list {
		u := o.owners[to]
		if u.here--; u.here == 0 {
			u.left = o.seq >> 32 << 32
			o.gone = append(o.gone, to)
		}
		o.trim()
	}
}

// hold is what a call of Position does.
func (o *oracle) hold(user hub.Recipient) {
	if u := o.owners[user]; u == nil {
		o.owners[user] = &oracleOwner{since: o.seq >> 32 << 32}
	} else if u.here > 0 {
		return
	}
	o.gone = append(slices.DeleteFunc(o.gone, func(gone hub.Recipient) bool { return gone == user }), user)
	o.trim()
}

// missed returns what a client with a topic filter must receive when it reconnects.
func (o *oracle) missed(owners []hub.Recipient, topics []string, id uint64) (texts []string) {
	if id>>32 > o.seq>>32 {
		return []string{fmt.Sprint(o.seq, " gap unknown-id")}
	}
	floor := o.common
	for _, to := range owners {
		u := o.owners[to]
		if floor = max(floor, u.floor); id < u.since {
			floor = max(floor, min(u.since, max(hub.RingLowWater(o.hub)<<32, o.age)))
		}
	}
	if id < floor {
		texts = append(texts, fmt.Sprint(floor, " gap history-expired"))
		id = floor
	}
	var list []oracleEntry
	for _, e := range o.all {
		if e.to == all || slices.Contains(owners, e.to) {
			list = append(list, e)
		}
	}
	for _, e := range o.absent {
		if slices.Contains(owners, e.to) && e.seq <= o.owners[e.to].since {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b oracleEntry) int { return cmp.Compare(a.seq, b.seq) })
	for _, e := range list {
		if e.seq > id && (e.gapForAll || topics == nil || slices.Contains(topics, e.topic)) {
			texts = append(texts, fmt.Sprint(e.seq, " ", e.text))
		}
	}
	return texts
}

// Random runs are compared with the oracle. They connect, disconnect, request positions and publish, exceed each bound, change
// filters and groups, and announce gaps. So nothing is lost or received twice, and no gap is announced without a reason.
func TestInvariant12ResumeWithoutLossOrDuplicate(t *testing.T) {
	runSeeds(t, 400, replayRun)
}

type replayClient struct {
	*listener
	owners []hub.Recipient // its user, then its groups: in the order in which it leaves them
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
	hub.LimitRingSearch(h, 2+random.IntN(10))
	maxPayload := oneOf(random, 10, 300)
	o := &oracle{hub: h, limit: limits, owners: map[hub.Recipient]*oracleOwner{}}
	var clients []*replayClient
	type position struct {
		place uint64
		text  string // empty: any text of the place
	}
	positions := map[string][]position{} // of pages of the user
	filters := [][]string{nil, {"a"}, {"b", ""}}

	connect := func() {
		options := hub.Options{User: fmt.Sprint(random.IntN(3)), Groups: someOf(random, "0", "g", "h"), Topics: filters[random.IntN(len(filters))]}
		user := options.User
		c := &replayClient{owners: []hub.Recipient{hub.User(user)}, topics: options.Topics, last: o.seq}
		for _, name := range slices.Compact(slices.Sorted(slices.Values(options.Groups))) {
			c.owners = append(c.owners, hub.Group(name))
		}
		o.join(c.owners)
		if seen := positions[user]; len(seen) > 0 && random.IntN(4) > 0 {
			at := seen[random.IntN(len(seen))]
			if c.last = at.place; random.IntN(10) == 0 {
				c.last, at.text = o.seq+(1+random.Uint64N(3))<<32, ""
			}
			if options.Resume = at.text; at.text == "" {
				options.Resume = text(h.Hub, idAt(c.last))
			}
			c.want = o.missed(c.owners, c.topics, c.last)
		}
		c.listener = register(t, h, options)
		positions[user] = append(positions[user], position{place: min(c.last, o.seq)})
		clients = append(clients, c)
		// Take the replay immediately: later, the history may have dropped entries.
		c.take(t, h)
	}
	concerns := func(c *replayClient, to hub.Recipient, topic string) bool {
		return (to == all || slices.Contains(c.owners, to)) && (c.topics == nil || slices.Contains(c.topics, topic))
	}
	for range 60 {
		user, topic := oneOf(random, "0", "1", "2", "*"), oneOf(random, "", "a", "b")
		switch random.IntN(9) {
		case 0, 1:
			if len(clients) < 8 {
				connect()
			}
		case 2:
			if len(clients) > 0 {
				i := random.IntN(len(clients))
				c := clients[i]
				c.take(t, h)
				positions[c.User()] = append(positions[c.User()], position{place: c.last})
				c.End(hub.ReasonClosed)
				o.leave(c.owners)
				clients = slices.Delete(clients, i, i+1)
			}
		case 3:
			h.GapForAll(hub.GapRedisReconnect)
			o.add(all, "", "gap redis-reconnect", true)
			for _, c := range clients {
				c.want = append(c.want, fmt.Sprint(o.seq, " gap redis-reconnect"))
			}
		case 4:
			c := clients
			if len(c) > 0 {
				c[random.IntN(len(c))].take(t, h)
			}
		case 5:
			user := fmt.Sprint(random.IntN(oneOf(random, 3, 10))) // most do not open their page
			id, _ := h.Position(user)
			o.hold(hub.User(user))
			positions[user] = append(positions[user], position{o.seq, id})
		default:
			to, text := hub.User(user), strings.Repeat("x", random.IntN(maxPayload))
			if random.IntN(2) == 0 {
				to = hub.Group(oneOf(random, "0", "g", "h", "*"))
			}
			if random.IntN(10) == 0 && to != all {
				text = "gap too-large"
				h.GapFor(to, topic, hub.GapTooLarge)
			} else {
				h.Publish(to, topic, text)
			}
			o.add(to, topic, text, false)
			for _, c := range clients {
				if concerns(c, to, topic) {
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
	if n := len(c.want); n > 0 && last != nil && last.Gap != 0 && !last.Replayed {
		// A gap for all, or for a large group, has waited: its id is the position.
		if _, text, _ := strings.Cut(c.want[n-1], " "); text == "gap redis-reconnect" || place(last.ID) == place(id) {
			c.want[n-1] = fmt.Sprint(place(id), " ", text)
		}
	}
	if !slices.Equal(got, c.want) {
		t.Fatalf("%v, topics %q: got %q, want %q", c.owners, c.topics, got, c.want)
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
