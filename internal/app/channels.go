package app

import (
	"usercast/internal/flags"
	"usercast/transport/redis"
)

// A ChannelConfig holds the flags for the names of channels.
type ChannelConfig struct {
	ChannelPrefix  string     `default:"${prefix_default}" placeholder:"PREFIX" help:"Prefix of channel names, which are <prefix><user>[:<topic>] (default: ${default})."`
	GroupPrefix    string     `placeholder:"PREFIX" help:"Prefix of the channel names of groups, which are <prefix><group>[:<topic>], such as group-. Without it, groups are disabled."`
	TopicSeparator flags.Char `default:"${separator_default}" placeholder:"CHAR" help:"Character that separates user and topic in channel names; choose one that no user id contains, such as / for ids with a colon (default: ${default})."`
}

// Channels returns the names, which are valid if Check added no error.
func (c *ChannelConfig) Channels() redis.Channels {
	return redis.Channels{Users: c.ChannelPrefix, Groups: c.GroupPrefix, Separator: c.TopicSeparator.T}
}

// Check adds all errors of c to errs.
func (c *ChannelConfig) Check(errs *flags.Errors) {
	if errs.Check("channel-prefix", redis.ValidatePrefix(c.ChannelPrefix)) {
		errs.Check("group-prefix", c.Channels().ValidateGroups())
	}
	if errs.Check("topic-separator", c.TopicSeparator.Err()) {
		errs.Check("topic-separator", redis.ValidateSeparator(c.TopicSeparator.T))
	}
}
