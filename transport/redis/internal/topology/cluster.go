package topology

import (
	"context"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
)

// cluster is a Redis Cluster. Every node forwards a PUBLISH to all others, so any node is suitable for
// pub/sub. A key is on one node.
type cluster struct {
	// Immutable.
	server *Server
	seeds  []string // at least one

	// Guarded by mu.
	mu      sync.Mutex
	next    int      // index of the seed to try next
	learned []string // nodes that the cluster reports, without the seeds
	failing int      // consecutive nodes that reported cluster_state:fail
}

var (
	FaultPartitioned = &Fault{Reason: "cluster", Problem: "the node reports cluster_state:fail: it is partitioned, or some slots are not covered", Advice: "check CLUSTER INFO and CLUSTER NODES; trying other nodes"}
	FaultRejoined    = &Fault{Reason: "cluster", Problem: "the node was partitioned from its cluster, or has rejoined it, since the subscription was made", Advice: "no action needed, resubscribing"}
	faultNoNode      = &Fault{Reason: "cluster", Problem: "no cluster node owns the slot of the key", Advice: "check CLUSTER SLOTS; retrying"}
)

func (s *Server) parseCluster(u *url.URL, others []string) error {
	addrs, err := parseHosts(u, others, "6379")
	if err != nil {
		return err
	}
	s.network, s.addr = "tcp", addrs[0]
	s.cluster = &cluster{server: s, seeds: addrs, next: rand.IntN(len(addrs))}
	s.locator = s.cluster
	return s.setDatabase(strings.Trim(u.Path, "/"))
}

// dial connects to a given node, to the owner of a key, or to any node. It tries the node Target.Not
// last.
func (c *cluster) dial(ctx context.Context, to Target) (far socket, err error) {
	nodes := []string{to.Addr}
	switch {
	case to.Addr != "":
	case to.Key != "":
		nodes[0], err = c.locateOwner(ctx, to.Key)
		if err != nil {
			return socket{}, err
		}
	default:
		nodes = c.candidates(to.Not)
	}
	for _, addr := range nodes {
		if far, err = c.server.dialAddr(ctx, addr); err == nil || ctx.Err() != nil {
			break
		}
		if !slices.Contains(c.seeds, addr) {
			err = &announcedError{addr, err}
		}
	}
	return far, err
}

// locateOwner looks up the owner of the key at a node.
func (c *cluster) locateOwner(ctx context.Context, key string) (addr string, err error) {
	var l *Conn
	l = c.server.NewConn(ctx, Target{}, func(ctx context.Context, cn *goredis.Conn) error {
		slot, err := cn.ClusterKeySlot(ctx, key).Result()
		if err != nil {
			return err
		}
		slots, err := clusterSlots(ctx, cn)
		if err != nil {
			return err
		}
		addr = owner(slots, int(slot), l.Addr)
		return nil
	})
	if err := l.Use(); err != nil {
		return "", c.server.Denied(err, "look up the owner of a key", "+cluster|keyslot +cluster|slots")
	}
	if addr == "" {
		return "", faultNoNode
	}
	return addr, nil
}

// clusterSlots requests which nodes own which slots. It does not use the newer CLUSTER SHARDS, which
// requires Redis 7.
func clusterSlots(ctx context.Context, cn *goredis.Conn) ([]goredis.ClusterSlot, error) {
	cmd := goredis.NewClusterSlotsCmd(ctx, "cluster", "slots")
	_ = cn.Process(ctx, cmd) // cmd contains the error
	return cmd.Result()
}

// owner returns the address of the primary that owns a slot, or "" if the slot is not covered.
func owner(slots []goredis.ClusterSlot, slot int, from string) string {
	for _, r := range slots {
		if r.Start <= slot && slot <= r.End && len(r.Nodes) > 0 {
			return nodeAddr(r.Nodes[0], from)
		}
	}
	return ""
}

// nodeAddr returns the address of a node as reported by the node at from. An address without a host
// means the host of that node.
func nodeAddr(node goredis.ClusterNode, from string) string {
	host, port, err := net.SplitHostPort(node.Addr)
	if err != nil || host != "" {
		return node.Addr
	}
	host, _, _ = net.SplitHostPort(from)
	return net.JoinHostPort(host, port)
}

// admit checks whether the node's cluster works. It rejects a node that reports cluster_state:fail as
// long as another node may be better. If all nodes report it, the node is not partitioned, and
// pub/sub works even if some slots are not covered.
func (c *cluster) admit(ctx context.Context, cn *goredis.Conn, to Target) (state string, denied, err error) {
	if to.Key != "" {
		return "", nil, nil // the owner of a key returns an error itself
	}
	text, err := cn.ClusterInfo(ctx).Result()
	if goredis.HasErrorPrefix(err, "This instance has cluster support disabled") {
		return "", nil, err
	}
	if err != nil {
		err = acl.Optional(err, acl.PermissionClusterInfo, func(_ acl.Permission, err error) { denied = err })
		return "", denied, err
	}
	state = InfoField(text, "cluster_state")
	if c.refuses(state) {
		return state, nil, FaultPartitioned
	}
	// This only discovers more nodes than the URL lists, so a missing permission is not an error.
	slots, err := clusterSlots(ctx, cn)
	if err != nil {
		return state, nil, acl.Optional(err, acl.Permission{}, func(acl.Permission, error) {})
	}
	c.addNodes(slots)
	return state, nil, nil
}

// candidates returns the nodes in the order in which to try them: the seeds, starting with another one
// each time; then the learned nodes; the node not last.
func (c *cluster) candidates(not string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	learned := slices.Clone(c.learned)
	rand.Shuffle(len(learned), func(i, j int) { learned[i], learned[j] = learned[j], learned[i] })
	nodes := slices.Concat(c.seeds[c.next:], c.seeds[:c.next], learned)
	c.next = (c.next + 1) % len(c.seeds)
	if i := slices.Index(nodes, not); i >= 0 {
		nodes = append(slices.Delete(nodes, i, i+1), not)
	}
	return nodes
}

// addNodes records the nodes that the cluster reports. They are tried after the seeds, because their
// addresses might be unreachable from this host.
func (c *cluster) addNodes(slots []goredis.ClusterSlot) {
	var nodes []string
	for _, r := range slots {
		for _, node := range r.Nodes {
			if host, _, err := net.SplitHostPort(node.Addr); err != nil || host == "" {
				continue
			}
			if !slices.Contains(nodes, node.Addr) && !slices.Contains(c.seeds, node.Addr) {
				nodes = append(nodes, node.Addr)
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.learned = nodes
}

// refuses counts consecutive nodes that report a failing cluster, and reports whether to try another one.
func (c *cluster) refuses(state string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state != "fail" {
		c.failing = 0
		return false
	}
	if c.failing >= len(c.seeds)+len(c.learned) {
		return false
	}
	c.failing++
	return true
}

// hosts returns the number of known nodes.
func (c *cluster) hosts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seeds) + len(c.learned)
}
