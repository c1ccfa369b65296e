package sse

import (
	"errors"
	"net"
	"time"

	"usercast/hub"
)

// A wire carries the bytes of one stream to its browser.
type wire interface {
	// try sends what the peer takes at once and consumes that. With more left, the
	// error is errFull: write goes on. It does not block.
	try(bufs *net.Buffers) (n int64, err error)
	// write sends all buffers and consumes them. Only one write runs at a time.
	// It fails when the peer takes nothing for the write timeout; n says how
	// many bytes were taken.
	write(bufs *net.Buffers) (n int64, err error)
	// interrupt makes a write under way, and every later one, fail soon.
	interrupt()
	// cause says what an error of try or write means.
	cause(err error) hub.Reason
	// close ends the response; more than once does no harm.
	close()
}

// A watchedWire needs a goroutine to notice that the peer has left.
type watchedWire interface {
	wire
	// wait returns when the peer has left, or when the wire was closed, and why.
	wait() hub.Reason
}

// errFull says that a wire takes no more for now.
var errFull = errors.New("sse: the peer takes no more for now")

// patience is how long a wire waits for its reader.
type patience struct {
	timeout time.Duration
	client  *hub.Client
}

// limit is t, or earlier: a connection closes within the timeout of its client's
// end, however slowly its reader takes what is left.
func (p patience) limit(t time.Time) time.Time {
	if p.client == nil { // a front's answer
		return t
	}
	if ended := p.client.Ended(); !ended.IsZero() {
		if last := ended.Add(p.timeout); last.Before(t) {
			return last
		}
	}
	return t
}

// consume takes the first n bytes out of bufs, and empty buffers behind them: a write
// would never get past one.
func consume(bufs *net.Buffers, n int) {
	for len(*bufs) > 0 && n >= len((*bufs)[0]) {
		n -= len((*bufs)[0])
		*bufs = (*bufs)[1:]
	}
	if n > 0 {
		(*bufs)[0] = (*bufs)[0][n:]
	}
}
