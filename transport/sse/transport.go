package sse

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"usercast/hub"
)

// A transport carries the bytes of one stream to its browser.
type transport interface {
	// tryWrite writes what the peer accepts immediately and removes that from bufs. If
	// something is left, the error is netpoll.ErrWouldBlock, and write continues. It does not
	// block.
	tryWrite(bufs *net.Buffers) (n int64, err error)
	// write writes all buffers and removes them from bufs. Only one write runs at a time. It
	// fails when the peer accepts nothing for the write timeout; n says how many
	// bytes were accepted.
	write(bufs *net.Buffers) (n int64, err error)
	// interrupt makes the write in progress, and every later one, fail soon.
	interrupt()
	// reason says what an error of tryWrite or write means.
	reason(err error) hub.Reason
	// close ends the response; more than once does no harm.
	close()
}

// A watchedTransport needs a goroutine to notice that the peer has disconnected.
type watchedTransport interface {
	transport
	// wait returns when the peer has disconnected, or when the transport was closed, and why.
	wait() hub.Reason
}

// connSettings are the same for all connections of a handler or of its Server. Immutable.
type connSettings struct {
	writeTimeout time.Duration
	limiter      *connLimiter // has a slot of each connection; nil: no limit
}

// patience is how long a transport waits for its peer.
type patience struct {
	*connSettings
	client *hub.Client // nil: it is not the response of a stream
}

// limit is t, or earlier: a connection closes within the timeout of its client's
// end, however slowly its peer reads what is left.
func (p patience) limit(t time.Time) time.Time {
	if p.client == nil {
		return t
	}
	if ended := p.client.Ended(); !ended.IsZero() {
		if last := ended.Add(p.writeTimeout); last.Before(t) {
			return last
		}
	}
	return t
}

// timeoutSteps is how finely writeInSteps sees when the peer last accepted something. A stream
// whose reader has stopped costs that many wake-ups and then ends.
const timeoutSteps = 16

// writeInSteps fails when the peer has accepted nothing for the timeout. It waits for one that
// accepts a large write bit by bit: the kernel says how much that was when a deadline
// passes, so the timeout is waited for in steps. A step writes until its deadline, and
// returns os.ErrDeadlineExceeded if something is left.
func (p patience) writeInSteps(step func(deadline time.Time) (int64, error)) (n int64, err error) {
	now := time.Now()
	for last := now; ; now = time.Now() { // last: when the step began in which something was accepted
		deadline := now.Add(p.writeTimeout / timeoutSteps)
		if end := p.limit(last.Add(p.writeTimeout)); deadline.After(end) {
			deadline = end
		}
		k, err := step(deadline)
		if n += k; k > 0 {
			last = now
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(p.limit(last.Add(p.writeTimeout))) {
			return n, err
		}
	}
}

// maxPeerBytes is how many bytes a peer may send after its request. A browser sends none; a
// peer that does not stop costs a wake-up each time.
const maxPeerBytes = 64 << 10

// reasonOf says what an error of a socket means. acknowledges is called after a timeout.
//
// Both a reader that stopped and a peer that vanished end with one: TCP_USER_TIMEOUT counts
// a closed window as well. The former acknowledges probes of its window, each
// after twice the time of the one before: the last answer is about half the timeout old
// at most. The latter has been silent for nearly all of it.
func reasonOf(err error, acknowledges func() bool) hub.Reason {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return hub.ReasonClosed
	case errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		if acknowledges() {
			return hub.ReasonSlow
		}
		return hub.ReasonDead
	}
	return hub.ReasonFailed
}

// ackAge is how old the newest acknowledgement of a peer may be at the end of the timeout: see
// reasonOf.
func ackAge(timeout time.Duration) time.Duration { return timeout * 3 / 4 }

// isTimeout reports whether the kernel has waited in vain for an acknowledgement. It then
// says what it has received meanwhile, if anything: a neighbor that does not answer ARP
// or a router makes it "no route to host", a firewall "connection refused".
func isTimeout(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ECONNREFUSED,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
