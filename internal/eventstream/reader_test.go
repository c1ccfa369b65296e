package eventstream

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestReaderFollowsTheStandard(t *testing.T) {
	message := func(data string) []Event { return []Event{{"message", data, ""}} }
	tests := []struct {
		name, stream string
		want         []Event
		id           string
		retry        time.Duration
	}{
		{name: "nothing"},
		{name: "LF", stream: "data: a\n\n", want: message("a")},
		{name: "CR", stream: "data: a\rdata: b\r\r", want: message("a\nb")},
		{name: "CRLF", stream: "data: a\r\ndata: b\r\n\r\n", want: message("a\nb")},
		{name: "mixed", stream: "data: a\r\ndata: b\r\n\ndata: c\n\r\n", want: []Event{{"message", "a\nb", ""}, {"message", "c", ""}}},
		{name: "LF CR is two ends", stream: "data: a\n\rdata: b\n\n", want: []Event{{"message", "a", ""}, {"message", "b", ""}}},
		{name: "BOM", stream: "\uFEFFdata: a\n\n", want: message("a")},
		{name: "one BOM only", stream: "\uFEFF\uFEFFdata: a\n\n"},
		{name: "BOM later", stream: "\n\uFEFFdata: a\n\ndata: \uFEFFb\n\n", want: message("\uFEFFb")},
		{name: "no space", stream: "data:a\n\n", want: message("a")},
		{name: "one space goes", stream: "data:  a \n\n", want: message(" a ")},
		{name: "tab stays", stream: "data:\ta\n\n", want: message("\ta")},
		{name: "colon in the value", stream: "data: a: b:c\n\n", want: message("a: b:c")},
		{name: "empty data fires", stream: "data\n\ndata:\n\ndata: \n\n", want: []Event{{"message", "", ""}, {"message", "", ""}, {"message", "", ""}}},
		{name: "two empty lines of data", stream: "data\ndata\n\n", want: message("\n")},
		{name: "without data nothing fires", stream: "event: a\nid: 1\n\ndata: b\n\n", want: []Event{{"message", "b", "1"}}, id: "1"},
		{name: "an event ends its type", stream: "event: a\ndata: 1\n\ndata: 2\n\n", want: []Event{{"a", "1", ""}, {"message", "2", ""}}},
		{name: "the last type counts", stream: "event: a\nevent: b\ndata: 1\n\n", want: []Event{{"b", "1", ""}}},
		{name: "empty type", stream: "event: a\nevent\ndata: 1\n\n", want: message("1")},
		{name: "comments", stream: ": x\n:data: y\n:\ndata: a\n:\n\n:\n\n", want: message("a")},
		{name: "unknown fields", stream: "foo: bar\nDATA: a\n data: b\ndata : c\n\n"},
		{name: "id stays", stream: "id: 1\ndata: a\n\ndata: b\n\n", want: []Event{{"message", "a", "1"}, {"message", "b", "1"}}, id: "1"},
		{name: "id is reset", stream: "id: 1\ndata: a\n\nid\ndata: b\n\n", want: []Event{{"message", "a", "1"}, {"message", "b", ""}}},
		{name: "id with NUL is ignored", stream: "id: 1\n\nid: 2\x003\ndata: a\n\n", want: []Event{{"message", "a", "1"}}, id: "1"},
		{name: "id of an unfinished block", stream: "id: 1\n\nid: 2\ndata: lost\n", id: "1"},
		{name: "retry", stream: "retry: 1500\n\n", retry: 1500 * time.Millisecond},
		{name: "retry applies immediately", stream: "retry: 1500\n", retry: 1500 * time.Millisecond},
		{name: "retry is digits", stream: "retry: 1500\nretry: 2s\nretry: -1\nretry: 1.5\nretry:  7\nretry\n\n", retry: 1500 * time.Millisecond},
		{name: "an unfinished block is lost", stream: "data: a\n\ndata: b\n", want: message("a")},
		{name: "an unfinished line is lost", stream: "data: a\n\ndata: b", want: message("a")},
		{name: "not UTF-8", stream: "data: a\xffb\n\n", want: message("a\uFFFDb")},
		{name: "cut by a line end", stream: "data: \xe2\x82\ndata: \xac\n\n", want: message("\uFFFD\uFFFD\n\uFFFD")},
		{name: "NUL in data", stream: "data: a\x00b\n\n", want: message("a\x00b")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, r := Parse(test.stream)
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", test.want) {
				t.Errorf("events %q, want %q", got, test.want)
			}
			if r.LastID != test.id || r.Retry != test.retry {
				t.Errorf("last id %q, retry %v; want %q, %v", r.LastID, r.Retry, test.id, test.retry)
			}
		})
	}
}

