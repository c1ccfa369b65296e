package redis

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"usercast/hub"
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
		return errInternalChannels
	}
	return nil
}

var errInternalChannels = errors.New("the channel prefix also matches usercast's internal channels, such as usercast:<prefix>control; choose another prefix")

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

// Channels are the names of the channels of users and groups.
type Channels struct {
	Users     string // prefix of users' channels, as ValidatePrefix allows; default "user-"
	Groups    string // prefix of groups' channels, as ValidatePrefix allows; "" disables groups
	Separator byte   // between recipient and topic, as ValidateSeparator allows; default DefaultSeparator
}

func (c Channels) withDefaults() Channels {
	c.Users = cmp.Or(c.Users, defaultPrefix)
	c.Separator = cmp.Or(c.Separator, DefaultSeparator)
	return c
}

// Validate returns why the names cannot be used together with a control channel, or nil. A pattern that matches the control
// channel would deliver each command as a message.
func (c Channels) Validate(controlChannel string) error {
	return errors.Join(ValidatePrefix(c.Users), c.ValidateGroups(), ValidateSeparator(c.Separator), c.ValidateControlChannel(controlChannel))
}

// ValidateGroups returns why the prefix of groups' channels cannot be used, or nil.
func (c Channels) ValidateGroups() error {
	switch {
	case c.Groups == "":
		return nil
	case startsWithTheOther(c.Users, c.Groups):
		return errors.New("the channel prefixes of users and groups must not start with each other: a message would be for both")
	case startsWithTheOther(acl.OwnChannels+c.Users, c.Groups):
		return errInternalChannels
	}
	return ValidatePrefix(c.Groups)
}

func startsWithTheOther(a, b string) bool { return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) }

// ValidateControlChannel returns why a control channel cannot be used, or nil. It rejects a channel that begins with a prefix.
func (c Channels) ValidateControlChannel(channel string) error {
	switch {
	case channel == "":
		return errors.New("the control channel must not be empty")
	case strings.HasPrefix(channel, c.Users):
		return errors.New("the control channel must not start with the channel prefix: its commands would be treated as user messages")
	case c.Groups != "" && strings.HasPrefix(channel, c.Groups):
		return errors.New("the control channel must not start with the group prefix: its commands would be treated as group messages")
	}
	return nil
}

// Patterns returns the patterns for PSUBSCRIBE, sorted.
func (c Channels) Patterns() []string {
	patterns := []string{acl.Pattern(c.Users)}
	if c.Groups != "" {
		patterns = append(patterns, acl.Pattern(c.Groups))
	}
	slices.Sort(patterns)
	return patterns
}

// Name returns the name of the channel for messages to a recipient: prefix+name, or prefix+name+separator+topic if topic
// is not empty. The user "*" means a broadcast. A name that is empty or contains the separator is an error, and so is a
// group without a prefix.
func (c Channels) Name(to hub.Recipient, topic string) (string, error) {
	prefix, kind := c.Users, "user id"
	if to.Group {
		prefix, kind = c.Groups, "group name"
	}
	switch {
	case to.Group && prefix == "":
		return "", errors.New("groups are disabled; set --group-prefix, such as group-")
	case to.Name == "":
		return "", fmt.Errorf("the %s must not be empty", kind)
	case strings.IndexByte(to.Name, c.Separator) >= 0:
		return "", fmt.Errorf("the %s must not contain %q, which separates it from the topic (--topic-separator)", kind, c.Separator)
	case topic == "":
		return prefix + to.Name, nil
	}
	return prefix + to.Name + string(rune(c.Separator)) + topic, nil
}

// Split reverses Name: the name is the text between the prefix and the first separator, the topic the text after it. ok is
// false if the channel does not begin with a prefix, or if the name is empty. Split does not allocate.
func (c Channels) Split(channel string) (to hub.Recipient, topic string, ok bool) {
	name, ok := strings.CutPrefix(channel, c.Users)
	if !ok && c.Groups != "" {
		name, ok = strings.CutPrefix(channel, c.Groups)
		to.Group = ok
	}
	if !ok {
		return hub.Recipient{}, "", false
	}
	if at := strings.IndexByte(name, c.Separator); at >= 0 {
		name, topic = name[:at], name[at+1:]
	}
	to.Name = name
	return to, topic, name != ""
}
