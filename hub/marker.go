package hub

import (
	"crypto/rand"
	"math"
	"slices"
	"strconv"
	"time"
)

// A MarkerName is the random part of ids: a letter, followed by 12 characters of a–z and 2–7 (64.7 bits). The zero value
// is not a name.
type MarkerName [13]byte

func (n MarkerName) String() string { return string(n[:]) }

// NewMarkerName returns a random name. It begins with a letter, so that an id cannot be mistaken for one of a Redis
// stream (<ms>-<seq>).
func NewMarkerName() (n MarkerName) {
	randomName(n[:])
	return n
}

// ParseMarkerName parses the output of String. ok is false for anything else.
func ParseMarkerName(text string) (n MarkerName, ok bool) {
	if len(text) != len(n) || !isName(text) {
		return MarkerName{}, false
	}
	copy(n[:], text)
	return n, true
}

// bootLen is the length of the random name of a process.
const bootLen = 8

// newBoot returns the random name of a process.
func newBoot() string {
	var name [bootLen]byte
	randomName(name[:])
	return string(name[:])
}

// isName reports whether a text can be the name of a marker or of a process.
func isName(text string) bool {
	if len(text) != len(MarkerName{}) && len(text) != bootLen || !isLetter(text[0]) {
		return false
	}
	for i := range len(text) {
		if c := text[i]; !isLetter(c) && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' }

// randomName fills a name with a letter and characters of base32.
func randomName(name []byte) {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	rand.Read(name) // never fails: crypto/rand ends the process instead
	for i, v := range name {
		name[i] = alphabet[v%32]
	}
	for name[0] >= '2' && name[0] <= '7' {
		var b [1]byte
		rand.Read(b[:])
		name[0] = alphabet[b[0]%32]
	}
}

// A marker is a point of the sequence that ids count from. It never changes.
type marker struct {
	name       string
	boot       string // of this process
	ordinal    uint32 // of the markers of this process; 0: see markers.own
	at         ID     // where it was received
	gen        *generation
	receivedAt time.Duration // since Hub.born
	missed     bool          // the gap missed was announced at this place, right before the marker
}

// A generation is the time of one subscription.
type generation struct {
	start uint64 // number of messages when it began
	end   uint64 // number of messages when it ended; MaxUint64: it has not ended
}

// append appends the text of an id that counts from m to dst: <marker>-<n>, the number of messages after m. If the hub has
// announced gaps since that message, or since m if n is 0, the suffix .<boot>.<k> follows: the number of gaps after the
// message (R5). Other hubs do not have these gaps, and ignore the suffix.
func (m *marker) append(dst []byte, id ID) []byte {
	dst = append(append(dst, m.name...), '-')
	dst = strconv.AppendUint(dst, id.Ms-m.at.Ms, 10)
	if !m.hasSuffix(id) {
		return dst
	}
	dst = append(append(append(dst, '.'), m.boot...), '.')
	return strconv.AppendUint(dst, id.Seq>>32, 10)
}

// hasSuffix reports whether the text of an id that counts from m has a suffix.
func (m *marker) hasSuffix(id ID) bool {
	before := uint64(0)
	if id.Ms == m.at.Ms {
		before = m.at.Seq >> 32
		if m.missed {
			before-- // clients that have received the gap show it: see doubts
		}
	}
	return id.Seq>>32 > before
}

// markers are the markers that a PubSub has received, of all generations. They are guarded by Hub.mu.
type markers struct {
	age time.Duration // markers that are older are dropped, but not the newest one

	own    *marker // represents the start of the process. Ids count from it while no marker is known: <boot>-<n>
	gen    *generation
	newest uint32         // ordinal
	rows   deque[*marker] // oldest first; their ordinals do not have holes
	byName map[string]*marker
}

const (
	markerOverhead = 160     // approximate memory of a marker, in bytes
	maxMarkers     = 1 << 20 // bytes of all markers, which any publisher on the control channel can fill (R21)
)

func newMarkers(boot string, age time.Duration) *markers {
	gen := &generation{end: math.MaxUint64}
	return &markers{age: age, own: &marker{name: boot, boot: boot, gen: gen}, gen: gen, byName: make(map[string]*marker)}
}

// oldest returns when the oldest marker was received, since Hub.born; now without any.
func (t *markers) oldest(now time.Duration) time.Duration {
	if t.rows.len() == 0 {
		return now
	}
	return t.rows.at(0).receivedAt
}

// begin ends the current generation after a number of messages, and begins the next one. Ids by the markers of a generation
// are valid up to its end: behind it, other hubs may have received more or less than this one (R4).
func (t *markers) begin(messages uint64) {
	t.gen.end = messages
	t.gen = &generation{start: messages, end: math.MaxUint64}
}

// add adds a marker of the current generation. It returns nil for a name that is known: the first place is right, because
// that is the one of other hubs.
func (t *markers) add(name string, at ID, now time.Duration) *marker {
	if t.byName[name] != nil {
		return nil
	}
	t.newest++
	m := &marker{name: name, boot: t.own.boot, ordinal: t.newest, at: at, gen: t.gen, receivedAt: now}
	t.rows.pushBack(m)
	t.byName[name] = m
	for now-t.rows.at(0).receivedAt > t.age || t.rows.len()*markerOverhead > maxMarkers { // does not drop m
		delete(t.byName, t.rows.popFront().name)
	}
	return m
}

// of returns the marker that the text of an id counts from: that of its ordinal, or another one if that was dropped.
func (t *markers) of(id ID) *marker {
	ordinal := uint32(id.Seq)
	if n := uint32(t.rows.len()); n > 0 && ordinal > t.newest-n && ordinal <= t.newest {
		return t.rows.at(int(ordinal - (t.newest - n) - 1))
	}
	if ordinal == 0 {
		return t.own
	}
	return t.before(id.Ms)
}

// before returns the newest marker before a message. A marker right behind the message would be wrong: gaps between the two
// come after the message, but before the marker.
func (t *markers) before(message uint64) *marker {
	rows := t.rows.all()
	i, _ := slices.BinarySearchFunc(rows, message, func(m *marker, message uint64) int {
		if m.at.Ms < message {
			return -1
		}
		return 1
	})
	if i == 0 || message > rows[i-1].gen.end {
		return t.own
	}
	return rows[i-1]
}
