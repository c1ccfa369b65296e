package redistest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ClusterDown is how long the nodes of StartCluster hear nothing of one before they
// take it for dead.
const ClusterDown = 2 * time.Second

// slots is how many a Redis Cluster has.
const slots = 16384

// StartCluster starts a Redis Cluster of n primaries, which needs Redis 7, and waits
// until every node knows all others and has found the cluster in order.
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
		node.Await("its cluster is in order", func() bool {
			info := node.Do("cluster", "info").(string)
			return strings.Contains(info, "cluster_state:ok\r\n") &&
				strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r\n", n)) &&
				node.hears(n-1)
		})
	}
	return nodes
}

// hears reports whether so many other nodes have a link to this one, and it to them.
// A cluster can be in order before: what is published at a node without a link to
// another one does not get there, and nobody says so.
func (s *Server) hears(others int) bool {
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
