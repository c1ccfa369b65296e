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
	seeds []string // at least one; immutable

	// Guarded by mu.
	mu      sync.Mutex
	next    int      // index of the seed to try first
	learned []string // nodes that the cluster names, other than the seeds
	failing int      // nodes in a row whose cluster failed
}

var (
	FaultCutOff   = &Fault{Reason: "cluster", Problem: "the node says that its cluster fails: it is cut off from the others, or some slots have no node", Advice: "see CLUSTER INFO and CLUSTER NODES; trying other nodes"}
	FaultRejoined = &Fault{Reason: "cluster", Problem: "the node has been cut off from its cluster since it was subscribed to, or is back in it", Advice: "nothing: subscribing again"}
	faultNoNode   = &Fault{Reason: "cluster", Problem: "no node of the cluster has the slot of the key", Advice: "see CLUSTER SLOTS; trying again"}
	errOneOfMany  = errors.New("a redis+cluster:// URL has no database but 0, and nothing behind its hosts")
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
	s.cluster = &cluster{seeds: addrs, next: rand.IntN(len(addrs))}
	return nil
}

// dialNode connects to a node: to any but one, unless that is the only one left.
func (s *Server) dialNode(ctx context.Context, not string) (far socket, err error) {
	for _, addr := range s.cluster.candidates(not) {
		if far, err = s.dialAddr(ctx, addr); err == nil || ctx.Err() != nil {
			break
		}
	}
	return far, err
}

// dialOwner asks a node which one owns the key, and connects to that.
func (s *Server) dialOwner(ctx context.Context, key string) (socket, error) {
	addr, err := s.locateOwner(ctx, key)
	if err != nil {
		return socket{}, err
	}
	return s.dialAddr(ctx, addr)
}

func (s *Server) locateOwner(ctx context.Context, key string) (addr string, err error) {
	var l *Conn
	l = s.NewConn(ctx, Target{}, func(ctx context.Context, cn *goredis.Conn) error {
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
		return "", s.Denied(err, "ask which node owns a key", "+cluster|keyslot +cluster|slots")
	}
	if addr == "" {
		return "", faultNoNode
	}
	return addr, nil
}

// Redirection reads the reply of a node that does not have a Key: MOVED names the owner of its
// slot, ASK the node to which the slot is moving. From is the address of the node that replied,
// which is meant where no host is named; "": not known.
func (s *Server) Redirection(err error, key, from string) (to Target, ok bool) {
	if s.cluster == nil || !goredis.HasErrorPrefix(err, "MOVED ") && !goredis.HasErrorPrefix(err, "ASK ") {
		return Target{}, false
	}
	var reply goredis.Error
	errors.As(err, &reply)
	words := strings.Fields(reply.Error()) // MOVED or ASK, the slot, the address
	if len(words) != 3 {
		return Target{}, false
	}
	addr := nodeAddr(goredis.ClusterNode{Addr: words[2]}, from)
	return Target{Key: key, Addr: addr, Asking: words[0] == "ASK"}, !strings.HasPrefix(addr, ":")
}

// AskNode runs commands on the node that a redirection named, over a connection of its own.
func (s *Server) AskNode(ctx context.Context, to Target, run func(goredis.Cmdable) error) error {
	client := s.NewClient(to, func(conn net.Conn) net.Conn { return conn })
	defer func() { _ = client.Close() }()
	if !to.Asking {
		return run(client)
	}
	cn := client.Conn()
	defer func() { _ = cn.Close() }()
	if err := cn.Process(ctx, goredis.NewStatusCmd(ctx, "asking")); err != nil {
		return err
	}
	return run(cn)
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

// admitNode asks a node whether its cluster works. One whose cluster fails is refused as
// long as another may be better. When it fails for all, it is not the node that is cut off,
// and pub/sub works without all slots.
func (s *Server) admitNode(ctx context.Context, cn *goredis.Conn) (state string, denied, err error) {
	text, err := cn.ClusterInfo(ctx).Result()
	if goredis.HasErrorPrefix(err, "This instance has cluster support disabled") {
		return "", nil, err
	}
	if err != nil {
		err = acl.Optional(err, acl.RightClusterInfo, func(_ acl.Right, err error) { denied = err })
		return "", denied, err
	}
	state = InfoField(text, "cluster_state")
	if s.cluster.refuses(state) {
		return state, nil, FaultCutOff
	}
	// Only to know more nodes than were named: without the right there are fewer.
	slots, err := clusterSlots(ctx, cn)
	if err != nil {
		return state, nil, acl.Optional(err, acl.Right{}, func(acl.Right, error) {})
	}
	s.cluster.addNodes(slots)
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

// TrySeedNext makes the next connection to a cluster try a seed first, and returns the one that it
// would have tried. It is for tests.
func (s *Server) TrySeedNext(seed int) (was int) {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	was, s.cluster.next = s.cluster.next, seed
	return was
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

// size is how many nodes are known.
func (c *cluster) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seeds) + len(c.learned)
}
