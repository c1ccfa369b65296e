package hub

import "hash/maphash"

// A table is a map from strings whose memory shrinks: a Go map keeps the memory for its maximum number of entries. The
// table consists of parts, so that shrinking copies only one part while Hub.mu is held. The zero value is empty. A
// table is guarded by its owner.
type table[V any] struct {
	parts [UserParts]struct {
		entries map[string]V
		most    int // maximum number of entries since the last copy
	}
}

// minShrink is the minimum size at which a part is copied.
const minShrink = 32

// tableSeed makes the parts of all tables unpredictable.
var tableSeed = maphash.MakeSeed()

// hashOf returns a hash of the whole key. User ids may have common prefixes and suffixes, such as e-mail addresses of
// one domain.
func hashOf(key string) uint64 { return maphash.String(tableSeed, key) }

// slot selects the part of a hash.
func (t *table[V]) slot(hash uint64) int { return int(hash % uint64(len(t.parts))) }

// get returns the zero value for an unknown key. It does not allocate.
func (t *table[V]) get(key string) V { return t.lookup(hashOf(key), key) }

// lookup is get if the caller has the hash of the key.
func (t *table[V]) lookup(hash uint64, key string) V { return t.parts[t.slot(hash)].entries[key] }

func (t *table[V]) set(key string, v V) {
	p := &t.parts[t.slot(hashOf(key))]
	if p.entries == nil {
		p.entries = make(map[string]V)
	}
	p.entries[key] = v
	p.most = max(p.most, len(p.entries))
}

func (t *table[V]) remove(key string) {
	p := &t.parts[t.slot(hashOf(key))]
	delete(p.entries, key)
	n := len(p.entries)
	if p.most < minShrink || n > p.most/4 {
		return
	}
	smaller := make(map[string]V, n)
	for k, v := range p.entries {
		smaller[k] = v
	}
	p.entries, p.most = smaller, n
}
