package load

import (
	"context"
	"crypto/tls"
	"net/netip"
	"time"
)

// Config configures a run. All fields except those with a documented zero value are required.
type Config struct {
	// Targets are the URLs of the streams, used in turn.
	Targets []Target
	// Headers are sent with each request.
	Headers []Header
	// From are local addresses to connect from, used in turn. If it is empty, the system chooses the address. One address
	// has about 28,000 ports per target.
	From []netip.Addr
	// Streams is the number of streams to open, at most Ramp per second. Stream i belongs to user i mod Users.
	Streams, Users int
	Ramp           float64
	// HTTP2 uses HTTP/2, with as many streams per connection as the server allows: with prior knowledge, or negotiated by
	// ALPN over TLS.
	HTTP2 bool
	// TLS configures connections to https targets, except ServerName and NextProtos. nil means that the CAs of the system
	// are trusted.
	TLS *tls.Config
	// Broadcast sends each message to all users.
	Broadcast bool

	// Idle is the duration of the idle phase, in which nothing is published; 0 skips it.
	Idle time.Duration
	// Rate is how many messages per second the open loop publishes; 0 skips it.
	Rate float64
	// Outstanding is how many messages the closed loop keeps in flight; 0 skips it.
	Outstanding int
	// Duration and Messages limit each loop. Messages 0 means no limit.
	Duration time.Duration
	Messages int
	// Size is the size of a payload in bytes, at least MinSize.
	Size int

	// Patience is how long to wait for missing responses and messages.
	Patience time.Duration
	// Hub reads the metrics of the hub. nil omits them from the report.
	Hub func(context.Context) (Samples, error)
	// Dial connects to the server to which an app would publish. Run calls it once, before anything else.
	Dial func(context.Context) (Publisher, error)
	// Progress is called repeatedly with the progress of a phase, from one goroutine at a time. nil disables it.
	Progress func(Progress)

	portable bool // for tests: use the reader for other systems than Linux
}

// A Publisher publishes in order, without waiting for responses. One goroutine calls Publish and Flush, and another one
// calls Receive.
type Publisher interface {
	// Publish publishes a message to a user, or to all users with "*". It does not keep the payload. The message can be
	// buffered until Flush.
	Publish(user string, payload []byte) error
	Flush() error
	// Receive waits for the response to the next message: the number of subscribers that it was sent to, or -1 if that is
	// unknown.
	Receive() (subscribers int64, err error)
	// Close also ends a waiting Receive.
	Close()
}

// Progress is the progress of a phase.
type Progress struct {
	Phase       string
	Done, Total int64  // streams, or milliseconds
	Note        string // e.g. how many streams are open
	begin       time.Time
}

// receivers returns the number of sequences.
func (c *Config) receivers() int {
	if c.Broadcast {
		return 1
	}
	return c.Users
}

// Descriptors returns how many file descriptors a run needs. With HTTP/2 it is an estimate: most servers allow 100 or 250
// streams per connection.
func (c *Config) Descriptors() int {
	if c.HTTP2 {
		return c.Streams/100 + len(c.Targets) + reserve
	}
	return c.Streams + reserve
}

// reserve is the number of file descriptors for Redis, the admin listener, and connections that a dial worker passes to the
// reader, which use two each.
const reserve = 32 + dialWorkers
