// Package revoked remembers of whom something was revoked, such as a log-in, for as long as
// what was begun before may not have heard of it.
package revoked

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// Users are those of whom something was revoked. Make one with New. Methods are safe for
// concurrent use; Count and Since take no lock.
type Users struct {
	seed   maphash.Seed
	window time.Duration
	count  atomic.Uint64
	newest [slots]atomic.Uint64 // by a hash of the user: what count became

	// Those of whom something was revoked within the window, by a hash of 64 bits.
	mu     sync.Mutex
	last   map[uint64]time.Time // when
	recent []revocation         // oldest first; one that is not in last any more was repeated
}

type revocation struct {
	user uint64
	at   time.Time
}

const (
	slots = 1 << 8
	// maxRecent bounds the memory for Within, to about 4 MiB: past it, the oldest are forgotten.
	maxRecent = 1 << 16
)

// New is empty. Window is for how long Within remembers a user; 0: not at all.
func New(window time.Duration) *Users {
	return &Users{seed: maphash.MakeSeed(), window: window, last: make(map[uint64]time.Time)}
}

// Count is how often something was revoked, of anybody: a point in time.
func (u *Users) Count() uint64 { return u.count.Load() }

// Add says that something of a user is revoked.
func (u *Users) Add(user string) {
	hash := u.hash(user)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.newest[hash%slots].Store(u.count.Add(1))
	if u.window <= 0 {
		return
	}
	now := time.Now()
	u.last[hash] = now
	u.recent = append(u.recent, revocation{hash, now})
	u.forget(now)
}

// forget drops what is older than the window, or too much. u.mu is held.
func (u *Users) forget(now time.Time) {
	n := 0
	for n < len(u.recent) && (len(u.recent)-n > maxRecent || now.Sub(u.recent[n].at) >= u.window) {
		if oldest := u.recent[n]; u.last[oldest.user].Equal(oldest.at) {
			delete(u.last, oldest.user)
		}
		n++
	}
	u.recent = u.recent[n:] // append copies what is left when it is out of room
}

// Within reports whether something of a user was revoked less than the window ago.
func (u *Users) Within(user string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	at, known := u.last[u.hash(user)]
	return known && time.Since(at) < u.window
}

// Since reports whether something of a user was revoked after Count returned then. Once in
// a while it reports so because of another user.
func (u *Users) Since(user string, then uint64) bool {
	return u.newest[u.hash(user)%slots].Load() > then
}

func (u *Users) hash(user string) uint64 { return maphash.String(u.seed, user) }
