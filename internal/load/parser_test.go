package load

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// events records the calls of a parser.
type events []string

func (h *events) message(s stamp) {
	*h = append(*h, fmt.Sprintf("message %s/%d", userName(s.user), s.seq))
}
func (h *events) foreign()           { *h = append(*h, "foreign") }
func (h *events) gap(reason string)  { *h = append(*h, "gap "+reason) }
func (h *events) busy(reason string) { *h = append(*h, "busy "+reason) }
func (h *events) bye(reason string)  { *h = append(*h, "bye "+reason) }
func (h *events) ping()              { *h = append(*h, "ping") }

func parse(pieces ...string) []string {
	var p parser
	var h events
	for _, piece := range pieces {
		p.feed([]byte(piece), testStart, &h)
	}
	return h
}

func ourData(user int, seq uint32) string {
	return "data: " + string(appendPayload(nil, testStart, stamp{user: user, seq: seq}, MinSize)) + "\n"
}

var sample = ":\nretry: 3000\nevent: ping\ndata: {}\nid: a-1\n\n" +
	ourData(42, 1) + "id: a-2\n\n" +
	":\n" +
	"event: bench\n" + ourData(42, 2) + "id: a-3\n\n" +
	"event: gap\ndata: {\"reason\":\"redis-reconnect\"}\nid: a-4\n\n" +
	"data: hi\n\n" +
	"data: two\ndata: lines\n\n" +
	"event: ping\ndata: {}\nid: a-4\n\n" +
	"id: a-5\n\n" +
	"event: bye\ndata: {\"reason\":\"max_age\"}\n\n" +
	"retry: 15000\nevent: busy\ndata: {\"reason\":\"clients\"}\n\n" +
	ourData(allUsers, 9) // without the final blank line

var sampleEvents = []string{
	"ping", "message 42/1", "ping", "message 42/2", "gap redis-reconnect", "foreign", "foreign", "ping", "ping", "bye max_age", "busy clients",
}

func TestParserReadsAllEvents(t *testing.T) {
	for name, stream := range map[string]string{
		"LF":   sample,
		"CRLF": strings.ReplaceAll(sample, "\n", "\r\n"),
		"CR":   strings.ReplaceAll(sample, "\n", "\r"),
		"BOM":  "\ufeff" + sample,
	} {
		if got := parse(stream); !slices.Equal(got, sampleEvents) {
			t.Errorf("%s: %q", name, got)
		}
		var bytes []string
		for i := range len(stream) {
			bytes = append(bytes, stream[i:i+1])
		}
		if got := parse(bytes...); !slices.Equal(got, sampleEvents) {
			t.Errorf("%s byte by byte: %q", name, got)
		}
	}
}

func TestParserHoldsNoBufferBetweenEvents(t *testing.T) {
	var p parser
	var h events
	p.feed([]byte(sample[:len(sample)-5]), testStart, &h)
	p.feed([]byte(sample[len(sample)-5:]+"\n"), testStart, &h)
	if p.carry != nil || len(h) != len(sampleEvents)+1 {
		t.Errorf("it holds %q after %q", p.carry, h)
	}
}

// The result does not depend on how the bytes are split, and equals that of readByLines.
func FuzzParser(f *testing.F) {
	f.Add(sample, uint(7), uint(100))
	f.Add("data: a\r\n\r\ndata\n\n:x\r\rid\n\n", uint(8), uint(9))
	f.Fuzz(func(t *testing.T, stream string, cut1, cut2 uint) {
		whole := parse(stream)
		i := int(cut1 % uint(len(stream)+1))
		j := i + int(cut2%uint(len(stream)-i+1))
		if got := parse(stream[:i], stream[i:j], stream[j:]); !slices.Equal(got, whole) {
			t.Errorf("split at %d and %d: %q, whole: %q", i, j, got, whole)
		}
		if want := readByLines(stream); !slices.Equal(whole, want) {
			t.Errorf("%q, by lines: %q", whole, want)
		}
	})
}

// readByLines is a second implementation of the specification, for a complete stream.
func readByLines(stream string) (h events) {
	stream = strings.TrimPrefix(stream, "\ufeff")
	stream = strings.ReplaceAll(strings.ReplaceAll(stream, "\r\n", "\n"), "\r", "\n")
	lines := strings.Split(stream, "\n")
	var data []string
	event, id, opened := "", false, false
	for _, line := range lines[:len(lines)-1] {
		if line == "" {
			text := strings.Join(data, "\n")
			reason := ""
			if rest, ok := strings.CutPrefix(text, `{"reason":"`); ok && len(data) == 1 && strings.Contains(rest, `"`) {
				reason = rest[:strings.Index(rest, `"`)]
			}
			s, ours := readPayload([]byte(text), testStart)
			switch {
			case data == nil && id, data != nil && event == "ping":
				h.ping()
			case data == nil:
			case event == "gap" || event == "busy" || event == "bye":
				h = append(h, event+" "+reason)
			case ours && len(data) == 1:
				h.message(s)
			default:
				h.foreign()
			}
			data, event, id, opened = nil, "", false, true
			continue
		}
		if line[0] == ':' {
			if id = id || !opened; opened {
				h.ping()
			}
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "data":
			data = append(data, value)
		case "event":
			event = value
		case "id":
			id = true
		}
	}
	return h
}
