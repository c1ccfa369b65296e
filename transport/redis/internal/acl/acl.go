// Package acl lists the permissions that a hub needs in Redis, with the purpose of each, and the
// names of the channels that they apply to.
package acl

import (
	"errors"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// A Permission is a command that a hub uses, and the consequence if it is not allowed.
type Permission struct {
	Command     string // "COMMAND" or "COMMAND for something"
	Grant       string // the arguments of ACL SETUSER
	Consequence string // the effect if it is missing
}

// Permissions that a hub does not strictly need.
var (
	PermissionName         = Permission{"CLIENT SETNAME", "+client|setname", "connections are unnamed in CLIENT LIST"}
	PermissionInfo         = Permission{"INFO", "+info", "ids are valid on this hub only, and a failover behind the same address is detected only by a lost probe"}
	PermissionPing         = Permission{"PING", "+ping", "the error reply also shows that the connection works, but Redis may close the subscription at a message over its soft limit"}
	PermissionClusterSlots = Permission{"CLUSTER SLOTS", "+cluster|slots", "the hub subscribes to any node, not to that of the other hubs"}
	PermissionClusterInfo  = Permission{"CLUSTER INFO", "+cluster|info", "a partitioned node is detected only by the probe"}
)

// OfStream returns the permission with its consequence for the stream feed, which does not publish probes.
func (p Permission) OfStream() Permission {
	if p == PermissionInfo {
		p.Consequence = "a failover behind the same address is not detected while the old server keeps its connections"
	}
	return p
}

// PermissionProbeSubscribe is to subscribe to the probe channel of a process.
func PermissionProbeSubscribe(channel string) Permission {
	return Permission{"SUBSCRIBE to the probe channel", "+subscribe &" + probeChannels(channel), "a failover behind the same address is detected only by comparing INFO; without that permission, it is not detected"}
}

// PermissionProbePublish is to publish to the probe channel of a process.
func PermissionProbePublish(channel string) Permission {
	return Permission{"PUBLISH to the probe channel", "+publish &" + probeChannels(channel), "a failover behind the same address is detected only by comparing INFO; without that permission, it is not detected"}
}

// PermissionControl is to subscribe to the control channel.
func PermissionControl(channel string) Permission {
	return Permission{"SUBSCRIBE to the control channel", "+subscribe &" + Escape(channel), "control commands such as disconnect do not reach this hub, and ids are valid on this hub only"}
}

// PermissionMarker is to publish markers to the control channel.
func PermissionMarker(channel string) Permission {
	return Permission{"PUBLISH to the control channel", "+publish &" + Escape(channel), "this hub does not publish markers; if no other hub does, ids are valid on this hub only"}
}

// PermissionLength is to read the length of a stream.
func PermissionLength(key string) Permission {
	return Permission{"XLEN " + key, "+xlen ~" + Escape(key), "while the stream is idle, its first and last entries are read every few seconds"}
}

// PermissionPubSub is to list the subscriptions of other clients, for an inspection.
var PermissionPubSub = Permission{"PUBSUB", "+pubsub", ""}

// PermissionPatterns is to subscribe to the channels of users and groups, with one command. An ACL compares each pattern
// literally.
func PermissionPatterns(patterns []string) Permission {
	return Permission{"PSUBSCRIBE to " + strings.Join(patterns, " and "), "+psubscribe &" + strings.Join(patterns, " &"), "the hub receives no messages"}
}

// PermissionPublish is to publish to the channels of users or groups.
func PermissionPublish(pattern string, group bool) Permission {
	kind := "users"
	if group {
		kind = "groups"
	}
	return Permission{"PUBLISH to " + pattern, "+publish &" + pattern, "POST /api/" + kind + "/<id>/messages on the admin listener fails"}
}

// PermissionRead is to read a stream with a command.
func PermissionRead(command, key string) Permission {
	return Permission{strings.ToUpper(strings.ReplaceAll(command, "|", " ")) + " " + key, "+" + command + " ~" + Escape(key), "the hub receives no messages"}
}

// PermissionAppend is to append to a stream.
func PermissionAppend(key string) Permission {
	return Permission{"XADD to " + key, "+xadd ~" + Escape(key), "DELETE and POST requests to the admin API fail"}
}

// probeChannels is the pattern for a probe channel of any process.
func probeChannels(channel string) string {
	return Escape(channel[:strings.LastIndexByte(channel, ':')+1]) + "*"
}

// Optional is for a command that a hub does not strictly need: if Redis refuses it, Optional calls
// missing and returns nil. It returns other errors, and those of a server that is busy, of a connection that is not
// authenticated, or of a node of a cluster that does not have the key.
func Optional(err error, r Permission, missing func(Permission, error)) error {
	if err != nil && IsReply(err) && !IsTemporary(err) && !goredis.IsAuthError(err) && !goredis.HasErrorPrefix(err, "MOVED ") && !goredis.HasErrorPrefix(err, "ASK ") {
		missing(r, err)
		return nil
	}
	return err
}

// IsReply reports whether err is an error reply: Redis rejected a command, but the connection can
// still be used.
func IsReply(err error) bool {
	var reply goredis.Error
	return errors.As(err, &reply)
}

// IsTemporary reports whether err is an error reply of a server that cannot execute the command at present: it runs a
// long script, or loads its data. The reply says nothing about permissions.
func IsTemporary(err error) bool {
	for _, prefix := range []string{"BUSY ", "LOADING ", "MASTERDOWN "} {
		if goredis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

// OwnChannels is the prefix of usercast's internal channels.
const OwnChannels = "usercast:"

// ProbeChannel returns the channel on which the process with an id receives its own probes.
func ProbeChannel(prefix, id string) string { return OwnChannels + prefix + "probe:" + id }

// escaper makes a string match itself in a Redis pattern. ']', '^' and '-' have a special meaning only
// after an unescaped '['.
var escaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// Escape returns the pattern that matches only s.
func Escape(s string) string { return escaper.Replace(s) }

// Pattern returns the pattern for PSUBSCRIBE that matches all channels with the prefix.
func Pattern(prefix string) string { return Escape(prefix) + "*" }
