package topology

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strconv"
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
	next    int               // index of the seed to try next
	known   []string          // all nodes that the cluster reports, sorted
	learned []string          // those that are not seeds
	names   map[string]string // address of a node → its host name with the port, if it announces both
	silent  string            // the node that was last asked for an owner and did not reply, or is partitioned
	failing int               // consecutive nodes that reported cluster_state:fail
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
		if nodes = c.candidates(to.Not, to.lookup || to.Prefer != ""); to.Prefer != "" {
			nodes = c.sameOrder(nodes, to.Not)
		}
		if owner != "" && owner != to.Not {
			nodes = append([]string{owner}, slices.DeleteFunc(nodes, func(node string) bool { return node == owner })...)
		}
	}
	for _, addr := range nodes {
		if far, err = c.dialNode(ctx, addr); err == nil || ctx.Err() != nil {
			break
		}
		if !slices.Contains(c.seeds, addr) {
			err = &announcedError{addr, err}
		}
	}
	return far, err
}

// dialNode connects to a node. If its certificate is not for the announced address, dialNode uses the host name that
// the node announces in addition: Redis returns both, and prefers the IP address by default. Managed services that announce
// only IP addresses use one certificate for all nodes (redis/go-redis#1698): it must be for a host in the URL.
func (c *cluster) dialNode(ctx context.Context, addr string) (socket, error) {
	far, err := c.server.dialAddr(ctx, addr, "")
	var wrong x509.HostnameError
	if !errors.As(err, &wrong) {
		return far, err
	}
	c.mu.Lock()
	name := c.names[addr]
	c.mu.Unlock()
	switch {
	case name != "":
		far, err = c.server.dialAddr(ctx, name, "")
		far.addr = addr
	case isIP(addr):
		for _, seed := range c.seeds {
			if host, _, _ := net.SplitHostPort(seed); !isIP(seed) && errors.As(err, &wrong) {
				far, err = c.server.dialAddr(ctx, addr, host)
			}
		}
	}
	return far, err
}

func isIP(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	return net.ParseIP(host) != nil
}

