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
	part   int // how much is written in spite of err
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

// line is the nth line, of a kilobyte.
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
			t.Errorf("%d lines of %d arrived, %d were dropped", len(s.lines()), len(want), q.Dropped())
		}
	})
}

// Lines are missing in one place, and the note stands there.
func TestNoteStandsWhereLinesAreMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSink()
		s.set(func() { s.stall = true })
		q := logqueue.New(s, note)
		fmt.Fprintln(q, line(0))
		synctest.Wait() // it is being written
		const lines = 3000
		for i := 1; i < lines; i++ {
			fmt.Fprintln(q, line(i))
		}
		fmt.Fprintln(q, "short") // it would fit
		s.set(func() { s.stall = false })
		synctest.Wait()
		fmt.Fprintln(q, "later")
		if !q.Close(time.Second) {
			t.Fatal("the queue is not written")
		}
		const fit = 1 + 1024 // one is with the writer, a MiB is queued
		want := []string{}
		for i := range fit {
			want = append(want, line(i))
		}
		want = append(want, fmt.Sprintf("%d lines dropped", lines-fit+1), "later")
		if got := s.lines(); !slices.Equal(got, want) {
			t.Errorf("%d lines, the last %.20q; want %d, the last %.20q", len(got), got[max(0, len(got)-3):], len(want), want[len(want)-3:])
		}
		if n := q.Dropped(); n != lines-fit+1 {
			t.Errorf("%d lines count as dropped", n)
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

// What could not be written counts, and the note comes when it can be written.
func TestFailedWritesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSink()
		s.set(func() { s.err, s.part = errors.New("no space left on device"), 3 })
		q := logqueue.New(s, note)
		for range 2 {
			fmt.Fprintln(q, "a")
			synctest.Wait() // two bytes: it is written all the same
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

func TestCloseWaitsForTheQueueAndNotLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSink()
		s.set(func() { s.stall = true })
		q := logqueue.New(s, note)
		fmt.Fprintln(q, "last")
		start := time.Now()
		if q.Close(3*time.Second) || time.Since(start) != 3*time.Second {
			t.Errorf("Close returned after %v with a writer that is stalled", time.Since(start))
		}
		time.AfterFunc(time.Second, func() { s.set(func() { s.stall = false }) })
		start = time.Now()
		if !q.Close(3*time.Second) || time.Since(start) != time.Second {
			t.Errorf("Close returned after %v, want when the queue was written", time.Since(start))
		}
		if got := s.lines(); !slices.Equal(got, []string{"last"}) {
			t.Errorf("%q", got)
		}
		fmt.Fprintln(q, "after the end")
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
