package check

import (
	"bufio"
	"net/http"
	"strings"
	"time"
)

// A block is what came up to a blank line, or a comment behind the first block.
type block struct {
	at             time.Time // when its end came
	name, data, id string
	retry          bool
	fires          bool // it has data, and so fires an event
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

// maxLine bounds what one line may have: more than any --max-payload that is of use.
const maxLine = 8 << 20

// read begins to read. The channel has room for all that comes while nobody takes it: a
// stream is looked at for some seconds.
func (s *stream) read() {
	s.head = time.Now()
	s.last = s.head
	s.blocks = make(chan block, 1024)
	go func() {
		defer close(s.blocks)
		lines := bufio.NewScanner(s.resp.Body)
		lines.Buffer(nil, maxLine)
		var b block
		for opened := false; lines.Scan(); {
			line := lines.Text()
			switch {
			case strings.HasPrefix(line, ":") && opened: // a ping, without a blank line
				s.blocks <- block{at: time.Now()}
				continue
			case line != "":
				b.line(line)
				continue
			case b == block{} && opened: // the end of a comment
				continue
			}
			b.at = time.Now()
			s.blocks <- b
			b, opened = block{}, true
		}
	}()
}

// line takes one line. See WHATWG HTML, 9.2.6 "Interpreting an event stream".
func (b *block) line(line string) {
	field, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch field {
	case "event":
		b.name = value
	case "data":
		b.data += value
		b.fires = true
	case "id":
		b.id = value
	case "retry":
		b.retry = true
	}
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
