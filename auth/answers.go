package auth

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// answers are the app's yeses of the last moments, by what was asked. All methods are
// safe for concurrent use.
type answers struct {
	mu     sync.Mutex
	list   *simplelru.LRU[answerKey, yes] // oldest first: nothing moves up when it is read
	byUser map[string][]answerKey
	era    uint64 // how often somebody was forgotten
}

// An answerKey stands for the headers of a question, and tells nothing of them.
type answerKey [sha256.Size]byte

// A yes is what the app has answered.
type yes struct {
	id    Identity
	until time.Time
}

// maxAnswers bounds the memory of answers: some 400 B each.
const maxAnswers = 32 << 10

func newAnswers() answers {
	byUser := make(map[string][]answerKey)
	list, err := simplelru.NewLRU(maxAnswers, func(key answerKey, y yes) {
		keys := byUser[y.id.User]
		keys = slices.DeleteFunc(keys, func(k answerKey) bool { return k == key })
		if len(keys) == 0 {
			delete(byUser, y.id.User)
			return
		}
		byUser[y.id.User] = keys
	})
	if err != nil {
		panic(err) // the size is not positive
	}
	return answers{list: list, byUser: byUser}
}

// find returns what is known, and the era for keep.
func (a *answers) find(key answerKey, now time.Time) (id Identity, known bool, era uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	y, known := a.list.Peek(key)
	return y.id, known && now.Before(y.until), a.era
}

// keep remembers a yes to a question of an era, unless somebody was forgotten since: it
// may be about them.
func (a *answers) keep(key answerKey, id Identity, until time.Time, era uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if era != a.era {
		return
	}
	for now := time.Now(); ; a.list.RemoveOldest() {
		if _, oldest, ok := a.list.GetOldest(); !ok || now.Before(oldest.until) {
			break
		}
	}
	a.list.Remove(key) // else Add would keep its place, and forget its user
	a.list.Add(key, yes{id, until})
	a.byUser[id.User] = append(a.byUser[id.User], key)
}

// forget drops all answers about a user.
func (a *answers) forget(user string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.era++
	for _, key := range slices.Clone(a.byUser[user]) {
		a.list.Remove(key)
	}
}

// keyOf hashes all of a question. Lengths stand before all parts, so that no two
// questions read alike.
func keyOf(h http.Header) (key answerKey) {
	var b []byte
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		text(name)
		b = binary.AppendUvarint(b, uint64(len(h[name])))
		for _, value := range h[name] {
			text(value)
		}
	}
	return sha256.Sum256(b)
}
