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

// heldRejects holds temporary rejections open for holdTime if the same user or address was rejected less than
// holdTime ago. Many client libraries ignore the retry field and reconnect as soon as a stream ends. Streams that
// were taken over from net/http wait in one list, without a goroutine. Methods are safe for concurrent use.
type heldRejects struct {
	most int // immutable
	seed maphash.Seed

	// Guarded by mu.
	mu       sync.Mutex
	rejected [rejectSlots]lastReject // by a hash of the user or address
	count    int                     // rejections that are held
	waiting  []heldReject            // those that were taken over from net/http, in the order of their ends
	timer    *time.Timer             // ends the first of waiting; nil if waiting is empty
	closed   chan struct{}           // closed when rejections are no longer held
}

// A heldReject is a stream that was taken over from net/http.
type heldReject struct {
	transport transport
	end       time.Time
}

// A lastReject records when the user or address with this hash was last rejected, or when the rejection ends if it
// is held.
type lastReject struct {
	hash uint64
	at   time.Time
}

const (
	// holdTime is how long a rejection is held, and how long it is remembered.
	holdTime = time.Second

	// maxHeld is the default and the maximum of Config.MaxHeld.
	maxHeld = 1000

	// rejectSlots bounds the memory for remembered rejections to 128 KiB. If two users or addresses share a slot,
	// only the later one is remembered.
	rejectSlots = 1 << 12
)

func newHeldRejects(most int) *heldRejects {
	if most == 0 {
		most = maxHeld
	}
	return &heldRejects{most: min(most, maxHeld), seed: maphash.MakeSeed(), closed: make(chan struct{})}
}

// enter records that a user (which may be "") and the address of a peer are rejected now. It reports whether to hold
// the rejection: one of them was rejected within holdTime, mayHold is true, and the maximum is not reached. A held
// rejection counts until leave, and is recorded with the time of its end, so that an immediate reconnect is held again.
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

// add appends a rejection that has entered to the waiting list. It returns false if rejections are no longer held.
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

// due removes and returns those whose time is up, or all, and sets the timer for the others. With all, rejections are no
// longer held from then on.
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

// mayHold reports whether a rejection may be held. It returns false while the hub drains and for an overflow connection,
// because only a few of these are open at a time.
func (h *Handler) mayHold(r *http.Request) bool {
	_, overflow := connOf[*overflowConn](r)
	return !overflow && !errors.Is(h.cfg.Hub.Refusal(), hub.ErrDraining) && r.Context().Err() == nil
}

// hold writes the block and ends the stream after holdTime. The rejection must have entered h.held.
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

// endHeld ends the held rejections whose time is up. With all, it ends all of them, and rejections are no longer held
// from then on.
func (h *Handler) endHeld(all bool) {
	for _, reject := range h.held.due(h, all) {
		reject.transport.close()
		h.unhold()
	}
}

// unhold decrements the counters for one held rejection.
func (h *Handler) unhold() {
	h.held.leave()
	h.count(-1)
}
