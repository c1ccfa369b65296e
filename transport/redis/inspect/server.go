package inspect

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis"
	"usercast/transport/redis/internal/topology"
)

// version is that of Redis, or the Redis version that a Valkey is compatible with. Zero: not known.
type version struct{ major, minor int }

func parseVersion(s string) (v version) {
	_, _ = fmt.Sscanf(s, "%d.%d", &v.major, &v.minor) // an error leaves it unknown
	return v
}

// below reports whether the version is known and lower.
func (v version) below(major, minor int) bool {
	return v.major > 0 && (v.major < major || v.major == major && v.minor < minor)
}

// otherServers are those that report a version of their own in INFO, next to that of a Redis that they are
// compatible with.
var otherServers = []struct {
	field, name  string
	sameFeatures bool // as that Redis
}{
	{"valkey_version", "Valkey", true},
	{"dragonfly_version", "Dragonfly", false},
	{"garnet_version", "Garnet", false},
	{"kvrocks_version", "Kvrocks", false},
}

// checkServer checks program, version, role, and the number of connections.
func (i *inspector) checkServer(ctx context.Context, cn *goredis.Conn, took time.Duration) error {
	var all strings.Builder // field names are unique across sections
	for _, section := range []string{"server", "replication", "clients", "memory", "persistence"} {
		text, err := i.info(ctx, cn, section)
		if err != nil {
			return err
		}
		all.WriteString(text + "\r\n")
	}
	field := func(name string) string { return topology.InfoField(all.String(), name) }

	program, release := "Redis", field("redis_version")
	i.version = parseVersion(release)
	for _, other := range otherServers {
		if v := field(other.field); v != "" {
			program, release = other.name, v
			if !other.sameFeatures {
				i.version = version{} // their redis_version says little about their commands
			}
		}
	}
	switch {
	case release == "":
		i.report.Note("redis-version", "", "the server responds in %s, but does not report its version", short(took))
	case i.version.below(6, 0):
		i.report.Warn("redis-version", "run Redis 6 or later, or Valkey", "%s %s is older than the tested versions", program, release)
	default:
		i.report.OK("redis-version", "%s %s responds in %s", program, release, short(took))
	}
	i.checkRole(field)
	i.checkConnections(field)
	if i.StreamKey != "" {
		i.checkPersistence(field)
	}
	return nil
}

func (i *inspector) checkRole(field func(string) string) {
	switch role := field("role"); {
	case role == "":
	case i.server.IsCluster():
		if i.state == "fail" {
			i.report.Warn("redis-cluster", "check CLUSTER INFO and CLUSTER NODES", "%s", topology.FaultPartitioned.Problem)
			return
		}
		i.report.OK("redis-role", "the server is a cluster node (%s); hubs find the right node through any of them", strings.Replace(role, "slave", "replica", 1))
	case role == "master":
		i.report.OK("redis-role", "the server is a primary")
	default:
		i.report.Fail("redis-replica", i.server.PrimaryAdvice(field("redis_mode"), field("master_host"), field("master_port")),
			"the server is a replica: messages arrive late, or not at all while replication is down, and control commands published here do not reach other hubs")
	}
}

func (i *inspector) checkConnections(field func(string) string) {
	used, err := strconv.Atoi(field("connected_clients"))
	most, err2 := strconv.Atoi(field("maxclients")) // Redis 6.2 and later
	if err != nil || err2 != nil || most <= 0 {
		return
	}
	perHub := redis.MaxConnections
	if i.StreamKey != "" {
		perHub = redis.MaxStreamConnections
	}
	if most-used < perHub {
		i.report.Warn("redis-maxclients", fmt.Sprintf("CONFIG SET maxclients %d", most+max(most/2, 10*perHub)),
			"%d of %d connections are in use, but a hub may need %d", used, most, perHub)
		return
	}
	i.report.OK("redis-maxclients", "%d of %d connections are in use; a hub needs up to %d", used, most, perHub)
}

// checkPersistence checks whether Redis may lose entries of the stream.
func (i *inspector) checkPersistence(field func(string) string) {
	if policy := field("maxmemory_policy"); strings.HasPrefix(policy, "allkeys-") && field("maxmemory") != "0" {
		i.report.Fail("redis-eviction", "CONFIG SET maxmemory-policy noeviction", "maxmemory-policy %s can evict the key %s when memory is low, together with all messages kept for replay", policy, i.StreamKey)
	}
	if field("aof_enabled") == "0" {
		i.report.Warn("redis-aof", "CONFIG SET appendonly yes", "append-only file disabled: a restarted Redis loses its newest entries, and pages receive a feed-reset gap")
	}
}

// short formats a short time.
func short(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds()*1000, 'f', 2, 64) + " ms"
}
