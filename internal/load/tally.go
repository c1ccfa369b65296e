package load

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A tally is what all streams of a run have heard. Readers lock it once a batch
// and tell it the time; what the publishing side asks all the time is atomic.
type tally struct {
	// Immutable after newTally.
	began     time.Time // zero of the run's clock
	start     []byte    // how payloads of this run begin
	broadcast bool      // messages are for all users: there is one sequence

	// For each sequence (each user's, or that of all) the number last given, times
	// 2^32, plus the streams that are open to it. In one word, so that it is certain
	// whether a message counts for a stream that ends at that moment.
	sequences []atomic.Uint64

	// Copies of what is below, as of the end of the last batch.
	accounted atomic.Int64 // deliveries that are no longer outstanding
	open      atomic.Int64 // streams

	target  atomic.Int64  // accounted deliveries at which reached is told
	reached chan struct{} // of one: who waits looks again anyway

	// Guarded by mu.
	mu         sync.Mutex
	now        int64 // nanoseconds of the run's clock, of the read being taken in
	opened     int64 // streams that have begun, whatever became of them
	streams    int64 // open now
	unopened   int64 // streams that failed to open
	unopenedBy map[string]int64
	endedBy    map[string]int64
	gaps       map[string]int64
	example    string // what the first refusal said
	opening    *hdrhistogram.Histogram
	phases     []*phase

	delivered  int64 // each message once a stream
	writtenOff int64 // skipped, or outstanding on a stream that ended
	unended    int64 // of these the latter
	doubled    int64
	late       int64
	wrongUser  int64
	foreign    int64
	pings      int64
	bytes      int64
	reads      int64
}

// A phase is the part of a tally that belongs to one loop's messages.
type phase struct {
	first     int // index of its first message
	delivered int64
	latency   *hdrhistogram.Histogram
	last      []int64 // by message: latency of its latest arrival; nil: not asked for
}

func newTally(run string, users int, broadcast bool) *tally {
	if broadcast {
		users = 1
	}
	t := &tally{
		began:      time.Now(),
		start:      payloadStart(run),
		broadcast:  broadcast,
		sequences:  make([]atomic.Uint64, users),
		reached:    make(chan struct{}, 1),
		unopenedBy: make(map[string]int64),
		endedBy:    make(map[string]int64),
		gaps:       make(map[string]int64),
		opening:    newHistogram(),
	}
	t.target.Store(math.MaxInt64) // nobody waits
	return t
}

// clock is the run's time in nanoseconds.
func (t *tally) clock() int64 { return int64(time.Since(t.began)) }

// lock begins a batch.
func (t *tally) lock() { t.mu.Lock() }

// unlock ends a batch: who waits for deliveries hears of them.
func (t *tally) unlock() {
	n := t.delivered + t.writtenOff
	t.accounted.Store(n)
	t.open.Store(t.streams)
	t.mu.Unlock()
	if n >= t.target.Load() {
		select {
		case t.reached <- struct{}{}:
		default:
		}
	}
}

// sequence is the one that a user's messages are numbered in.
func (t *tally) sequence(user int) *atomic.Uint64 {
	if t.broadcast {
		return &t.sequences[0]
	}
	return &t.sequences[user]
}

const oneMessage, onlyStreams = 1 << 32, 1<<32 - 1

// number gives the next number of a user's sequence, and says how many streams
// are to hear it.
func (t *tally) number(user int) (seq uint32, streams int64) {
	word := t.sequence(user).Add(oneMessage)
	return uint32(word >> 32), int64(word & onlyStreams)
}

// A stream is one EventSource. Guarded by the tally's lock from the moment that
// its reader has it.
type stream struct {
	tally  *tally
	user   int
	state  state
	begun  bool // the hub has said where the stream begins
	asked  int64
	parser parser
	ledger ledger
	said   string // reason of the hub's goodbye, or of its refusal
}

type state uint8

const (
	untried state = iota
	asking
	open
	over // refused, failed, ended
)

// openUp is for an answer that is a stream.
func (s *stream) openUp() {
	t := s.tally
	s.state = open
	t.opened++
	t.streams++
	record(t.opening, t.now-s.asked)
	// What was sent before is not for this stream.
	s.ledger.highest = uint32(t.sequence(s.user).Add(1) >> 32)
}

// fail is for a stream that did not open, and why. Example is what the hub said.
func (s *stream) fail(why, example string) {
	if s.state != asking {
		return
	}
	s.state = over
	s.tally.failed(why, example)
}

func (t *tally) failed(why, example string) {
	t.unopened++
	t.unopenedBy[why]++
	if t.example == "" {
		t.example = example
	}
}

// end is for a stream whose connection has ended, and how.
func (s *stream) end(how string) {
	switch s.state {
	case asking:
		s.fail("no answer: "+how, "")
	case open:
		s.close()
		if s.said != "" {
			how = "bye: " + s.said
		}
		s.tally.endedBy[how]++
	}
}

// close takes an open stream out of the count; what is under way for it will not
// be waited for.
func (s *stream) close() {
	t := s.tally
	s.state = over
	t.streams--
	sent := uint32(t.sequence(s.user).Add(^uint64(0)) >> 32) // one stream less
	t.writtenOff += int64(sent - s.ledger.highest)
	t.unended += int64(sent - s.ledger.highest)
}

// take takes in bytes of the event stream.
func (s *stream) take(b []byte) { s.parser.feed(b, s.tally.start, s) }

func (s *stream) message(m stamp) {
	t := s.tally
	if m.user != s.user && !t.broadcast || t.broadcast && m.user != allUsers {
		t.wrongUser++
		return
	}
	v, skipped := s.ledger.receive(m.seq)
	t.writtenOff += int64(skipped)
	switch v {
	case doubled:
		t.doubled++
		return
	case lateArrival:
		t.late++
		t.writtenOff--
	}
	t.delivered++
	for i := len(t.phases) - 1; i >= 0; i-- {
		if p := t.phases[i]; m.index >= p.first {
			p.take(m.index-p.first, t.now-m.due)
			return
		}
	}
}

func (p *phase) take(message int, latency int64) {
	p.delivered++
	record(p.latency, latency)
	if message < len(p.last) {
		p.last[message] = max(p.last[message], latency)
	}
}

func (s *stream) foreign() { s.tally.foreign++ }

func (s *stream) gap(reason string) {
	s.ledger.gap = true
	s.tally.gaps[reason]++
}

func (s *stream) bye(reason string) { s.said = reason }

// busy is a refusal in the clothes of a stream.
func (s *stream) busy(reason string) {
	if s.state != open {
		return
	}
	t := s.tally
	s.close()
	t.opened--
	t.failed("busy: "+reason, "")
}

func (s *stream) ping() {
	if !s.begun { // the first block says where the stream begins
		s.begun = true
		return
	}
	s.tally.pings++
}

// status is the reason for an answer that is no stream.
func status(code int) string { return fmt.Sprintf("status %d", code) }
