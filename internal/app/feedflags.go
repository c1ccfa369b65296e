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

// An Unused is a flag that is set and has no effect with the feed.
type Unused struct{ Flag, Hint string }

// UnusedStreamKey is the flag --stream-key without --feed stream. With that flag alone, messages that the app
// appends do not arrive.
func UnusedStreamKey(feed, key string) []Unused {
	if feed == FeedStream || key == DefaultStreamKey {
		return nil
	}
	return []Unused{{"--stream-key", "set --feed stream to read that stream, or remove the flag"}}
}

// UnusedByFeed are the flags that have another value than their default and that only the
// other feed reads. They are not errors: a deployment may set them for hubs with either feed.
func (c *Config) UnusedByFeed() []Unused {
	list := UnusedStreamKey(c.Feed, c.StreamKey)
	if c.Feed != FeedStream {
		return list
	}
	if c.ControlChannel != "" {
		list = append(list, Unused{"--control-channel", "append control commands to the stream, as entries with the field ctl, or remove the flag"})
	}
	const window = "with --feed stream only --history-bytes limits what is kept; remove the flag"
	if c.HistoryPerUser.T != defaultHistoryPerUser {
		list = append(list, Unused{"--history-per-user", window})
	}
	if c.HistoryAge.T != defaultHistoryAge {
		list = append(list, Unused{"--history-age", window})
	}
	return list
}

// WarnUnused writes a line per flag, for a command that runs once.
func WarnUnused(w io.Writer, list []Unused) {
	for _, u := range list {
		fmt.Fprintf(w, "usercast: warning: %s has no effect with this --feed; %s\n", u.Flag, u.Hint)
	}
}

// CheckFeed adds what is wrong with --feed, --stream-key and --channel-prefix.
func CheckFeed(errs *flags.Errors, feed, key, prefix string) {
	if feed != FeedPubSub && feed != FeedStream {
		errs.Add("feed", "%q is neither pubsub nor stream", feed)
	}
	errs.Check("stream-key", redis.ValidateKey(key))
	errs.Check("channel-prefix", redis.ValidatePrefix(prefix))
}
