package inspect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/hub"
	"usercast/internal/redistest"
	"usercast/transport/redis"
	"usercast/transport/redis/internal/fleet"
	"usercast/transport/redis/internal/topology"
)

// A testMarker is a marker of the hub with that name in its first generation.
func testMarker(name, version string) fleet.Marker {
	return fleet.Marker{
		Name: hub.NewMarkerName(), RunID: "run", Patterns: []string{"user-*"}, From: name + "7.1",
		Hub: fleet.Hub{Name: name, Version: version, Streams: 3, Users: 2},
	}
}

func TestFleetReportsHowHubsDiffer(t *testing.T) {
	t.Parallel()
	future, elsewhere, others := testMarker("c", "v1.0.0"), testMarker("c", "v1.0.0"), testMarker("c", "v1.0.0")
	future.Name, future.RunID, future.Patterns = hub.MarkerName{}, "", nil // as ParseMarker returns it
	elsewhere.RunID = "other"
	others.Patterns = []string{"other-*"}
	likewise, third, twin := others, others, testMarker("b", "v1.0.0")
	grouped := others
	grouped.Patterns = []string{"group-*", "user-*"}
	likewise.Hub.Name, third.Hub.Name, third.Patterns = "d", "e", []string{"x-*", "y-*"}
	twin.From = "twin.1"
	for name, c := range map[string]struct {
		subscribers int
		markers     []fleet.Marker
		level       Level
		finding     string
		text        string
	}{
		"two hubs":             {2, []fleet.Marker{testMarker("b", "v1.0.0"), testMarker("a", "v1.0.0")}, OK, "fleet-hubs", "2 hubs publish markers: a, b"},
		"one hub":              {1, []fleet.Marker{testMarker("a", "v1.0.0")}, OK, "fleet-hubs", "1 hub publishes markers: a"},
		"a newer marker":       {2, []fleet.Marker{testMarker("a", "v1.0.0"), future}, OK, "fleet-hubs", "2 hubs publish markers: a, c"},
		"unknown, none":        {-1, nil, Note, "fleet-hubs", "no hub published a marker within 11s"},
		"unknown, one":         {-1, []fleet.Marker{testMarker("a", "v1.0.0")}, OK, "fleet-hubs", "1 hub publishes markers: a"},
		"two silent ones":      {3, []fleet.Marker{testMarker("a", "v1.0.0")}, Warn, "fleet-markers", "2 of 3 subscribers of usercast:user-control did not publish a marker within 11s"},
		"another version":      {2, []fleet.Marker{testMarker("a", "v1.0.0"), testMarker("b", "v1.1.0\n")}, Warn, "fleet-versions", `v1.0.0 (a), "v1.1.0\n" (b)`},
		"another server":       {2, []fleet.Marker{testMarker("a", "v1.0.0"), elsewhere}, Warn, "fleet-servers", "hubs are subscribed to different Redis servers: one (c), another one (a)"},
		"other channels":       {2, []fleet.Marker{testMarker("a", "v1.0.0"), others}, Warn, "fleet-channels", "hubs are subscribed to other channels than user-*: other-* (c):"},
		"other groups":         {2, []fleet.Marker{testMarker("a", "v1.0.0"), grouped}, Warn, "fleet-channels", "hubs are subscribed to other channels than user-*: group-* user-* (c):"},
		"several other ones":   {4, []fleet.Marker{testMarker("a", "v1.0.0"), others, third, likewise}, Warn, "fleet-channels", "other-* (c, d), x-* y-* (e):"},
		"equal names":          {3, []fleet.Marker{testMarker("b", "v1.0.0"), testMarker("a", "v1.0.0"), twin}, Note, "fleet-names", "several hubs have the same name: b (2 hubs)"},
		"more than are listed": {30, slices.Repeat([]fleet.Marker{testMarker("a", "v1.0.0")}, 30), OK, "fleet-hubs", "a, 10 more"},
	} {
		f := &Fleet{
			in:       &inspector{server: new(topology.Server), Inspection: Inspection{Channels: redis.Channels{Users: "user-"}, ControlChannel: "usercast:user-control"}},
			patience: markersWithin, subscribers: c.subscribers, channel: "usercast:user-control", done: make(chan struct{}), newest: make(map[string]fleet.Marker),
		}
		close(f.done)
		for n, mk := range c.markers {
			f.newest[fmt.Sprint(n)] = mk
		}
		var found inspected
		f.Report(func(one Finding) { found = append(found, one) })
		found.want(t, c.level, c.finding, c.text)
		if bad := found.bad(); len(bad) > 1 || c.level < Warn && len(bad) > 0 {
			t.Errorf("%s: %v", name, found)
		}
	}
}

