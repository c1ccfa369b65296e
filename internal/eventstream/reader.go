package eventstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// An Event is an event as a browser dispatches it to a listener.
type Event struct {
	Type string // "message" unless the stream names another
	Data string
	ID   string // last event id after this event
}

// MaxLine is the length in bytes of the longest line that a Reader accepts, without its end.
const MaxLine = 8 << 20

// ErrLineTooLong is the error for a line longer than MaxLine.
var ErrLineTooLong = errors.New("line of the event stream exceeds 8 MiB")

// A Reader reads one stream.
type Reader struct {
	LastID   string        // value of Last-Event-ID for a reconnect
	Retry    time.Duration // delay before a reconnect; 0: not set yet
	Comments int           // comment lines received

	// Strict returns an error for input that a browser ignores: unknown fields and malformed retry values.
	Strict bool

	// Raw keeps bytes that are not UTF-8. A browser replaces them by U+FFFD.
	Raw bool

	in      *bufio.Reader
	long    []byte // a line that was received in several parts
	started bool
	afterCR bool // the last line ended in CR: an LF that follows belongs to it
	opened  bool // the first block has ended
	idField string
}

// NewReader returns a Reader of r, which begins with the body of a response. It buffers 1 KiB, because
// tests hold thousands of streams.
func NewReader(r io.Reader) *Reader {
	return &Reader{in: bufio.NewReaderSize(r, 1024)}
}

// Continue takes over the state of another Reader between two blocks, so that a stream can continue from another
// source.
func (r *Reader) Continue(from *Reader) {
	r.LastID, r.Retry, r.Comments = from.LastID, from.Retry, from.Comments
	r.started, r.opened, r.idField = from.started, from.opened, from.idField
}

// Next returns the next event. The error is that of the underlying reader. As the standard requires, an incomplete
// block at the end of the stream is discarded.
func (r *Reader) Next() (Event, error) {
	for {
		if e, dispatched, err := r.Block(); dispatched || err != nil {
			return e, err
		}
	}
}

// Block reads up to the end of the next block, or, after the first block, up to a comment between two blocks. It
// reports whether the block dispatched an event. A block without data does not. Blank lines between blocks are
// skipped.
func (r *Reader) Block() (e Event, dispatched bool, err error) {
	var data bytes.Buffer
	empty := true
	for {
		line, err := r.line()
		if err != nil {
			return Event{}, false, err
		}
		if len(line) == 0 {
			if empty && r.opened {
				continue
			}
			break
		}
		field, value, _ := bytes.Cut(line, []byte{':'})
		value = bytes.TrimPrefix(value, []byte{' '})
		if len(field) == 0 {
			if r.Comments++; r.opened && empty {
				return Event{}, false, nil
			}
			continue
		}
		empty = false
		switch string(field) {
		case "data":
			data.Write(value)
			data.WriteByte('\n')
			dispatched = true
		case "event":
			e.Type = r.decode(value)
		case "id":
			if bytes.IndexByte(value, 0) < 0 {
				r.idField = r.decode(value)
			}
		case "retry":
			if len(value) > 0 && strings.Trim(string(value), "0123456789") == "" {
				ms, _ := strconv.ParseInt(string(value), 10, 64)
				r.Retry = time.Duration(ms) * time.Millisecond
			} else if r.Strict {
				return Event{}, false, fmt.Errorf("a browser ignores the retry value %q", value)
			}
		default:
			if r.Strict {
				return Event{}, false, fmt.Errorf("a browser ignores %q", line)
			}
		}
	}
	r.opened = true
	r.LastID = r.idField
	e.ID = r.LastID
	if e.Type == "" {
		e.Type = "message"
	}
	if dispatched {
		e.Data = r.decode(data.Bytes()[:data.Len()-1])
	}
	return e, dispatched, nil
}

// Line returns the next line without its end, for a test that reads a block line by line. With an error it returns
// what was received of the line.
func (r *Reader) Line() (string, error) {
	line, err := r.line()
	return r.decode(line), err
}

// line returns the next line without its end, which is CR, LF or CRLF. It is valid until the next call.
func (r *Reader) line() ([]byte, error) {
	if !r.started {
		r.started = true
		if mark, _ := r.in.Peek(3); string(mark) == "\uFEFF" {
			r.in.Discard(3)
		}
	}
	r.long = r.long[:0]
	for {
		if _, err := r.in.Peek(1); err != nil {
			return r.long, err
		}
		b, _ := r.in.Peek(r.in.Buffered())
		if r.afterCR {
			if r.afterCR = false; b[0] == '\n' {
				r.in.Discard(1)
				continue
			}
		}
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			end = len(b)
		}
		if cr := bytes.IndexByte(b[:end], '\r'); cr >= 0 {
			end, r.afterCR = cr, true
		}
		if end == len(b) {
			if r.long = append(r.long, b...); len(r.long) > MaxLine {
				return nil, ErrLineTooLong
			}
			r.in.Discard(len(b))
			continue
		}
		r.in.Discard(end + 1) // what Peek returned stays until the next read
		if len(r.long) > 0 {
			r.long = append(r.long, b[:end]...)
			return r.long, nil
		}
		return b[:end], nil
	}
}

// decode replaces invalid bytes by U+FFFD, one per byte. "UTF-8 decode" of the standard sometimes replaces several bytes
// by one U+FFFD.
func (r *Reader) decode(b []byte) string {
	if r.Raw || utf8.Valid(b) {
		return string(b)
	}
	return string([]rune(string(b)))
}

// Parse reads a complete stream, and returns its events and the Reader in its final state.
func Parse(stream string) (events []Event, r *Reader) {
	r = NewReader(strings.NewReader(stream))
	for {
		e, err := r.Next()
		if err != nil {
			return events, r
		}
		events = append(events, e)
	}
}
