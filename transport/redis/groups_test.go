package redis

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"usercast/hub"
	"usercast/internal/redistest"
)

// A page that moves to another hub receives the messages of its user, of its groups and for all users in one order. At
// the reconnect, it has joined a group and left another one: the ring of the other hub has the messages of both.
func TestPageWithGroupsMovesBetweenHubs(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := startHub(t, parse(t, server.URL(), ServerOptions{}), nil), startHub(t, parse(t, server.URL(), ServerOptions{}), nil)
	say := func(channel, payload string) { server.Do("publish", channel, payload) }
	p := a.open(t, "42", "", "team-7", "tenant-1")
	say("user-42", "1")
	say("group-team-7:news", "2")
	say("group-team-9", "of others")
	say("user-team-7", "of a user")
	say("user-*", "3")
	say("group-42", "of others")
	p.await(t, "1", "2", "3")
	id := p.leave()
	say("group-team-9:news", "4")
	say("group-tenant-1", "left")
	say("user-42", "5")
	say("group-*", "of others")
	say("group-team-7", "6")
	say("user-*:t", "7")
	p = b.open(t, "42", id, "team-9", "team-7", "team-9")
	p.await(t, "4", "5", "6", "7")
	say("group-team-9", "8")
	say("group-tenant-1", "left")
	p.await(t, "4", "5", "6", "7", "8")
	b.open(t, "42", id).await(t, "5", "7")
	q := a.open(t, "team-7", id)
	q.await(t, "7")
	a.open(t, "42", p.leave(), "tenant-1").await(t, "left")
	for _, h := range []*fleetHub{a, b} {
		eventually(t, "all messages were received", func() bool { return h.feed.Stats().Received == 14 })
		if s := h.feed.Stats(); s.Mismatches != 0 || s.Malformed != 0 {
			t.Errorf("stats %+v", s)
		}
		h.log.warnings(t, 0)
	}
}

// A deploy that adds --group-prefix costs each page one gap: ids of hubs without it do not count at hubs with it (R3).
func TestR3AddingAGroupPrefixCostsEachPageOneGap(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	begin := func(name, groups string) *fleetHub {
		return startHub(t, parse(t, server.URL(), ServerOptions{}), func(c *PubSubConfig) { c.Name, c.Version, c.Channels.Groups = name, "1", groups })
	}
	before := []*fleetHub{begin("a", ""), begin("b", "")}
	p := before[0].open(t, "42", "")
	publish(server, "1")
	p.await(t, "1")
	after := []*fleetHub{begin("c", "group-"), begin("d", "group-")}
	publish(server, "2")
	server.Do("publish", "group-team-7", "unknown to old hubs")
	p.await(t, "1", "2")
	q := before[1].open(t, "42", p.leave())
	publish(server, "3")
	q.await(t, "3")
	r := after[0].open(t, "42", q.leave(), "team-7")
	r.await(t, "gap unknown-id")
	server.Do("publish", "group-team-7", "4")
	r.await(t, "gap unknown-id", "4")
	id := r.leave()
	publish(server, "5")
	after[1].open(t, "42", id, "team-7").await(t, "5")
	before[0].open(t, "42", id).await(t, "gap unknown-id") // and back, in a rollback
	for i, h := range slices.Concat(before, after) {
		eventually(t, "each hub knows the others", func() bool { return len(h.feed.Stats().Hubs) == 4 })
		names, channels, does := []string{"a", "b"}, "channels=user-*", "does not subscribe"
		if i < len(before) {
			names, channels, does = []string{"c", "d"}, "channels=group-* user-*", "subscribes"
		}
		for _, name := range names {
			h.log.await(t, "WARN another hub "+does+" to the channels of groups,", "hub="+name, channels, "--group-prefix")
		}
		h.log.warnings(t, len(names))
		if s := h.feed.Stats(); s.Mismatches != 0 {
			t.Errorf("stats %+v", s)
		}
	}
}

// A page that resumes receives the entries of its user, its groups and for all users in order: those before the window
// of the hub are read from the stream, the others are in the window, and the newest ones arrive while it is open.
func TestStreamFeedResumesGroupsBeforeItsWindow(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	channels := []string{"user-42", "group-team-7:t", "user-*", "group-team-9", "user-team-7", "group-42"}
	const entries = 300
	want := func(end int, groups ...string) (payloads []string) {
		for n := 1; n < end; n++ {
			if c := n % len(channels); c == 0 || c == 2 || c == 1 && slices.Contains(groups, "team-7") || c == 3 && slices.Contains(groups, "team-9") {
				payloads = append(payloads, fmt.Sprint(n))
			}
		}
		return payloads
	}
	first := ""
	add := func(n int) {
		if id := xadd(server, channels[n%len(channels)], fmt.Sprint(n)); first == "" {
			first = id
		}
	}
	for n := range entries {
		add(n)
	}
	var feed *StreamFeed
	h := hub.NewStreamFeed(hub.Config{
		MaxClients: hub.NoLimit, MaxClientsPerUser: hub.NoLimit, BroadcastUser: "*", HistoryBytes: 8 << 10, Encode: encodeText,
	}, func(q *hub.Query) { feed.Query(q) })
	defer h.Close()
	feed, err := NewStreamFeed(StreamConfig{
		Server: parse(t, server.URL(), ServerOptions{}), Hub: h, Key: "log", Channels: Channels{Groups: "group-"}, WindowBytes: 4 << 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = feed.Run(ctx) })
	defer running.Wait()
	defer cancel()

	pages := map[string]*visitor{}
	memberships := map[string][]string{"none": nil, "one": {"team-7"}, "both": {"team-9", "none", "team-7"}}
	for name, groups := range memberships {
		pages[name] = openVisitor(t, h.Hub, hub.Options{User: "42", Groups: groups, Resume: first})
	}
	for name, groups := range memberships {
		pages[name].await(t, want(entries, groups...)...)
	}
	for n := range len(channels) {
		add(entries + n)
	}
	for name, groups := range memberships {
		pages[name].await(t, want(entries+len(channels), groups...)...)
	}
	if n := callsOf(t, server, "xrange"); n == 0 {
		t.Error("nothing was read before the window")
	}
}
