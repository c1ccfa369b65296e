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
// pub/sub. But only at the same node do all hubs receive all messages in the same order. A key is on
// one node.
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
	FaultOwnerMoved  = &Fault{Reason: "moved", Problem: "another primary of the cluster owns the slot of the control channel", Advice: "no action needed, resubscribing"}
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

// dial connects to a given node, to the owner of a key, preferably to the owner of a channel, or to any node. It
// tries the node Target.Not last.
func (c *cluster) dial(ctx context.Context, to Target) (far socket, err error) {
	nodes := []string{to.Addr}
	switch {
	case to.Addr != "":
	case to.Key != "":
		nodes[0], err = c.locateOwner(ctx, Target{}, to.Key)
		if err == nil && nodes[0] == "" {
			err = faultNoNode
		}
		if err != nil {
			return socket{}, c.server.Denied(err, "look up the owner of a key", "+cluster|slots")
		}
	default:
		var owner string
		if to.Prefer != "" {
			// An error reply is not an error: admit returns it again.
			if owner, err = c.locateOwner(ctx, Target{Not: to.Not}, to.Prefer); err != nil && !acl.IsReply(err) {
				return socket{}, err
			}
		}
		nodes = c.candidates(to.Not)
		if owner != "" && owner != to.Not {
			nodes = append([]string{owner}, slices.DeleteFunc(nodes, func(node string) bool { return node == owner })...)
		}
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

// locateOwner looks up the primary that owns the slot of a name at another node. It returns "" if the slot is not
// covered.
func (c *cluster) locateOwner(ctx context.Context, at Target, name string) (addr string, err error) {
	var l *Conn
	l = c.server.NewConn(ctx, at, func(ctx context.Context, cn *goredis.Conn) error {
		slots, err := clusterSlots(ctx, cn)
		if err != nil {
			return err
		}
		addr = owner(slots, slotOf(name), l.Addr)
		return nil
	})
	return addr, l.Use()
}

// clusterSlotCount is the number of slots of every cluster.
const clusterSlotCount = 16384

// slotOf returns the slot of a key or a channel, as in the Redis Cluster Specification: the CRC16 (XMODEM) of the
// name, or of its part between the first '{' and the next '}', if that is not empty.
func slotOf(name string) int {
	if _, rest, ok := strings.Cut(name, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			name = tag
		}
	}
	var crc uint16
	for i := range len(name) {
		crc ^= uint16(name[i]) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			if crc <<= 1; carry {
				crc ^= 0x1021
			}
		}
	}
	return int(crc % clusterSlotCount)
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
// means the host of that node, and the host "?" that the node announces no host name although the cluster
// prefers host names: then its IP address is used, or "" if that is not known either.
func nodeAddr(node goredis.ClusterNode, from string) string {
	host, port, err := net.SplitHostPort(node.Addr)
	if err != nil {
		return node.Addr
	}
	switch host {
	case "":
		host, _, _ = net.SplitHostPort(from)
	case "?":
		if host = node.NetworkingMetadata["ip"]; host == "" {
			return ""
		}
	}
	return net.JoinHostPort(host, port)
}

// admit checks whether the node's cluster works. It rejects a node that reports cluster_state:fail as
// long as another node may be better. If all nodes report it, the node is not partitioned, and
// pub/sub works even if some slots are not covered.
func (c *cluster) admit(ctx context.Context, cn *goredis.Conn, to Target) (a admission, err error) {
	if to.Key != "" {
		return a, nil // the owner of a key returns an error itself
	}
	text, err := cn.ClusterInfo(ctx).Result()
	if goredis.HasErrorPrefix(err, "This instance has cluster support disabled") {
		return a, err
	}
	if err := acl.Optional(err, acl.PermissionClusterInfo, func(_ acl.Permission, err error) { a.denied = err }); err != nil {
		return a, err
	}
	a.state = InfoField(text, "cluster_state")
	if c.refuses(a.state) {
		return a, FaultPartitioned
	}
	a.slots, err = clusterSlots(ctx, cn)
	if err != nil {
		return a, acl.Optional(err, acl.PermissionClusterSlots, func(_ acl.Permission, err error) { a.slotsDenied = err })
	}
	c.addNodes(a.slots)
	return a, nil
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
			addr := nodeAddr(node, "")
			if addr != "" && !strings.HasPrefix(addr, ":") && !slices.Contains(nodes, addr) && !slices.Contains(c.seeds, addr) {
				nodes = append(nodes, addr)
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
