package auth

import "net/http"

// Waiting returns how many requests wait for the answer to the question of r.
func (f *Forward) Waiting(r *http.Request) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q := f.questions[keyOf(f.headers(r))]; q != nil {
		return q.who
	}
	return 0
}
