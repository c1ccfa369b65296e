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

const expired = "gap history-expired"

// publishAll publishes messages to recipients: g, a group; 42, a user; *, all.
func publishAll(h *hub.PubSub, list ...string) {
	for _, text := range list {
		h.Publish(recipient(text), "", text)
	}
}

// recipient returns what a text begins with: digits stand for a user, letters for a group.
func recipient(text string) hub.Recipient {
	name, _, _ := strings.Cut(text, " ")
	if name == "*" || '0' <= name[0] && name[0] <= '9' {
		return hub.User(name)
	}
	return hub.Group(name)
}

// R14: wherever the messages of a group are stored, a replay merges them with those of the user and with broadcasts, in order.
func TestR14GroupMessagesAreMergedByPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := withHistory(t, nil)
		var all []string
		publish := func(list ...string) {
			publishAll(h, list...)
			all = append(all, list...)
		}
		member := func(group string) *listener { return listen(t, h, hub.Options{User: "7", Groups: []string{group}}) }
		forgotten := member("forgotten")
		publish("forgotten 1")
		forgotten.End(hub.ReasonClosed)
		publish("forgotten 2")
		time.Sleep(125 * time.Second)
		publish("absent 3", "g 4", "42 5", "* 6", "left 7", "other 8")
		left, user := member("left"), listen(t, h, hub.Options{User: "42"})
		member("g")
		publish("forgotten 9", "absent 10", "g 11", "42 12", "* 13", "left 14", "other 15")
		left.End(hub.ReasonClosed)
		user.End(hub.ReasonClosed)
		publish("g 16", "left 17", "42 18", "absent 19", "* 20", "forgotten 21", "7 22")

		for from := range len(all) + 1 {
			for _, groups := range [][]string{{"g", "absent", "forgotten", "left"}, {"left", "g"}, {"absent"}, {"forgotten"}, nil} {
				var want []string
				if from == 0 {
					want = append(want, expired) // the first message was received at this hub, but perhaps not by this page
				}
				for n, text := range all {
					to := recipient(text)
					if n >= max(from, 1) && (to == hub.User("42") || to == hub.User("*") || to.Group && slices.Contains(groups, to.Name)) {
						want = append(want, text)
					}
				}
				wantTexts(t, fmt.Sprintf("after %d, groups %q", from, groups), resume(t, h, from, groups...), want...)
			}
		}
	})
}

// R14: a group and a user of the same name do not have anything in common, wherever their messages are stored.
func TestR14GroupAndUserOfOneName(t *testing.T) {
	t.Parallel()
	h := withHistory(t, nil)
	publish := func(n int) {
		h.Publish(hub.User("42"), "", fmt.Sprint("user ", n))
		h.Publish(hub.Group("42"), "", fmt.Sprint("group ", n))
		h.Publish(hub.Group("*"), "", fmt.Sprint("group * ", n))
	}
	publish(1)
	wantTexts(t, "user, from the ring", resume(t, h, 0), "user 1")
	wantTexts(t, "group, from the ring", resume(t, h, 0, "42"), "user 1", "group 1")
	wantTexts(t, "group *, from the ring", resume(t, h, 0, "*"), "user 1", "group * 1")
	member := register(t, h, hub.Options{User: "7", Groups: []string{"42", "*", "42"}})
	user := register(t, h, hub.Options{User: "42"})
	publish(2)
	wantFrames(t, user, "user 2")
	wantFrames(t, member, "group 2", "group * 2")
	wantTexts(t, "user", resume(t, h, 0), "user 1", "user 2")
	wantTexts(t, "group", resume(t, h, 0, "42"), "user 1", "group 1", "user 2", "group 2")
}

