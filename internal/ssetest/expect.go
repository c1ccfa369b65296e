package ssetest

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
)

// Want reads one message per element of data.
func (s *Stream) Want(tb testing.TB, data ...string) {
	tb.Helper()
	for _, want := range data {
		s.WantEvent(tb, "message", want)
	}
}

// WantEvent reads one event.
func (s *Stream) WantEvent(tb testing.TB, eventType, data string) {
	tb.Helper()
	if err := s.Expect(eventType, data); err != nil {
		tb.Fatal(err)
	}
}

// WantGap reads a gap.
func (s *Stream) WantGap(tb testing.TB, reason string) {
	tb.Helper()
	s.WantEvent(tb, "gap", `{"reason":"`+reason+`"}`)
}

// WantEnd reads the end of the stream, which must be clean and without an event before it.
func (s *Stream) WantEnd(tb testing.TB) {
	tb.Helper()
	if e, err := s.Next(); !errors.Is(err, io.EOF) {
		tb.Fatalf("got %+v, %v; want the end of the stream", e, err)
	}
}

// Expect reads one event. The error says how it differs.
func (s *Stream) Expect(eventType, data string) error {
	e, err := s.Next()
	if err != nil {
		return fmt.Errorf("waiting for %s %.80q: %w", eventType, data, err)
	}
	if e.Type != eventType || e.Data != data {
		return fmt.Errorf("got %s %.80q, want %s %.80q", e.Type, e.Data, eventType, data)
	}
	return nil
}

// ExpectNumbers reads the messages 0…n-1, whose ids must increase as long as they count from the same marker.
func (s *Stream) ExpectNumbers(n int) error {
	var marker string
	var last uint64
	for i := range n {
		if err := s.Expect("message", strconv.Itoa(i)); err != nil {
			return err
		}
		name, digits, _ := strings.Cut(s.LastID, "-")
		seq, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || name == marker && seq <= last {
			return fmt.Errorf("message %d has the id %q, after %d", i, s.LastID, last)
		}
		marker, last = name, seq
	}
	return nil
}
