package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"usercast/internal/redistest"
	"usercast/transport/redis/internal/topology"
)

func clusterURL(userinfo string, nodes ...*redistest.Server) string {
	var addrs []string
	for _, node := range nodes {
		addrs = append(addrs, node.Addr())
	}
	return "redis+cluster://" + userinfo + strings.Join(addrs, ",")
}

// subscribedNode returns the node that has the subscription, and its index in nodes.
func subscribedNode(t *testing.T, nodes []*redistest.Server) (node *redistest.Server, others []*redistest.Server) {
	t.Helper()
	for i, n := range nodes {
		if len(connections(n)) == 0 {
			continue
		}
		if node != nil {
			t.Fatalf("connected to %s and %s, want one connection", node.Addr(), n.Addr())
		}
		node, others = n, slices.Delete(slices.Clone(nodes), i, i+1)
	}
	if node == nil {
		t.Fatal("connected to no node")
	}
	return node, others
}

// deliverFrom publishes on each node, and waits until all messages have been received.
func (h *subscriber) deliverFrom(t *testing.T, what string, nodes ...*redistest.Server) {
	t.Helper()
	for _, node := range nodes {
		node.Do("publish", "user-42:from", what+" "+node.Addr())
	}
	for _, node := range nodes {
		h.awaitEvent(t, "42/from/"+what+" "+node.Addr())
	}
}

func TestClusterNeedsOneConnection(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	redis := parse(t, clusterURL("", nodes...), ServerOptions{})
	h := start(t, redis, func(c *PubSubConfig) { c.BackoffMax = 0 }) // default times
	h.awaitGeneration(t, 1)
	for i := range 50 {
		h.deliverFrom(t, fmt.Sprint(i), nodes...)
	}
	if s := h.conserved(t); s.Received != 150 || s.Generation != 1 || s.Redis != nodes[0].Addr() {
		t.Errorf("stats %+v, want each message once", s)
	}
	subscribed, others := subscribedNode(t, nodes)
	h.log.warnings(t, 0)

	subscribed.Kill()
	killed := time.Now()
	h.awaitGeneration(t, 2)
	t.Logf("back %v after the kill", time.Since(killed).Round(time.Millisecond))
	h.deliverFrom(t, "after", others...)
	next, _ := subscribedNode(t, others)
	if s := h.conserved(t); s.Received != 152 || s.Generation != 2 {
		t.Errorf("stats %+v", s)
	}

	// The slots of the node are not covered now, and all other nodes report cluster_state:fail. Published messages
	// still reach all nodes, and must reach a new subscription.
	for _, node := range others {
		node.Await("it misses the killed one", func() bool {
			return strings.Contains(node.Do("cluster", "info").(string), "cluster_state:fail")
		})
	}
	h.deliverFrom(t, "failing", others...)
	next.Do("client", "kill", "type", "pubsub")
	h.awaitGeneration(t, 3)
	h.deliverFrom(t, "at last", others...)
	c := NewCommands(redis)
	defer c.Close()
	if _, err := c.Publish(context.Background(), "user-42:from", "command"); err != nil {
		t.Errorf("Publish: %v", err)
	}
	h.awaitEvent(t, "42/from/command")
	if s := h.conserved(t); s.Received != 157 || s.Generation != 3 {
		t.Errorf("stats %+v", s)
	}
}

func TestClusterIsProbedThroughAnotherNode(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	h := start(t, parse(t, clusterURL("", nodes...), ServerOptions{}), func(c *PubSubConfig) {
		c.ProbeEvery = 20 * time.Millisecond
		c.NoMarkers = true // they are published at the subscribed node
	})
	h.awaitGeneration(t, 1)
	eventually(t, "probes were received", func() bool { return probes(h) >= 10 })
	published := 0
	for _, node := range nodes {
		if callsOf(t, node, "publish") > 0 {
			published++
		} else if callsOf(t, node, "psubscribe") != 1 {
			t.Errorf("neither probe nor subscription at %s", node.Addr())
		}
	}
	if published != 2 {
		t.Errorf("probes were sent to %d nodes, want all but the subscribed one", published)
	}
	if s := h.conserved(t); s.Generation != 1 || s.Received != 0 {
		t.Errorf("stats %+v", s)
	}
	h.log.warnings(t, 0)
}

