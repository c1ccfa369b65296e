package sse

import (
	"net"
	"runtime"
	"sync"
	"time"

	"usercast/hub"
)

// A writer is what a goroutine that writes to streams has at hand, one stream after
// the other: an idle stream owns none of it.
type writer struct {
	patient bool // it is the stream's own, and may wait for its reader
	frames  []*hub.Frame
	bufs    net.Buffers

	// Of a ping under way.
	id    hub.ID // the position
	moved bool   // it is not what the peer was sent last
}

// spareWriters are not in use.
var spareWriters = sync.Pool{New: func() any { return new(writer) }}

func borrowWriter() *writer { return spareWriters.Get().(*writer) }

// giveBack keeps what a writer has at hand for the next one, unless it is large.
func (w *writer) giveBack() {
	if cap(w.frames) <= longList && cap(w.bufs) <= longList {
		clear(w.frames)
		spareWriters.Put(w)
	}
}

// forget lets go of what all of bufs pointed at.
func (w *writer) forget(all net.Buffers) {
	clear(all)
	w.bufs = all[:0]
}

// writers write to the streams that have something to be written, on as many cores
// as there are, and are gone when nothing is left. A stream is in the queue at most once,
// and belongs to whoever takes it out: so its frames stay in order, and each client
// has one writer at a time, as the hub asks.
//
// None of them ever waits for a reader: a stream whose socket is full goes on in a
// goroutine of its own.
type writers struct {
	count func(change int) // goroutines of ours

	mu      sync.Mutex
	queue   []*stream // those from head on are to be written to
	head    int
	running int // goroutines
	corks   int // feeds in the middle of handing messages over
}

const (
	// backlog is how many streams wait in the queue for each writer at work before another
	// one is started: to wake it on another core takes as long as some deliveries.
	backlog   = 32
	takeBatch = 16 // streams that a writer takes at once
)

// A feed writes to no more than uncorkStreams streams before it reads on, which is a matter
// of half a millisecond, nor after uncorkTime: replays take longer.
const (
	uncorkStreams = 64
	uncorkTime    = time.Millisecond
)

// add puts a stream into the queue. It does not block.
func (ws *writers) add(s *stream) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.queue = append(ws.queue, s)
	ws.grow()
}

// grow starts one more writer if there is enough to do. A feed that is corked counts as
// one: it is about to write itself. ws.mu is held.
func (ws *writers) grow() {
	busy := ws.running + ws.corks
	if waiting := len(ws.queue) - ws.head; waiting == 0 || waiting < backlog*busy || ws.running >= runtime.GOMAXPROCS(0) {
		return
	}
	ws.running++
	ws.count(+1)
	go ws.run()
}

// run is one goroutine that writes until nothing is left to do.
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

// take takes streams out of the queue. A goroutine that gets none has ended.
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
		if cap(ws.queue) > longList { // what a broadcast has left
			ws.queue = nil
		}
	case ws.head > left:
		copy(ws.queue, ws.queue[ws.head:])
		clear(ws.queue[left:])
		ws.queue, ws.head = ws.queue[:left], 0
	}
	return n
}

// serve writes to streams that were taken out of the queue.
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
