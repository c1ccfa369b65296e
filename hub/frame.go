package hub

import (
	"sync/atomic"
	"time"
)

// An Entry is one step of the sequence, before it is encoded.
type Entry struct {
	ID      ID
	Topic   string
	Payload string
	Gap     Gap // not zero: the entry is a gap, without payload

	taken time.Time // when the hub got it; zero: not needed yet
}

// time is when the hub got the entry. An unrouted message does without.
func (e *Entry) time() time.Time {
	if e.taken.IsZero() {
		e.taken = time.Now()
	}
	return e.taken
}

// An Encoder appends the wire bytes of e to dst. With named, the entry's topic
// goes into the event's name. It is called from several goroutines, mostly with
// the hub's lock held: it must neither block nor call the hub.
type Encoder func(dst []byte, e Entry, named bool) []byte

// A Frame is one encoded entry. It is immutable and shared by all receivers.
type Frame struct {
	Wire     []byte
	ID       ID
	Gap      Gap       // not zero: a gap
	Replayed bool      // encoded for a client that resumes
	Taken    time.Time // when the hub got the entry; zero if replayed

	holders atomic.Int32 // clients in whose queue it is, or who are writing it
}
