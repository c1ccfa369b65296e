package inspect

import (
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
)

// missing tells of a command that was refused, and what is lost with it.
func (i *inspector) missing(level Level, r acl.Permission, err error) {
	name := "redis-right-" + strings.ToLower(strings.Fields(r.Command)[0])
	if !goredis.IsPermissionError(err) {
		i.report.Note("redis-unavailable", "", "%s is not available (%v): %s", r.Command, i.server.Redact(err), r.Consequence)
		return
	}
	i.refused = true
	user := i.server.UserName()
	i.report(Finding{
		Name: name, Level: level,
		What: "user " + user + " is not allowed to " + r.Command + ": " + r.Consequence,
		Do:   "ACL SETUSER " + user + " " + lacking(r.Grant, err),
	})
}

// lacking is the part of a grant that a refusal asks for. Redis looks at the command first,
// and then says of channels and keys that one of them is not allowed. (To give a channel or
// a key to a user who has them all is an error.)
func lacking(grant string, refusal error) string {
	mark := "+"
	switch text := refusal.Error(); {
	case strings.Contains(text, " channel"):
		mark = "&"
	case strings.Contains(text, " key"):
		mark = "~"
	}
	var parts []string
	for _, part := range strings.Fields(grant) {
		if strings.HasPrefix(part, mark) {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, " ")
}

// rights sums up what user Redis knows us as.
func (i *inspector) rights() {
	if i.refused {
		i.report.Note("redis-acl", i.grants(), "this line grants everything that a hub needs and revokes everything else, so use a separate Redis user for the hub")
		return
	}
	i.report.OK("redis-acl", "user %s has all permissions that a hub needs", i.server.UserName())
}

// grants is the ACL line of a user for a hub and nothing else.
func (i *inspector) grants() string {
	user := "usercast on >PASSWORD" // not the default user, who is everybody else's
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
	commands += " +ping +info +client|setname"
	if i.server.IsCluster() {
		commands += " +cluster|info +cluster|slots +cluster|keyslot"
	}
	line := "ACL SETUSER " + user + " resetkeys"
	if i.StreamKey != "" {
		line += " ~" + acl.Escape(i.StreamKey)
	}
	if i.StreamKey == "" && !i.version.below(6, 2) { // which has no rules for channels
		users := acl.Pattern(i.ChannelPrefix)
		line += " resetchannels &" + users + " &" + acl.OwnChannels + users
		if !strings.HasPrefix(i.ControlChannel, acl.OwnChannels+i.ChannelPrefix) {
			line += " &" + acl.Escape(i.ControlChannel)
		}
	}
	return line + " -@all " + commands
}