// The groups of a replay are those of the client that resumes: it receives messages from before the user joined, and none of
// a group that the user has left.
func TestR14MembershipIsThatAtTheReconnect(t *testing.T) {
	t.Parallel()
	for _, withMember := range []bool{false, true} {
		h := withHistory(t, nil)
		if withMember { // the histories of the groups have the messages, otherwise the ring
			listen(t, h, hub.Options{User: "7", Groups: []string{"old", "new", "both"}})
		}
		l := register(t, h, hub.Options{User: "42", Groups: []string{"old", "both"}, Resume: after(h, 0)})
		publishAll(h, "old 1", "new 2", "both 3")
		wantFrames(t, l, "old 1", "both 3")
		l.End(hub.ReasonClosed)
		publishAll(h, "old 4", "new 5", "both 6", "42 7")
		wantTexts(t, fmt.Sprint("after 3, other member: ", withMember), resume(t, h, 3, "new", "both"), "new 5", "both 6", "42 7")
		wantTexts(t, fmt.Sprint("after 1, other member: ", withMember), resume(t, h, 1, "new", "both"), "new 2", "both 3", "new 5", "both 6", "42 7")
		wantTexts(t, fmt.Sprint("without groups, other member: ", withMember), resume(t, h, 1), "42 7")
	}
	t.Run("log", func(t *testing.T) {
		var query *hub.Query
		f := newStreamFeed(t, hub.Config{BroadcastUser: "*", HistoryBytes: 1 << 20}, func(q *hub.Query) { query = q })
		list := []string{"old 1", "new 2", "both 3", "42 4", "* 5", "g 6", "new 7", "42 8", "both 9"}
		entry := func(i int) (hub.Recipient, hub.Entry) {
			return recipient(list[i]), hub.Entry{ID: hub.ID{Ms: uint64(i + 1)}, Payload: list[i]}
		}
		f.Load(hub.ID{Ms: 4}, hub.ID{Ms: 7}, func(yield func(hub.Recipient, hub.Entry) bool) {
			for i := 4; i < 7 && yield(entry(i)); i++ {
			}
		})
		for i := 7; i < len(list); i++ {
			f.Append(entry(i))
		}
		l := register(t, f, hub.Options{User: "42", Groups: []string{"new", "both", "new"}, Resume: "1-0"})
		if l.drain(); query == nil || query.User != "42" || !slices.Equal(query.Groups, []string{"both", "new"}) {
			t.Fatalf("query %+v", query)
		}
		var answer []hub.Entry
		for _, i := range []int{1, 2, 3} {
			_, e := entry(i)
			answer = append(answer, e)
		}
		query.Answer(answer, query.UpTo, 0)
		wantFrames(t, l, "new 2", "both 3", "42 4", "* 5", "new 7", "42 8", "both 9")
		wantFrames(t, register(t, f, hub.Options{User: "42", Groups: []string{"g"}, Resume: "5-0"}), "g 6", "42 8")
	})
}

// Topic filters and gaps apply to the messages of groups, in the ring and in the history of the group.
func TestR14FiltersAndGapsOfGroups(t *testing.T) {
	t.Parallel()
	for _, withMember := range []bool{false, true} {
		h := withHistory(t, nil)
		if withMember {
			listen(t, h, hub.Options{User: "7", Groups: []string{"g", "h"}})
		}
		h.Publish(hub.Group("g"), "a", "1")
		h.GapFor(hub.Group("g"), "a", hub.GapTooLarge)
		h.GapFor(hub.Group("h"), "b", hub.GapTooLarge)
		h.GapForAll(hub.GapRedisReconnect)
		h.Publish(hub.Group("h"), "a", "4")
		h.GapFor(hub.Group("other"), "a", hub.GapTooLarge)
		h.Publish(hub.User("*"), "b", "6")
		h.Publish(hub.Group("g"), "b", "7")
		const tooLarge, reconnect = "gap too-large", "gap redis-reconnect"
		for topic, want := range map[string][]string{
			"a": {"1", tooLarge, reconnect, "4"},
			"b": {tooLarge, reconnect, "6", "7"},
			"":  {reconnect},
		} {
			l := register(t, h, hub.Options{User: "42", Groups: []string{"g", "h"}, Topics: []string{topic}, Resume: after(h, 0)})
			texts, _ := l.drain()
			wantTexts(t, fmt.Sprintf("topic %q, other member: %v", topic, withMember), texts, want...)
			l.End(hub.ReasonClosed)
		}
	}
}

