package sse

import (
	"errors"
	"hash/maphash"
	"net"
	"net/http"
	"sync"
	"time"

	"usercast/hub"
)

// heldRejects are the streams of temporary rejections whose end is put off: that of a client whose user or address
// was rejected less than a second ago. Many client libraries reconnect as soon as a stream ends,
// whatever its retry says. Streams that were taken over from the server wait in one list, without a goroutine.
// Methods are safe for concurrent use.
type heldRejects struct {
	most int // immutable
	seed maphash.Seed

	// Guarded by mu.
	mu       sync.Mutex
	rejected [rejectSlots]lastReject // by a hash of the user or address
	count    int                     // all that are held
	waiting  []heldReject            // those that were taken over, in the order of their ends
	timer    *time.Timer             // calls sweep; nil: none is waiting
	closed   chan struct{}           // when none is to be held any more
}

// A heldReject is a stream that was taken over from the server.
type heldReject struct {
	transport transport
	end       time.Time
}

// A lastReject is when something with this hash was last rejected, or when that stream ends if it is held.
type lastReject struct {
	hash uint64
	at   time.Time
}

const (
	// holdTime is how long the end is put off, and how long a rejection is remembered.
	holdTime = time.Second

	// maxHeld bounds how many are held, if Config.MaxHeld does not.
	maxHeld = 1000

	// rejectSlots bounds what is remembered, to 128 KiB. Of two users or addresses in one slot, the later
	// one is remembered.
	rejectSlots = 1 << 12
)

func newHeldRejects(most int) *heldRejects {
	if most == 0 {
		most = maxHeld
	}
	return &heldRejects{most: min(most, maxHeld), seed: maphash.MakeSeed(), closed: make(chan struct{})}
}

// enter notes that the user, which may be "", and the address of a peer are rejected now. It reports whether the
// end is to be put off: one of them was rejected within holdTime, it may be held, and there is room. Then it counts as
// held until leave, and as rejected at its end: a client that reconnects immediately is held again.
func (l *heldRejects) enter(user, remote string, mayHold bool) bool {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	keys := [2]string{"address " + host}
	if user != "" {
		keys[1] = "user " + user
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	again := false
	for _, key := range keys {
		last, hash := l.slot(key)
		again = again || key != "" && last.hash == hash && now.Sub(last.at) < holdTime
	}
	held := again && mayHold && !l.isClosed() && l.count < l.most
	if held {
		l.count++
		now = now.Add(holdTime)
	}
	for _, key := range keys {
		if last, hash := l.slot(key); key != "" {
			*last = lastReject{hash, now}
		}
	}
	return held
}

func (l *heldRejects) slot(key string) (last *lastReject, hash uint64) {
	hash = maphash.String(l.seed, key)
	return &l.rejected[hash%rejectSlots], hash
}

func (l *heldRejects) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count--
}

func (l *heldRejects) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

func (l *heldRejects) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// add lets one that has entered wait for its end. It reports false if none is to be held any more.
func (l *heldRejects) add(h *Handler, t transport) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed() {
		return false
	}
	l.waiting = append(l.waiting, heldReject{t, time.Now().Add(holdTime)})
	if l.timer == nil {
		l.timer = time.AfterFunc(holdTime, func() { h.endHeld(false) })
	}
	return true
}

// due takes out those whose end has come, or all, and sets the timer for the others.
func (l *heldRejects) due(h *Handler, all bool) (due []heldReject) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if all && !l.isClosed() {
		close(l.closed)
	}
	now, n := time.Now(), 0
	for n < len(l.waiting) && (all || !now.Before(l.waiting[n].end)) {
		n++
	}
	due, l.waiting = l.waiting[:n:n], l.waiting[n:]
	if len(l.waiting) > 0 {
		l.timer.Reset(l.waiting[0].end.Sub(now))
	} else if l.waiting = nil; l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	return due
}

// mayHold reports whether the end of a rejection may be put off: not while the hub drains, nor for a connection
// past the limit, of which few are answered at a time.
func (h *Handler) mayHold(r *http.Request) bool {
	_, overflow := connOf[*overflowConn](r)
	return !overflow && !errors.Is(h.cfg.Hub.Refusal(), hub.ErrDraining) && r.Context().Err() == nil
}

// hold writes the block and ends the stream after holdTime. It has entered h.held.
func (h *Handler) hold(w http.ResponseWriter, r *http.Request, block []byte) {
	h.count(+1)
	t, detached, failure := h.open(w, r, nil, block)
	switch {
	case failure == 0 && detached && h.held.add(h, t):
		return
	case failure == 0 && !detached:
		end := time.NewTimer(holdTime)
		defer end.Stop()
		select {
		case <-end.C:
		case <-r.Context().Done():
		case <-h.held.closed:
		}
	case failure == 0:
		t.close()
	}
	h.unhold()
}

// endHeld ends those whose time has come, or all, and none is held any more.
func (h *Handler) endHeld(all bool) {
	for _, reject := range h.held.due(h, all) {
		reject.transport.close()
		h.unhold()
	}
}

// unhold counts one less.
func (h *Handler) unhold() {
	h.held.leave()
	h.count(-1)
}
