package redis

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"usercast/hub"
	"usercast/internal/redistest"
)

// A journey is what one page has received while it moved between hubs, and how many messages were published for it.
type journey struct {
	frames    []string // numbers of messages, and gaps
	published int
}

// travelers numbers the users of wander.
var travelers atomic.Int64

// wander lets a page move between hubs at random, while publish is called with the channels of its user and of its group in
// turn, and with 1, 2, … until it succeeds for each. It ends after at least 20 moves, when done returns true and everything has arrived.
func wander(t *testing.T, hubs []*fleetHub, publish func(channel, payload string) bool, done func() bool) *journey {
	t.Helper()
	user := fmt.Sprint("traveler", travelers.Add(1))
	group := "of " + user
	channel := func(n int64) string { return []string{"user-" + user, "group-" + group}[n%2] }
	id := hubs[len(hubs)-1].open(t, user, "", group).leave() // before the first message
	var published atomic.Int64
	var over atomic.Bool
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for n := int64(1); !over.Load(); n++ {
			for !publish(channel(n), fmt.Sprint(n)) && !over.Load() {
				time.Sleep(5 * time.Millisecond)
			}
			published.Store(n)
			time.Sleep(2 * time.Millisecond)
		}
	})
	stop := sync.OnceFunc(func() { over.Store(true); publishing.Wait() })
	defer stop()

	j := &journey{}
	deadline := time.Now().Add(4 * patience)
	for moves := 0; moves < 20 || !done(); moves++ {
		if time.Now().After(deadline) {
			t.Fatal("timed out while a page moved")
		}
		p := hubs[rand.IntN(len(hubs))].open(t, user, id, group)
		time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
		if moves%5 == 4 { // also on a busy machine, the page must sometimes stay until the reply to a PING
			time.Sleep(300 * time.Millisecond)
		}
		id = p.leave()
		j.frames = append(j.frames, p.frames...)
	}
	stop()
	// One more message arrives, unless it is announced as a gap: then one after it does.
	p := hubs[rand.IntN(len(hubs))].open(t, user, id, group)
	arrived := func() bool {
		all := p.seen()
		return len(all) > 0 && all[len(all)-1] == fmt.Sprint(j.published)
	}
	for j.published = int(published.Load()); !arrived(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("message %d was not received after %q", j.published, p.seen())
		}
		if publish(channel(int64(j.published+1)), fmt.Sprint(j.published+1)) {
			j.published++
			time.Sleep(50 * time.Millisecond)
		}
	}
	p.leave()
	j.frames = append(j.frames, p.frames...)
	return j
}

// check checks that each message was received once and in order, or followed by a gap. It returns the number of gaps.
func (j *journey) check(t *testing.T) (gaps int) {
	t.Helper()
	return j.checkWith(t, false)
}

// checkMovedNode is check for a cluster whose hubs move to another node, one after the other. The nodes receive a message at
// different times. So a page that moves to a hub at another node may receive messages again, but only behind a gap.
func (j *journey) checkMovedNode(t *testing.T) (gaps int) {
	t.Helper()
	return j.checkWith(t, true)
}

func (j *journey) checkWith(t *testing.T, again bool) (gaps int) {
	t.Helper()
	last, gap := 0, false
	for i, frame := range append(j.frames, fmt.Sprint(j.published+1)) {
		if strings.HasPrefix(frame, "gap ") {
			gap = true
			gaps++
			continue
		}
		n, err := strconv.Atoi(frame)
		if err != nil || n <= last && !(gap && again) || n > last+1 && !gap {
			t.Errorf("frame %q after %d: %q", frame, last, j.frames[max(i-10, 0):min(i+3, len(j.frames))])
		}
		last, gap = n, false
	}
	t.Logf("%d messages, %d frames, %d gaps", j.published, len(j.frames), gaps)
	return gaps
}