// R15: when a group is forgotten, the messages that its members received are no longer stored.
func TestR15ForgottenGroup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := withHistory(t, nil)
		member := listen(t, h, hub.Options{User: "7", Groups: []string{"g"}})
		publishAll(h, "g 1", "h 2")
		member.End(hub.ReasonClosed)
		publishAll(h, "g 3")
		time.Sleep(125 * time.Second)
		publishAll(h, "g 4")
		wantTexts(t, "after 0", resume(t, h, 0, "g"), expired, "g 3", "g 4")
		wantTexts(t, "after 1", resume(t, h, 1, "g"), expired, "g 3", "g 4")
		wantTexts(t, "after 2", resume(t, h, 2, "g"), "g 3", "g 4")
	})
}

// R16: a replay is complete only if it is complete for each group. Each low-water mark of each group alone decides.
func TestR16CompleteForEachGroup(t *testing.T) {
	t.Parallel()
	filler := "filler " + strings.Repeat("x", 200)
	for _, test := range []struct {
		name    string
		config  hub.Config
		publish func(h *hub.PubSub, member func(groups ...string) *listener)
		after   int
		want    []string // of groups a, b and c
	}{
		{"messages per group", hub.Config{HistoryPerUser: 2}, func(h *hub.PubSub, member func(...string) *listener) {
			member("a", "b")
			publishAll(h, "a 1", "b 2", "b 3", "b 4", "42 5")
		}, 0, []string{expired, "b 3", "b 4", "42 5"}},
		{"as many messages of each group", hub.Config{HistoryPerUser: 2}, func(h *hub.PubSub, member func(...string) *listener) {
			member("a", "b", "c")
			publishAll(h, "a 1", "b 2", "b 3", "c 4", "a 5", "c 6", "other 7", "other 8", "other 9")
		}, 0, []string{"a 1", "b 2", "b 3", "c 4", "a 5", "c 6"}},
		{"messages per group, and the ring has those of others", hub.Config{HistoryPerUser: 2}, func(h *hub.PubSub, member func(...string) *listener) {
			publishAll(h, "b 1")
			member("b")
			publishAll(h, "a 2", "b 3", "b 4", "b 5", "a 6")
		}, 0, []string{expired, "b 4", "b 5", "a 6"}},
		{"ring, before the first member of the last group", hub.Config{HistoryBytes: 8 << 10}, func(h *hub.PubSub, member func(...string) *listener) {
			member("a", "b")
			h.Position("42")
			publishAll(h, "c 1")
			for range 50 {
				publishAll(h, filler)
			}
			member("c")
			publishAll(h, "c 52", "a 53")
		}, 0, []string{expired, "c 52", "a 53"}},
		{"all groups have had members since", hub.Config{HistoryBytes: 8 << 10}, func(h *hub.PubSub, member func(...string) *listener) {
			publishAll(h, "c 1")
			member("a", "b", "c")
			h.Position("42")
			for range 50 {
				publishAll(h, filler)
			}
			publishAll(h, "c 52", "a 53")
		}, 1, []string{"c 52", "a 53"}},
		{"a group was forgotten for lack of bytes", hub.Config{HistoryBytes: 3000}, func(h *hub.PubSub, member func(...string) *listener) {
			c := member("c")
			publishAll(h, "c 1")
			c.End(hub.ReasonClosed)
			publishAll(h, "c 2")
			for i := range 6 {
				member(strings.Repeat("x", 300*i+1)).End(hub.ReasonClosed)
			}
			publishAll(h, "c 3")
		}, 0, []string{expired, "c 3"}},
		{"a group of others", hub.Config{HistoryPerUser: 2}, func(h *hub.PubSub, member func(...string) *listener) {
			member("other")
			publishAll(h, "other 1", "other 2", "other 3", "a 4")
		}, 0, []string{"a 4"}},
		{"the broadcasts", hub.Config{HistoryPerUser: 2}, func(h *hub.PubSub, member func(...string) *listener) {
			publishAll(h, "a 1", "* 2", "b 3", "* 4", "* 5")
		}, 0, []string{expired, "b 3", "* 4", "* 5"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := withHistory(t, func(c *hub.Config) {
				if test.config.HistoryPerUser > 0 {
					c.HistoryPerUser = test.config.HistoryPerUser
				}
				if test.config.HistoryBytes > 0 {
					c.HistoryBytes = test.config.HistoryBytes
				}
			})
			test.publish(h, func(groups ...string) *listener { return listen(t, h, hub.Options{User: "7", Groups: groups}) })
			for _, groups := range [][]string{{"a", "b", "c"}, {"c", "b", "a"}} {
				wantTexts(t, fmt.Sprint("groups ", groups), resume(t, h, test.after, groups...), test.want...)
			}
		})
	}
}

