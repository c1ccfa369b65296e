package proxypath

import (
	"net/http"
	"time"

	"usercast/internal/eventstream"
)

// A block ends with a blank line. A comment after the first block is one, too.
type block struct {
	at             time.Time // of its end
	name, data, id string    // id: the last one of the stream so far
	retry          bool      // the stream has had a retry field
	dispatched     bool      // it has data, and so dispatches an event
}

// isPing reports whether it is a ping of the hub.
func (b block) isPing() bool { return !b.dispatched || b.name == "ping" }

// A stream is a response whose body goes on. One goroutine reads it.
type stream struct {
	resp   *http.Response
	took   time.Duration // from the request to the headers of the response
	opened time.Time     // when reading began
	cancel func()

	blocks chan block // closed at the end of the stream; nil: it is not read
	last   time.Time  // of the newest block that wait has returned, or opened
}

// read starts the goroutine that reads the body. The channel has room for all blocks that arrive between two calls
// of wait, because a stream is read for a few seconds.
func (s *stream) read() {
	s.opened = time.Now()
	s.last = s.opened
	s.blocks = make(chan block, 1024)
	go func() {
		defer close(s.blocks)
		for events := eventstream.NewReader(s.resp.Body); ; {
			e, dispatched, err := events.Block()
			if err != nil {
				return
			}
			s.blocks <- block{at: time.Now(), name: e.Type, data: e.Data, id: e.ID, retry: events.Retry != 0, dispatched: dispatched}
		}
	}()
}

// wait returns the next block. ok is false if none arrives before until, or if the stream has ended.
func (s *stream) wait(until time.Time) (b block, ok, ended bool) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case b, ok = <-s.blocks:
		if ok {
			s.last = b.at
		}
		return b, ok, !ok
	case <-timer.C:
		return block{}, false, false
	}
}

// close closes the connection and returns when the goroutine has ended. It may be called more than once.
func (s *stream) close() {
	s.cancel()
	_ = s.resp.Body.Close()
	if s.blocks != nil {
		for range s.blocks { // until it is closed
		}
	}
}
