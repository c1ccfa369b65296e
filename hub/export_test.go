package hub

import "runtime"

// HandedOut waits until every client has what was broadcast so far.
func HandedOut(h *Hub) {
	for underWay := true; underWay; runtime.Gosched() {
		h.mu.Lock()
		underWay = h.fanning
		h.mu.Unlock()
	}
}
