package auth

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A cache holds identities that the app returned recently, by the headers of the call. Its owner's lock guards it.
type cache struct {
	inOrder list.List // of *entry, the oldest first: all are valid for the same time
	byKey   map[cacheKey]*list.Element
	byUser  map[string]map[cacheKey]bool
	bytes   int
}

// A cacheKey is a cryptographic hash of the headers of a call.
type cacheKey [sha256.Size]byte

// An entry is an accepted call.
type entry struct {
	key   cacheKey
	id    Identity
	until time.Time
	bytes int
}

// Bounds of a cache. A user has one entry per combination of headers: browsers, addresses, and cookies, which the user
// can set freely.
const (
	maxCacheBytes     = 8 << 20 // of all entries; a single entry may have 1/256 of it
	maxEntriesPerUser = 256
	entryBytes        = 512 // of one entry, without its strings
)

func newCache() cache {
	return cache{byKey: make(map[cacheKey]*list.Element), byUser: make(map[string]map[cacheKey]bool)}
}

// get returns the identity for a key, and whether it is still valid.
func (c *cache) get(key cacheKey, now time.Time) (id Identity, valid bool) {
	if e := c.byKey[key]; e != nil {
		found := e.Value.(*entry)
		return found.id, now.Before(found.until)
	}
	return Identity{}, false
}

// put stores an identity, unless a bound is reached, and removes expired entries.
func (c *cache) put(key cacheKey, id Identity, now, until time.Time) {
	c.delete(key)
	size := entryBytes + len(id.User)
	for _, list := range [][]string{id.Topics, id.Groups} {
		for _, name := range list {
			size += 16 + len(name)
		}
	}
	for e := c.inOrder.Front(); e != nil && !now.Before(e.Value.(*entry).until); e = c.inOrder.Front() {
		c.remove(e)
	}
	if len(c.byUser[id.User]) >= maxEntriesPerUser || size > maxCacheBytes/256 {
		return
	}
	for c.bytes+size > maxCacheBytes {
		c.remove(c.inOrder.Front())
	}
	keys := c.byUser[id.User]
	if keys == nil {
		keys = make(map[cacheKey]bool)
		c.byUser[id.User] = keys
	}
	keys[key] = true
	c.byKey[key] = c.inOrder.PushBack(&entry{key, id, until, size})
	c.bytes += size
}

// delete removes one entry.
func (c *cache) delete(key cacheKey) {
	if e := c.byKey[key]; e != nil {
		c.remove(e)
	}
}

// deleteUser removes all entries of a user.
func (c *cache) deleteUser(user string) {
	for key := range c.byUser[user] {
		c.remove(c.byKey[key])
	}
}

func (c *cache) remove(e *list.Element) {
	removed := c.inOrder.Remove(e).(*entry)
	delete(c.byKey, removed.key)
	c.bytes -= removed.bytes
	keys := c.byUser[removed.id.User]
	if delete(keys, removed.key); len(keys) == 0 {
		delete(c.byUser, removed.id.User)
	}
}

// keyOf hashes the headers of a call. Each part is prefixed with its length, so that different headers never have
// the same encoding. It omits the ports in X-Forwarded-For: some proxies add them, and they differ per connection.
func keyOf(h http.Header) (key cacheKey) {
	var b []byte
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		text(name)
		b = binary.AppendUvarint(b, uint64(len(h[name])))
		for _, value := range h[name] {
			if name == "X-Forwarded-For" {
				value = withoutPorts(value)
			}
			text(value)
		}
	}
	return sha256.Sum256(b)
}

// withoutPorts removes the port of each IP address in a list.
func withoutPorts(list string) string {
	if !strings.Contains(list, ":") {
		return list
	}
	elements := strings.Split(list, ",")
	for i, element := range elements {
		if a, err := netip.ParseAddrPort(strings.TrimSpace(element)); err == nil {
			elements[i] = a.Addr().String()
		}
	}
	return strings.Join(elements, ",")
}
