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
	// tryWrite writes as much as the peer accepts immediately and removes that from bufs. If
	// bytes are left, it returns netpoll.ErrWouldBlock, and the caller continues with write. It
	// does not block.
	tryWrite(bufs *net.Buffers) (n int64, err error)
	// write writes all buffers and removes them from bufs. Only one write runs at a time. It
	// fails if the peer accepts nothing for the write timeout. n is the number of accepted
	// bytes.
	write(bufs *net.Buffers) (n int64, err error)
	// interrupt makes the write in progress, and every later one, fail soon.
	interrupt()
	// reason returns the reason for an error of tryWrite or write.
	reason(err error) hub.Reason
	// close ends the response. It can be called more than once.
	close()
}

// A watchedTransport needs a goroutine to notice that the peer has disconnected.
type watchedTransport interface {
	transport
	// wait blocks until the peer has disconnected or the transport is closed, and returns the reason.
	wait() hub.Reason
}

// connSettings are the same for all connections of a handler or of its Server. Immutable.
type connSettings struct {
	writeTimeout time.Duration
	limiter      *connLimiter // nil: no limit
}

// patience determines how long a transport waits for its peer.
type patience struct {
	*connSettings
	client *hub.Client // nil if the response is not a stream
}

// limit returns t, or an earlier time if the client has ended: the connection closes within the
// write timeout after that, even if the peer still reads slowly.
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

// timeoutSteps is the number of steps per write timeout in writeInSteps. A stream whose reader has
// stopped costs that many wake-ups before it ends.
const timeoutSteps = 16

// writeInSteps fails if the peer has accepted nothing for the write timeout. It continues as long as
// the peer accepts parts of a large write. The kernel reports progress only when a deadline passes, so the
// timeout is divided into steps. A step writes until its deadline, and returns
// os.ErrDeadlineExceeded if bytes are left.
func (p patience) writeInSteps(step func(deadline time.Time) (int64, error)) (n int64, err error) {
	now := time.Now()
	for last := now; ; now = time.Now() { // last: start of the last step in which bytes were accepted
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

// maxPeerBytes is the maximum number of bytes that a peer may send after its request. A browser sends
// none. Each time a peer sends some, the hub wakes up.
const maxPeerBytes = 64 << 10

// reasonOf returns the reason for an error of a socket. It calls acknowledges after a timeout, to
// distinguish a slow reader from a peer that dropped off without a FIN.
//
// Both end with a timeout, because TCP_USER_TIMEOUT also counts the time in which the window is closed. A slow
// reader still acknowledges window probes.
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

// ackAge is the age of the last acknowledgement from which a peer that does not answer is dead after a timeout. It is less
// than the timeout, so that the peer may have acknowledged the first part of what was sent.
func ackAge(timeout time.Duration) time.Duration { return timeout * 3 / 4 }

// isTimeout reports whether the kernel did not receive an acknowledgement in time. The error depends on
// what it received instead: "no route to host" if ARP fails or a router reports it, or "connection
// refused" from a firewall.
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
