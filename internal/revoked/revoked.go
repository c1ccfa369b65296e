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
// concurrent use; only Add takes a lock.
type Users struct {
	seed  maphash.Seed
	began time.Time
	count atomic.Uint64

	adding sync.Mutex
	newest [slots]atomic.Uint64 // by a hash of the user: what count became
	last   [slots]atomic.Int64  // and when, in ns after began, plus 1; 0: never
}

const slots = 1 << 8

// New is empty.
func New() *Users { return &Users{seed: maphash.MakeSeed(), began: time.Now()} }

// Count is how often something was revoked, of anybody: a point in time.
func (u *Users) Count() uint64 { return u.count.Load() }

// Add says that something of a user is revoked.
func (u *Users) Add(user string) {
	u.adding.Lock()
	defer u.adding.Unlock()
	u.last[u.slot(user)].Store(int64(time.Since(u.began)) + 1)
	u.newest[u.slot(user)].Store(u.count.Add(1))
}

// Within reports whether something of a user was revoked less than d ago. Once in a while it
// reports so because of another user.
func (u *Users) Within(user string, d time.Duration) bool {
	last := u.last[u.slot(user)].Load()
	return last > 0 && time.Since(u.began)-time.Duration(last-1) < d
}

// Since reports whether something of a user was revoked after Count returned then. Once in
// a while it reports so because of another user.
func (u *Users) Since(user string, then uint64) bool {
	return u.newest[u.slot(user)].Load() > then
}

func (u *Users) slot(user string) uint64 {
	return maphash.String(u.seed, user) % slots
}