// subscribe subscribes clients that may be hubs to a channel or pattern of a server.
func subscribe(t *testing.T, server *redistest.Server, clients int, subscribe func(*goredis.Client) *goredis.PubSub) {
	t.Helper()
	for range clients {
		client := goredis.NewClient(&goredis.Options{Addr: server.Addr(), Protocol: 2})
		subscription := subscribe(client)
		t.Cleanup(func() { subscription.Close(); client.Close() })
		if _, err := subscription.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// runOf returns the run_id of a server.
func runOf(server *redistest.Server) string {
	return topology.InfoField(server.Do("info", "server").(string), "run_id")
}

// at returns the payload of a marker of a hub that is subscribed to server.
func at(server *redistest.Server, mk fleet.Marker) string {
	mk.RunID = runOf(server)
	return string(fleet.AppendMarker(nil, mk))
}

func toControl(c *goredis.Client) *goredis.PubSub {
	return c.Subscribe(context.Background(), redis.ControlChannel("user-"))
}

func toUsers(c *goredis.Client) *goredis.PubSub { return c.PSubscribe(context.Background(), "user-*") }

// runFleet inspects a server while messages are published on the control channel, and returns the findings about the
// fleet. present is false if no hub may publish markers.
func runFleet(t *testing.T, url string, server *redistest.Server, patience time.Duration, published ...string) (found inspected, present bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	i := Inspection{
		Server: parse(t, url, redis.ServerOptions{}), Channels: redis.Channels{Users: "user-", Separator: ':'}, ControlChannel: redis.ControlChannel("user-"), MaxPayload: 1 << 20,
		markerPatience: patience,
	}
	f := i.Run(ctx, func(Finding) {})
	if f == nil {
		return nil, false
	}
	for waiting := true; waiting; {
		for _, payload := range published { // repeated, because the subscription may begin after the first one
			server.Do("publish", i.ControlChannel, payload)
		}
		select {
		case <-f.Done():
			waiting = false
		case <-time.After(time.Millisecond):
		}
	}
	f.Report(func(one Finding) { found = append(found, one) })
	return found, true
}

// forever is a patience that fails the test if it is needed.
const forever = time.Hour

func TestFleetEndsWhenEachSubscriberHasPublishedAMarker(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	subscribe(t, server, 2, toControl)
	a, b := testMarker("a", "v1.0.0"), testMarker("b", "v1.0.0")
	again := a
	again.From, again.Hub.Streams = "a7.2", 4 // the next generation of the same hub
	var published []string
	for _, mk := range []fleet.Marker{a, again, b} {
		published = append(published, at(server, mk))
	}
	published = slices.Insert(published, 1, `{"op":"disconnect","user":"42"}`, "not JSON", `{"op":"marker","v":9}`)
	found, _ := runFleet(t, server.URL(), server, forever, published...)
	found.want(t, OK, "fleet-hubs", "2 hubs publish markers: a, b")
	if len(found) != 1 {
		t.Error(found)
	}
}

func TestFleetIsNotAwaitedWhereNoHubRuns(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	subscribe(t, server, 1, toUsers) // a part of the app
	if found, present := runFleet(t, server.URL(), server, forever); present {
		t.Errorf("without a subscriber of the control channel: %v", found)
	}
	subscribe(t, server, 1, toControl)
	for name, change := range map[string]func(*Inspection){"stream feed": ofStream, "several Redis": func(i *Inspection) { i.NoMarkers = true }} {
		i := Inspection{Server: parse(t, server.URL(), redis.ServerOptions{}), Channels: redis.Channels{Users: "user-", Separator: ':'}, ControlChannel: redis.ControlChannel("user-"), markerPatience: forever}
		change(&i)
		if f := i.Run(t.Context(), func(Finding) {}); f != nil {
			t.Errorf("%s: markers are awaited", name)
		}
	}
}

func TestFleetReportsSubscribersWithoutMarkers(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	subscribe(t, server, 2, toControl)
	found, _ := runFleet(t, server.URL(), server, 50*time.Millisecond)
	found.want(t, Warn, "fleet-markers", "2 of 2 subscribers of usercast:user-control did not publish a marker within 50ms")
}

// With the documented permissions, PUBSUB is not allowed.
func TestFleetCountsHubsWithoutPubSub(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	setUser(server, documentedPermissions(t)[0]...)
	url := "redis://app:secret@" + server.Addr()
	if found, present := runFleet(t, url, server, forever); present {
		t.Errorf("no hub runs: %v", found)
	}
	subscribe(t, server, 1, toUsers)
	found, _ := runFleet(t, url, server, forever, at(server, testMarker("a", "v1.0.0")))
	found.want(t, OK, "fleet-hubs", "1 hub publishes markers: a")

	setUser(server, "resetchannels", "&user-*", "&usercast:user-probe:*")
	found, _ = runFleet(t, url, server, forever)
	found.want(t, Note, "fleet-hubs", "usercast:user-control cannot be subscribed to")

	setUser(server, "-publish", "allchannels")
	found, _ = runFleet(t, url, server, 50*time.Millisecond)
	found.want(t, Note, "fleet-hubs", "no hub published a marker within 50ms")
}

func TestFleetReportsALostConnection(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	subscribe(t, server, 1, toControl)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	i := Inspection{Server: parse(t, server.URL(), redis.ServerOptions{}), Channels: redis.Channels{Users: "user-", Separator: ':'}, ControlChannel: redis.ControlChannel("user-"), markerPatience: forever}
	f := i.Run(ctx, func(Finding) {})
	if f == nil {
		t.Fatal("no markers are awaited")
	}
	server.Kill()
	var found inspected
	f.Report(func(one Finding) { found = append(found, one) })
	if f.err == nil || errors.Is(f.err, context.Canceled) || len(found) != 1 || found[0].Level != Fail || !strings.HasPrefix(found[0].Name, "redis-") {
		t.Errorf("%v: %v", f.err, found)
	}
}

// Hubs of a cluster subscribe to one node, and publish to any.
func TestFleetOfACluster(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 2)
	slot := nodes[0].Do("cluster", "keyslot", redis.ControlChannel("user-")).(int64)
	owner, other := nodes[slot*2/16384], nodes[1-slot*2/16384]
	subscribe(t, owner, 1, toControl)
	found, present := runFleet(t, "redis+cluster://"+other.Addr(), other, forever, at(owner, testMarker("a", "v1.0.0")))
	if !present {
		t.Fatal("the subscriber was not found")
	}
	found.want(t, OK, "fleet-hubs", "1 hub publishes markers: a")
}

// If some slots of a cluster are not covered, hubs may use any node.
func TestFleetOfAFailingCluster(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 2)
	slot := nodes[0].Do("cluster", "keyslot", redis.ControlChannel("user-")).(int64)
	owner, other := nodes[slot*2/16384], nodes[1-slot*2/16384]
	for _, n := range []*redistest.Server{owner, other} {
		free := (slot + 1) % 16384
		n.Do("cluster", "delslots", free)
		n.Await("it reports a failure", func() bool { return strings.Contains(n.Do("cluster", "info").(string), "cluster_state:fail") })
	}
	subscribe(t, other, 1, toControl)
	found, present := runFleet(t, "redis+cluster://"+owner.Addr(), owner, time.Second, at(other, testMarker("a", "v1.0.0")))
	if !present {
		t.Fatal("nothing is said about hubs")
	}
	found.want(t, OK, "fleet-hubs", "1 hub publishes markers: a")
}

// A replica forwards the markers of hubs at its primary. They do not stand for its own subscribers.
func TestFleetTellsHubsOfAnotherServerFromItsSubscribers(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	subscribe(t, server, 1, toControl)
	near, far := testMarker("near", "v1.0.0"), testMarker("far", "v1.0.0")
	published := []string{string(fleet.AppendMarker(nil, far))}
	for range 100 { // most of them arrive before that of the hub here
		published = append(published, published[0])
	}
	found, _ := runFleet(t, server.URL(), server, forever, append(published, at(server, near))...)
	found.want(t, OK, "fleet-hubs", "2 hubs publish markers: far, near")
	found.want(t, Warn, "fleet-servers", "hubs are subscribed to different Redis servers: this one (near), another one (far)")
}
