package redis

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"usercast/internal/redistest"
	"usercast/transport/redis/internal/fleet"
	"usercast/transport/redis/internal/topology"
)

// A watcher collects the markers that are published on a server.
type watcher struct {
	mu       sync.Mutex
	payloads []string
}

// watchMarkers subscribes to the default control channel of a server until the test ends.
func watchMarkers(t *testing.T, server *redistest.Server) *watcher {
	t.Helper()
	w := &watcher{}
	client := parse(t, server.URL(), ServerOptions{AnswerTimeout: patience}).topology().NewClient(topology.Target{}, func(c net.Conn) net.Conn { return c })
	subscription := client.Subscribe(context.Background(), ControlChannel("user-"))
	if _, err := subscription.Receive(context.Background()); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for m := range subscription.Channel() {
			w.mu.Lock()
			w.payloads = append(w.payloads, m.Payload)
			w.mu.Unlock()
		}
	})
	t.Cleanup(func() { _ = subscription.Close(); _ = client.Close(); running.Wait() })
	return w
}

// markers returns all markers so far.
func (w *watcher) markers(t *testing.T) (markers []fleet.Marker) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, payload := range w.payloads {
		mk, err := fleet.ParseMarker(payload)
		if err != nil {
			t.Fatalf("%q: %v", payload, err)
		}
		markers = append(markers, mk)
	}
	return markers
}

// nth waits for the nth marker.
func (w *watcher) nth(t *testing.T, n int) fleet.Marker {
	t.Helper()
	eventually(t, fmt.Sprint(n, " markers were published"), func() bool { return len(w.markers(t)) >= n })
	return w.markers(t)[n-1]
}

// await waits for n more markers, and returns them.
func (w *watcher) await(t *testing.T, n int) []fleet.Marker {
	t.Helper()
	before := len(w.markers(t))
	eventually(t, fmt.Sprint(n, " markers were published"), func() bool { return len(w.markers(t)) >= before+n })
	return w.markers(t)[before:]
}

// often makes a feed write markers often.
func often(c *PubSubConfig) { c.markEvery = 50 * time.Millisecond }

// seldom makes a feed write markers only when it has subscribed and when one is due.
func seldom(c *PubSubConfig) { c.markEvery = time.Hour }

func TestMarkerDescribesItsHub(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := watchMarkers(t, server)
	h := start(t, parse(t, server.URL(), ServerOptions{}), func(c *PubSubConfig) {
		c.Name, c.Version, c.Load = "hub-a", "1.2", func() (int, int) { return 3, 2 }
		c.Channels.Users, c.ControlChannel = "user-", ControlChannel("user-")
		seldom(c)
	})
	first := w.nth(t, 1)
	runID := topology.InfoField(server.Do("info", "server").(string), "run_id")
	if want := (fleet.Hub{Name: "hub-a", Version: "1.2", Streams: 3, Users: 2}); first.Hub != want || first.RunID != runID || !slices.Equal(first.Patterns, []string{"user-*"}) {
		t.Errorf("%+v", first)
	}
	eventually(t, "its marker was received", func() bool { return h.Stats().Marked })
	server.Do("publish", "user-1", "x")
	server.Do("publish", "user-", "malformed")
	eventually(t, "both were received", func() bool { return h.Stats().Received == 2 })
	h.WriteMarker(t.Context())
	second := w.nth(t, 2)
	if second.Name == first.Name || second.From != first.From {
		t.Errorf("%v of %s after %v of %s", second.Name, second.From, first.Name, first.From)
	}
	if len(second.Points) != 1 || second.Points[0].Name != first.Name || second.Points[0].Count != 0 {
		t.Errorf("points %+v", second.Points)
	}
	eventually(t, "the second marker was received", func() bool { return h.places.count("mark ") == 2 })
	h.WriteMarker(t.Context())
	if points := w.nth(t, 3).Points; len(points) != 2 || points[1].Name != second.Name || points[1].Count != 2 {
		t.Errorf("points %+v after two messages", points)
	}
	if s := h.Stats(); s.ControlReceived != 0 || len(s.Hubs) != 1 || !s.Hubs[0].Self || s.Hubs[0].Age < 0 || s.Hubs[0].Streams != 3 {
		t.Errorf("stats %+v", s)
	}

	// A new generation counts from 0, under another name.
	for _, line := range connections(server) {
		if strings.Contains(line, " psub=1 ") {
			server.Do("client", "kill", "addr", topology.InfoField(strings.ReplaceAll(strings.ReplaceAll(line, " ", "\n"), "=", ":"), "addr"))
		}
	}
	if fourth := w.nth(t, 4); fourth.From == first.From || len(fourth.Points) != 0 {
		t.Errorf("%+v in the second generation", fourth)
	}
	h.log.warnings(t, 1)
}

