package hub

import "hash/maphash"

// A table is a map from strings whose memory shrinks again: a Go map keeps room for the
// most entries that it ever had. It is divided, so that shrinking never copies more than a
// part of it while Hub.mu is held. The zero value is empty. A table is guarded by its owner.
type table[V any] struct {
	parts [64]struct {
		entries map[string]V
		most    int // entries since it was copied last
	}
}

// minShrink is the size from which a part is worth being copied.
const minShrink = 32

// tableSeed makes the parts of all tables unpredictable.
var tableSeed = maphash.MakeSeed()

// slot chooses the part of a key by a hash of all of it: ids often differ only in their
// middle, as e-mail addresses of one domain do.
func (t *table[V]) slot(key string) int {
	return int(maphash.String(tableSeed, key) % uint64(len(t.parts)))
}

// get returns the zero value for a key that is not there. It allocates nothing.
func (t *table[V]) get(key string) V { return t.parts[t.slot(key)].entries[key] }

func (t *table[V]) set(key string, v V) {
	p := &t.parts[t.slot(key)]
	if p.entries == nil {
		p.entries = make(map[string]V)
	}
	p.entries[key] = v
	p.most = max(p.most, len(p.entries))
}

func (t *table[V]) remove(key string) {
	p := &t.parts[t.slot(key)]
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
