package sse_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"usercast/hub"
	"usercast/internal/eventstream"
	"usercast/transport/sse"
)

func TestEventBytes(t *testing.T) {
	tests := []struct {
		event sse.Event
		want  string
	}{
		{sse.Event{}, "data: \n\n"},
		{sse.Event{Data: "hello"}, "data: hello\n\n"},
		{sse.Event{ID: "b-1", Name: "news", Data: "hello", Retry: 1500 * time.Millisecond},
			"retry: 1500\nevent: news\ndata: hello\nid: b-1\n\n"},
		{sse.Event{Data: "a\nb"}, "data: a\ndata: b\n\n"},
		{sse.Event{Data: "a\rb\r\nc\n\rd"}, "data: a\ndata: b\ndata: c\ndata: \ndata: d\n\n"},
		{sse.Event{Data: "\n"}, "data: \ndata: \n\n"},
		{sse.Event{Data: "a\r"}, "data: a\ndata: \n\n"},
		{sse.Event{Data: " a: b\tc "}, "data:  a: b\tc \n\n"},
		{sse.Event{Data: "\uFEFF\x00\xff"}, "data: \uFEFF\x00\xff\n\n"},
		{sse.Event{Name: " a", ID: ":"}, "event:  a\ndata: \nid: :\n\n"},
	}
	for _, test := range tests {
		got, err := sse.AppendEvent([]byte("before\n"), test.event)
		if err != nil || string(got) != "before\n"+test.want {
			t.Errorf("%+q: %q, %v; want %q", test.event, got, err, test.want)
		}
	}
}

func TestEventRejectsLineEndsInFields(t *testing.T) {
	for _, bad := range []string{"\n", "a\nb", "a\r", "\r\n", "\x00", "a\x00"} {
		for _, e := range []sse.Event{{ID: bad}, {Name: bad}, {ID: "fine", Name: bad}} {
			got, err := sse.AppendEvent([]byte("before"), e)
			if !errors.Is(err, sse.ErrField) || string(got) != "before" {
				t.Errorf("%+q: %q, %v", e, got, err)
			}
		}
	}
}

func TestEntryBytes(t *testing.T) {
	id := hub.ID{Ms: 7, Seq: 1}
	tests := []struct {
		entry hub.Entry
		named bool
		want  string
	}{
		{hub.Entry{Payload: `{"a":1}`}, false, "data: {\"a\":1}\nid: 7-1\n\n"},
		{hub.Entry{Topic: "news", Payload: "a"}, false, "data: a\nid: 7-1\n\n"},
		{hub.Entry{Topic: "news", Payload: "a"}, true, "event: news\ndata: a\nid: 7-1\n\n"},
		{hub.Entry{Topic: "a:b c", Payload: "a\nb"}, true, "event: a:b c\ndata: a\ndata: b\nid: 7-1\n\n"},
		{hub.Entry{Payload: "no topic"}, true, "data: no topic\nid: 7-1\n\n"},
		{hub.Entry{Topic: "a\nb", Payload: "a"}, true, "data: a\nid: 7-1\n\n"},
		{hub.Entry{Topic: "a\r", Payload: "a"}, true, "data: a\nid: 7-1\n\n"},
		{hub.Entry{Topic: "a\x00", Payload: "a"}, true, "data: a\nid: 7-1\n\n"},
		{hub.Entry{Topic: "Gap", Payload: "a"}, true, "event: Gap\ndata: a\nid: 7-1\n\n"},
		{hub.Entry{Gap: hub.GapRedisReconnect}, false, "event: gap\ndata: {\"reason\":\"redis-reconnect\"}\nid: 7-1\n\n"},
		{hub.Entry{Gap: hub.GapTooLarge, Topic: "news"}, true, "event: gap\ndata: {\"reason\":\"too-large\"}\nid: 7-1\n\n"},
	}
	for _, ours := range reserved {
		test := tests[0]
		test.entry.Topic, test.named = ours, true
		tests = append(tests, test)
	}
	for _, test := range tests {
		test.entry.ID = id
		if got := sse.EncodeEntry(nil, test.entry, test.named); string(got) != test.want {
			t.Errorf("%+v, named %v: %q, want %q", test.entry, test.named, got, test.want)
		}
	}
}

// reserved are the event names that a topic cannot have.
var reserved = []string{"open", "error", "message", "gap", "busy", "bye", "ping"}

// A frame does not keep more memory than its size, because it can be queued for a long time.
func TestEncodedEntryIsNotMuchLargerThanItsPayload(t *testing.T) {
	for _, size := range []int{0, 100, 10_000, 1 << 20} {
		payload := strings.Repeat("x", size)
		wire := sse.EncodeEntry(nil, hub.Entry{ID: hub.ID{Ms: 7, Seq: 1}, Topic: "news", Payload: payload}, true)
		if limit := size + size/4 + 100; cap(wire) > limit {
			t.Errorf("%d bytes of payload keep %d bytes", size, cap(wire))
		}
	}
}

// A page receives every payload unchanged, except for its line ends, as one event. No part of it
// becomes another field.
func FuzzEvent(f *testing.F) {
	for _, seed := range []string{
		"", "hello", `{"kind":"comment","id":7}`, "a\nb", "a\rb", "a\r\nb", "\n", "\r", "\r\n", "\n\r", "\n\n", "\r\r\n\n",
		"data: a", "\nid: 99\nevent: bye\nretry: 1\n\ndata: x", ":", " a", "\uFEFF", "\x00", "\xff\xfe", "\xe2\x82\n\xac", "a\u2028b\u0085c",
	} {
		f.Add(seed, "news", true)
		f.Add("payload", seed, true)
		f.Add(seed, seed, false)
	}
	for _, topic := range reserved {
		f.Add("payload", topic, true)
	}
	f.Fuzz(func(t *testing.T, payload, topic string, named bool) {
		var stream []byte
		for seq := range uint64(2) { // the second event shows whether the first one has changed the state of the parser
			stream = sse.EncodeEntry(stream, hub.Entry{ID: hub.ID{Ms: 7, Seq: seq}, Topic: topic, Payload: payload}, named)
		}
		eventType := "message"
		if named && topic != "" && !strings.ContainsAny(topic, "\r\n\x00") && !slices.Contains(reserved, topic) {
			eventType = decode(topic)
		}
		data := decode(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(payload))
		want := []eventstream.Event{{Type: eventType, Data: data, ID: "7-0"}, {Type: eventType, Data: data, ID: "7-1"}}
		got, p := eventstream.Parse(string(stream))
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Errorf("payload %q, topic %q, named %v: the page gets %q, want %q", payload, topic, named, got, want)
		}
		if p.Retry != 0 {
			t.Errorf("payload %q, topic %q set the retry to %v", payload, topic, p.Retry)
		}
	})
}

// decode is the standard's "UTF-8 decode": invalid bytes become U+FFFD.
func decode(s string) string { return string([]rune(s)) }
