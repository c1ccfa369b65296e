// Package acl lists the permissions that a hub needs in Redis, with the purpose of each, and the
// names of the channels that they apply to.
package acl

import (
	"errors"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// A Right is a command that a hub uses.
type Right struct {
	Command string // "COMMAND" or "COMMAND for something"
	Grant   string // what ACL SETUSER takes
	Without string // what does not work without it
}

// Rights that a hub can do without.
var (
	RightName        = Right{"CLIENT SETNAME", "+client|setname", "the connection has no name in CLIENT LIST"}
	RightInfo        = Right{"INFO", "+info", "a fail-over behind one address is noticed only through a probe's PUBLISH"}
	RightPing        = Right{"PING", "+ping", "its refusal is taken as a sign of life"}
	RightClusterInfo = Right{"CLUSTER INFO", "+cluster|info", "a node that is cut off from the others is noticed only through a probe's PUBLISH"}
)

// RightProbeSubscribe is for the probe channel of a process.
func RightProbeSubscribe(channel string) Right {
	return Right{"SUBSCRIBE to the probe channel", "+subscribe &" + probeChannels(channel), "a fail-over behind one address is noticed only through INFO"}
}

// RightProbePublish is for the probe channel of a process.
func RightProbePublish(channel string) Right {
	return Right{"PUBLISH to the probe channel", "+publish &" + probeChannels(channel), "a fail-over behind one address is noticed only through INFO"}
}

// RightControl is for the control channel.
func RightControl(channel string) Right {
	return Right{"SUBSCRIBE to the control channel", "+subscribe &" + Escape(channel), "orders like disconnect do not reach this hub"}
}

// RightLength is for the key of a stream.
func RightLength(key string) Right {
	return Right{"XLEN " + key, "+xlen ~" + Escape(key), "while nothing is appended, the first and the last entry are read every few seconds"}
}

// RightPubSub is to read the subscriptions of others, for an inspection.
var RightPubSub = Right{"PUBSUB", "+pubsub", ""}

// RightUsers is to subscribe to the users' channels.
func RightUsers(pattern string) Right {
	return Right{"PSUBSCRIBE to " + pattern, "+psubscribe &" + pattern, "the hub hears nothing"}
}

// RightPublish is to publish to the users' channels.
func RightPublish(pattern string) Right {
	return Right{"PUBLISH to " + pattern, "+publish &" + pattern, "POST /api/users/<id>/messages of the admin listener fails"}
}

// RightRead is a command that reads a stream.
func RightRead(command, key string) Right {
	return Right{strings.ToUpper(strings.ReplaceAll(command, "|", " ")) + " " + key, "+" + command + " ~" + Escape(key), "the hub hears nothing"}
}

// RightAppend is to append to a stream.
func RightAppend(key string) Right {
	return Right{"XADD to " + key, "+xadd ~" + Escape(key), "DELETE and POST of the admin listener's API fail"}
}

// probeChannels is the pattern for a probe channel of any process.
func probeChannels(channel string) string {
	return Escape(channel[:strings.LastIndexByte(channel, ':')+1]) + "*"
}

// Optional turns the refusal of a command that a hub can do without into a call of
// missing. Other errors, and a connection that is not authenticated, stay errors.
func Optional(err error, r Right, missing func(Right, error)) error {
	if err != nil && IsReply(err) && !goredis.IsAuthError(err) {
		missing(r, err)
		return nil
	}
	return err
}

// IsReply reports whether err is an error reply: Redis refused a command, and
// the connection can be used.
func IsReply(err error) bool {
	var reply goredis.Error
	return errors.As(err, &reply)
}

// OwnChannels begins the names of channels that usercast itself uses.
const OwnChannels = "usercast:"

// ProbeChannel is where the process with an id receives its own probes.
func ProbeChannel(prefix, id string) string { return OwnChannels + prefix + "probe:" + id }

// escaper makes a string match itself in a Redis pattern. ']', '^' and '-'
// mean something only after an open '['.
var escaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// Escape returns the pattern that matches s only.
func Escape(s string) string { return escaper.Replace(s) }

// Pattern is what PSUBSCRIBE takes for all channels with the prefix.
func Pattern(prefix string) string { return Escape(prefix) + "*" }
