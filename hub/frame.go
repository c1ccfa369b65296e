package hub

import (
	"crypto/rand"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// An ID names an entry of the sequence: <boot>-<seq>.
type ID struct {
	Boot string // random per process, holds a letter and no '-'
	Seq  uint64
}

// Append appends the id's text to dst.
func (id ID) Append(dst []byte) []byte {
	dst = append(dst, id.Boot...)
	dst = append(dst, '-')
	return strconv.AppendUint(dst, id.Seq, 10)
}

func (id ID) String() string { return string(id.Append(nil)) }

// parseID reads what Append wrote; ok is false for anything else, leading
// zeros included, so that an id has one spelling.
func parseID(s string) (id ID, ok bool) {
	boot, digits, found := strings.Cut(s, "-")
	if !found || boot == "" || digits == "" || len(digits) > 1 && digits[0] == '0' {
		return ID{}, false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' { // ParseUint takes a sign
			return ID{}, false
		}
	}
	seq, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return ID{}, false
	}
	return ID{boot, seq}, true
}

// newBoot makes the half of an id that tells processes apart. It begins with a
// letter, so that it is never taken for an id of a Redis stream (<ms>-<seq>).
func newBoot() string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	for i, v := range b {
		b[i] = alphabet[v%32]
	}
	b[0] = alphabet[b[0]%26]
	return string(b[:])
}

// An Entry is one step of the sequence, before it is encoded.
type Entry struct {
	ID      ID
	Topic   string
	Payload string
	Gap     Gap // not zero: the entry is a gap, without topic and payload
}

// An Encoder appends the wire bytes of e to dst. With named, the entry's topic
// goes into the event's name. It is called with the hub's lock held: it must
// neither block nor call the hub.
type Encoder func(dst []byte, e Entry, named bool) []byte

// A Frame is one encoded entry. It is immutable and shared by all receivers.
type Frame struct {
	Wire  []byte
	Seq   uint64
	Gap   Gap       // not zero: a gap
	Taken time.Time // when the hub got the entry

	holders atomic.Int32 // clients in whose queue it is, or who are writing it
}