// The subscribed node responds, but does not receive messages from other nodes any more.
func TestNodeThatReceivesNothingIsReplaced(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	h := start(t, parse(t, clusterURL("", nodes...), ServerOptions{}), func(c *PubSubConfig) {
		c.ProbeEvery = 100 * time.Millisecond
		c.ProbeTimeout = time.Second
	})
	h.awaitGeneration(t, 1)
	eventually(t, "a probe was received", func() bool { return probes(h) > 0 })
	var deaf string
	for _, node := range nodes {
		if callsOf(t, node, "psubscribe") > 0 {
			deaf = node.Do("cluster", "myid").(string)
		}
	}
	for _, node := range nodes {
		if node.Do("cluster", "myid") != deaf {
			node.Do("cluster", "forget", deaf)
		}
	}
	h.awaitGeneration(t, 2)
	h.log.once(t, "WARN redis subscription lost", "reason=moved", "do not reach the subscription")
	// The nodes report that the cluster is down, and only two of them exchange messages: the hub may reconnect meanwhile.
	for _, node := range nodes {
		if node.Do("cluster", "myid") != deaf {
			event := "after " + node.Addr()
			eventually(t, event+" was received", func() bool {
				node.Do("publish", "user-42:from", event)
				return slices.Contains(h.seen(), "42/from/"+event)
			})
		}
	}
}

func TestFrozenNodeIsReplaced(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	h := start(t, parse(t, clusterURL("", nodes...), ServerOptions{AnswerTimeout: 500 * time.Millisecond}), func(c *PubSubConfig) {
		c.PingAfter = 100 * time.Millisecond
		c.NoMarkers = true // their connection tries seeds too
	})
	h.awaitGeneration(t, 1)
	frozen, others := subscribedNode(t, nodes)
	turn := slices.Index(nodes, frozen)
	h.server.TrySeedNext(turn) // but it must not be tried
	frozen.Freeze()
	defer frozen.Thaw()
	h.awaitGeneration(t, 2)
	h.deliverFrom(t, "after", others...)
	h.log.once(t, "WARN ", "reason=silent")
	h.log.warnings(t, 1)
	if h.server.TrySeedNext(0) != (turn+2)%len(nodes) { // one for the lookup of the owner, one for the subscription
		t.Error("it took more than one attempt")
	}
}

func TestClusterIsKnownFromOneNode(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	h := start(t, parse(t, clusterURL("", nodes[0]), ServerOptions{}), nil)
	h.awaitGeneration(t, 1)
	subscribed, _ := subscribedNode(t, nodes)
	nodes[0].Kill()
	if subscribed != nodes[0] {
		subscribed.Do("client", "kill", "type", "pubsub")
	}
	h.awaitGeneration(t, 2)
	h.deliverFrom(t, "after", nodes[1:]...)
}

func clusterState(nodes ...*redistest.Server) func(want string) bool {
	return func(want string) bool {
		return !slices.ContainsFunc(nodes, func(n *redistest.Server) bool {
			return topology.InfoField(n.Do("cluster", "info").(string), "cluster_state") != want
		})
	}
}

// A node that reports cluster_state:fail is used only if there is no other one, and is replaced if it does not forward
// a probe.
func TestNodeWhoseClusterFailsIsTriedLast(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	nodes[0].Do("cluster", "delslots", 0)
	eventually(t, "it found its cluster failing", func() bool { return clusterState(nodes[0])("fail") })
	if !clusterState(nodes[1:]...)("ok") {
		t.Fatal("so have the others")
	}
	redis := parse(t, clusterURL("", nodes...), ServerOptions{})
	redis.topology().TrySeedNext(0)
	h := start(t, redis, func(c *PubSubConfig) { c.ProbeEvery = 20 * time.Millisecond })
	h.awaitGeneration(t, 1)
	h.log.once(t, "WARN redis subscription failed", "reason=cluster")
	h.log.await(t, "WARN redis probe failed", "reason=cluster")
	eventually(t, "probes were received", func() bool { return probes(h) >= 3 })
	if callsOf(t, nodes[0], "psubscribe") > 0 {
		t.Error("subscribed to the node whose cluster fails")
	}
	if n := h.Stats().Generation; n != 1 {
		t.Errorf("generation %d", n)
	}
}

func TestNodeThatRecoversIsANewGeneration(t *testing.T) {
	t.Parallel()
	node := redistest.StartCluster(t, 1)[0]
	node.Do("cluster", "delslots", 0)
	eventually(t, "it found its cluster failing", func() bool { return clusterState(node)("fail") })
	h := start(t, parse(t, clusterURL("", node), ServerOptions{}), func(c *PubSubConfig) { c.ProbeEvery = 20 * time.Millisecond })
	h.awaitGeneration(t, 1)
	eventually(t, "probes were received", func() bool { return probes(h) >= 3 })
	if n := h.Stats().Generation; n != 1 {
		t.Errorf("generation %d", n)
	}
	node.Do("cluster", "addslots", 0)
	h.awaitGeneration(t, 2)
	h.log.once(t, "WARN redis subscription lost", "reason=cluster", "has rejoined it")
}

func TestClusterErrorsAreExplained(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t)
	h := start(t, parse(t, clusterURL("", plain), ServerOptions{}), nil)
	h.log.await(t, "WARN redis subscription failed", "reason=cluster", "not a cluster node")
	h.stop()
	plain.Kill()
	h = start(t, parse(t, clusterURL("", plain), ServerOptions{}), nil)
	h.log.await(t, "WARN redis subscription failed", "reason=refused")
}