// R16: a client that has ended receives the rest of its replay. If its groups are forgotten meanwhile, it receives a gap.
func TestR16GroupsAreForgottenDuringTheReplayOfAnEndedClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, ring := range []bool{false, true} {
			h := withHistory(t, func(c *hub.Config) { c.HistoryPerUser, c.HistoryBytes = 1000, 256<<10 })
			if !ring {
				listen(t, h, hub.Options{User: "7", Groups: []string{"a", "b"}}).End(hub.ReasonClosed)
			}
			var want []string
			for n := range 300 {
				group := string("ab"[n%2])
				want = append(want, fmt.Sprint(group, " ", n))
				h.Publish(hub.Group(group), "", want[n])
			}
			l := register(t, h, hub.Options{User: "42", Groups: []string{"a", "b"}, Resume: after(h, 0)})
			frames, _ := l.Take(nil)
			l.Settle(frames, len(frames))
			l.Finish(hub.ReasonDrain)
			publishAll(h, "a, after the end")
			if ring {
				for range 2000 {
					publishAll(h, "filler "+strings.Repeat("x", 200))
				}
			} else {
				time.Sleep(125 * time.Second)
				member := listen(t, h, hub.Options{User: "7", Groups: []string{"a", "b"}}) // a new history with the same name
				publishAll(h, "a, later")
				member.End(hub.ReasonClosed)
			}
			texts, reason := l.drain()
			if reason != hub.ReasonDrain || len(frames) == 0 || len(frames) >= 150 || !slices.Equal(texts, []string{expired}) {
				t.Errorf("ring: %v: %d entries, then %d: %q …, reason %v", ring, len(frames), len(texts), texts[:min(3, len(texts))], word(reason))
			}
			if id, ok := l.Position(); !ok || id.Ms != 300 {
				t.Errorf("ring: %v: position %v (%v)", ring, id, ok)
			}
		}
	})
}

// R19: what is published to a group while a client resumes is either replayed or enqueued, also if the group is so large that its
// messages are distributed in parts.
func TestR19NothingBetweenTheReplayAndTheQueueOfAGroup(t *testing.T) {
	t.Parallel()
	for _, fanOut := range []int{1, 100} {
		h := withHistory(t, func(c *hub.Config) { c.FanOut = fanOut })
		for range 5 {
			listen(t, h, hub.Options{User: "7", Groups: []string{"g", "h"}})
		}
		var want []string
		publish := func(to string) {
			text := fmt.Sprint(to, " ", len(want))
			want = append(want, text)
			publishAll(h, text)
		}
		publish("g")
		publish("h")
		l := register(t, h, hub.Options{User: "42", Groups: []string{"g", "h"}, Resume: after(h, 0)}) // while the messages are pending
		for _, to := range []string{"h", "42", "*", "g", "absent"} {
			if publish(to); to == "absent" {
				want = want[:len(want)-1]
			}
		}
		hub.AwaitBroadcasts(h.Hub)
		wantFrames(t, l, want...)
		publish("h")
		hub.AwaitBroadcasts(h.Hub)
		wantFrames(t, l, want[len(want)-1])
	}
}