// In a cluster, all hubs are subscribed to the same node: the same message has the same id at each of them, whichever node it
// was published at.
func TestIDsOfAClusterAreEqualAtAllHubs(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	var hubs []*fleetHub
	for i := range nodes {
		hubs = append(hubs, startHub(t, parse(t, clusterURL("", nodes[i]), ServerOptions{}), func(c *PubSubConfig) { c.Name = fmt.Sprint(i) }))
	}
	subscribedTo(t, nodes, nodes[channelOwner(nodes)], 3)
	var pages []*visitor
	for _, h := range hubs {
		pages = append(pages, h.open(t, "42", ""))
	}
	const messages = 200
	var publishing sync.WaitGroup
	for i, node := range nodes {
		publishing.Go(func() {
			for n := range messages {
				node.Do("publish", "user-42", fmt.Sprint(i, " ", n))
			}
		})
	}
	publishing.Wait()
	for _, p := range pages {
		eventually(t, "all messages were received", func() bool { return len(p.seen()) == 3*messages })
		if !slices.Equal(p.frames, pages[0].frames) || !slices.Equal(p.ids, pages[0].ids) {
			t.Error("hubs disagree about the ids of messages")
		}
	}
	for _, h := range hubs {
		if s := h.feed.Stats(); s.Mismatches != 0 || len(s.Hubs) != 3 {
			t.Errorf("stats %+v", s)
		}
		h.log.warnings(t, 0)
	}
	other := nodes[(channelOwner(nodes)+1)%3]
	if gaps := wander(t, hubs, func(channel, payload string) bool {
		_, err := other.Try("publish", channel, payload)
		return err == nil
	}, func() bool { return true }).check(t); gaps > 0 {
		t.Errorf("%d gaps", gaps)
	}
}

// generations returns whether all hubs are subscribed in a generation from n on.
func generations(hubs []*fleetHub, n uint64) bool {
	return !slices.ContainsFunc(hubs, func(h *fleetHub) bool {
		s := h.feed.Stats()
		return s.Generation < n || !s.Connected
	})
}

// The hubs follow the slot of the control channel one after the other, while pages move between them.
func TestPagesMoveWhileTheSlotMoves(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	var hubs []*fleetHub
	for i, every := range []time.Duration{200 * time.Millisecond, time.Hour} { // the second hub makes no probes by itself
		hubs = append(hubs, startHub(t, parse(t, clusterURL("", nodes...), ServerOptions{}), func(c *PubSubConfig) {
			c.Name, c.ProbeEvery = fmt.Sprint(i), every
		}))
	}
	from := channelOwner(nodes)
	to := (from + 1) % 3
	subscribedTo(t, nodes, nodes[from], 2)
	move := sync.OnceFunc(func() {
		redistest.MoveSlot(nodes, nodes[0].Do("cluster", "keyslot", ControlChannel("user-")), nodes[to])
	})
	publisher := nodes[(from+2)%3]
	gaps := wander(t, hubs, func(channel, payload string) bool {
		if payload == "100" {
			move()
		}
		_, err := publisher.Try("publish", channel, payload)
		return err == nil
	}, func() bool { return generations(hubs, 2) }).checkMovedNode(t)
	if gaps == 0 {
		t.Error("the page was not told of the new subscriptions")
	}
	subscribedTo(t, nodes, nodes[to], 2)
	// The second hub has followed because of a page whose marker it did not know (R7).
	for _, h := range hubs {
		h.log.once(t, "WARN redis subscription lost", "reason=moved", "owns the slot of the control channel")
	}
	// From here on, no more gaps.
	if gaps := wander(t, hubs, func(channel, payload string) bool {
		_, err := publisher.Try("publish", channel, payload)
		return err == nil
	}, func() bool { return true }).check(t); gaps > 0 {
		t.Errorf("%d gaps after all hubs had followed", gaps)
	}
}

// While the owner of the control channel is down, all hubs are at the same other node. They follow the replica that is promoted.
func TestPagesMoveWhileTheOwnerFailsOver(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	from := channelOwner(nodes)
	replica := redistest.AddClusterReplica(t, nodes[from], 3)
	rest := append(slices.Delete(slices.Clone(nodes), from, from+1), replica)
	var hubs []*fleetHub
	for i := range 2 {
		hubs = append(hubs, startHub(t, parse(t, clusterURL("", nodes...), ServerOptions{}), func(c *PubSubConfig) {
			c.Name, c.ProbeEvery, c.ProbeTimeout = fmt.Sprint(i), 300*time.Millisecond, time.Second
		}))
	}
	publisher := rest[0]
	met := false
	gaps := wander(t, hubs, func(channel, payload string) bool {
		if payload == "100" {
			nodes[from].Kill()
		}
		_, err := publisher.Try("publish", channel, payload)
		return err == nil
	}, func() bool {
		for _, node := range rest {
			met = met || node != replica && hubsAt(node) == 2
		}
		return hubsAt(replica) == 2 && generations(hubs, 2)
	}).checkMovedNode(t)
	if gaps == 0 {
		t.Error("the page was not told of the new subscriptions")
	}
	if !met && !hubsMetAt(hubs, replica) {
		t.Error("the hubs were at different nodes meanwhile")
	}
}