// R2: A name that is delivered twice would stand for two places. Without a reply, a marker may have been published or not.
func TestR2MarkerIsSentOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	relay := redistest.StartDamagingRelay(t, server.Addr(), func(reply []byte) []byte {
		if bytes.HasPrefix(reply, []byte(":")) { // only PUBLISH of a marker returns a number here
			return nil
		}
		return reply
	})
	w := watchMarkers(t, server)
	h := start(t, parse(t, relay.URL(), ServerOptions{AnswerTimeout: 300 * time.Millisecond}), func(c *PubSubConfig) {
		c.markEvery, c.echoWithin = 20*time.Millisecond, 20*time.Millisecond
		c.ProbeEvery = time.Hour
	})
	h.awaitGeneration(t, 1)
	w.await(t, 4)
	h.stop()
	seen := map[string]bool{}
	for _, mk := range w.markers(t) {
		if seen[mk.Name.String()] {
			t.Errorf("%s was published twice", mk.Name)
		}
		seen[mk.Name.String()] = true
	}
	h.log.once(t, "WARN redis markers not published or not received", "reason=silent")
}

// While Redis runs a long script, it refuses PUBLISH. That is no missing permission: the hub retries, and says what is wrong.
func TestBusyRedisIsNoMissingPermission(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--busy-reply-threshold", "1")
	h := start(t, parse(t, server.URL(), ServerOptions{}), func(c *PubSubConfig) {
		c.markEvery, c.ProbeEvery = 20*time.Millisecond, time.Hour
	})
	eventually(t, "its marker was received", func() bool { return h.Stats().Marked })
	var running sync.WaitGroup
	running.Go(func() { _, _ = server.Try("eval", "while true do end", "0") })
	h.log.await(t, "WARN redis markers not published or not received", "reason=busy", "SCRIPT KILL")
	server.Do("script", "kill")
	running.Wait()
	before := h.places.count("mark ")
	eventually(t, "another marker was received", func() bool { return h.places.count("mark ") > before+1 })
	if n := h.log.count("consequence="); n > 0 {
		t.Errorf("%d permissions are said to be missing", n)
	}
}

// A demoted primary executes PUBLISH, but the message reaches no hub.
func TestMarkerConnectionIsReplacedIfMarkersDoNotArrive(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t), redistest.Start(t)
	relay := redistest.StartRelay(t, a.Addr())
	atA, atB := watchMarkers(t, a), watchMarkers(t, b)
	h := &subscriber{onBegin: func() { relay.SetTarget(b.Addr()) }} // the next connection is that for markers
	startSubscriber(t, parse(t, relay.URL(), ServerOptions{}), h, func(c *PubSubConfig) {
		c.markEvery, c.echoWithin = 200*time.Millisecond, 50*time.Millisecond
		c.ProbeEvery = time.Hour
	})
	h.awaitGeneration(t, 1)
	atB.await(t, 3)
	h.log.await(t, "WARN redis markers not published or not received", "reason=lost")
	if h.Stats().Marked || len(atA.markers(t)) > 0 {
		t.Error("markers of b count at a")
	}
	relay.SetTarget(a.Addr())
	eventually(t, "its own marker was received", func() bool { return h.Stats().Marked })
	atA.await(t, 3)
	names := map[string]bool{}
	all := append(atA.markers(t), atB.markers(t)...)
	for _, mk := range all {
		names[mk.Name.String()] = true
	}
	if n := len(all); len(names) != n {
		t.Errorf("%d names for %d markers", len(names), n)
	}
}

