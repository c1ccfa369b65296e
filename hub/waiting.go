package hub

import "strings"

// The place of an id can be unknown because this hub is behind: its subscription may deliver later what the hub of the client
// had received before. So the client waits until everything has been received that was published before it arrived (R6). An
// id that counts further than the hub has is wrong then. A marker that is still unknown may be one of another server: until it
// is certain that the subscription is to the right one, the client waits further (R7). The wait does not have a time limit: with
// unknown-id, a client would receive a position before its own one, and then messages that it has.

// waiting are the clients that wait for the place of their id. It is guarded by Hub.mu.
type waiting struct {
	wake    func() // nil: clients do not wait
	tickets uint64 // number of tickets that were drawn
	first   uint64 // ticket of this generation
	clients map[*replay]waiter
}

// A waiter is a client that waits: its replay has the state replayLocate.
type waiter struct {
	resume string // its id
	ticket uint64 // the first one that was drawn after the client arrived
}

func (w *waiting) add(r *replay, resume string) {
	if w.clients == nil {
		w.clients = make(map[*replay]waiter)
	}
	r.state = replayLocate
	w.clients[r] = waiter{strings.Clone(resume), w.tickets + 1}
	w.wake()
}

// remove is called when a replay ends.
func (w *waiting) remove(r *replay) {
	if delete(w.clients, r); len(w.clients) == 0 {
		w.clients = nil // release the memory
	}
}

// begin makes all clients wait for a ticket of the new generation.
func (w *waiting) begin() {
	w.first = w.tickets + 1
	if len(w.clients) > 0 {
		w.wake()
	}
}

// waitBatch is how many clients are looked at before the lock is released.
const waitBatch = 256

// locateUpTo locates the clients of a ticket again. With confirmed, an unknown marker does not make them wait. unknown reports
// whether any client waits because of that.
func (h *Hub) locateUpTo(ticket uint64, confirmed bool) (unknown bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for r, x := range h.waiting.clients {
		if ticket < h.waiting.first { // a generation has begun, also while the lock was released
			return false
		}
		if x.ticket <= ticket && !h.locateAgain(r, x.resume, confirmed) {
			unknown = true
		}
		if n++; n%waitBatch == 0 {
			yield(&h.mu)
		}
	}
	return unknown
}

// locateAgain returns false if the client still waits.
func (h *Hub) locateAgain(r *replay, resume string, confirmed bool) bool {
	p, state := h.locate(resume)
	if state == placeUnknownMarker && !confirmed {
		return false
	}
	h.waiting.remove(r)
	r.resume(p, state)
	r.client.notify()
	return true
}

// AwaitPlaces makes clients wait whose id counts from an unknown marker, or further than this hub has: the hub may only
// be behind. Without it they receive unknown-id at once. wake is called with the hub's lock held when a client begins
// to wait, and when a generation begins while clients wait. It is called before the first client registers.
func (p *PubSub) AwaitPlaces(wake func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting.wake = wake
}

// Waiting returns a ticket for all clients that wait now, or 0. The caller then makes sure that everything has been received
// that was published so far.
func (p *PubSub) Waiting() (ticket uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting.clients) == 0 {
		return 0
	}
	p.waiting.tickets++
	return p.waiting.tickets
}

// Received says that everything has been received that was published before Waiting returned the ticket. It ends the
// wait of its clients, except those with an unknown marker, which unknown reports: they wait for Confirmed. A ticket from
// before the current generation does not concern any client. The goroutine calls it that calls Publish.
func (p *PubSub) Received(ticket uint64) (unknown bool) { return p.locateUpTo(ticket, false) }

// Confirmed says, after Received, that the subscription was still to the server to which new connections go when Waiting had
// returned the ticket, or later. It ends the wait of all clients of the ticket.
func (p *PubSub) Confirmed(ticket uint64) { p.locateUpTo(ticket, true) }
