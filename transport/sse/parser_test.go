package sse_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A parser reads a stream as a browser does. It is written from the standard
// (WHATWG HTML, "Server-sent events", sections "Parsing an event stream" and
// "Interpreting an event stream") and from nothing of this package.
type parser struct {
	r      *bufio.Reader
	begun  bool
	wasCR  bool          // the line before ended with CR: an LF that follows belongs to it
	idBuf  string        // "last event ID buffer"
	lastID string        // "last event ID string": what a reconnect sends
	retry  time.Duration // "reconnection time"
}

// A fired is an event as a page gets it.
type fired struct {
	Type, Data, LastEventID string
}

func newParser(r io.Reader) *parser { return &parser{r: bufio.NewReader(r)} }

// next returns the next event that fires. The error is that of the reader; what
// was not ended by a blank line is lost, as the standard wants.
func (p *parser) next() (fired, error) {
	for {
		e, ok, err := p.block()
		if ok || err != nil {
			return e, err
		}
	}
}

// block reads up to the next blank line, and reports whether that fired an event.
func (p *parser) block() (e fired, ok bool, err error) {
	var data, eventType strings.Builder
	for {
		line, err := p.line()
		if err != nil {
			return fired{}, false, err
		}
		if line == "" {
			break
		}
		field, value, _ := strings.Cut(line, ":") // a comment's field is empty
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			eventType.Reset()
			eventType.WriteString(value)
		case "data":
			data.WriteString(value)
			data.WriteByte('\n')
		case "id":
			if !strings.Contains(value, "\x00") {
				p.idBuf = value
			}
		case "retry":
			if value != "" && strings.Trim(value, "0123456789") == "" {
				ms, _ := strconv.ParseInt(value, 10, 64)
				p.retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
	p.lastID = p.idBuf
	if data.Len() == 0 {
		return fired{}, false, nil
	}
	e = fired{Type: "message", Data: strings.TrimSuffix(data.String(), "\n"), LastEventID: p.lastID}
	if eventType.Len() > 0 {
		e.Type = eventType.String()
	}
	return e, true, nil
}

// line returns the next line without its end, which is CR, LF or CRLF.
func (p *parser) line() (string, error) {
	if !p.begun {
		p.begun = true
		if bom, _ := p.r.Peek(3); string(bom) == "\uFEFF" {
			p.r.Discard(3)
		}
	}
	var line []byte
	for {
		b, err := p.r.ReadByte()
		if err != nil {
			return "", err
		}
		afterCR := p.wasCR
		p.wasCR = b == '\r'
		switch {
		case b == '\n' && afterCR:
		case b == '\n', b == '\r':
			return decode(string(line)), nil
		default:
			line = append(line, b)
		}
	}
}

// decode is "UTF-8 decode": what is not UTF-8 becomes U+FFFD. The standard makes
// one of several bytes here and there; how many there are is no promise of ours.
func decode(s string) string { return string([]rune(s)) }

// parse reads a whole stream.
func parse(stream string) (events []fired, p *parser) {
	p = newParser(strings.NewReader(stream))
	for {
		e, err := p.next()
		if errors.Is(err, io.EOF) {
			return events, p
		}
		events = append(events, e)
	}
}

// parseStream reads the whole of a stream of the hub, without the event of its opening block.
func parseStream(t *testing.T, stream string) (events []fired) {
	t.Helper()
	events, _ = parse(stream)
	if len(events) == 0 || events[0].Type != "ping" {
		t.Fatalf("the stream begins with %q", events)
	}
	return events[1:]
}

func TestParserReadsAsTheStandardSays(t *testing.T) {
	message := func(data string) []fired { return []fired{{"message", data, ""}} }
	tests := []struct {
		name, stream string
		want         []fired
		id           string
		retry        time.Duration
	}{
		{name: "nothing"},
		{name: "LF", stream: "data: a\n\n", want: message("a")},
		{name: "CR", stream: "data: a\rdata: b\r\r", want: message("a\nb")},
		{name: "CRLF", stream: "data: a\r\ndata: b\r\n\r\n", want: message("a\nb")},
		{name: "mixed", stream: "data: a\r\ndata: b\r\n\ndata: c\n\r\n", want: []fired{{"message", "a\nb", ""}, {"message", "c", ""}}},
		{name: "LF CR is two ends", stream: "data: a\n\rdata: b\n\n", want: []fired{{"message", "a", ""}, {"message", "b", ""}}},
		{name: "BOM", stream: "\uFEFFdata: a\n\n", want: message("a")},
		{name: "one BOM only", stream: "\uFEFF\uFEFFdata: a\n\n"},
		{name: "BOM later", stream: "\n\uFEFFdata: a\n\ndata: \uFEFFb\n\n", want: message("\uFEFFb")},
		{name: "no space", stream: "data:a\n\n", want: message("a")},
		{name: "one space goes", stream: "data:  a \n\n", want: message(" a ")},
		{name: "tab stays", stream: "data:\ta\n\n", want: message("\ta")},
		{name: "colon in the value", stream: "data: a: b:c\n\n", want: message("a: b:c")},
		{name: "empty data fires", stream: "data\n\ndata:\n\ndata: \n\n", want: []fired{{"message", "", ""}, {"message", "", ""}, {"message", "", ""}}},
		{name: "two empty lines of data", stream: "data\ndata\n\n", want: message("\n")},
		{name: "without data nothing fires", stream: "event: a\nid: 1\n\ndata: b\n\n", want: []fired{{"message", "b", "1"}}, id: "1"},
		{name: "an event ends its type", stream: "event: a\ndata: 1\n\ndata: 2\n\n", want: []fired{{"a", "1", ""}, {"message", "2", ""}}},
		{name: "the last type counts", stream: "event: a\nevent: b\ndata: 1\n\n", want: []fired{{"b", "1", ""}}},
		{name: "empty type", stream: "event: a\nevent\ndata: 1\n\n", want: message("1")},
		{name: "comments", stream: ": x\n:data: y\n:\ndata: a\n:\n\n:\n\n", want: message("a")},
		{name: "unknown fields", stream: "foo: bar\nDATA: a\n data: b\ndata : c\n\n"},
		{name: "id stays", stream: "id: 1\ndata: a\n\ndata: b\n\n", want: []fired{{"message", "a", "1"}, {"message", "b", "1"}}, id: "1"},
		{name: "id is reset", stream: "id: 1\ndata: a\n\nid\ndata: b\n\n", want: []fired{{"message", "a", "1"}, {"message", "b", ""}}},
		{name: "id with NUL is ignored", stream: "id: 1\n\nid: 2\x003\ndata: a\n\n", want: []fired{{"message", "a", "1"}}, id: "1"},
		{name: "id of an unfinished block", stream: "id: 1\n\nid: 2\ndata: lost\n", id: "1"},
		{name: "retry", stream: "retry: 1500\n\n", retry: 1500 * time.Millisecond},
		{name: "retry counts at once", stream: "retry: 1500\n", retry: 1500 * time.Millisecond},
		{name: "retry is digits", stream: "retry: 1500\nretry: 2s\nretry: -1\nretry: 1.5\nretry:  7\nretry\n\n", retry: 1500 * time.Millisecond},
		{name: "an unfinished block is lost", stream: "data: a\n\ndata: b\n", want: message("a")},
		{name: "an unfinished line is lost", stream: "data: a\n\ndata: b", want: message("a")},
		{name: "not UTF-8", stream: "data: a\xffb\n\n", want: message("a\uFFFDb")},
		{name: "cut by a line end", stream: "data: \xe2\x82\ndata: \xac\n\n", want: message("\uFFFD\uFFFD\n\uFFFD")},
		{name: "NUL in data", stream: "data: a\x00b\n\n", want: message("a\x00b")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, p := parse(test.stream)
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", test.want) {
				t.Errorf("events %q, want %q", got, test.want)
			}
			if p.lastID != test.id || p.retry != test.retry {
				t.Errorf("last id %q, retry %v; want %q, %v", p.lastID, p.retry, test.id, test.retry)
			}
		})
	}
}
