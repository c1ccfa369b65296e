package proxypath

import (
	"net/http"
	"time"

	"usercast/internal/eventstream"
)

// A block is a part of the stream that ends with a blank line. A comment after the first block is a block, too.
type block struct {
	at             time.Time // when it ended
	name, data, id string    // id: the last id of the stream so far
	retry          bool      // the stream has had a retry field
	dispatched     bool      // it has data, so it dispatches an event
}

// isPing reports whether the block is a ping of the hub.
func (b block) isPing() bool { return !b.dispatched || b.name == "ping" }

// A stream is a response with an event stream as its body. One goroutine reads it.
type stream struct {
	resp   *http.Response
	took   time.Duration // from the request to the headers of the response
	opened time.Time     // when reading began
	cancel func()

	blocks chan block // closed at the end of the stream; nil if the body is not read
	last   time.Time  // when the last block that wait returned arrived; opened without one
}

// read starts the goroutine that reads the body. Streams last a few seconds, so the channel has room for all blocks that
// arrive between two calls of wait.
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

// wait returns the next block. ok is false if no block arrives before until, or if the stream has ended.
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