// locateOwner looks up the primary that owns the slot of a name at another node. It returns "" if the slot is not
// covered.
func (c *cluster) locateOwner(ctx context.Context, at Target, name string) (addr string, err error) {
	at.lookup = true
	l := c.server.NewConn(ctx, at, func(context.Context, *goredis.Conn) error { return nil })
	if err = l.Use(); err != nil && !acl.IsReply(err) {
		c.mu.Lock()
		c.silent = l.Addr
		c.mu.Unlock()
	}
	return l.Owner(name), cmp.Or(err, l.SlotsDenied)
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

// SameSlot reports whether two keys always have the same slot.
func SameSlot(a, b string) bool { return slotOf(a) == slotOf(b) }

// A slotRange is an element of the reply to CLUSTER SLOTS. Its first node is the primary.
type slotRange struct {
	first, last int
	nodes       []clusterNode
}

// A clusterNode is a node as the cluster announces it.
type clusterNode struct {
	host string // "": the host of the node that reports it; "?": a host name is preferred, but not announced
	port string
	ip   string // in addition, if host is not an IP address; "": not known
	name string // in addition, if host is not a name; "": not announced
}

// clusterSlots requests which nodes own which slots. It does not use the newer CLUSTER SHARDS, which
// requires Redis 7, nor the type of go-redis for the reply, which cannot have a node without a host.
func clusterSlots(ctx context.Context, cn *goredis.Conn) ([]slotRange, error) {
	cmd := goredis.NewSliceCmd(ctx, "cluster", "slots")
	_ = cn.Process(ctx, cmd) // cmd contains the error
	reply, err := cmd.Result()
	if err != nil {
		return nil, err
	}
	ranges := make([]slotRange, 0, len(reply))
	for _, r := range reply {
		fields, _ := r.([]any)
		if len(fields) < 2 {
			return nil, BadReply("CLUSTER SLOTS returned a range without slots")
		}
		first, ok1 := fields[0].(int64)
		last, ok2 := fields[1].(int64)
		if !ok1 || !ok2 {
			return nil, BadReply("CLUSTER SLOTS returned a range without slots")
		}
		one := slotRange{first: int(first), last: int(last)}
		for _, node := range fields[2:] {
			n, ok := parseNode(node)
			if !ok {
				return nil, BadReply("CLUSTER SLOTS returned an invalid node")
			}
			one.nodes = append(one.nodes, n)
		}
		ranges = append(ranges, one)
	}
	return ranges, nil
}

// parseNode parses a node in the reply to CLUSTER SLOTS: host, port, id, and since Redis 7 names and values.
func parseNode(reply any) (n clusterNode, ok bool) {
	fields, _ := reply.([]any)
	if len(fields) < 2 {
		return n, false
	}
	n.host, _ = fields[0].(string) // nil: not known
	port, ok := fields[1].(int64)
	n.port = strconv.FormatInt(port, 10)
	if len(fields) < 4 {
		return n, ok
	}
	more, _ := fields[3].([]any)
	for pair := range slices.Chunk(more, 2) {
		if len(pair) < 2 {
			continue
		}
		switch value, _ := pair[1].(string); pair[0] {
		case "ip":
			n.ip = value
		case "hostname":
			n.name = value
		}
	}
	return n, ok
}

// owner returns the address of the primary that owns a slot, or "" if the slot is not covered.
func owner(slots []slotRange, slot int, from string) string {
	for _, r := range slots {
		if r.first <= slot && slot <= r.last && len(r.nodes) > 0 {
			return r.nodes[0].addr(from)
		}
	}
	return ""
}

// addr returns the address of the node as reported by the node at from, or "" if it is not known. Without a host, it is
// at the host of that node.
func (n clusterNode) addr(from string) string {
	host := n.host
	switch host {
	case "":
		host, _, _ = net.SplitHostPort(from)
	case "?":
		host = n.ip
	}
	if host == "" {
		return ""
	}
	return net.JoinHostPort(host, n.port)
}

// admit checks whether the node's cluster works. It rejects a node that reports cluster_state:fail as
// long as another node may be better. If all nodes report it, the node is not partitioned, and
// pub/sub works even if some slots are not covered.
func (c *cluster) admit(ctx context.Context, cn *goredis.Conn, to Target, from string) (a admission, err error) {
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
	if from == "" { // a connection for commands does not use them
		return a, nil
	}
	a.slots, err = clusterSlots(ctx, cn)
	if err != nil {
		return a, acl.Optional(err, acl.PermissionClusterSlots, func(_ acl.Permission, err error) { a.slotsDenied = err })
	}
	c.addNodes(a.slots, from)
	return a, nil
}

// candidates returns the nodes in the order in which to try them: the seeds, starting with another one
// each time; then the learned nodes; the node not last. A silent node is tried after the others, except by
// probes, which find out whether it works.
func (c *cluster) candidates(not string, avoidSilent bool) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	learned := slices.Clone(c.learned)
	rand.Shuffle(len(learned), func(i, j int) { learned[i], learned[j] = learned[j], learned[i] })
	nodes := slices.Concat(c.seeds[c.next:], c.seeds[:c.next], learned)
	c.next = (c.next + 1) % len(c.seeds)
	for _, last := range []string{c.silent, not} {
		if i := slices.Index(nodes, last); i >= 0 && (last == not || avoidSilent) {
			nodes = append(slices.Delete(nodes, i, i+1), last)
		}
	}
	return nodes
}

// sameOrder returns nodes in the order in which every hub tries them if the owner of a channel does not work: the hubs
// meet at another node, so that ids stay valid on all of them. Nodes that the cluster does not report come last, and those
// that this hub avoids. After each node that reports a failing cluster, another one is the first.
func (c *cluster) sameOrder(nodes []string, not string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) == 0 {
		return nodes
	}
	first := c.failing % len(c.known)
	order := slices.Concat(c.known[first:], c.known[:first])
	for _, node := range nodes {
		if avoided := node == not || node == c.silent; avoided || !slices.Contains(order, node) {
			order = append(slices.DeleteFunc(order, func(other string) bool { return other == node }), node)
		}
	}
	return order
}

// addNodes records the nodes that the cluster reports. They are tried after the seeds, because their
// addresses might be unreachable from this host.
func (c *cluster) addNodes(slots []slotRange, from string) {
	var known, nodes []string
	names := make(map[string]string)
	for _, r := range slots {
		for _, node := range r.nodes {
			addr := node.addr(from)
			if node.name != "" {
				names[addr] = net.JoinHostPort(node.name, node.port)
			}
			if addr == "" || slices.Contains(known, addr) {
				continue
			}
			known = append(known, addr)
			if !slices.Contains(c.seeds, addr) {
				nodes = append(nodes, addr)
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(known)
	c.known, c.learned, c.names = known, nodes, names
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
