package redistest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ClusterDown is the time after which the nodes of StartCluster consider an unresponsive node down.
const ClusterDown = 2 * time.Second

// slots is the number of slots in a Redis Cluster.
const slots = 16384

// StartCluster starts a Redis Cluster of n primaries, which requires Redis 7. It waits until every node knows all
// others and reports cluster_state:ok.
func StartCluster(tb testing.TB, n int, args ...string) []*Server {
	tb.Helper()
	nodes := make([]*Server, n)
	bus := make([]int, n)
	for i := range nodes {
		bus[i] = FreePort(tb)
		nodes[i] = Start(tb, append([]string{
			"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus[i]),
			"--cluster-node-timeout", strconv.FormatInt(ClusterDown.Milliseconds(), 10),
		}, args...)...)
	}
	for i, node := range nodes {
		node.Do("cluster", "addslotsrange", i*slots/n, (i+1)*slots/n-1)
		node.Do("cluster", "set-config-epoch", i+1)
	}
	for i, node := range nodes[1:] {
		host, port := node.HostPort()
		nodes[0].Do("cluster", "meet", host, port, bus[i+1])
	}
	for _, node := range nodes {
		node.Await("the cluster is ready", func() bool {
			info := node.Do("cluster", "info").(string)
			return strings.Contains(info, "cluster_state:ok\r\n") &&
				strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r\n", n)) &&
				node.isLinked(n-1)
		})
	}
	return nodes
}

// AddClusterReplica adds a replica of a primary to its cluster, and waits until it is ready to be promoted. known is the
// number of nodes before.
func AddClusterReplica(tb testing.TB, primary *Server, known int, args ...string) *Server {
	tb.Helper()
	replica := Start(tb, append([]string{
		"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(FreePort(tb)),
		"--cluster-node-timeout", strconv.FormatInt(ClusterDown.Milliseconds(), 10),
	}, args...)...)
	host, port := primary.HostPort()
	replica.Do("cluster", "meet", host, port, primary.Do("config", "get", "cluster-port").([]any)[1])
	replica.Await("it knows the cluster", func() bool { return replica.isLinked(known) })
	replica.Do("cluster", "replicate", primary.Do("cluster", "myid"))
	replica.Await("it follows its primary", func() bool {
		return strings.Contains(replica.Do("info", "replication").(string), "master_link_status:up")
	})
	return replica
}

// MoveSlot makes a node the owner of an empty slot, without moving keys. If the node is the owner already, nothing changes.
func MoveSlot(nodes []*Server, slot any, to *Server) {
	to.tb.Helper()
	id := to.Do("cluster", "myid")
	for _, n := range nodes {
		if n != to {
			// A node that was importing a slot gets a new epoch with it. Otherwise an earlier owner could claim it again.
			_, _ = to.Try("cluster", "setslot", slot, "importing", n.Do("cluster", "myid")) // an error if it is the owner
			break
		}
	}
	to.Do("cluster", "setslot", slot, "node", id)
	for _, n := range nodes {
		if n != to {
			n.Do("cluster", "setslot", slot, "node", id)
		}
	}
}

// isLinked reports whether the node has links to and from the given number of other nodes. Without a link, a
// published message is silently not forwarded, although the cluster state may already be ok.
func (s *Server) isLinked(others int) bool {
	s.tb.Helper()
	to, from := 0, 0
	for _, link := range s.Do("cluster", "links").([]any) {
		switch link.([]any)[1] { // after "direction"
		case "to":
			to++
		case "from":
			from++
		}
	}
	return to == others && from == others
}
