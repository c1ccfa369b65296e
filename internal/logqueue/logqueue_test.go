package logqueue_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"usercast/internal/logqueue"
)

// A sink is a writer that can stall, fail, and write a part. Guarded by mu.
type sink struct {
	mu     sync.Mutex
	accept *sync.Cond
	stall  bool
	err    error
	part   int // number of bytes that are written despite err
	text   bytes.Buffer
}

func newSink() *sink {
	s := new(sink)
	s.accept = sync.NewCond(&s.mu)
	return s
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.stall {
		s.accept.Wait()
	}
	if s.err != nil {
		n := min(s.part, len(p))
		s.text.Write(p[:n])
		return n, s.err
	}
	return s.text.Write(p)
}

func (s *sink) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	s.accept.Broadcast()
}

func (s *sink) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Split(strings.TrimSuffix(s.text.String(), "\n"), "\n")
}

func note(lines uint64) []byte { return fmt.Appendf(nil, "%d lines dropped\n", lines) }

// line returns the nth line, which has 1,023 characters.
func line(n int) string { return fmt.Sprintf("%01023d", n) }

func TestLinesAreWrittenInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSink()
		q := logqueue.New(s, note)
		var want []string
		for i := range 3000 {
			fmt.Fprintln(q, line(i))
			want = append(want, line(i))
			if i%500 == 0 {
				synctest.Wait()
			}
		}
		if !q.Close(time.Second) || q.Dropped() != 0 || !slices.Equal(s.lines(), want) {
			t.Errorf("%d of %d lines were written, %d were dropped", len(s.lines()), len(want), q.Dropped())
		}
	})
}

// All dropped lines are in one place, and the note replaces them.
func TestNoteReplacesDroppedLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSink()
		s.set(func() { s.stall = true })
		q := logqueue.New(s, note)
		fmt.Fprintln(q, line(0))
		synctest.Wait() // the line is being written
		const lines = 3000
		for i := 1; i < lines; i++ {
			fmt.Fprintln(q, line(i))
		}
		fmt.Fprintln(q, "short") // it would fit, but is dropped too
		s.set(func() { s.stall = false })
		synctest.Wait()
		fmt.Fprintln(q, "later")
		if !q.Close(time.Second) {
			t.Fatal("the queue was not written")
		}
		const fit = 1 + 1024 // one line is being written, and 1 MiB is queued
		want := []string{}
		for i := range fit {
			want = append(want, line(i))
		}
		want = append(want, fmt.Sprintf("%d lines dropped", lines-fit+1), "later")
		if got := s.lines(); !slices.Equal(got, want) {
			t.Errorf("%d lines, the last %.20q; want %d, the last %.20q", len(got), got[max(0, len(got)-3):], len(want), want[len(want)-3:])
		}
		if n := q.Dropped(); n != lines-fit+1 {
			t.Errorf("%d lines count as dropped, want %d", n, lines-fit+1)
		}
	})
}

func TestLineThatIsTooLongIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSink()
		q := logqueue.New(s, note)
		fmt.Fprintln(q, strings.Repeat("x", 1<<20))
		synctest.Wait()
		fmt.Fprintln(q, "next")
		q.Close(time.Second)
		if got, want := s.lines(), []string{"1 lines dropped", "next"}; !slices.Equal(got, want) {
			t.Errorf("%.100q, want %q", got, want)
		}
	})
}

// Lines that could not be written are counted, and the note is written after the error.
func TestFailedWritesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSink()
		s.set(func() { s.err, s.part = errors.New("no space left on device"), 3 })
		q := logqueue.New(s, note)
		for range 2 {
			fmt.Fprintln(q, "a")
			synctest.Wait() // two bytes: the line is written despite the error
		}
		fmt.Fprint(q, "b\nc\nd\n")
		synctest.Wait()
		if n := q.Dropped(); n != 2 {
			t.Errorf("%d lines count as dropped, want c and d", n)
		}
		s.set(func() { s.err = nil; s.text.Reset() })
		fmt.Fprintln(q, "e")
		synctest.Wait()
		fmt.Fprintln(q, "f")
		q.Close(time.Second)
		if got, want := s.lines(), []string{"e", "2 lines dropped", "f"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

func TestCloseWaitsForTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSink()
		s.set(func() { s.stall = true })
		q := logqueue.New(s, note)
		fmt.Fprintln(q, "last")
		start := time.Now()
		if q.Close(3*time.Second) || time.Since(start) != 3*time.Second {
			t.Errorf("Close returned after %v with a stalled writer, want 3s", time.Since(start))
		}
		time.AfterFunc(time.Second, func() { s.set(func() { s.stall = false }) })
		start = time.Now()
		if !q.Close(3*time.Second) || time.Since(start) != time.Second {
			t.Errorf("Close returned after %v, want 1s", time.Since(start))
		}
		if got := s.lines(); !slices.Equal(got, []string{"last"}) {
			t.Errorf("%q", got)
		}
		fmt.Fprintln(q, "after Close")
		if q.Dropped() != 1 {
			t.Error("a line after Close is not counted")
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	q := logqueue.New(io.Discard, nil)
	defer q.Close(time.Second)
	text := []byte(line(0)[:200] + "\n")
	b.ReportAllocs()
	for b.Loop() {
		q.Write(text)
	}
}
