// Package revocation records for which users something was revoked, such as a login. It detects whether an
// earlier decision about a user is outdated.
package revocation

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// A Tracker counts revocations and remembers the newest of each user. Create it with New. Its methods are safe for
// concurrent use; Count and Since take no lock.
type Tracker struct {
	seed   maphash.Seed
	window time.Duration
	count  atomic.Uint64
	newest [slots]atomic.Uint64 // by a hash of the user: count after the newest revocation

	// Revocations within the window. Guarded by mu. Users are hashes of 64 bits.
	mu     sync.Mutex
	last   map[uint64]time.Time // newest by user
	recent []revocation         // oldest first; an entry whose time differs from last was repeated
}

type revocation struct {
	user uint64
	at   time.Time
}

const (
	slots = 1 << 8
	// maxRecent bounds the memory for Recent to about 4 MiB. Above it, the oldest are dropped.
	maxRecent = 1 << 16
)

// New returns an empty Tracker. Window is how long Recent remembers a user; with 0 it does not.
func New(window time.Duration) *Tracker {
	return &Tracker{seed: maphash.MakeSeed(), window: window, last: make(map[uint64]time.Time)}
}

// Count returns the number of revocations of all users so far. It marks a point in time for Since.
func (t *Tracker) Count() uint64 { return t.count.Load() }

// Add records a revocation for a user.
func (t *Tracker) Add(user string) {
	hash := t.hash(user)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.newest[hash%slots].Store(t.count.Add(1))
	if t.window <= 0 {
		return
	}
	now := time.Now()
	t.last[hash] = now
	t.recent = append(t.recent, revocation{hash, now})
	t.expire(now)
}

// expire removes entries that are older than the window or exceed maxRecent. t.mu is held.
func (t *Tracker) expire(now time.Time) {
	n := 0
	for n < len(t.recent) && (len(t.recent)-n > maxRecent || now.Sub(t.recent[n].at) >= t.window) {
		if oldest := t.recent[n]; t.last[oldest.user].Equal(oldest.at) {
			delete(t.last, oldest.user)
		}
		n++
	}
	t.recent = t.recent[n:] // append copies the rest when the array is full
}

// Recent reports whether the newest revocation of a user is younger than the window.
func (t *Tracker) Recent(user string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, known := t.last[t.hash(user)]
	return known && time.Since(at) < t.window
}

// Since reports whether a user had a revocation after Count returned count. Users share slots by hash, so on rare
// occasions it reports the revocation of another user.
func (t *Tracker) Since(user string, count uint64) bool {
	return t.newest[t.hash(user)%slots].Load() > count
}

func (t *Tracker) hash(user string) uint64 { return maphash.String(t.seed, user) }
