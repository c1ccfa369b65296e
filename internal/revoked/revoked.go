// Package revoked remembers of whom something was revoked, such as a log-in, for as long as
// what was begun before may not have heard of it.
package revoked

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// Users are those of whom something was revoked. Make one with New. Methods are safe for
// concurrent use; only Add takes a lock.
type Users struct {
	seed  maphash.Seed
	count atomic.Uint64

	adding sync.Mutex
	newest [1 << 8]atomic.Uint64 // by a hash of the user: what count became
}

// New is empty.
func New() *Users { return &Users{seed: maphash.MakeSeed()} }

// Count is how often something was revoked, of anybody: a point in time.
func (u *Users) Count() uint64 { return u.count.Load() }

// Add says that something of a user is revoked.
func (u *Users) Add(user string) {
	u.adding.Lock()
	defer u.adding.Unlock()
	u.newest[u.slot(user)].Store(u.count.Add(1))
}

// Since reports whether something of a user was revoked after Count returned then. Once in
// a while it reports so because of another user.
func (u *Users) Since(user string, then uint64) bool {
	return u.newest[u.slot(user)].Load() > then
}

func (u *Users) slot(user string) uint64 {
	return maphash.String(u.seed, user) % uint64(len(u.newest))
}