// hubsAt returns the number of hubs that are subscribed to a node.
func hubsAt(node *redistest.Server) int {
	return int(node.Do("pubsub", "numsub", ControlChannel("user-")).([]any)[1].(int64))
}

// hubsMetAt reports whether hubs have moved to a node without being at another one before.
func hubsMetAt(hubs []*fleetHub, node *redistest.Server) bool {
	return !slices.ContainsFunc(hubs, func(h *fleetHub) bool {
		return h.log.count("INFO redis subscribed", "generation=2", "address="+node.Addr()) != 1
	})
}

// After a failover by Sentinels, the run_id is another one: ids of the old primary end where the hub has left it. During a soft
// failover the old primary becomes a replica, so hubs that are still subscribed to it also receive what is published.
func TestPagesMoveDuringAFailoverBySentinel(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*watched){
		"soft": func(w *watched) { w.sentinels[0].Do("sentinel", "failover", "main") },
		"kill": func(w *watched) { w.primary.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := startWatched(t)
			var hubs []*fleetHub
			for i := range 2 {
				hubs = append(hubs, startHub(t, parse(t, sentinelURL(w.sentinels...), ServerOptions{}), func(c *PubSubConfig) {
					c.Name, c.ProbeEvery = fmt.Sprint(i), 5*time.Second
				}))
			}
			gaps := wander(t, hubs, func(channel, payload string) bool {
				if payload == "100" {
					fail(w)
				}
				_, err := w.servers[w.sentinels[0].PrimaryOf("main")].Try("publish", channel, payload)
				return err == nil
			}, func() bool { return generations(hubs, 2) }).check(t)
			if gaps == 0 {
				t.Error("the page was not told of the new subscriptions")
			}
			for _, h := range hubs {
				if s := h.feed.Stats(); s.Mismatches != 0 {
					t.Errorf("stats %+v", s)
				}
			}
		})
	}
}

