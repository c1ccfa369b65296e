package load

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A tally counts what all streams of a run have received. Readers lock it once per batch and set now. The fields that the
// publishing goroutine polls are atomic.
type tally struct {
	// Immutable after newTally.
	began     time.Time // start of the run's clock
	start     []byte    // first bytes of all payloads of this run
	broadcast bool      // messages are for all users, with one common sequence

	// sequences has one word per sequence, which belongs to a user or to all users: the number of the last message times
	// 2^32, plus the number of open streams. One word makes it unambiguous whether a message counts for a stream that
	// opens or ends at that moment.
	sequences []atomic.Uint64

	// Copies of counts below, as of the end of the last batch.
	accounted atomic.Int64 // deliveries that are not outstanding any more
	open      atomic.Int64 // streams

	target  atomic.Int64  // number of accounted deliveries at which reached is signaled
	reached chan struct{} // has room for one; the receiver polls in addition

	// Guarded by mu.
	mu         sync.Mutex
	now        int64 // time of the current read: nanoseconds of the run's clock
	opened     int64 // streams that have opened, including those that ended
	streams    int64 // streams that are open
	unopened   int64 // streams that failed to open
	unopenedBy map[Reason]int64
	endedBy    map[Reason]int64
	gaps       map[string]int64
	example    string // body of the first rejection
	opening    *hdrhistogram.Histogram
	phases     []*phase

	delivered      int64 // each message counts once per stream
	writtenOff     int64 // messages that were skipped, or outstanding on a stream that ended
	missingOnEnded int64 // of these, outstanding on a stream that ended
	duplicated     int64
	late           int64
	wrongUser      int64
	foreign        int64
	pings          int64
	bytes          int64
	reads          int64
}

// A phase is the part of a tally for the messages of one loop.
type phase struct {
	first     int // index of its first message
	delivered int64
	latency   *hdrhistogram.Histogram
	last      []int64 // by message: latency of its last arrival; nil if not measured
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
		unopenedBy: make(map[Reason]int64),
		endedBy:    make(map[Reason]int64),
		gaps:       make(map[string]int64),
		opening:    newHistogram(),
	}
	t.target.Store(math.MaxInt64) // no goroutine waits
	return t
}

// clock returns the time since the start of the run, in nanoseconds.
func (t *tally) clock() int64 { return int64(time.Since(t.began)) }

// lock begins a batch.
func (t *tally) lock() { t.mu.Lock() }

// unlock ends a batch and signals reached if the target is reached.
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

// sequence returns the sequence in which the messages of a user are numbered.
func (t *tally) sequence(user int) *atomic.Uint64 {
	if t.broadcast {
		return &t.sequences[0]
	}
	return &t.sequences[user]
}

const oneMessage, onlyStreams = 1 << 32, 1<<32 - 1

// number returns the next number of a user's sequence, and how many streams are open to it.
func (t *tally) number(user int) (seq uint32, streams int64) {
	word := t.sequence(user).Add(oneMessage)
	return uint32(word >> 32), int64(word & onlyStreams)
}

// A stream simulates one EventSource. The lock of the tally guards it as soon as it is added to a reader.
type stream struct {
	tally       *tally
	user        int
	state       state
	begun       bool // the first block has arrived
	requestedAt int64
	parser      parser
	ledger      ledger
	byeReason   string // reason of the hub's bye event
}

type state uint8

const (
	untried state = iota
	requested
	open
	over // rejected, failed or ended
)

// markOpen records a response that is a stream.
func (s *stream) markOpen() {
	t := s.tally
	s.state = open
	t.opened++
	t.streams++
	record(t.opening, t.now-s.requestedAt)
	// Earlier messages do not count for this stream.
	s.ledger.highest = uint32(t.sequence(s.user).Add(1) >> 32)
}

// fail records that a stream failed to open. example is the body of the response.
func (s *stream) fail(reason Reason, example string) {
	if s.state != requested {
		return
	}
	s.state = over
	s.tally.failed(reason, example)
}

func (t *tally) failed(reason Reason, example string) {
	t.unopened++
	t.unopenedBy[reason]++
	if t.example == "" {
		t.example = example
	}
}

// end records that the connection of a stream has ended.
func (s *stream) end(reason Reason) {
	switch s.state {
	case requested:
		s.fail(noResponse(reason), "")
	case open:
		s.close()
		if s.byeReason != "" {
			reason = byeReason(s.byeReason)
		}
		s.tally.endedBy[reason]++
	}
}

// close removes an open stream from the count. Messages that are in flight to it are written off.
func (s *stream) close() {
	t := s.tally
	s.state = over
	t.streams--
	sent := uint32(t.sequence(s.user).Add(^uint64(0)) >> 32) // one stream less
	t.writtenOff += int64(sent - s.ledger.highest)
	t.missingOnEnded += int64(sent - s.ledger.highest)
}

// receive processes bytes of the event stream.
func (s *stream) receive(b []byte) { s.parser.feed(b, s.tally.start, s) }

func (s *stream) message(m stamp) {
	t := s.tally
	if m.user != s.user && !t.broadcast || t.broadcast && m.user != allUsers {
		t.wrongUser++
		return
	}
	v, skipped := s.ledger.receive(m.seq)
	t.writtenOff += int64(skipped)
	switch v {
	case duplicate:
		t.duplicated++
		return
	case lateArrival:
		t.late++
		t.writtenOff--
	}
	t.delivered++
	for i := len(t.phases) - 1; i >= 0; i-- {
		if p := t.phases[i]; m.index >= p.first {
			p.add(m.index-p.first, t.now-m.due)
			return
		}
	}
}

func (p *phase) add(message int, latency int64) {
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

func (s *stream) bye(reason string) { s.byeReason = reason }

// busy records a rejection with the event busy, which is sent on an open stream.
func (s *stream) busy(reason string) {
	if s.state != open {
		return
	}
	t := s.tally
	s.close()
	t.opened--
	t.failed(busyReason(reason), "")
}

func (s *stream) ping() {
	if !s.begun { // the first block has the id at which the stream begins
		s.begun = true
		return
	}
	s.tally.pings++
}