// The limit of messages per user applies to each group.
func TestHistoryPerUserAppliesToEachGroup(t *testing.T) {
	t.Parallel()
	h := withHistory(t, func(c *hub.Config) { c.HistoryPerUser = 3 })
	groups := []string{"a", "b", "c"}
	listen(t, h, hub.Options{User: "42", Groups: groups})
	var want []string
	for n := range 9 {
		want = append(want, fmt.Sprint(groups[n%3], " ", n))
	}
	publishAll(h, want...)
	wantTexts(t, "as many as are kept", resume(t, h, 0, groups...), want...)
	publishAll(h, "b 9")
	wantTexts(t, "one more", resume(t, h, 0, groups...), append([]string{expired, "c 2"}, append(want[3:], "b 9")...)...)
	if n := h.Stats().HistoryEntries; n != 9 {
		t.Errorf("%d entries", n)
	}
}

// Without a history, a client that has missed a message of a group receives a gap, and one that has not does not.
func TestGroupsWithoutAHistory(t *testing.T) {
	t.Parallel()
	for _, off := range []func(*hub.Config){
		func(c *hub.Config) { c.HistoryAge = hub.Off },
		func(c *hub.Config) { c.HistoryPerUser = hub.Off },
		func(c *hub.Config) { c.HistoryBytes = hub.Off },
	} {
		h := withHistory(t, off)
		publishAll(h, "g 1")
		wantTexts(t, "a group without members", resume(t, h, 0, "g"), expired)
		member := register(t, h, hub.Options{User: "42", Groups: []string{"g", "h"}, Resume: after(h, 1)})
		publishAll(h, "g 2", "h 3")
		wantFrames(t, member, "g 2", "h 3")
		wantTexts(t, "after 1", resume(t, h, 1, "h"), expired)
		wantTexts(t, "after 2", resume(t, h, 2, "g"))
		wantTexts(t, "after 3", resume(t, h, 3, "g", "h"))
		member.End(hub.ReasonClosed)
		wantTexts(t, "after 3, without members", resume(t, h, 3, "g", "h"))
		if s := h.Stats(); s.HistoryBytes != 0 || s.HistoryEntries != 0 || s.Groups != 0 {
			t.Errorf("%d bytes and %d entries of history, %d groups", s.HistoryBytes, s.HistoryEntries, s.Groups)
		}
	}
}

// A fleet is two hubs that receive the same messages and markers.
type fleet [2]*hub.PubSub

func newFleet(t *testing.T, change func(*hub.Config)) fleet {
	return fleet{withHistory(t, change), withHistory(t, change)}
}

func (f fleet) mark() {
	name := hub.NewMarkerName()
	for _, h := range f {
		h.Mark(name)
	}
}

func (f fleet) publish(list ...string) {
	for _, h := range f {
		publishAll(h, list...)
	}
}

