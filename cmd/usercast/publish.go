package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"usercast/transport/redis"
)

type publishCmd struct {
	redisConfig
	ChannelPrefix string `default:"${prefix_default}" placeholder:"PREFIX" help:"Channels are <prefix><user>[:<topic>] (${default})."`

	Feed      string `default:"pubsub" placeholder:"FEED" help:"What the hubs read: pubsub or stream (${default})."`
	StreamKey string `default:"${stream_key_default}" placeholder:"KEY" help:"Key of the stream (${default})."`

	To   string `arg:"" name:"user[:topic]" help:"Who gets it; '*' is everybody."`
	Data string `arg:"" optional:"" default:"-" help:"The payload; - or nothing: read from standard input."`
}

// Run exits 0 when Redis has accepted the message. That nothing is subscribed is not an error, as with
// redis-cli, but a hint on standard error: nearly always it is another Redis or another prefix.
func (c *publishCmd) Run(stdin io.Reader, stdout io.Writer, stderr errorOutput) error {
	var k checker
	server := c.server(&k)
	k.read("channel-prefix", redis.ValidatePrefix(c.ChannelPrefix))
	if c.Feed != feedPubSub && c.Feed != feedStream {
		k.wrong("feed", "%q is neither pubsub nor stream", c.Feed)
	}
	k.read("stream-key", redis.ValidateKey(c.StreamKey))
	user, topic, _ := strings.Cut(c.To, ":")
	channel, err := redis.Channel(c.ChannelPrefix, user, topic)
	if err != nil {
		k.faults = append(k.faults, fmt.Errorf("%q: %w", c.To, err))
	}
	if err := k.err(); err != nil {
		return err
	}
	warnUnused(unusedStreamKey(c.Feed, c.StreamKey))
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
	defer commands.Close()
	if c.Feed == feedStream {
		id, err := commands.Append(ctx, c.StreamKey, channel, payload)
		if err != nil {
			return fmt.Errorf("append to %s: %w", server.Name(), err)
		}
		_, err = fmt.Fprintf(stdout, "appended for %s to %s as %s\n", channel, c.StreamKey, id)
		return err
	}
	n, err := commands.Publish(ctx, channel, payload)
	if err != nil {
		return fmt.Errorf("publish to %s: %w", server.Name(), err)
	}
	_, err = fmt.Fprintf(stdout, "published to %s, heard by %s\n", channel, plural(n, "subscriber", "subscribers"))
	// A node of a cluster counts its own subscribers only.
	if n == 0 && !strings.HasPrefix(c.Redis[0], "redis+cluster:") && !strings.HasPrefix(c.Redis[0], "rediss+cluster:") {
		fmt.Fprintf(stderr, "usercast: hint: no hub received it; check that a hub runs, with the same --redis (%s) and --channel-prefix (%s)\n", server.Name(), c.ChannelPrefix)
	}
	return err
}

func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
