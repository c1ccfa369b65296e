package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"usercast/internal/redistest"
)

// channelOwner returns the index of the node of StartCluster that owns the slot of the control channel.
func channelOwner(nodes []*redistest.Server) int {
	slot := nodes[0].Do("cluster", "keyslot", ControlChannel("user-")).(int64)
	return int(slot) * len(nodes) / 16384
}

// subscribedTo waits until a number of hubs are subscribed to a node and to none of the others.
func subscribedTo(t *testing.T, nodes []*redistest.Server, node *redistest.Server, hubs int) {
	t.Helper()
	eventually(t, "all hubs are subscribed to "+node.Addr(), func() bool {
		for _, n := range nodes {
			want := 0
			if n == node {
				want = hubs
			}
			subscribers := n.Do("pubsub", "numsub", ControlChannel("user-")).([]any)[1].(int64)
			if int(subscribers) != want {
				return false
			}
		}
		return true
	})
}

func TestAllHubsFollowTheSlotOfTheControlChannel(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	var hubs []*subscriber
	for i := range nodes {
		hubs = append(hubs, start(t, parse(t, clusterURL("", nodes[i]), ServerOptions{}), func(c *PubSubConfig) { c.ProbeEvery = 100 * time.Millisecond }))
	}
	from := channelOwner(nodes)
	for _, h := range hubs {
		h.awaitGeneration(t, 1)
	}
	subscribedTo(t, nodes, nodes[from], 3)

	// A lost connection does not change the node, and a hub starts at the same node.
	nodes[from].Do("client", "kill", "type", "pubsub")
	for _, h := range hubs {
		h.awaitGeneration(t, 2)
	}
	hubs = append(hubs, start(t, parse(t, clusterURL("", nodes...), ServerOptions{}), nil))
	hubs[3].awaitGeneration(t, 1)
	subscribedTo(t, nodes, nodes[from], 4)
	hubs[3].stop()

	to := (from + 1) % len(nodes)
	redistest.MoveSlot(nodes, nodes[0].Do("cluster", "keyslot", ControlChannel("user-")), nodes[to])
	for _, h := range hubs[:3] {
		h.awaitGeneration(t, 3)
		h.log.await(t, "WARN redis subscription lost", "reason=moved", "owns the slot of the control channel")
	}
	subscribedTo(t, nodes, nodes[to], 3)
	for i, h := range hubs[:3] {
		h.deliverFrom(t, fmt.Sprint("moved ", i), nodes...)
		eventually(t, "probes were received", func() bool { return probes(h) >= 10 })
		if n := h.Stats().Generation; n != 3 {
			t.Errorf("generation %d", n)
		}
	}
}

// While the owner is down, the hub is subscribed to another node. It follows the replica that is promoted.
func TestFailoverOfTheOwnerIsFollowedWithTLS(t *testing.T) {
	t.Parallel()
	files := redistest.NewTLSFiles(t)
	nodes := tlsCluster(t, 3, files)
	from := channelOwner(nodes)
	replica := redistest.AddClusterReplica(t, nodes[from], 3, tlsClusterArgs(files)...)
	all := append(slices.Clone(nodes), replica)
	server := parse(t, tlsURL("rediss+cluster", nodes...), tlsOptions(files))
	key := ControlChannel("user-") // the stream is at the same node
	h := start(t, server, func(c *PubSubConfig) { c.ProbeEvery = time.Hour })
	h.awaitGeneration(t, 1)
	subscribedTo(t, all, nodes[from], 1)
	f := follow(t, server, func(c *StreamConfig) { c.Key = key })
	c := NewCommands(server)
	defer c.Close()
	if _, err := c.Append(context.Background(), key, "user-1", "before"); err != nil {
		t.Fatal(err)
	}
	f.want(t, "1: before")
	replica.Await("it has the entry", func() bool {
		return strings.Contains(replica.Do("info", "replication").(string), "slave_repl_offset") && replica.Do("info", "keyspace").(string) != "# Keyspace\r\n"
	})

	nodes[from].Kill()
	rest := slices.DeleteFunc(slices.Clone(all), func(n *redistest.Server) bool { return n == nodes[from] })
	h.awaitGeneration(t, 2) // at another node, before the failover: it may be the replica, if the cluster lists it already
	h.deliverFrom(t, "meanwhile", rest...)
	subscribedTo(t, rest, replica, 1)
	h.deliverFrom(t, "after", rest...)
	eventually(t, "the stream feed has followed", func() bool {
		_, err := c.Append(context.Background(), key, "user-1", "after")
		return err == nil
	})
	f.await(t, "after", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return slices.Contains(f.events, "1: after")
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Contains(f.events, "reset") {
		t.Errorf("events %q", f.events)
	}
}

// A node that owns the slot but cannot be subscribed to is not tried all the time.
func TestOwnerThatRejectsSubscriptionsIsAvoided(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 2)
	from := channelOwner(nodes)
	nodes[from].Do("acl", "setuser", "default", "-psubscribe")
	h := start(t, parse(t, clusterURL("", nodes...), ServerOptions{}), func(c *PubSubConfig) { c.ProbeEvery = 20 * time.Millisecond })
	h.awaitGeneration(t, 1)
	subscribedTo(t, nodes, nodes[1-from], 1)
	eventually(t, "probes were received", func() bool { return probes(h) >= 10 })
	if n := h.Stats().Generation; n != 1 {
		t.Errorf("generation %d", n)
	}
}

