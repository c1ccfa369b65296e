package proxypath

import (
	"net/http"
	"time"

	"usercast/internal/eventstream"
)

// A block is what came up to a blank line, or a comment behind the first block.
type block struct {
	at             time.Time // when its end came
	name, data, id string    // id: the last one so far
	retry          bool      // the stream has said when to come back
	fires          bool      // it has data, and so fires an event
}

// ping reports whether it is a sign of life and no more.
func (b block) ping() bool { return !b.fires || b.name == "ping" }

// A stream is an answer that goes on. One goroutine reads it.
type stream struct {
	resp   *http.Response
	took   time.Duration // from asking to the head
	head   time.Time     // when reading began
	cancel func()

	blocks chan block // closed at the stream's end; nil: it is not read
	last   time.Time  // when the newest block came that was taken, or the head
}

// read begins to read. The channel has room for all that comes while nobody takes it: a
// stream is looked at for some seconds.
func (s *stream) read() {
	s.head = time.Now()
	s.last = s.head
	s.blocks = make(chan block, 1024)
	go func() {
		defer close(s.blocks)
		for events := eventstream.NewReader(s.resp.Body); ; {
			e, dispatched, err := events.Block()
			if err != nil {
				return
			}
			s.blocks <- block{at: time.Now(), name: e.Type, data: e.Data, id: e.ID, retry: events.Retry != 0, fires: dispatched}
		}
	}()
}

// wait returns the next block. None is there when it does not come until then, or when the
// stream has ended.
func (s *stream) wait(until time.Time) (b block, there, ended bool) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case b, there = <-s.blocks:
		if there {
			s.last = b.at
		}
		return b, there, !there
	case <-timer.C:
		return block{}, false, false
	}
}

// close hangs up, and returns when nobody reads any more. More than once does no harm.
func (s *stream) close() {
	s.cancel()
	_ = s.resp.Body.Close()
	if s.blocks != nil {
		for range s.blocks { // what it still had
		}
	}
}
