package hub

import (
	"sync/atomic"
	"time"
)

// An Entry is one element of the sequence, before it is encoded.
type Entry struct {
	ID      ID
	Topic   string
	Payload string
	Gap     Gap // not zero: the entry is a gap, without payload

	marker *marker   // that the text of ID counts from; nil with a StreamFeed
	taken  time.Time // when the hub received it; zero: not determined yet
}

// time returns when the hub received the entry. It is determined only if needed.
func (e *Entry) time() time.Time {
	if e.taken.IsZero() {
		e.taken = time.Now()
	}
	return e.taken
}

// AppendID appends the text of the entry's id to dst.
func (e *Entry) AppendID(dst []byte) []byte {
	if e.marker == nil || e.ID == UnknownID {
		return e.ID.Append(dst)
	}
	return e.marker.append(dst, e.ID)
}

// An Encoder appends the wire format of e to dst. With named, the event's name contains the topic. It is
// called from several goroutines, mostly with the hub's lock held: it must neither block nor call the hub.
type Encoder func(dst []byte, e Entry, named bool) []byte

// A Frame is one encoded entry. It is immutable and shared by all receivers.
type Frame struct {
	Wire     []byte
	ID       ID
	Gap      Gap       // not zero: a gap
	Replayed bool      // encoded for a client that resumes
	Taken    time.Time // when the hub received the entry; zero if replayed

	spread  bool         // see gapSpread
	holders atomic.Int32 // clients that have it in their queue or are writing it
}