func TestMarkerConnectionIsKept(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	relay := redistest.StartRelay(t, server.Addr())
	h := start(t, parse(t, relay.URL(), ServerOptions{AnswerTimeout: patience}), func(c *PubSubConfig) {
		c.markEvery, c.echoWithin, c.ProbeEvery = 10*time.Millisecond, patience, time.Hour
	})
	eventually(t, "markers were received", func() bool { return h.places.count("mark ") >= 10 })
	if n := relay.Accepted(); n != 2 {
		t.Errorf("%d connections were made, want one for the subscription and one for markers", n)
	}
	h.log.warnings(t, 0)
}

// R3, on the wire: a replica forwards the markers of hubs at its primary, but messages may be lost in between.
func TestR3MarkersOfAnotherServerAreIgnored(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	replica := redistest.StartReplica(t, primary)
	w := watchMarkers(t, replica)
	near := start(t, parse(t, replica.URL(), ServerOptions{}), func(c *PubSubConfig) { c.Name = "near"; seldom(c) })
	near.awaitGeneration(t, 1)
	far := start(t, parse(t, primary.URL(), ServerOptions{}), func(c *PubSubConfig) { c.Name = "far"; often(c) })
	far.awaitGeneration(t, 1)
	eventually(t, "the other hub was seen", func() bool { return len(near.Stats().Hubs) == 2 })
	w.await(t, 3)
	if s := near.Stats(); s.Hubs[0].Name != "far" || !s.Hubs[0].OtherServer || s.Mismatches != 0 {
		t.Errorf("stats %+v", s)
	}
	if n := near.places.count("mark "); n > 1 { // its own
		t.Errorf("%d markers count", n)
	}
}

// A hub that may not publish uses the markers of others (R22), and is ready when it has received one (R20).
func TestR22MuteHubUsesMarkersOfOthers(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("acl", "setuser", "app", "on", ">secret", "+@all", "-publish", "&*")
	began := time.Now()
	mute := start(t, parse(t, "redis://app:secret@"+server.Addr(), ServerOptions{}), func(c *PubSubConfig) { c.Name = "mute" })
	mute.awaitGeneration(t, 1)
	mute.log.await(t, "WARN redis permission missing", "command=PUBLISH to the control channel", "hint=ACL SETUSER app +publish &usercast:user-control", "this hub does not publish markers")
	if mute.Stats().Marked && time.Since(began) < markedWithin {
		t.Error("the hub knows no marker, but is ready")
	}
	other := start(t, parse(t, server.URL(), ServerOptions{}), func(c *PubSubConfig) { c.Name = "other"; often(c) })
	other.awaitGeneration(t, 1)
	eventually(t, "markers count", func() bool { return mute.places.count("mark ") >= 2 && mute.Stats().Marked })
	if len(other.Stats().Hubs) != 1 || len(mute.Stats().Hubs) != 2 {
		t.Errorf("hubs %+v and %+v", other.Stats().Hubs, mute.Stats().Hubs)
	}
	mute.log.once(t, "command=PUBLISH to the control channel")
}

// Alone, it is ready after 5 s.
func TestR20ReadyWithoutMarkers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		permissions []any
		change      func(*PubSubConfig)
		waits       bool
	}{
		"may not publish":                          {[]any{"-publish"}, nil, true},
		"may not subscribe to the control channel": {[]any{"resetchannels", "&user-*"}, nil, false},
		"does not know run_id":                     {[]any{"-info"}, nil, false},
		"several Redis":                            {nil, func(c *PubSubConfig) { c.NoMarkers = true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			server.Do(append([]any{"acl", "setuser", "app", "on", ">secret", "+@all", "&*"}, c.permissions...)...)
			h := start(t, parse(t, "redis://app:secret@"+server.Addr(), ServerOptions{}), c.change)
			h.awaitGeneration(t, 1)
			since := time.Duration(h.subscribedAt.Load())
			if h.Stats().Marked == c.waits && (!c.waits || h.now()-since < markedWithin) {
				t.Errorf("ready: %t", !c.waits)
			}
			h.WriteMarker(t.Context()) // returns
			eventually(t, "it was ready", func() bool { return h.Stats().Marked })
			if took := h.now() - since; c.waits && took < markedWithin {
				t.Errorf("it was ready after %v", took)
			}
			if c.permissions != nil {
				h.log.await(t, "WARN redis permission missing", "ids are valid on this hub only")
			}
		})
	}
}

func TestHubsThatDifferAreNamedOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	redis := parse(t, server.URL(), ServerOptions{})
	w := watchMarkers(t, server)
	a := start(t, redis, func(c *PubSubConfig) { c.Name, c.Version = "a", "1"; often(c) })
	b := start(t, redis, func(c *PubSubConfig) { c.Name, c.Version = "b", "2"; often(c) })
	other := start(t, redis, func(c *PubSubConfig) {
		c.Name, c.Version, c.Channels.Users, c.ControlChannel = "c", "1", "team-", ControlChannel("user-")
		often(c)
	})
	grouped := start(t, redis, func(c *PubSubConfig) { c.Name, c.Version, c.Channels.Groups = "d", "1", "group-"; often(c) })
	third := start(t, redis, func(c *PubSubConfig) { c.Name, c.Version, c.Channels.Groups = "e", "1", "room-"; often(c) })
	a.log.await(t, "WARN another hub runs another version", "hub=b", "version=2", "own_version=1")
	a.log.await(t, "WARN another hub subscribes to other channels", "hub=c", "channels=team-*", "--channel-prefix")
	a.log.await(t, "WARN another hub subscribes to the channels of groups,", "hub=d", "channels=group-* user-*", "the same --group-prefix")
	a.log.await(t, "WARN another hub subscribes to the channels of groups,", "hub=e")
	grouped.log.await(t, "WARN another hub does not subscribe to the channels of groups,", "hub=a", "channels=user-*", "the same --group-prefix")
	grouped.log.await(t, "WARN another hub subscribes to the channels of other groups", "hub=e", "channels=room-* user-*")
	grouped.log.await(t, "WARN another hub subscribes to other channels", "hub=c", "--channel-prefix")
	third.log.await(t, "hub=d")
	b.log.await(t, "hub=a")
	other.log.await(t, "hub=a")
	w.await(t, 20)
	for _, name := range []string{"b", "c", "d", "e"} {
		a.log.once(t, "hub="+name)
	}
	a.log.warnings(t, 4)
	a.awaitGeneration(t, 1)
	if n := a.log.count("hub=a"); n != 0 {
		t.Error("a hub names itself")
	}
}

// R2: Each message that matches the pattern is counted, whatever it contains and whatever this hub does with it, so hubs
// with other limits count alike.
func TestR2EveryMatchedMessageCounts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	redis := parse(t, server.URL(), ServerOptions{})
	var hubs []*subscriber
	for _, limit := range []int{50, 1 << 20, 1 << 20} {
		h := start(t, redis, func(c *PubSubConfig) { c.Name, c.MaxPayload = fmt.Sprint(limit), limit; often(c) })
		h.awaitGeneration(t, 1)
		hubs = append(hubs, h)
	}
	messages := [][2]string{
		{"user-", "no user"}, {"user-:topic", "no user"}, {"user-1", ""}, {"user-*", "broadcast"}, {"user-nobody", "unheard"},
		{"user-1", strings.Repeat("x", 100)}, {"user-1:t", strings.Repeat("y", 200<<10)}, {"user-" + strings.Repeat("u", 200<<10), "z"}, {"user-", strings.Repeat("z", 100)},
	}
	w := watchMarkers(t, server)
	for i := range 5 * len(messages) {
		m := messages[i%len(messages)]
		server.Do("publish", m[0], m[1])
		if i%len(messages) == 0 {
			w.await(t, 1)
		}
	}
	for _, h := range hubs {
		eventually(t, "all messages were received", func() bool { return h.Stats().Received >= uint64(5*len(messages)) })
		marks := h.places.count("mark ")
		eventually(t, "each hub has compared itself with the others", func() bool { return h.places.count("mark ") >= marks+9 })
	}
	for _, h := range hubs {
		h.stop()
		if s := h.conserved(t); s.Received != uint64(5*len(messages)) || s.Mismatches != 0 {
			t.Errorf("stats %+v", s)
		}
		events := slices.DeleteFunc(h.seen(), func(e string) bool { return e != "skip" })
		if len(events) != 15 {
			t.Errorf("the hub counts %d malformed messages, want 15", len(events))
		}
		h.log.warnings(t, 0)
	}
}

