package redis

import (
	"errors"
	"strings"

	"usercast/transport/redis/internal/acl"
)

// ValidatePrefix returns why a channel prefix cannot be used, or nil. A prefix is
// refused when the pattern made of it would also match usercast's own channels
// (usercast:<prefix>control and the like): control commands would arrive as messages.
func ValidatePrefix(prefix string) error {
	if prefix == "" {
		return errors.New("the channel prefix is empty: every channel in Redis would be read as a user's")
	}
	// Own names are longer than the prefix they hold, so that what follows the
	// prefix in them cannot matter.
	if strings.HasPrefix(acl.OwnChannels+prefix, prefix) {
		return errors.New("the channel prefix would also match usercast's own channels, whose names begin with usercast: and the prefix: choose another")
	}
	return nil
}

// ValidateControlChannel returns why a control channel cannot be used together with a
// channel prefix, or nil. One that begins with the prefix is refused: the pattern
// would bring each command a second time, as a user's message.
func ValidateControlChannel(prefix, channel string) error {
	if channel == "" {
		return errors.New("the control channel has no name")
	}
	if strings.HasPrefix(channel, prefix) {
		return errors.New("the control channel begins with the channel prefix, and its orders would be read as a user's messages: choose another")
	}
	return nil
}

// ControlChannel is the default control channel of hubs with this prefix.
func ControlChannel(prefix string) string { return acl.OwnChannels + prefix + "control" }

// Channel is the name of the channel that carries a user's messages:
// prefix+user, or prefix+user:topic when topic is not empty. The user "*" is the
// broadcast. A user that is empty or contains ':' is an error.
func Channel(prefix, user, topic string) (string, error) {
	switch {
	case user == "":
		return "", errors.New("the user is empty")
	case strings.Contains(user, ":"):
		return "", errors.New("the user holds a ':', which separates user and topic in a channel's name")
	case topic == "":
		return prefix + user, nil
	}
	return prefix + user + ":" + topic, nil
}

// SplitChannel reverses Channel: the user is the text between prefix and the first
// ':', the topic is the text after it. ok is false if the channel does not begin with
// the prefix, or names no user. It allocates nothing.
func SplitChannel(prefix, channel string) (user, topic string, ok bool) {
	rest, ok := strings.CutPrefix(channel, prefix)
	if !ok {
		return "", "", false
	}
	user, topic, _ = strings.Cut(rest, ":")
	return user, topic, user != ""
}
