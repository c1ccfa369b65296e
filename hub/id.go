package hub

import (
	"cmp"
	"crypto/rand"
	"math"
	"strconv"
	"strings"
)

// An ID names an entry of the sequence, or a place between two: <boot>-<seq>, or
// <ms>-<seq> with a StreamFeed.
type ID struct {
	Boot string // random per process, holds a letter and no '-'; "" with a log
	Ms   uint64 // 0 without a log
	Seq  uint64
}

// UnknownID stands for an id that is not written: one that cannot be a position, and the position of a
// client that has none yet. No stream can be resumed from it.
var UnknownID = ID{Boot: "unknown"}

// Append appends the id's text to dst.
func (id ID) Append(dst []byte) []byte {
	if id == UnknownID {
		return append(dst, id.Boot...)
	}
	if id.Boot == "" {
		dst = strconv.AppendUint(dst, id.Ms, 10)
	} else {
		dst = append(dst, id.Boot...)
	}
	dst = append(dst, '-')
	return strconv.AppendUint(dst, id.Seq, 10)
}

func (id ID) String() string { return string(id.Append(nil)) }

func (id ID) point() point { return point{id.Ms, id.Seq} }

// parseID reads what Append wrote; ok is false for anything else, leading
// zeros included, so that an id has one spelling.
func parseID(s string) (id ID, ok bool) {
	boot, digits, found := strings.Cut(s, "-")
	if id.Seq, ok = parseNumber(digits); !found || boot == "" || !ok {
		return ID{}, false
	}
	if id.Ms, ok = parseNumber(boot); !ok {
		id.Boot = boot
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
	if err != nil { // too large, and n is the largest there is
		return 0, false
	}
	return n, true
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

// A point is a place in one sequence: an ID without what all of its ids share.
type point struct{ ms, seq uint64 }

func (p point) compare(q point) int {
	return cmp.Or(cmp.Compare(p.ms, q.ms), cmp.Compare(p.seq, q.seq))
}

func (p point) before(q point) bool { return p.compare(q) < 0 }

// pred is the last place before p.
func (p point) pred() point {
	if p.seq > 0 {
		return point{p.ms, p.seq - 1}
	}
	return point{p.ms - 1, math.MaxUint64}
}

func later(p, q point) point {
	if p.before(q) {
		return q
	}
	return p
}