// A relay cuts single messages out of the connection of one hub. Each of them is announced, once, at that hub only.
func TestMissedMessagesAreFoundByOtherHubs(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	relay := redistest.StartDamagingRelay(t, server.Addr(), func(reply []byte) []byte {
		if bytes.Contains(reply, []byte("to be cut out")) {
			return nil
		}
		return reply
	})
	config := func(name string) func(*PubSubConfig) {
		return func(c *PubSubConfig) { c.Name = name; often(c) }
	}
	short := start(t, parse(t, relay.URL(), ServerOptions{}), config("short"))
	hubs := []*subscriber{start(t, parse(t, server.URL(), ServerOptions{}), config("a")), start(t, parse(t, server.URL(), ServerOptions{}), config("b"))}
	for _, h := range append(hubs, short) {
		h.awaitGeneration(t, 1)
		eventually(t, "all hubs were seen", func() bool { return len(h.Stats().Hubs) == 3 })
	}
	w := watchMarkers(t, server)
	const rounds = 5
	for i := range rounds {
		w.await(t, 9) // the comparisons begin afresh after each announcement
		var payloads []any
		for n := range i%2 + 1 {
			payloads = append(payloads, fmt.Sprint("received ", i, n), fmt.Sprint("to be cut out ", i, n))
		}
		// In one step, because a marker between two losses would announce the first one separately.
		server.Do(append([]any{"eval", "for _, payload in ipairs(ARGV) do redis.call('publish', 'user-1', payload) end return 1", 0}, payloads...)...)
		eventually(t, "the loss was announced", func() bool { return short.places.count("miss") == i+1 })
		short.awaitEvent(t, fmt.Sprint("1//received ", i, i%2))
	}
	w.await(t, 12)
	if s := short.Stats(); s.Mismatches != rounds || s.Generation != 1 || short.places.count("miss") != rounds {
		t.Errorf("stats %+v, %d times missed", s, short.places.count("miss"))
	}
	for _, h := range hubs {
		if s := h.Stats(); s.Mismatches != 0 || h.places.count("miss") != 0 {
			t.Errorf("stats %+v of a hub that missed nothing", s)
		}
		eventually(t, "other hubs doubt ids", func() bool { return h.places.count("doubt") >= rounds })
		h.log.warnings(t, 0)
	}
	if n := short.log.count("WARN redis messages missed on an open connection", "received_by=", "at_least="); n != rounds {
		t.Errorf("%d lines about missed messages", n)
	}
	short.log.warnings(t, rounds)
}

// Several messages that are exchanged for others differ in their checksum only.
func TestExchangedMessageIsMissed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	relay := redistest.StartDamagingRelay(t, server.Addr(), func(reply []byte) []byte {
		return bytes.ReplaceAll(reply, []byte("this one"), []byte("that one"))
	})
	short := start(t, parse(t, relay.URL(), ServerOptions{}), func(c *PubSubConfig) { c.Name = "short"; often(c) })
	other := start(t, parse(t, server.URL(), ServerOptions{}), func(c *PubSubConfig) { c.Name = "other"; often(c) })
	for _, h := range []*subscriber{short, other} {
		h.awaitGeneration(t, 1)
		eventually(t, "both hubs were seen", func() bool { return len(h.Stats().Hubs) == 2 })
	}
	watchMarkers(t, server).await(t, 6)
	server.Do("publish", "user-1", "this one")
	eventually(t, "both have found it", func() bool { return short.places.count("miss") == 1 && other.places.count("miss") == 1 })
}

// A marker of another version of the protocol, or with fields that this version does not know, is no malformed command.
func TestMarkersOfOtherVersionsAreNotMalformed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := start(t, parse(t, server.URL(), ServerOptions{}), seldom)
	h.awaitGeneration(t, 1)
	mk, err := json.Marshal(map[string]any{
		"op": "marker", "v": 7, "from": "b.1", "hub": map[string]any{"name": "new", "version": "9", "color": "red"}, "id": 7, "points": []int{1},
	})
	if err != nil {
		t.Fatal(err)
	}
	server.Do("publish", ControlChannel("user-"), mk)
	eventually(t, "the hub was seen", func() bool { return len(h.Stats().Hubs) == 2 })
	server.Do("publish", ControlChannel("user-"), `{"op":"marker","v":1}`)
	eventually(t, "it was counted", func() bool { return h.Stats().ControlMalformed == 1 })
	h.log.once(t, "WARN malformed control command")
}
