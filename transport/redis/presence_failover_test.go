package redis

import (
	"context"
	"slices"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/redistest"
)

func TestPresenceFollowsSentinels(t *testing.T) {
	t.Parallel()
	w := startWatched(t)
	url := sentinelURL(w.sentinels...)
	a, b := startPresence(t, url, nil), startPresence(t, url, nil)
	a.open(t, "1")
	b.open(t, "2")
	a.awaitOnline(t, "1", "2")
	// On a busy machine, the Sentinels may promote one replica after the other.
	var seen []*transitionLog
	for _, server := range w.servers {
		if server != w.primary {
			seen = append(seen, recordTransitions(t, server.Addr()))
		}
	}
	w.primary.Kill()
	eventually(t, "a replica is promoted", func() bool {
		promoted := w.servers[w.sentinels[0].PrimaryOf("main")]
		return promoted != w.primary && strings.Contains(promoted.Do("info", "replication").(string), "role:master")
	})
	end := a.open(t, "3")
	a.awaitOnline(t, "1", "2", "3")
	end()
	eventually(t, "user 3 was published as offline", func() bool {
		return slices.ContainsFunc(seen, func(l *transitionLog) bool { return strings.HasSuffix(l.of("3"), "online offline") })
	})
	for _, l := range seen {
		for _, user := range []string{"1", "2"} {
			if got := l.of(user); strings.Contains(got, "offline") {
				t.Errorf("user %s was published as %q after the failover", user, got)
			}
		}
	}
	a.awaitOnline(t, "1", "2")
	b.awaitOnline(t, "1", "2")
}

// In a cluster, messages of the scripts reach the subscribers of all nodes, the keys may move to another node, and their
// primary may fail.
func TestPresenceInACluster(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	slot := nodes[0].Do("cluster", "keyslot", presenceKeys.Users)
	if got := nodes[0].Do("cluster", "keyslot", presenceKeys.Swept); got != slot {
		t.Fatalf("the keys have the slots %v and %v", slot, got)
	}
	var seen []*transitionLog
	for _, node := range nodes {
		seen = append(seen, recordTransitions(t, node.Addr()))
	}
	a, b := startPresence(t, clusterURL("", nodes...), nil), startPresence(t, clusterURL("", nodes[1]), nil)
	a.open(t, "1")
	b.open(t, "2")
	left := b.open(t, "3")
	for _, l := range seen {
		for _, user := range []string{"1", "2", "3"} {
			l.await(t, user, "online")
		}
	}
	left()
	for _, l := range seen {
		l.await(t, "3", "online offline")
	}

	from := int(slot.(int64)) * 3 / 16384
	to := (from + 1) % 3
	nodes[to].Do("cluster", "setslot", slot, "importing", nodes[from].Do("cluster", "myid"))
	nodes[from].Do("cluster", "setslot", slot, "migrating", nodes[to].Do("cluster", "myid"))
	host, port := nodes[to].HostPort()
	nodes[from].Do("migrate", host, port, "", 0, 5000, "auth2", "redistest", "redistest", "keys", presenceKeys.Users, presenceKeys.Swept)
	end := a.open(t, "during")
	seen[0].await(t, "during", "online") // with ASK
	for _, i := range []int{to, from} {
		nodes[i].Do("cluster", "setslot", slot, "node", nodes[to].Do("cluster", "myid"))
	}
	end()
	for _, l := range seen {
		l.await(t, "during", "online offline")
		if got := l.of("1") + " " + l.of("2"); got != "online online" {
			t.Errorf("users 1 and 2 were published as %q", got)
		}
	}
	if n := nodes[to].Do("zcard", presenceKeys.Users); n != int64(2) {
		t.Errorf("the new node has %v users", n)
	}

	replica := redistest.AddClusterReplica(t, nodes[to], 3)
	replica.Await("it has the users", func() bool {
		return strings.Contains(replica.Do("info", "keyspace").(string), "keys=2")
	})
	nodes[to].Kill()
	eventually(t, "the replica is promoted", func() bool {
		return strings.Contains(replica.Do("info", "replication").(string), "role:master")
	})
	a.open(t, "after")
	seen[from].await(t, "after", "online")
	a.awaitOnline(t, "1", "2", "after")
	if got := seen[from].of("1") + " " + seen[from].of("2"); got != "online online" {
		t.Errorf("users 1 and 2 were published as %q", got)
	}
}

func TestPresenceKeysHaveOneSlot(t *testing.T) {
	t.Parallel()
	for prefix, valid := range map[string]bool{
		"user-": true, "{app}user-": true, "app:{x}:": true, "a{b": true, "a}b": false, "{}x": false, "}": false,
	} {
		err := ValidatePresence(prefix)
		if (err == nil) != valid {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}
}

// The set is in the database of the URL.
func TestPresenceInADatabase(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := startPresence(t, server.URL()+"/3", nil)
	h.open(t, "42")
	h.awaitOnline(t, "42")
	client := goredis.NewClient(&goredis.Options{Addr: server.Addr(), DB: 3, Protocol: 2, DisableIdentity: true})
	defer client.Close()
	if n, err := client.ZCard(context.Background(), "usercast:user-online").Result(); n != 1 || err != nil {
		t.Errorf("database 3 has %d users, %v", n, err)
	}
	if n := server.Do("exists", presenceKeys.Users); n != int64(0) {
		t.Error("database 0 has the set")
	}
}
