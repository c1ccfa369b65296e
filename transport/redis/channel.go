package redis

import (
	"errors"
	"fmt"
	"strings"

	"usercast/transport/redis/internal/acl"
)

// ValidatePrefix returns why a channel prefix cannot be used, or nil. It rejects a prefix whose
// pattern also matches usercast's internal channels, such as usercast:<prefix>control: control
// commands would arrive as messages.
func ValidatePrefix(prefix string) error {
	if prefix == "" {
		return errors.New("the channel prefix must not be empty: every Redis channel would be treated as a user channel")
	}
	// An internal name is longer than the prefix it contains, so its end does not matter.
	if strings.HasPrefix(acl.OwnChannels+prefix, prefix) {
		return errors.New("the channel prefix also matches usercast's internal channels, such as usercast:<prefix>control; choose another prefix")
	}
	return nil
}

// ValidateControlChannel returns why a control channel cannot be used together with a channel
// prefix, or nil. It rejects a channel that begins with the prefix: the pattern would also deliver
// each command as a user's message.
func ValidateControlChannel(prefix, channel string) error {
	if channel == "" {
		return errors.New("the control channel must not be empty")
	}
	if strings.HasPrefix(channel, prefix) {
		return errors.New("the control channel must not start with the channel prefix: its commands would be treated as user messages")
	}
	return nil
}

// ControlChannel is the default control channel of hubs with this prefix.
func ControlChannel(prefix string) string { return acl.OwnChannels + prefix + "control" }

// DefaultSeparator separates user and topic in the name of a channel unless another separator is configured.
const DefaultSeparator = ':'

// ValidateSeparator returns why a character cannot separate user and topic, or nil. Every printable ASCII character is
// allowed, except those that almost all ids contain (letters and digits) and those with a meaning in the patterns of
// Redis, one of which also is the broadcast user.
func ValidateSeparator(separator byte) error {
	letter := 'a' <= separator|0x20 && separator|0x20 <= 'z'
	if digit := '0' <= separator && separator <= '9'; letter || digit || separator <= ' ' || separator >= 0x7f || strings.IndexByte(`*?[]\`, separator) >= 0 {
		return fmt.Errorf("%q cannot separate user and topic; use one ASCII punctuation mark other than * ? [ ] \\, such as : or /", string(rune(separator)))
	}
	return nil
}

// Channel returns the name of the channel for a user's messages: prefix+user, or
// prefix+user+separator+topic if topic is not empty. The user "*" means a broadcast. A user that is empty or
// contains the separator is an error.
func Channel(prefix string, separator byte, user, topic string) (string, error) {
	switch {
	case user == "":
		return "", errors.New("the user id must not be empty")
	case strings.IndexByte(user, separator) >= 0:
		return "", fmt.Errorf("the user id must not contain %q, which separates user and topic (--topic-separator)", separator)
	case topic == "":
		return prefix + user, nil
	}
	return prefix + user + string(rune(separator)) + topic, nil
}

// SplitChannel reverses Channel: the user is the text between prefix and the first separator, the topic
// is the text after it. ok is false if the channel does not begin with the prefix, or if the user
// is empty. SplitChannel does not allocate.
func SplitChannel(prefix string, separator byte, channel string) (user, topic string, ok bool) {
	user, ok = strings.CutPrefix(channel, prefix)
	if !ok {
		return "", "", false
	}
	if at := strings.IndexByte(user, separator); at >= 0 {
		user, topic = user[:at], user[at+1:]
	}
	return user, topic, user != ""
}