func TestClusterWorksWithoutOptionalPermissions(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 2)
	for _, node := range nodes {
		node.Do("acl", "setuser", "app", "on", ">secret", "+@all", "-cluster", "&*")
	}
	redis := parse(t, clusterURL("app:secret@", nodes...), ServerOptions{})
	h := start(t, redis, func(c *PubSubConfig) { c.ProbeEvery = 20 * time.Millisecond })
	h.awaitGeneration(t, 1)
	eventually(t, "a probe was received", func() bool { return probes(h) > 0 })
	h.deliverFrom(t, "x", nodes...)
	h.log.once(t, "WARN redis permission missing", "command=CLUSTER INFO", "hint=ACL SETUSER app +cluster|info")
	h.log.once(t, "WARN redis permission missing", "command=CLUSTER SLOTS", "hint=ACL SETUSER app +cluster|slots")
	h.log.warnings(t, 2)

	c := NewCommands(redis)
	defer c.Close()
	err := c.do(context.Background(), topology.Target{Key: "key"}, func(*goredis.Client) error { return nil })
	if err != nil {
		t.Errorf("without a command: %v", err)
	}
	err = c.do(context.Background(), topology.Target{Key: "key"}, ping)
	if err == nil || !strings.Contains(err.Error(), "ACL SETUSER app +cluster|slots") {
		t.Errorf("%v", err)
	}
}

func ping(client *goredis.Client) error { return client.Ping(context.Background()).Err() }

func TestKeyIsRoutedToItsOwner(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	redis := parse(t, clusterURL("", nodes...), ServerOptions{})
	c := NewCommands(redis)
	defer c.Close()
	ctx := context.Background()
	var keys []string
	for i := range 12 {
		keys = append(keys, fmt.Sprint("key", i))
	}
	set := func(key string) error {
		return c.do(ctx, topology.Target{Key: key}, func(client *goredis.Client) error { return client.Set(ctx, key, "x", 0).Err() })
	}
	owners := make(map[string]int)
	for _, key := range keys {
		if err := set(key); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		var l *topology.Conn
		l = redis.topology().NewConn(ctx, topology.Target{Key: key}, func(ctx context.Context, cn *goredis.Conn) error {
			owners[l.Addr]++
			return cn.Get(ctx, key).Err()
		})
		if err := l.Use(); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	if len(owners) != 3 {
		t.Errorf("owners %v, want all three nodes", owners)
	}

	// Concurrently, and still over at most three connections.
	var wg sync.WaitGroup
	for range 10 {
		for _, key := range keys {
			wg.Go(func() {
				if err := set(key); err != nil {
					t.Errorf("%s: %v", key, err)
				}
			})
		}
	}
	wg.Wait()
	all := 0
	for _, node := range nodes {
		all += len(connections(node))
	}
	if all > maxCommands {
		t.Errorf("%d connections", all)
	}

	// After the key has moved, the next attempt reaches its new owner.
	const key = "moving"
	slot := nodes[0].Do("cluster", "keyslot", key)
	noop := func(client *goredis.Client) error { return client.Get(ctx, key).Err() }
	if err := c.do(ctx, topology.Target{Key: key}, noop); err != goredis.Nil {
		t.Errorf("%v", err)
	}
	for _, node := range nodes {
		redistest.MoveSlot(nodes, slot, node)
		if err := c.do(ctx, topology.Target{Key: key}, noop); err != goredis.Nil && !goredis.HasErrorPrefix(err, "MOVED") {
			t.Errorf("%v", err)
		}
		if err := c.do(ctx, topology.Target{Key: key}, noop); err != goredis.Nil {
			t.Errorf("after MOVED: %v", err)
		}
	}
}

// Not parallel, so that goroutines of other tests are not counted as leaks.
func TestNothingOutlivesRunWithSeveralServers(t *testing.T) {
	primary := redistest.Start(t)
	sentinel := redistest.StartSentinels(t, 1, "main", primary)[0]
	node := redistest.StartCluster(t, 1)[0]
	for name, c := range map[string]struct {
		url    string
		frozen *redistest.Server // nil: not frozen
	}{
		"sentinel":        {sentinelURL(sentinel), nil},
		"frozen sentinel": {sentinelURL(sentinel), sentinel},
		"cluster":         {clusterURL("", node), nil},
		"frozen node":     {clusterURL("", node), node},
	} {
		t.Run(name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			h := start(t, parse(t, c.url, ServerOptions{AnswerTimeout: 500 * time.Millisecond}), func(c *PubSubConfig) { c.ProbeEvery = 20 * time.Millisecond })
			h.awaitGeneration(t, 1)
			eventually(t, "a probe was received", func() bool { return probes(h) > 0 })
			if c.frozen != nil {
				c.frozen.Freeze()
				defer c.frozen.Thaw()   // after the leak check
				h.log.await(t, "WARN ") // from now on, it waits for a reply most of the time
			}
			h.stop()
			goleak.VerifyNone(t, before)
		})
	}
}