// The events do not depend on the parts in which a stream arrives, or on its line ends.
func TestReaderDoesNotDependOnPartsAndLineEnds(t *testing.T) {
	const stream = ":\nretry: 3000\nevent: ping\ndata: {}\nid: a-1\n\ndata: one\ndata:\ndata: two\nid: a-2\n\n:\n: x\nid: a-3\n\nevent: gap\ndata: {}\n\n"
	want := []Event{{"ping", "{}", "a-1"}, {"message", "one\n\ntwo", "a-2"}, {"gap", "{}", "a-3"}}
	for _, end := range []string{"\n", "\r\n", "\r"} {
		text := strings.ReplaceAll(stream, "\n", end)
		for name, in := range map[string]io.Reader{"whole": strings.NewReader(text), "byte by byte": iotest.OneByteReader(strings.NewReader(text))} {
			r := NewReader(in)
			r.Strict = true
			var got []Event
			for {
				e, err := r.Next()
				if err != nil {
					break
				}
				got = append(got, e)
			}
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) || r.Comments != 3 || r.Retry != 3*time.Second {
				t.Errorf("%s with %q: events %q, %d comments, retry %v", name, end, got, r.Comments, r.Retry)
			}
		}
	}
}

// Between two blocks, a comment is a separate block, which shows that the stream is alive.
func TestReaderReturnsAtAComment(t *testing.T) {
	in, out := io.Pipe()
	defer in.Close()
	go io.WriteString(out, ":\nid: 1\n\n:\n")
	r := NewReader(in)
	for n, id := range []string{"1", "1"} {
		if e, dispatched, err := r.Block(); dispatched || err != nil || r.LastID != id {
			t.Errorf("block %d: %q, %v, %v, last id %q", n, e, dispatched, err, r.LastID)
		}
	}
}

func TestReaderReadsLongLines(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	if got, _ := Parse("data: " + long + "\n\n"); len(got) != 1 || got[0].Data != long {
		t.Errorf("%d events", len(got))
	}
	_, _, err := NewReader(strings.NewReader("data: " + strings.Repeat("x", MaxLine+1))).Block()
	if err != ErrLineTooLong {
		t.Errorf("a line of more than MaxLine bytes: %v", err)
	}
}

func TestReaderReturnsLines(t *testing.T) {
	r := NewReader(strings.NewReader("\uFEFFa\r\n\rb"))
	for n, want := range []string{"a", "", "b"} {
		if line, err := r.Line(); line != want || (err != nil) != (n == 2) {
			t.Errorf("line %d: %q, %v", n, line, err)
		}
	}
}

func TestRawReaderKeepsBytes(t *testing.T) {
	r := NewReader(strings.NewReader("data: a\xff\n\n"))
	r.Raw = true
	if e, err := r.Next(); e.Data != "a\xff" || err != nil {
		t.Errorf("%q, %v", e, err)
	}
}

func TestStrictReaderRejectsWhatBrowsersIgnore(t *testing.T) {
	for _, text := range []string{"foo: bar\n\n", "retry: 2s\n\n", "\uFEFF\uFEFFdata: a\n\n"} {
		r := NewReader(strings.NewReader(text))
		r.Strict = true
		if _, _, err := r.Block(); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

// The events do not depend on where the bytes are split, and are the same as those of readByLines.
func FuzzReader(f *testing.F) {
	f.Add([]byte(":\nretry: 1\ndata: a\rdata: b\r\n\r\nid: 1\n\n: x\ndata\n\n"), 3)
	f.Add([]byte("data: \xff\n\nid: a\x00\ndata: b\n\n"), 1)
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		want := readByLines(string(stream))
		r := NewReader(&chunks{stream, max(1, size%64)})
		var got []Event
		for {
			e, err := r.Next()
			if err != nil {
				break
			}
			got = append(got, e)
		}
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Errorf("%q: got %q, want %q", stream, got, want)
		}
	})
}

// chunks is a reader that returns a few bytes per call.
type chunks struct {
	rest []byte
	size int
}

func (c *chunks) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.rest[:min(c.size, len(c.rest))])
	c.rest = c.rest[n:]
	return n, nil
}

// readByLines is a second implementation of the standard, for a complete stream.
func readByLines(stream string) (events []Event) {
	stream = strings.TrimPrefix(stream, "\uFEFF")
	stream = strings.ReplaceAll(strings.ReplaceAll(stream, "\r\n", "\n"), "\r", "\n")
	var id, name string
	var data []string
	lines := strings.Split(stream, "\n")
	for _, line := range lines[:len(lines)-1] {
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if data != nil {
				if name == "" {
					name = "message"
				}
				events = append(events, Event{decode(name), decode(strings.Join(data, "\n")), decode(id)})
			}
			data, name = nil, ""
		case field == "data":
			data = append(data, value)
		case field == "event":
			name = value
		case field == "id" && !strings.Contains(value, "\x00"):
			id = value
		}
	}
	return events
}

func decode(s string) string { return string([]rune(s)) }
