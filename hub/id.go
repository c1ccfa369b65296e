package hub

import (
	"cmp"
	"math"
	"strconv"
	"strings"
)

// An ID identifies an entry of a hub's sequence, or a position between two entries. It does not contain pointers, because the
// history has many ids. Only its hub knows the text of an id: see Hub.AppendID and Entry.AppendID.
type ID struct {
	Ms  uint64 // with a PubSub, the number of messages up to here
	Seq uint64
}

// UnknownID represents a position that is unknown: the text that a client sent is not an id, or the client does
// not have a position yet. A stream cannot be resumed from it.
var UnknownID = ID{Ms: math.MaxUint64, Seq: math.MaxUint64 - 1}

// Append appends the text of an id of a StreamFeed, <ms>-<seq>, to dst.
func (id ID) Append(dst []byte) []byte {
	if id == UnknownID {
		return append(dst, "unknown"...)
	}
	dst = append(strconv.AppendUint(dst, id.Ms, 10), '-')
	return strconv.AppendUint(dst, id.Seq, 10)
}

// String returns the text of an id of a StreamFeed. For one of a PubSub, it is useful only in tests.
func (id ID) String() string { return string(id.Append(nil)) }

// Compare returns -1 if id is before other in their sequence, 1 if it is after other, and 0 if they are equal. Ids
// of different sequences are not comparable.
func (id ID) Compare(other ID) int {
	return cmp.Or(cmp.Compare(id.Ms, other.Ms), cmp.Compare(id.Seq, other.Seq))
}

func (id ID) before(other ID) bool {
	return id.Ms < other.Ms || id.Ms == other.Ms && id.Seq < other.Seq
}

// Previous returns the last position before an id of a StreamFeed, which must not be the first one.
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
	ms, seq, _ := strings.Cut(s, "-")
	if id.Ms, ok = parseNumber(ms); !ok {
		return ID{}, false
	}
	if id.Seq, ok = parseNumber(seq); !ok {
		return ID{}, false
	}
	return id, id != UnknownID
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
