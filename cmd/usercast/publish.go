package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize/english"
	"usercast/hub"
	"usercast/internal/app"
	"usercast/internal/finding"
	"usercast/internal/flags"
	"usercast/transport/redis"
)

type publishCmd struct {
	app.RedisConfig
	app.ChannelConfig

	Feed      string `default:"pubsub" placeholder:"FEED" help:"Feed that the hubs use: pubsub or stream (default: ${default})."`
	StreamKey string `default:"${stream_key_default}" placeholder:"KEY" help:"With stream: key of the Redis stream (default: ${default})."`

	Group bool `help:"The recipient is a group, such as team-7:news for the topic news; requires --group-prefix."`

	To   string `arg:"" name:"user[:topic]" help:"User, or with --group the group, and optionally the separator and a topic; '*' broadcasts to all users."`
	Data string `arg:"" optional:"" default:"-" help:"Payload of the message; if omitted or -, it is read from standard input."`
}

// Run returns nil if Redis has accepted the message. A message without subscribers is not an error, as with redis-cli.
// Run then prints a hint, because usually the hub uses another Redis or another prefix.
func (c *publishCmd) Run(stdin io.Reader, stdout io.Writer, stderr errorOutput) error {
	var errs flags.Errors
	server := c.Server(&errs)
	app.CheckFeed(&errs, c.Feed, c.StreamKey)
	c.Check(&errs)
	name, topic, _ := strings.Cut(c.To, string(rune(c.TopicSeparator.T)))
	channel, err := c.Channels().Name(hub.Recipient{Name: name, Group: c.Group}, topic)
	switch {
	case err != nil:
		errs.AddError(fmt.Errorf("%q: %w", c.To, err))
	case c.Group && name == "*":
		errs.AddError(fmt.Errorf("%q: * does not stand for all groups, and no user can be a member of it; omit --group to broadcast to all users", c.To))
	}
	if err := errs.Err(); err != nil {
		return err
	}
	app.WarnUnused(os.Stderr, app.UnusedStreamKey(c.Feed, c.StreamKey))
	payload := c.Data
	if payload == "-" {
		b, err := io.ReadAll(stdin)
		if err != nil {
			return fmt.Errorf("read the payload: %w", err)
		}
		payload = string(b)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	commands := redis.NewCommands(server)
	commands.PublishNearHubs(redis.ControlChannel(c.ChannelPrefix))
	commands.UseChannels(c.Channels())
	defer commands.Close()
	if c.Feed == app.FeedStream {
		id, err := commands.Append(ctx, c.StreamKey, channel, payload)
		if err != nil {
			return fmt.Errorf("append to %s: %w", server.Name(), err)
		}
		_, err = fmt.Fprintf(stdout, "appended to %s for %s, entry id %s\n", finding.Name(c.StreamKey), finding.Name(channel), finding.Name(id))
		return err
	}
	n, err := commands.Publish(ctx, channel, payload)
	if err != nil {
		return fmt.Errorf("publish to %s: %w", server.Name(), err)
	}
	_, err = fmt.Fprintf(stdout, "published to %s, received by %s\n", finding.Name(channel), english.Plural(int(n), "subscriber", "subscribers"))
	switch {
	case n > 0 || strings.HasPrefix(c.Redis[0], "redis+cluster:") || strings.HasPrefix(c.Redis[0], "rediss+cluster:"): // the hubs may be at another node
	case commands.IsReplica(ctx):
		fmt.Fprintf(stderr, "usercast: hint: no hub received the message; %s is a replica, so use the address of the primary\n", server.Name())
	default:
		flag, prefix := "--channel-prefix", c.ChannelPrefix
		if c.Group {
			flag, prefix = "--group-prefix", c.GroupPrefix
		}
		fmt.Fprintf(stderr, "usercast: hint: no hub received the message; check that a hub is running with the same --redis (%s) and %s (%s)\n", server.Name(), flag, finding.Name(prefix))
	}
	return err
}
