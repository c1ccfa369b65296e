package inspect

import (
	"fmt"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/lease"
	"usercast/transport/redis/internal/topology"
)

// missing reports a command that was refused, and the consequence. A server may lack commands that a hub does not strictly
// need: this is a note.
func (i *inspector) missing(level Level, r acl.Permission, err error) {
	if i.StreamKey != "" {
		r = r.OfStream()
	}
	if !goredis.IsPermissionError(err) {
		if level < Fail {
			level = Note
		}
		i.unavailable(level, r, err)
		return
	}
	i.refused = true
	user := i.server.UserName()
	i.report(Finding{
		Name: "redis-right-" + strings.ToLower(strings.Fields(r.Command)[0]), Level: level,
		What: "user " + user + " is not allowed to run " + r.Command + ": " + r.Consequence,
		Do:   "ACL SETUSER " + user + " " + missingPart(r.Grant, err),
	})
}

// unavailable reports a command that the server does not have, and the consequence.
func (i *inspector) unavailable(level Level, r acl.Permission, err error) {
	do := ""
	if level > Note {
		do = "use a server that has it, and check that rename-command or a proxy does not remove it"
	}
	i.report(Finding{
		Name: "redis-unavailable", Level: level, Do: do,
		What: fmt.Sprintf("%s is not available (%v): %s", r.Command, topology.Shown(i.server.Redact(err)), r.Consequence),
	})
}

// missingPart returns the part of a grant that is missing according to Redis's error. Redis checks the
// command first, then channels and keys. The grant must not be longer: adding a channel or a key to
// a user with access to all of them is an error.
func missingPart(grant string, refusal error) string {
	prefix := "+"
	switch text := refusal.Error(); {
	case strings.Contains(text, " channel"):
		prefix = "&"
	case strings.Contains(text, " key"):
		prefix = "~"
	}
	var parts []string
	for _, part := range strings.Fields(grant) {
		if strings.HasPrefix(part, prefix) {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, " ")
}

// permissions sums up the permissions of the Redis user.
func (i *inspector) permissions() {
	if i.refused {
		i.report.Note("redis-acl", i.grants(), "this line grants everything that a hub needs and revokes everything else, so use a separate Redis user for the hub")
		return
	}
	i.report.OK("redis-acl", "user %s has all permissions that a hub needs", i.server.UserName())
}

// grants returns the ACL line of a Redis user that is used only by hubs.
func (i *inspector) grants() string {
	user := "usercast on >PASSWORD" // not the default user, which other clients share
	if name := i.server.UserName(); name != "default" {
		user = name
	}
	commands := "+psubscribe +subscribe +publish"
	if i.StreamKey != "" {
		commands = "+xread +xrange +xrevrange +xinfo|stream +xlen +xadd"
		if i.server.Database() != 0 {
			commands += " +select"
		}
	}
	presence := lease.KeysOf(i.Channels.Users)
	forPresence, keys := presence.Grants()
	if i.Presence {
		commands += " " + forPresence
		if i.server.Database() != 0 && i.StreamKey == "" {
			commands += " +select"
		}
	}
	commands += " +ping +info +client|setname"
	if i.server.IsCluster() {
		commands += " +cluster|info +cluster|slots"
	}
	line := "ACL SETUSER " + user + " resetkeys"
	if i.StreamKey != "" {
		line += " ~" + acl.Escape(i.StreamKey)
	}
	if i.Presence {
		line += " " + keys
		if i.StreamKey != "" && !i.version.below(6, 2) {
			line += " resetchannels &" + acl.Escape(presence.Channel)
		}
	}
	if i.StreamKey == "" && !i.version.below(6, 2) { // before 6.2, ACLs do not cover channels
		line += " resetchannels &" + strings.Join(i.Channels.Patterns(), " &") + " &" + acl.OwnChannels + acl.Pattern(i.Channels.Users)
		if !strings.HasPrefix(i.ControlChannel, acl.OwnChannels+i.Channels.Users) {
			line += " &" + acl.Escape(i.ControlChannel)
		}
	}
	return line + " -@all " + commands
}
