package sse

import (
	"net"
	"runtime"
	"sync"
	"time"

	"usercast/hub"
)

// A writer holds the buffers of a goroutine that writes to one stream after the other. An idle
// stream does not need them.
type writer struct {
	patient bool // used for only one stream, so that it may wait for the reader
	frames  []*hub.Frame
	bufs    net.Buffers

	// For the ping that is being written.
	ping  []byte // the buffer of its block: a ping with an id costs no allocation
	id    hub.ID // current position
	moved bool   // the ping contains id, which differs from the last id that was sent
}

// spareWriters is a pool of writers.
var spareWriters = sync.Pool{New: func() any { return new(writer) }}

func borrowWriter() *writer { return spareWriters.Get().(*writer) }

// giveBack returns a writer to the pool, unless its slices are large.
func (w *writer) giveBack() {
	if cap(w.frames) <= maxReused && cap(w.bufs) <= maxReused {
		clear(w.frames)
		spareWriters.Put(w)
	}
}

// forget resets w.bufs to all, emptied, so that the frames can be freed.
func (w *writer) forget(all net.Buffers) {
	clear(all)
	w.bufs = all[:0]
}

// writers is a queue of streams with pending writes, and a group of goroutines that write to them: at most
// one per core, and none while the queue is empty. A stream is in the queue at most once, and
// belongs to the goroutine that removes it. So its frames stay in order, and each client has one
// writer at a time, as the hub requires.
//
// These goroutines never wait for a reader: a stream whose socket is full continues in a separate
// goroutine.
type writers struct {
	count func(change int) // called when a goroutine starts or ends

	mu      sync.Mutex
	queue   []*stream // pending from index head on
	head    int
	running int // goroutines
	corks   int // feeds between Cork and Uncork
}

const (
	// backlog is the number of queued streams per running writer above which another one is
	// started. Waking a goroutine on another core takes as long as several deliveries.
	backlog   = 32
	takeBatch = 16 // streams that a writer removes from the queue at a time
)

// In Uncork, a feed writes to about uncorkStreams streams, which takes about half a millisecond. It
// stops after uncorkTime in any case, because replays take longer.
const (
	uncorkStreams = 64
	uncorkTime    = time.Millisecond
)

// add adds a stream to the queue. It does not block.
func (ws *writers) add(s *stream) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.queue = append(ws.queue, s)
	ws.grow()
}

// grow starts one more writer if the queue is long enough. A corked feed counts as a writer, because
// it is about to write itself. ws.mu is held.
func (ws *writers) grow() {
	busy := ws.running + ws.corks
	if waiting := len(ws.queue) - ws.head; waiting == 0 || waiting < backlog*busy || ws.running >= runtime.GOMAXPROCS(0) {
		return
	}
	ws.running++
	ws.count(+1)
	go ws.run()
}

// run writes until the queue is empty.
func (ws *writers) run() {
	defer ws.count(-1)
	w := borrowWriter()
	defer w.giveBack()
	var mine [takeBatch]*stream
	for {
		n := ws.take(mine[:])
		if n == 0 {
			return
		}
		ws.serve(w, mine[:n])
	}
}

// take removes streams from the queue. If it returns 0, the goroutine must end.
func (ws *writers) take(mine []*stream) int {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	n := ws.next(mine)
	if n == 0 {
		ws.running--
	} else {
		ws.grow()
	}
	return n
}

func (ws *writers) next(mine []*stream) int {
	n := copy(mine, ws.queue[ws.head:])
	clear(ws.queue[ws.head : ws.head+n])
	ws.head += n
	switch left := len(ws.queue) - ws.head; {
	case left == 0:
		ws.queue, ws.head = ws.queue[:0], 0
		if cap(ws.queue) > maxReused { // after a broadcast
			ws.queue = nil
		}
	case ws.head > left:
		copy(ws.queue, ws.queue[ws.head:])
		clear(ws.queue[left:])
		ws.queue, ws.head = ws.queue[:left], 0
	}
	return n
}

// serve writes to streams that were removed from the queue.
func (ws *writers) serve(w *writer, mine []*stream) {
	for i, s := range mine {
		mine[i] = nil
		s.flush(w)
	}
}

func (ws *writers) cork() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.corks++
}

// uncork writes to some of the streams in the queue, and leaves the others to goroutines.
func (ws *writers) uncork() {
	w := borrowWriter()
	defer w.giveBack()
	var mine [takeBatch]*stream
	began := time.Now()
	for done := 0; ; {
		ws.mu.Lock()
		n := 0
		if done < uncorkStreams && time.Since(began) < uncorkTime {
			n = ws.next(mine[:])
		}
		if n == 0 {
			ws.corks--
		}
		ws.grow()
		ws.mu.Unlock()
		if n == 0 {
			return
		}
		ws.serve(w, mine[:n])
		done += n
	}
}
