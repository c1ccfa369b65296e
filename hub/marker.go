package hub

import (
	"crypto/rand"
	"strconv"
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
	if len(text) != len(n) || !isLetter(text[0]) {
		return MarkerName{}, false
	}
	for i := range len(text) {
		if c := text[i]; !isLetter(c) && (c < '2' || c > '7') {
			return MarkerName{}, false
		}
	}
	copy(n[:], text)
	return n, true
}

// A marker is a point of the sequence that ids count from. It never changes.
type marker struct {
	name string
}

// append appends the text of an id that counts from m to dst.
func (m *marker) append(dst []byte, id ID) []byte {
	dst = append(append(dst, m.name...), '-')
	return strconv.AppendUint(dst, id.Ms, 10)
}

// newBoot returns the random name of a process.
func newBoot() string {
	var name [8]byte
	randomName(name[:])
	return string(name[:])
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