// CLUSTER SLOTS takes longer the larger the cluster is, so it is requested once from each node that is asked.
func TestSlotsAreRequestedOnce(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 2)
	from := channelOwner(nodes)
	calls := func() (n int) { return callsOf(t, nodes[0], "cluster|slots") + callsOf(t, nodes[1], "cluster|slots") }
	server := parse(t, clusterURL("", nodes[1-from]), ServerOptions{})
	h := start(t, server, func(c *PubSubConfig) { c.ProbeEvery, c.NoMarkers = time.Hour, true })
	h.awaitGeneration(t, 1)
	if n := calls(); n != 2 {
		t.Errorf("%d calls for the subscription, want one to the seed and one to the owner", n)
	}
	c := NewCommands(server)
	defer c.Close()
	before := calls()
	if _, err := c.Publish(context.Background(), "user-1", "x"); err != nil || calls() != before {
		t.Errorf("%d calls for PUBLISH, %v", calls()-before, err)
	}
	if _, err := c.Append(context.Background(), "log", "user-1", "x"); err != nil || calls() != before+1 {
		t.Errorf("%d calls for XADD, %v", calls()-before, err)
	}
}

// Hubs are at the owner of the slot of the control channel, and PUBLISH counts the subscribers of one node.
func TestPublishCountsTheHubsOfACluster(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	from := channelOwner(nodes)
	for range 2 {
		start(t, parse(t, clusterURL("", nodes...), ServerOptions{}), nil).awaitGeneration(t, 1)
	}
	subscribedTo(t, nodes, nodes[from], 2)
	ctx := t.Context()
	for _, node := range nodes {
		server := parse(t, clusterURL("", node), ServerOptions{})
		c := NewCommands(server)
		defer c.Close()
		if n, err := c.PublishControl(ctx, ControlChannel("user-"), Control{Op: OpDisconnect, User: "42"}); n != 2 || err != nil {
			t.Errorf("PublishControl = %d, %v, want 2 hubs", n, err)
		}
		c.PublishNearHubs(ControlChannel("user-"))
		if n, err := c.Publish(ctx, "user-1", "x"); n != 2 || err != nil {
			t.Errorf("Publish = %d, %v, want 2 hubs", n, err)
		}
		p, err := NewPipeline(ctx, server, "", ControlChannel("user-"))
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if err := errors.Join(p.Publish("user-1", []byte("x")), p.Flush()); err != nil {
			t.Fatal(err)
		}
		if n, err := p.Receive(); n != 2 || err != nil {
			t.Errorf("Receive = %d, %v, want 2 hubs", n, err)
		}
	}

	// Without the permission to look up the owner, any node is used.
	for _, node := range nodes {
		node.Do("acl", "setuser", "default", "-cluster|slots")
	}
	c := NewCommands(parse(t, clusterURL("", nodes[1-min(from, 1)]), ServerOptions{}))
	defer c.Close()
	c.PublishNearHubs(ControlChannel("user-"))
	if _, err := c.Publish(ctx, "user-1", "x"); err != nil {
		t.Error(err)
	}
}

// An owner that accepts connections but does not respond fails one PUBLISH, not all.
func TestPublishAvoidsAnUnresponsiveOwner(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	from := channelOwner(nodes)
	other := nodes[(from+1)%3]
	c := NewCommands(parse(t, clusterURL("", other), ServerOptions{AnswerTimeout: 500 * time.Millisecond}))
	defer c.Close()
	c.PublishNearHubs(ControlChannel("user-"))
	nodes[from].Freeze()
	t.Cleanup(nodes[from].Thaw)
	if _, err := c.Publish(t.Context(), "user-1", "x"); err == nil {
		t.Error("the owner does not respond, but Publish returned no error")
	}
	eventually(t, "another node is used", func() bool {
		_, err := c.Publish(t.Context(), "user-1", "x")
		return err == nil
	})
}

// A node in the URL that accepts connections but does not respond is not the only one that can be asked.
func TestUnresponsiveSeedIsAskedLast(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 2)
	from := channelOwner(nodes)
	frozen := redistest.Start(t)
	frozen.Freeze()
	t.Cleanup(frozen.Thaw)
	relay := redistest.StartRelay(t, nodes[1-from].Addr())
	server := parse(t, "redis+cluster://"+relay.Addr(), ServerOptions{AnswerTimeout: 500 * time.Millisecond})
	h := start(t, server, nil)
	h.awaitGeneration(t, 1)
	relay.SetTarget(frozen.Addr())
	nodes[from].Do("client", "kill", "type", "pubsub")
	h.awaitGeneration(t, 2)
	subscribedTo(t, nodes, nodes[from], 1)
	c := NewCommands(server)
	defer c.Close()
	eventually(t, "another node is asked", func() bool {
		_, err := c.Append(context.Background(), "log", "user-1", "x")
		return err == nil
	})
}

// The owner does not respond. Its address in the URL is another than the announced one.
func TestUnresponsiveOwnerIsReplaced(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	from := channelOwner(nodes)
	relay := redistest.StartRelay(t, nodes[from].Addr())
	server := parse(t, "redis+cluster://"+relay.Addr(), ServerOptions{AnswerTimeout: 500 * time.Millisecond})
	h := start(t, server, func(c *PubSubConfig) { c.PingAfter = 100 * time.Millisecond })
	h.awaitGeneration(t, 1)
	subscribedTo(t, nodes, nodes[from], 1)
	nodes[from].Freeze()
	t.Cleanup(nodes[from].Thaw)
	h.awaitGeneration(t, 2)
}
