package topology

import (
	"context"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
)

// ClientName is the name of all connections of a hub in CLIENT LIST.
const ClientName = "usercast"

// An Identity is what a Redis server reports about itself. Fields are empty if INFO is not allowed.
type Identity struct {
	RunID string // changes with each start of the process
	Role  string // "master", "slave"
	Mode  string // "standalone", "cluster"
	Data  string // master_replid: changes with each promotion, even of the same process
}

// SameData reports whether both are known and no other server was promoted in between. Then b has
// everything that was read from a.
func (a Identity) SameData(b Identity) bool {
	return (a.RunID != "" || a.Data != "") && a.RunID == b.RunID && a.Data == b.Data
}

// Differs reports whether both are known and are different servers, or have different roles.
func (a Identity) Differs(b Identity) bool {
	return a.IsOther(b) || a.Role != "" && b.Role != "" && a.Role != b.Role
}

// IsOther reports whether both are known and are different processes.
func (a Identity) IsOther(b Identity) bool {
	return a.RunID != "" && b.RunID != "" && a.RunID != b.RunID
}

// Introduce sets the name of a new connection and returns the identity of the server.
func Introduce(ctx context.Context, cn *goredis.Conn, missing func(acl.Permission, error)) (Identity, error) {
	if err := SetName(ctx, cn, missing); err != nil {
		return Identity{}, err
	}
	return Identify(func(section string) (string, error) { return Info(ctx, cn, section, missing) })
}

// SetName sets the name of a new connection.
func SetName(ctx context.Context, cn *goredis.Conn, missing func(acl.Permission, error)) error {
	return acl.Optional(cn.ClientSetName(ctx, ClientName).Err(), acl.PermissionName, missing)
}

// Identify returns the identity of a server. info returns a section of INFO, or "" if INFO is not
// allowed.
func Identify(info func(section string) (string, error)) (Identity, error) {
	// Two requests, because INFO accepts several sections only since Redis 7.
	server, err := info("server")
	if err != nil {
		return Identity{}, err
	}
	replication, err := info("replication")
	if err != nil {
		return Identity{}, err
	}
	return Identity{
		RunID: InfoField(server, "run_id"),
		Role:  InfoField(replication, "role"),
		Mode:  InfoField(server, "redis_mode"),
		Data:  InfoField(replication, "master_replid"),
	}, nil
}

// Info returns a section of INFO, or "" if INFO is not allowed. Section server of a Sentinel is an error.
func Info(ctx context.Context, cn *goredis.Conn, section string, missing func(acl.Permission, error)) (string, error) {
	text, err := cn.Info(ctx, section).Result()
	if InfoField(text, "redis_mode") == "sentinel" {
		return "", errSentinel
	}
	return text, acl.Optional(err, acl.PermissionInfo, missing)
}

// InfoField returns the value of a field in a reply to INFO, or "" if the field is missing.
func InfoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
