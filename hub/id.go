package hub

import (
	"cmp"
	"math"
	"strconv"
	"strings"
)

// An ID identifies an entry of a hub's sequence, or a position between two entries: <boot>-<seq> with a PubSub,
// <ms>-<seq> with a StreamFeed. It does not contain pointers, because the history has many ids.
type ID struct {
	Boot Boot   // zero with a StreamFeed
	Ms   uint64 // zero with a PubSub
	Seq  uint64
}

// A Boot distinguishes the sequences of processes. It is random and begins with a letter.
type Boot [8]byte

func (b Boot) String() string { return string(b[:]) }

// UnknownID represents a position that is unknown: the text that a client sent is not an id, or the client does
// not have a position yet. A stream cannot be resumed from it.
var UnknownID = ID{Boot: Boot{'u', 'n', 'k', 'n', 'o', 'w', 'n'}}

// Append appends the id's text to dst.
func (id ID) Append(dst []byte) []byte {
	if id == UnknownID {
		return append(dst, "unknown"...)
	}
	if id.Boot == (Boot{}) {
		dst = strconv.AppendUint(dst, id.Ms, 10)
	} else {
		dst = append(dst, id.Boot[:]...)
	}
	dst = append(dst, '-')
	return strconv.AppendUint(dst, id.Seq, 10)
}

func (id ID) String() string { return string(id.Append(nil)) }

// Compare returns -1 if id is before other in their sequence, 1 if it is after other, and 0 if they are equal. Ids
// of different sequences are not comparable.
func (id ID) Compare(other ID) int {
	return cmp.Or(cmp.Compare(id.Ms, other.Ms), cmp.Compare(id.Seq, other.Seq))
}

func (id ID) before(other ID) bool {
	return id.Ms < other.Ms || id.Ms == other.Ms && id.Seq < other.Seq
}

// Previous returns the last position before id, which must not be the first one.
func (id ID) Previous() ID {
	if id.Seq == 0 {
		id.Ms--
		id.Seq = math.MaxUint64
	} else {
		id.Seq--
	}
	return id
}

func later(a, b ID) ID {
	if a.before(b) {
		return b
	}
	return a
}

// parseID parses the output of Append. ok is false for anything else, including leading zeros, so that each id has
// one spelling.
func parseID(s string) (id ID, ok bool) {
	boot, digits, found := strings.Cut(s, "-")
	if id.Seq, ok = parseNumber(digits); !found || boot == "" || !ok {
		return ID{}, false
	}
	if id.Ms, ok = parseNumber(boot); !ok {
		if len(boot) != len(id.Boot) {
			return ID{}, false
		}
		copy(id.Boot[:], boot)
	}
	return id, true
}

// parseNumber is strconv.ParseUint without signs and leading zeros.
func parseNumber(s string) (uint64, bool) {
	if s == "" || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

// newBoot returns a random Boot. It begins with a letter, so that an id cannot be mistaken for one of a Redis stream
// (<ms>-<seq>).
func newBoot() (boot Boot) {
	randomName(boot[:])
	return boot
}
