package fleetsim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// A World is one run of the simulation. Everything happens on the goroutine of Run, one event after the other. Timers
// of the hubs run between events: the world runs in a bubble of testing/synctest. They may only wake streams.
type World struct {
	class  Class
	random *rand.Rand
	start  func(*Process) Node
	began  time.Time
	trace  bool
	ending bool // no more faults

	mu     sync.Mutex
	queue  eventQueue // guarded by mu
	number uint64     // guarded by mu: of events

	primaries []*server // by number of the --redis
	processes []*Process
	pages     []*page
	streams   int
	lossy     *Process      // the process whose link loses messages
	lostAt    time.Duration // when it has lost a message, and has not noticed; 0: it has not

	messages   []*Message // the number of a message is its index plus 1
	markers    map[string]*markerPlace
	aliases    map[string]string // readable names of random names in ids
	violations []string
	story      []string
	result     Result
}

// A Result describes a run.
type Result struct {
	Violations []string // empty: the hubs kept all guarantees
	Story      []string // the events, if the run was traced

	Events   int // a measure of the length of the story
	Messages int // that were published
	Resumes  int // streams that were opened with an id
	Moves    int // of them, with an id from another process
	Unknown  int // of them, that received unknown-id
	// GroupMessages is how many messages of groups pages received, Joined how many from before their user joined they
	// had to receive.
	GroupMessages, Joined int
	Gaps                  map[string]int
	// Unnoticed is the longest time after which a lost message was noticed.
	Unnoticed time.Duration
}

// unit is the resolution of the world's time. Durations of the hub should not be multiples of it, so that no timer
// fires at the same time as an event: their order would be random.
const unit = time.Millisecond

// An event is a function that runs at a time. Events of the same time run in the order of their rank.
type event struct {
	at   time.Duration
	rank uint64
	run  func()
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].rank < q[j].rank
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = event{}
	*q = (*q)[:last]
	return e
}

// Now returns the time since the beginning of the run.
func (w *World) Now() time.Duration { return time.Since(w.began) }

// after runs f after a time.
func (w *World) after(d time.Duration, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.number++
	w.schedule(d, w.number, f)
}

// afterTimer is after for calls from timers of a hub, whose order is random if they fire at the same time: events of
// one time run in the order of a rank that does not depend on it.
func (w *World) afterTimer(d time.Duration, rank uint64, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.schedule(d, 1<<62+rank, f)
}

func (w *World) schedule(d time.Duration, rank uint64, f func()) {
	at := (w.Now() + max(d, 0) + unit - 1).Truncate(unit)
	heap.Push(&w.queue, event{at, rank, f})
}

// next removes and returns the next event before a time.
func (w *World) next(before time.Duration) (e event, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 || w.queue[0].at >= before {
		return event{}, false
	}
	return heap.Pop(&w.queue).(event), true
}

// run runs all events before a time, or up to the first violation.
func (w *World) run(before time.Duration) {
	for len(w.violations) == 0 {
		e, ok := w.next(before)
		if !ok {
			return
		}
		for wait := e.at - w.Now(); wait > 0; wait = e.at - w.Now() {
			time.Sleep(wait)
			// A timer may have scheduled an earlier event meanwhile.
			w.mu.Lock()
			heap.Push(&w.queue, e)
			e = heap.Pop(&w.queue).(event)
			w.mu.Unlock()
		}
		w.result.Events++
		e.run()
	}
}

// between returns a random duration, both ends included.
func between(random *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(random.Int64N(int64((high-low)/unit)+1))*unit
}

func (w *World) between(low, high time.Duration) time.Duration { return between(w.random, low, high) }

// oneIn returns true once in n times.
func (w *World) oneIn(n int) bool { return w.random.IntN(n) == 0 }

// say adds a line to the story.
func (w *World) say(format string, args ...any) {
	if w.trace {
		w.story = append(w.story, fmt.Sprintf("%8.3f ", w.Now().Seconds())+fmt.Sprintf(format, args...))
	}
}

// fail records a violation, which ends the run.
func (w *World) fail(format string, args ...any) {
	w.violations = append(w.violations, fmt.Sprintf(format, args...))
	w.say("VIOLATION "+format, args...)
}

// name gives a random name, such as that of a marker, a readable alias for the story.
func (w *World) name(random, kind string) string {
	alias, ok := w.aliases[random]
	if !ok {
		alias = fmt.Sprint(kind, len(w.aliases)+1)
		w.aliases[random] = alias
	}
	return alias
}

// readable returns an id with aliases in place of random names.
func (w *World) readable(id string) string {
	if !w.trace || id == "" {
		return id
	}
	place, suffix, _ := strings.Cut(id, ".")
	name, number, _ := strings.Cut(place, "-")
	text := w.name(name, "?") + "-" + number
	if boot, gap, ok := strings.Cut(suffix, "."); ok {
		text += "." + w.name(boot, "?") + "." + gap
	}
	return text
}

// pick returns a random element of a list, or the zero value.
func pick[T any](random *rand.Rand, list []T) (one T) {
	if len(list) > 0 {
		one = list[random.IntN(len(list))]
	}
	return one
}

// running returns the processes that run and do not drain.
func (w *World) running() []*Process {
	return slices.DeleteFunc(slices.Clone(w.processes), func(p *Process) bool { return !p.alive || p.draining })
}