// R25: nothing that is published after a position was requested is lost, at this hub and, if a marker is known, at others.
func TestR25Position(t *testing.T) {
	t.Parallel()
	t.Run("before the first marker", func(t *testing.T) {
		t.Parallel()
		f := newFleet(t, nil)
		f.publish("42 1")
		id, ok := f[0].Position("42")
		if ok || id != f[0].Boot()+"-1" {
			t.Errorf("position %q, %v", id, ok)
		}
		f.publish("42 2", "7 3")
		l := register(t, f[0], hub.Options{User: "42", Resume: id})
		wantFrames(t, l, "42 2")
		wantFrames(t, register(t, f[1], hub.Options{User: "42", Resume: id}), "gap unknown-id")
	})
	t.Run("at any hub", func(t *testing.T) {
		t.Parallel()
		f := newFleet(t, nil)
		f.publish("42 1")
		f.mark()
		f.publish("g 2")
		f[0].GapForAll(hub.GapMissed) // only this hub has it: the id has a suffix
		first, ok := f[0].Position("42")
		if !ok || !strings.Contains(first, f[0].Boot()) {
			t.Errorf("position %q, %v", first, ok)
		}
		f.publish("42 3", "g 4", "7 5", "* 6")
		second, ok := f[0].Position("42") // again, for another page
		f.publish("42 7", "g 8")
		if !ok || first == second {
			t.Errorf("positions %q and %q, %v", first, second, ok)
		}
		for n, h := range f {
			wantTexts(t, fmt.Sprint("first page, hub ", n), texts(t, h, hub.Options{User: "42", Groups: []string{"g"}, Resume: first}), "42 3", "g 4", "* 6", "42 7", "g 8")
			wantTexts(t, fmt.Sprint("second page, hub ", n), texts(t, h, hub.Options{User: "42", Groups: []string{"g"}, Resume: second}), "42 7", "g 8")
		}
		wantTexts(t, "an id from before the first call", texts(t, f[0], hub.Options{User: "42", Resume: after(f[0], 0)}),
			"42 1", "gap missed", "42 3", "* 6", "42 7")
		f[0].Begin()
		if _, ok := f[0].Position("42"); ok {
			t.Error("a position without a marker in this generation is valid at other hubs")
		}
	})
	t.Run("a user with a stream", func(t *testing.T) {
		t.Parallel()
		h := withHistory(t, nil)
		l := listen(t, h, hub.Options{User: "42"})
		publishAll(h, "42 1")
		id, _ := h.Position("42")
		publishAll(h, "42 2")
		wantFrames(t, l, "42 1", "42 2")
		wantTexts(t, "with the stream", texts(t, h, hub.Options{User: "42", Resume: id}), "42 2")
		l.End(hub.ReasonClosed)
		publishAll(h, "42 3")
		wantTexts(t, "after its end", texts(t, h, hub.Options{User: "42", Resume: id}), "42 2", "42 3")
		if s := h.Stats(); s.Users != 0 || s.Clients != 0 {
			t.Errorf("%d users, %d clients", s.Users, s.Clients)
		}
	})
	t.Run("the messages of a held user are not displaced by those of others", func(t *testing.T) {
		t.Parallel()
		h := withHistory(t, func(c *hub.Config) { c.HistoryBytes = 64 << 10 })
		id, _ := h.Position("42")
		publishAll(h, "42 1")
		for range 1000 {
			publishAll(h, "filler "+strings.Repeat("x", 200))
		}
		if hub.RingLowWater(h) == 0 {
			t.Fatal("the ring has dropped nothing")
		}
		publishAll(h, "42 1002")
		wantTexts(t, "held", texts(t, h, hub.Options{User: "42", Resume: id}), "42 1", "42 1002")
		wantTexts(t, "a group is covered as far as it is kept", texts(t, h, hub.Options{User: "42", Groups: []string{"g"}, Resume: id}), expired, "42 1002")
	})
	t.Run("until the age of the history after the last call", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			h := withHistory(t, func(c *hub.Config) { c.HistoryBytes = 64 << 10 })
			h.Position("42")
			time.Sleep(100 * time.Second)
			id, _ := h.Position("42")
			time.Sleep(100 * time.Second)
			publishAll(h, "42 1")
			for range 1000 {
				publishAll(h, "filler "+strings.Repeat("x", 200))
			}
			wantTexts(t, "after 100 s", texts(t, h, hub.Options{User: "42", Resume: id}), "42 1")
			time.Sleep(125 * time.Second)
			if s := h.Stats(); s.HistoryBytes != hub.RingBytes(h) {
				t.Errorf("%d bytes of history, %d of the ring", s.HistoryBytes, hub.RingBytes(h))
			}
			wantTexts(t, "after the age", texts(t, h, hub.Options{User: "42", Resume: id}), expired)
		})
	})
	t.Run("log", func(t *testing.T) {
		t.Parallel()
		f := newStreamFeed(t, hub.Config{BroadcastUser: "*", HistoryBytes: 1 << 20}, func(*hub.Query) { t.Error("a query") })
		if id, ok := f.Position("42"); ok {
			t.Errorf("position %q before the log is loaded", id)
		}
		f.Load(hub.ID{Ms: 7}, hub.ID{Ms: 7}, func(func(hub.Recipient, hub.Entry) bool) {})
		id, ok := f.Position("42")
		if !ok || id != "7-0" {
			t.Errorf("position %q, %v", id, ok)
		}
		for n, text := range []string{"42 8", "g 9", "7 10"} {
			f.Append(recipient(text), hub.Entry{ID: hub.ID{Ms: uint64(8 + n)}, Payload: text})
		}
		l := register(t, f, hub.Options{User: "42", Groups: []string{"g"}, Resume: id})
		wantFrames(t, l, "42 8", "g 9")
		if s := f.Stats(); s.Users != 1 {
			t.Errorf("%d users", s.Users)
		}
	})
}

