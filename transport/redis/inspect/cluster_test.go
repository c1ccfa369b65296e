package inspect

import (
	"strings"
	"testing"

	"usercast/internal/redistest"
	"usercast/transport/redis"
)

// A hub is connected through an address in the URL, but cannot use the announced ones.
func TestInspectionReportsAnnouncedAddressesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		announce    []any // arguments of CONFIG SET
		addr, fault string
		advice      string
	}{
		"address that nobody listens on": {[]any{"cluster-announce-ip", "127.77.77.77"}, "127.77.77.77:", "connection refused", "cluster-announce-ip"},
		"name that does not resolve": {
			[]any{"cluster-announce-hostname", "no-such-host.invalid", "cluster-preferred-endpoint-type", "hostname"},
			"no-such-host.invalid:", "does not resolve", "cluster-announce-hostname",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			node := redistest.StartCluster(t, 1)[0]
			node.Do(append([]any{"config", "set"}, c.announce...)...)
			server := parse(t, "redis+cluster://"+node.Addr(), redis.ServerOptions{})
			found := run(t, server, nil)
			found.want(t, Warn, "redis-announced", "hubs cannot subscribe to "+c.addr)
			found.want(t, Warn, "redis-announced", c.fault)
			found.want(t, Warn, "redis-announced", c.advice)
		})
	}
}

func TestInspectionReportsAnnouncedNodesForAFailover(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 2)
	owner, other := nodes[0], nodes[1]
	redistest.MoveSlot(nodes, owner.Do("cluster", "keyslot", redis.ControlChannel("user-")), owner)
	other.Do("config", "set", "cluster-announce-ip", "127.77.77.77")
	eventually(t, "the nodes know the address", func() bool {
		return strings.Contains(owner.Do("cluster", "nodes").(string), "127.77.77.77")
	})
	found := run(t, parse(t, "redis+cluster://"+owner.Addr(), redis.ServerOptions{}), nil)
	found.want(t, Warn, "redis-announced", "hubs cannot use 1 of 2 cluster nodes after a failover, for example 127.77.77.77:")
}

func TestInspectionReportsMissingClusterSlots(t *testing.T) {
	t.Parallel()
	node := redistest.StartCluster(t, 1)[0]
	node.Do("acl", "setuser", "app", "on", ">secret", "allchannels", "+@all", "-cluster", "+cluster|info")
	server := parse(t, "redis+cluster://app:secret@"+node.Addr(), redis.ServerOptions{})
	found := run(t, server, nil)
	found.want(t, Warn, "redis-right-cluster", "ACL SETUSER app +cluster|slots")
	if n := strings.Count(found.String(), "is not allowed to run CLUSTER SLOTS"); n != 1 {
		t.Errorf("it is reported %d times in %v", n, found)
	}
	node.Do("acl", "setuser", "app", "+cluster|slots")
	if found := run(t, server, nil); len(found.bad()) > 0 {
		t.Error(found)
	}
}