// Where markers do not count, ids are valid on one hub: another one reports unknown-id, and the same one resumes.
func TestIDsWithoutMarkersAreOfOneHub(t *testing.T) {
	t.Parallel()
	second := redistest.Start(t)
	for name, c := range map[string]struct {
		permissions []any
		several     bool
		named       string
	}{
		"run_id is unknown":                           {[]any{"-info"}, false, "command=INFO"},
		"no hub may subscribe to the control channel": {[]any{"resetchannels", "&user-*", "&group-*", "&usercast:user-probe:*"}, false, "command=SUBSCRIBE to the control channel"},
		"no hub may publish":                          {[]any{"-publish"}, false, "command=PUBLISH to the control channel"},
		"several Redis":                               {nil, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			server.Do(append([]any{"acl", "setuser", "app", "on", ">secret", "+@all", "&*"}, c.permissions...)...)
			var hubs []*fleetHub
			for i := range 2 {
				h := startHub(t, parse(t, "redis://app:secret@"+server.Addr(), ServerOptions{}), func(cfg *PubSubConfig) { cfg.Name, cfg.NoMarkers = fmt.Sprint(i), c.several })
				if c.several {
					feedAlso(t, h, second)
				}
				hubs = append(hubs, h)
			}
			p := hubs[0].open(t, "42", "")
			publish(server, "1", "2")
			p.await(t, "1", "2")
			id := p.leave()
			if !strings.HasPrefix(id, hubs[0].Boot()+"-") {
				t.Errorf("the id is %s, but this hub is %s", id, hubs[0].Boot())
			}
			publish(server, "3")
			hubs[0].open(t, "42", id).await(t, "3")
			if c.several {
				publish(second, "4")
				hubs[0].open(t, "42", id).await(t, "3", "4")
			}
			q := hubs[1].open(t, "42", id)
			q.await(t, "gap unknown-id")
			publish(server, "5")
			q.await(t, "gap unknown-id", "5")
			if c.named != "" {
				hubs[1].log.once(t, "WARN redis permission missing", c.named, "ids are valid on this hub only")
			}
			if s := hubs[1].feed.Stats(); s.Mismatches != 0 || s.Generation != 1 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// feedAlso connects a hub to another Redis as well.
func feedAlso(t *testing.T, h *fleetHub, server *redistest.Server) {
	t.Helper()
	also, err := NewPubSub(PubSubConfig{Server: parse(t, server.URL(), ServerOptions{}), Hub: h.PubSub, NoMarkers: true})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = also.Run(t.Context()) })
	t.Cleanup(running.Wait) // the context of a test ends before
	eventually(t, "it was subscribed", func() bool { return also.Stats().Connected })
}

// The embedded Redis of usercast dev does not report a run_id. That is no reason for a warning.
func TestEmbeddedRedisHasIDsOfOneHub(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	h := startHub(t, parse(t, "redis://"+server.Addr(), ServerOptions{}), nil)
	p := h.open(t, "42", "")
	server.Publish("user-42", "x")
	p.await(t, "x")
	if id := p.leave(); !strings.HasPrefix(id, h.Boot()+"-") {
		t.Errorf("the id is %s", id)
	}
	h.open(t, "42", "abcdefghijklm-1").await(t, "gap unknown-id")
	h.log.warnings(t, 0)
}

// A relay cuts single messages out of the connection of one hub. Each is announced there as missed, once. Pages that come
// from it later receive the gap too, unless they have received it already.
func TestMissedMessagesAreAnnouncedToPages(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	relay := redistest.StartDamagingRelay(t, server.Addr(), func(reply []byte) []byte {
		if strings.Contains(string(reply), "to be cut out") {
			return nil
		}
		return reply
	})
	short := startHub(t, parse(t, relay.URL(), ServerOptions{}), func(c *PubSubConfig) { c.Name = "short" })
	others := []*fleetHub{
		startHub(t, parse(t, server.URL(), ServerOptions{}), func(c *PubSubConfig) { c.Name = "a" }),
		startHub(t, parse(t, server.URL(), ServerOptions{}), func(c *PubSubConfig) { c.Name = "b" }),
	}
	for _, h := range append(others, short) {
		eventually(t, "all hubs were seen", func() bool { return len(h.feed.Stats().Hubs) == 3 })
	}
	watchMarkers(t, server).await(t, 9)
	there, here := short.open(t, "42", ""), []*visitor{others[0].open(t, "42", ""), others[1].open(t, "42", "")}
	publish(server, "1")
	for _, p := range append(here, there) {
		p.await(t, "1")
	}
	early := short.open(t, "42", there.position())
	markers := watchMarkers(t, server)
	publish(server, "2", "to be cut out")
	there.await(t, "1", "2", "gap missed")
	early.await(t, "2", "gap missed")
	// A marker repeats the announcement until one of its hub has arrived there. Ids from before the last one are in doubt.
	eventually(t, "the announcement has ended", func() bool {
		announced, ended := false, false
		for _, m := range markers.markers(t) {
			if m.Hub.Name == "short" {
				announced = announced || m.Missed != hub.MarkerName{}
				ended = announced && m.Missed == hub.MarkerName{}
			}
		}
		return ended
	})
	publish(server, "3")
	there.await(t, "1", "2", "gap missed", "3")
	for _, p := range here {
		p.await(t, "1", "2", "to be cut out", "3")
	}
	// A page that has received the gap takes an id along that other hubs resume.
	told := there.leave()
	watchMarkers(t, server).await(t, 6)
	publish(server, "4")
	moved := others[0].open(t, "42", told)
	moved.await(t, "4")
	for _, p := range here {
		p.await(t, "1", "2", "to be cut out", "3", "4")
	}
	if s := short.feed.Stats(); s.Mismatches != 1 || s.Generation != 1 {
		t.Errorf("stats %+v", s)
	}
	for _, h := range others {
		if s := h.feed.Stats(); s.Mismatches != 0 {
			t.Errorf("stats %+v", s)
		}
	}
	early.await(t, "2", "gap missed", "3", "4")
}
