package redis

import (
	"context"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// identity is what the Redis at the far end of a connection says of itself.
// Fields are empty when it may not be asked.
type identity struct {
	runID string // one per start of a process
	role  string // "master", "slave"
	mode  string // "standalone", "cluster"
	data  string // master_replid: another one after each promotion, even of the same process
}

// sameData reports whether both are known, and whether everything that was read from a was
// also written to b: no other server was promoted in between.
func (a identity) sameData(b identity) bool {
	return (a.runID != "" || a.data != "") && a.runID == b.runID && a.data == b.data
}

// differs reports whether both are known and are not the same.
func (a identity) differs(b identity) bool {
	return a.runID != "" && b.runID != "" && a.runID != b.runID ||
		a.role != "" && b.role != "" && a.role != b.role
}

// right is a command that we can do without. Its name is "COMMAND" or "COMMAND
// for something"; grant is what ACL SETUSER takes, without is what is lost.
type right struct{ command, grant, without string }

var (
	rightName = right{"CLIENT SETNAME", "+client|setname", "the connection has no name in CLIENT LIST"}
	rightInfo = right{"INFO", "+info", "a fail-over behind one address is noticed only through a probe's PUBLISH"}
	rightPing = right{"PING", "+ping", "its refusal is taken as a sign of life"}
)

func rightProbeSubscribe(channel string) right {
	return right{"SUBSCRIBE to the probe channel", "+subscribe &" + probeChannels(channel), "a fail-over behind one address is noticed only through INFO"}
}

func rightControl(channel string) right {
	return right{"SUBSCRIBE to the control channel", "+subscribe &" + globEscaper.Replace(channel), "orders like disconnect do not reach this hub"}
}

func rightProbePublish(channel string) right {
	return right{"PUBLISH to the probe channel", "+publish &" + probeChannels(channel), "a fail-over behind one address is noticed only through INFO"}
}

// probeChannels is the ACL pattern for a probe channel of any process.
func probeChannels(channel string) string {
	return globEscaper.Replace(channel[:strings.LastIndexByte(channel, ':')+1]) + "*"
}

// optional turns the refusal of a command that we can do without into a call of
// missing. Other errors, and not being logged in at all, stay errors.
func optional(err error, r right, missing func(right, error)) error {
	if err != nil && isReply(err) && !goredis.IsAuthError(err) {
		missing(r, err)
		return nil
	}
	return err
}

// introduce names a new connection and asks who is there.
func introduce(ctx context.Context, cn *goredis.Conn, missing func(right, error)) (identity, error) {
	if err := optional(cn.ClientSetName(ctx, clientName).Err(), rightName, missing); err != nil {
		return identity{}, err
	}
	return identify(func(section string) (string, error) { return info(ctx, cn, section, missing) })
}

// identify asks who is there. Info returns a section of INFO, or "" where it is not allowed.
func identify(info func(section string) (string, error)) (identity, error) {
	// Two questions: INFO takes several sections only since Redis 7.
	server, err := info("server")
	if err != nil {
		return identity{}, err
	}
	replication, err := info("replication")
	if err != nil {
		return identity{}, err
	}
	return identity{
		runID: infoField(server, "run_id"),
		role:  infoField(replication, "role"),
		mode:  infoField(server, "redis_mode"),
		data:  infoField(replication, "master_replid"),
	}, nil
}

// info is a section of INFO, or "" when redis will not tell.
func info(ctx context.Context, cn *goredis.Conn, section string, missing func(right, error)) (string, error) {
	text, err := cn.Info(ctx, section).Result()
	return text, optional(err, rightInfo, missing)
}

// infoField finds "name:value" in a reply to INFO; "" when it is not there.
func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
