package app

import (
	"fmt"
	"io"
	"time"

	"usercast/internal/flags"
	"usercast/transport/redis"
)

// The values of --feed.
const (
	FeedPubSub = "pubsub"
	FeedStream = "stream"
)

const DefaultStreamKey = "usercast:log"

// Defaults of --history-per-user and --history-age.
const (
	defaultHistoryPerUser = 256
	defaultHistoryAge     = 2 * time.Minute
)

// An Unused is a flag that is set but ignored with the selected feed.
type Unused struct{ Flag, Hint string }

// UnusedStreamKey returns the flag --stream-key if it is set without --feed stream. The hub then does not read the stream
// to which the app appends its messages.
func UnusedStreamKey(feed, key string) []Unused {
	if feed == FeedStream || key == DefaultStreamKey {
		return nil
	}
	return []Unused{{"--stream-key", "set --feed stream to read that stream, or remove the flag"}}
}

// UnusedByFeed returns the flags that differ from their defaults but apply only to the other feed. They are not errors,
// because a deployment may set them for hubs of both feeds.
func (c *Config) UnusedByFeed() []Unused {
	list := UnusedStreamKey(c.Feed, c.StreamKey)
	if c.Feed != FeedStream {
		return list
	}
	if c.Name != "" {
		list = append(list, Unused{"--name", "hubs show each other only with --feed pubsub; remove the flag"})
	}
	if c.ControlChannel != "" {
		list = append(list, Unused{"--control-channel", "append control commands to the stream, as entries with the field ctl, or remove the flag"})
	}
	const window = "with --feed stream, only --history-bytes limits the history; remove the flag"
	if c.HistoryPerUser.T != defaultHistoryPerUser {
		list = append(list, Unused{"--history-per-user", window})
	}
	if c.HistoryAge.T != defaultHistoryAge {
		list = append(list, Unused{"--history-age", window})
	}
	return list
}

// WarnUnused writes one line per flag, for commands without a log.
func WarnUnused(w io.Writer, list []Unused) {
	for _, u := range list {
		fmt.Fprintf(w, "usercast: warning: %s is ignored with this --feed; %s\n", u.Flag, u.Hint)
	}
}

// CheckFeed adds the errors of --feed and --stream-key.
func CheckFeed(errs *flags.Errors, feed, key string) {
	if feed != FeedPubSub && feed != FeedStream {
		errs.Add("feed", "unknown feed %q; use pubsub or stream", feed)
	}
	errs.Check("stream-key", redis.ValidateKey(key))
}