// Invariant 14: positions for very many users do not use more than the bytes of the history, and cost no other page a gap: all
// messages of a user who never had a client are in the ring, too.
func TestR25PositionsOfManyUsersAreBounded(t *testing.T) {
	const limit, calls = 8 << 20, 100_000
	h := withHistory(t, func(c *hub.Config) { c.HistoryBytes = limit })
	h.Mark(hub.NewMarkerName())
	before := heap()
	publishAll(h, "moved 1", "7 2")
	for i := range calls {
		if _, ok := h.Position(fmt.Sprint("user-", i)); !ok {
			t.Fatal("not valid at other hubs")
		}
		if i%1000 == 0 {
			if s := h.Stats(); s.HistoryBytes > limit {
				t.Fatalf("%d bytes after %d calls, want %d at most", s.HistoryBytes, i, limit)
			}
		}
	}
	grown, s := heap()-before, h.Stats()
	if grown > 2*limit || s.HistoryBytes < limit/2 || s.HistoryBytes > limit || s.Users != 0 {
		t.Errorf("%d bytes of history, %d of the heap; limit %d; %d users", s.HistoryBytes, grown, limit, s.Users)
	}
	publishAll(h, "7 3")
	wantTexts(t, "a page of another user", texts(t, h, hub.Options{User: "7", Groups: []string{"moved"}, Resume: after(h, 0)}), "moved 1", "7 2", "7 3")
	wantTexts(t, "a user who was forgotten", texts(t, h, hub.Options{User: "user-0", Groups: []string{"moved"}, Resume: after(h, 0)}), "moved 1")
}

// R15, R25: the messages that a user received while it had a client are not in the ring, also if it was held later. Users are not
// forgotten in the order in which they left then.
func TestR25HeldUserWhoHadAClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, other := range []bool{false, true} {
			h := withHistory(t, nil)
			h.Mark(hub.NewMarkerName())
			leave := func(user, text string) {
				l := listen(t, h, hub.Options{User: user})
				publishAll(h, text)
				l.End(hub.ReasonClosed)
			}
			leave("42", "42 1")
			publishAll(h, "42 2")
			want := []string{expired, "42 2", "42 5"}
			if other {
				leave("7", "7 3")
				want = []string{expired, "42 5"}
			} else {
				publishAll(h, "7 3")
			}
			publishAll(h, "7 4")
			time.Sleep(time.Minute)
			h.Position("42")
			publishAll(h, "42 5")
			time.Sleep(125 * time.Second) // first the other user is forgotten, which left later
			if s := h.Stats(); s.HistoryElsewhere != 2*time.Minute {
				t.Errorf("reaches back %v; the last client left longer ago", s.HistoryElsewhere)
			}
			wantTexts(t, "held, before its client left", texts(t, h, hub.Options{User: "42", Resume: after(h, 0)}), want...)
			wantTexts(t, "other user", texts(t, h, hub.Options{User: "7", Resume: after(h, 3)}), "7 4")
		}
	})
}
