package topology

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
)

// cluster is the nodes of a Redis Cluster. Every node passes a PUBLISH on to all
// others, so that any one will do for pub/sub; a key lives on one.
type cluster struct {
	// Immutable.
	server *Server
	seeds  []string // at least one

	// Guarded by mu.
	mu      sync.Mutex
	next    int      // index of the seed to try first
	learned []string // nodes that the cluster names, other than the seeds
	failing int      // nodes in a row whose cluster failed
}

var (
	FaultPartitioned = &Fault{Reason: "cluster", Problem: "the node reports cluster_state:fail: it is partitioned, or some slots are not covered", Advice: "check CLUSTER INFO and CLUSTER NODES; trying other nodes"}
	FaultRejoined    = &Fault{Reason: "cluster", Problem: "the node was partitioned from its cluster, or has rejoined it, since the subscription was made", Advice: "no action needed, resubscribing"}
	faultNoNode      = &Fault{Reason: "cluster", Problem: "no cluster node owns the slot of the key", Advice: "check CLUSTER SLOTS; retrying"}
	errOneOfMany     = errors.New("a redis+cluster:// URL supports only database 0 and no parameters")
)

func (s *Server) parseCluster(u *url.URL, others []string) error {
	addrs, err := parseHosts(u, others, "6379")
	if err != nil {
		return err
	}
	if db := strings.Trim(u.Path, "/"); db != "" && db != "0" || u.RawQuery != "" {
		return errOneOfMany
	}
	s.network, s.addr = "tcp", addrs[0]
	s.cluster = &cluster{server: s, seeds: addrs, next: rand.IntN(len(addrs))}
	s.locator = s.cluster
	return nil
}

// dial connects to a node that is known, to the owner of a key, or to any node but one, unless
// that is the only one left.
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
	}
	return far, err
}

// locateOwner asks a node which one owns the key.
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

// clusterSlots asks which nodes have which slots. CLUSTER SHARDS would be its
// successor, but a Redis before 7 does not know it.
func clusterSlots(ctx context.Context, cn *goredis.Conn) ([]goredis.ClusterSlot, error) {
	cmd := goredis.NewClusterSlotsCmd(ctx, "cluster", "slots")
	_ = cn.Process(ctx, cmd) // the error is in the command, too
	return cmd.Result()
}

// owner finds the address of the primary that has a slot; "" when there is none.
func owner(slots []goredis.ClusterSlot, slot int, from string) string {
	for _, r := range slots {
		if r.Start <= slot && slot <= r.End && len(r.Nodes) > 0 {
			return nodeAddr(r.Nodes[0], from)
		}
	}
	return ""
}

// nodeAddr is a node's address as another one names it: without a host it means its
// own host.
func nodeAddr(node goredis.ClusterNode, from string) string {
	host, port, err := net.SplitHostPort(node.Addr)
	if err != nil || host != "" {
		return node.Addr
	}
	host, _, _ = net.SplitHostPort(from)
	return net.JoinHostPort(host, port)
}

// admit asks a node whether its cluster works. One whose cluster fails is refused as
// long as another may be better. When it fails for all, it is not the node that is cut off,
// and pub/sub works without all slots.
func (c *cluster) admit(ctx context.Context, cn *goredis.Conn, to Target) (state string, denied, err error) {
	if to.Key != "" {
		return "", nil, nil // the owner of a key refuses what it cannot do by itself
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
	// Only to know more nodes than were named: without the right there are fewer.
	slots, err := clusterSlots(ctx, cn)
	if err != nil {
		return state, nil, acl.Optional(err, acl.Permission{}, func(acl.Permission, error) {})
	}
	c.addNodes(slots)
	return state, nil, nil
}

// candidates is the order in which to try the nodes: the seeds, another one first each
// time; then what was learned; at last the one that is not wanted.
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

// addNodes notes the nodes that the cluster names itself. They come after the seeds:
// they may be addresses that do not lead anywhere from here.
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

// refuses counts the nodes whose cluster fails, and reports whether to try another one.
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

// hosts is how many nodes are known.
func (c *cluster) hosts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seeds) + len(c.learned)
}
