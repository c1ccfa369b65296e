package hub

import (
	"cmp"
	"math"
	"time"
)

// Special values of Config fields. All negative values are equivalent.
const (
	NoLimit = -1 // for fields that are limits
	Off     = -1 // for fields that enable a feature
)

// Config is the configuration of a hub. The zero value of each number means its default.
type Config struct {
	Encode        Encoder // default: the payload alone; streams of server-sent events need sse.EncodeEntry
	BroadcastUser string  // messages to this user reach all clients; "" disables broadcasts

	QueueFrames     int           // frames queued for one client; default 1024, or NoLimit
	QueueBytes      int           // bytes queued for one client; default 1 MiB, or NoLimit
	QueueGrace      time.Duration // how long a queue may exceed QueueFrames and QueueBytes; default 250 ms, or Off. Long enough for a fast reader on a busy host
	QueueTotalBytes int64         // bytes of all frames that are queued or being written; a shared frame counts once. Above it, the clients with the fullest queues end; default 256 MiB, or NoLimit

	MaxClients        int // concurrent clients; default NoLimit, because the hub does not know the limit of file descriptors
	MaxClientsPerUser int // concurrent clients per user; default 32, or NoLimit

	FanOut    int           // clients that receive a part of a broadcast, or of a message to a group, before other messages are routed; default 512, or NoLimit
	GapSpread time.Duration // maximum time over which a gap for all, or for a group, is spread across clients that receive nothing else; default 3 s, or Off

	// The history is for clients that reconnect. If one of these fields is Off, it is disabled.
	HistoryPerUser int           // entries per user or group with a client, or with one within HistoryAge; default 256, or Off; not used by StreamFeed
	HistoryAge     time.Duration // maximum age of these entries; default 2 min, or Off; not used by StreamFeed
	HistoryBytes   int64         // memory of the history, estimated, including its overhead; a PubSub uses at most half of it for users and groups without a client; default 64 MiB, or Off

	// MarkerAge is how long clients can resume from ids that count from a marker, which must be longer than HistoryAge; default
	// 30 s more. An idle stream receives a new id with each ping. Not used by StreamFeed.
	MarkerAge time.Duration
}

// withDefaults replaces zeros by defaults, and negative numbers by the largest number (NoLimit) or 0 (Off).
func (c Config) withDefaults() Config {
	if c.Encode == nil {
		c.Encode = func(dst []byte, e Entry, _ bool) []byte { return append(dst, e.Payload...) }
	}
	c.QueueFrames = limit(cmp.Or(c.QueueFrames, 1024), math.MaxInt)
	c.QueueBytes = limit(cmp.Or(c.QueueBytes, 1<<20), math.MaxInt)
	c.QueueGrace = max(0, cmp.Or(c.QueueGrace, 250*time.Millisecond))
	c.QueueTotalBytes = limit(cmp.Or(c.QueueTotalBytes, 256<<20), math.MaxInt64)
	c.MaxClients = limit(cmp.Or(c.MaxClients, NoLimit), math.MaxInt)
	c.MaxClientsPerUser = limit(cmp.Or(c.MaxClientsPerUser, 32), math.MaxInt)
	c.FanOut = limit(cmp.Or(c.FanOut, 512), math.MaxInt)
	c.GapSpread = max(0, cmp.Or(c.GapSpread, 3*time.Second))
	c.HistoryPerUser = max(0, cmp.Or(c.HistoryPerUser, 256))
	// 1<<61 ns are 73 years. Adding a time to it does not overflow a Duration.
	c.HistoryAge = min(max(0, cmp.Or(c.HistoryAge, 2*time.Minute)), 1<<61)
	c.MarkerAge = max(0, cmp.Or(c.MarkerAge, c.HistoryAge+30*time.Second))
	c.HistoryBytes = max(0, cmp.Or(c.HistoryBytes, 64<<20))
	return c
}

func limit[T int | int64](n, none T) T {
	if n < 0 {
		return none
	}
	return n
}
