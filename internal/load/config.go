package load

import (
	"context"
	"crypto/tls"
	"net/netip"
	"time"
)

// Config is what a run does. All that has no default must be set.
type Config struct {
	// Targets are where streams are opened, in turn.
	Targets []Target
	// Headers are sent with each request.
	Headers []Header
	// From are local addresses to connect from, in turn; none: the system's choice.
	// One has some 28,000 ports for one target.
	From []netip.Addr
	// Streams are opened, Ramp of them a second at most. Stream i is user i mod Users'.
	Streams, Users int
	Ramp           float64
	// HTTP2 puts as many streams on one connection as the hub takes: with prior knowledge, or
	// over TLS by ALPN.
	HTTP2 bool
	// TLS is for targets with TLS; ServerName and NextProtos are set for each of them. nil: the
	// system's authorities are trusted.
	TLS *tls.Config
	// Broadcast sends each message to all users.
	Broadcast bool

	// Idle is how long the open streams are watched with nothing published; 0: not.
	Idle time.Duration
	// Rate is how many messages a second the open loop sends; 0: no open loop.
	Rate float64
	// Outstanding is how many messages the closed loop keeps under way; 0: none.
	Outstanding int
	// Duration and Messages bound each loop: what comes first. Messages 0: no bound.
	Duration time.Duration
	Messages int
	// Size is a payload's length in bytes, MinSize or more.
	Size int

	// Patience is how long to wait for what does not come: an answer, a message.
	Patience time.Duration
	// Hub reads the hub's figures; nil: they are left out.
	Hub func(context.Context) (Samples, error)
	// Dial connects to what the app would publish to. Called once, first of all.
	Dial func(context.Context) (Publisher, error)
	// Progress is told now and then how far a phase is; never at the same time as
	// itself. nil: nobody asks.
	Progress func(Progress)

	portable bool // for tests: the reader that other systems have
}

// A Publisher publishes without waiting for answers, in order. Publish and Flush are
// for one goroutine, Receive for another one.
type Publisher interface {
	// Publish takes a message for a user, "*" being all users. It keeps nothing of
	// the payload. What it took may be sent only with Flush.
	Publish(user string, payload []byte) error
	Flush() error
	// Receive waits for the answer to the next message: how many heard it, -1 when
	// that is not said. An error is of the message or of the connection.
	Receive() (heard int64, err error)
	// Close ends a Receive that waits.
	Close()
}

// Progress is how far a phase is.
type Progress struct {
	Phase       string
	Done, Total int64  // streams, or milliseconds
	Note        string // e.g. how many streams are open
	begin       time.Time
}

// sequences a publisher may send to.
func (c *Config) receivers() int {
	if c.Broadcast {
		return 1
	}
	return c.Users
}

// Descriptors is how many descriptors a run needs, beside the few of the process.
// Over HTTP/2 it is a guess: most servers take 250 streams a connection or 100.
func (c *Config) Descriptors() int {
	if c.HTTP2 {
		return c.Streams/100 + len(c.Targets) + reserve
	}
	return c.Streams + reserve
}

// reserve are descriptors for Redis, the admin listener, and connections on their
// way from a dial worker to the reader, which hold two.
const reserve = 32 + dialWorkers
