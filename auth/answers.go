package auth

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// answers are the app's yeses of the last moments, by what was asked. They are guarded by
// their owner's lock.
type answers struct {
	inOrder list.List // of *answer, the oldest first: all are believed for equally long
	byKey   map[answerKey]*list.Element
	byUser  map[string]map[answerKey]bool
	bytes   int
}

// An answerKey stands for the headers of a question, and tells nothing of them.
type answerKey [sha256.Size]byte

// An answer is a yes.
type answer struct {
	key   answerKey
	id    Identity
	until time.Time
	bytes int
}

// Bounds on what is kept, and on what is kept of one answer. A user has as many answers as ways to ask: browsers, addresses,
// and whatever he puts into his cookies.
const (
	maxAnswerBytes    = 8 << 20 // of all; one may have a 256th
	maxAnswersPerUser = 256
	answerBytes       = 512 // of one, beside its text
)

func newAnswers() answers {
	return answers{byKey: make(map[answerKey]*list.Element), byUser: make(map[string]map[answerKey]bool)}
}

// find returns what is known.
func (a *answers) find(key answerKey, now time.Time) (id Identity, known bool) {
	if e := a.byKey[key]; e != nil {
		kept := e.Value.(*answer)
		return kept.id, now.Before(kept.until)
	}
	return Identity{}, false
}

// keep remembers a yes, and lets go of those whose time is over.
func (a *answers) keep(key answerKey, id Identity, now, until time.Time) {
	a.drop(key)
	size := answerBytes + len(id.User)
	for _, topic := range id.Topics {
		size += 16 + len(topic)
	}
	for e := a.inOrder.Front(); e != nil && !now.Before(e.Value.(*answer).until); e = a.inOrder.Front() {
		a.remove(e)
	}
	if len(a.byUser[id.User]) >= maxAnswersPerUser || size > maxAnswerBytes/256 {
		return
	}
	for a.bytes+size > maxAnswerBytes {
		a.remove(a.inOrder.Front())
	}
	mine := a.byUser[id.User]
	if mine == nil {
		mine = make(map[answerKey]bool)
		a.byUser[id.User] = mine
	}
	mine[key] = true
	a.byKey[key] = a.inOrder.PushBack(&answer{key, id, until, size})
	a.bytes += size
}

// drop removes one answer.
func (a *answers) drop(key answerKey) {
	if e := a.byKey[key]; e != nil {
		a.remove(e)
	}
}

// forget drops all answers about a user.
func (a *answers) forget(user string) {
	for key := range a.byUser[user] {
		a.remove(a.byKey[key])
	}
}

func (a *answers) remove(e *list.Element) {
	gone := a.inOrder.Remove(e).(*answer)
	delete(a.byKey, gone.key)
	a.bytes -= gone.bytes
	mine := a.byUser[gone.id.User]
	if delete(mine, gone.key); len(mine) == 0 {
		delete(a.byUser, gone.id.User)
	}
}

// keyOf hashes all of a question that can decide. Lengths stand before all parts, so that no two
// questions read alike. The ports in X-Forwarded-For, which some proxies add, differ per connection and
// decide nothing.
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
			if name == "X-Forwarded-For" {
				value = withoutPorts(value)
			}
			text(value)
		}
	}
	return sha256.Sum256(b)
}

// withoutPorts removes the port of each IP address in a list.
func withoutPorts(list string) string {
	if !strings.Contains(list, ":") {
		return list
	}
	elements := strings.Split(list, ",")
	for i, element := range elements {
		if a, err := netip.ParseAddrPort(strings.TrimSpace(element)); err == nil {
			elements[i] = a.Addr().String()
		}
	}
	return strings.Join(elements, ",")
}
