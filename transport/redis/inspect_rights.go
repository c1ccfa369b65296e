package redis

import (
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/advice"
)

// Rights of which only an inspection has to say anything.
var rightPubSub = right{"PUBSUB", "+pubsub", ""}

func rightUsers(pattern string) right {
	return right{"PSUBSCRIBE to " + pattern, "+psubscribe &" + pattern, "the hub hears nothing"}
}

func rightPublish(pattern string) right {
	return right{"PUBLISH to " + pattern, "+publish &" + pattern, "POST /api/users/<id>/messages of the admin listener fails"}
}

func rightRead(command, key string) right {
	return right{strings.ToUpper(strings.ReplaceAll(command, "|", " ")) + " " + key, "+" + command + " ~" + globEscaper.Replace(key), "the hub hears nothing"}
}

func rightAppend(key string) right {
	return right{"XADD to " + key, "+xadd ~" + globEscaper.Replace(key), "DELETE and POST of the admin listener's API fail"}
}

// missing tells of a command that was refused, and what is lost with it.
func (i *inspector) missing(level advice.Level, r right, err error) {
	name := "redis-right-" + strings.ToLower(strings.Fields(r.command)[0])
	if !goredis.IsPermissionError(err) {
		i.tell.Note("redis-unavailable", "", "%s is not available here (%v): %s", r.command, i.Server.redact(err), r.without)
		return
	}
	i.refused = true
	user := i.Server.userName()
	i.tell(advice.Finding{
		Name: name, Level: level,
		What: "user " + user + " may not " + r.command + ": " + r.without,
		Do:   "ACL SETUSER " + user + " " + lacking(r.grant, err),
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
		i.tell.Note("redis-acl", i.grants(), "one line has all that a hub needs; it takes everything else from that user, so let the hub have one of its own")
		return
	}
	i.tell.OK("redis-acl", "user %s may do all that a hub does", i.Server.userName())
}

// grants is the ACL line of a user for a hub and nothing else.
func (i *inspector) grants() string {
	user := "usercast on >PASSWORD" // not the default user, who is everybody else's
	if name := i.Server.userName(); name != "default" {
		user = name
	}
	commands := "+psubscribe +subscribe +publish"
	if i.StreamKey != "" {
		commands = "+xread +xrange +xrevrange +xinfo|stream +xlen +xadd"
		if i.Server.database != 0 {
			commands += " +select"
		}
	}
	commands += " +ping +info +client|setname"
	if i.Server.cluster != nil {
		commands += " +cluster|info +cluster|slots +cluster|keyslot"
	}
	line := "ACL SETUSER " + user + " resetkeys"
	if i.StreamKey != "" {
		line += " ~" + globEscaper.Replace(i.StreamKey)
	}
	if i.StreamKey == "" && !i.version.below(6, 2) { // which has no rules for channels
		users := pattern(i.ChannelPrefix)
		line += " resetchannels &" + users + " &" + ownNames + users
		if !strings.HasPrefix(i.ControlChannel, ownNames+i.ChannelPrefix) {
			line += " &" + globEscaper.Replace(i.ControlChannel)
		}
	}
	return line + " -@all " + commands
}
