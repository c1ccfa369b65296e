package auth

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func keyFor(i int) cacheKey { return keyOf(http.Header{"Cookie": {fmt.Sprint(i)}}) }

func TestCacheEntriesExpire(t *testing.T) {
	c, now := newCache(), time.Now()
	c.put(keyFor(1), Identity{User: "42"}, now, now.Add(time.Hour))
	if id, valid := c.get(keyFor(1), now); !valid || id.User != "42" {
		t.Errorf("%+v, %v", id, valid)
	}
	if _, valid := c.get(keyFor(1), now.Add(time.Hour)); valid {
		t.Error("an expired entry is valid")
	}
	c.put(keyFor(1), Identity{User: "43"}, now, now.Add(time.Hour)) // another user with the same headers
	c.deleteUser("42")
	if id, valid := c.get(keyFor(1), now); !valid || id.User != "43" {
		t.Errorf("%+v, %v", id, valid)
	}
	c.deleteUser("43")
	if _, valid := c.get(keyFor(1), now); valid || c.bytes != 0 || len(c.byUser) != 0 {
		t.Errorf("valid %v, %d bytes, %d users", valid, c.bytes, len(c.byUser))
	}
}

// The cache is bounded in bytes and in entries per user, and removes expired entries.
func TestCacheIsBounded(t *testing.T) {
	now := time.Now()
	later := now.Add(time.Hour)
	c := newCache()
	for i := range 50_000 {
		c.put(keyFor(i), Identity{User: fmt.Sprint(i)}, now, later)
	}
	if _, oldest := c.get(keyFor(0), now); oldest || c.bytes > maxCacheBytes || c.bytes < maxCacheBytes*9/10 {
		t.Errorf("%d bytes; the oldest entry is present: %v", c.bytes, oldest)
	}
	if _, newest := c.get(keyFor(49_999), now); !newest {
		t.Error("the newest entry is missing")
	}
	for name, large := range map[string]Identity{
		"topics": {User: "42", Topics: []string{strings.Repeat("x", 1<<20)}},
		"groups": {User: "42", Groups: []string{strings.Repeat("x", 1<<20)}},
		"names":  {User: "42", Topics: make([]string, 1<<10), Groups: make([]string, 1<<10)},
	} {
		c.put(keyFor(-1), large, now, later)
		if _, valid := c.get(keyFor(-1), now); valid || c.bytes > maxCacheBytes {
			t.Errorf("%d bytes with an entry with large %s; it is present: %v", c.bytes, name, valid)
		}
	}

	// A user with many cookies does not evict the entries of others.
	c = newCache()
	c.put(keyFor(-1), Identity{User: "other"}, now, later)
	for i := range 50_000 {
		c.put(keyFor(i), Identity{User: "42"}, now, later)
	}
	if _, valid := c.get(keyFor(-1), now); !valid || len(c.byKey) != maxEntriesPerUser+1 {
		t.Errorf("%d entries; that of the other user is present: %v", len(c.byKey), valid)
	}
	c.put(keyFor(-2), Identity{User: "other"}, later, later.Add(time.Hour))
	if len(c.byKey) != 1 || c.inOrder.Len() != 1 || len(c.byUser) != 1 {
		t.Errorf("%d expired entries are left", len(c.byKey)-1)
	}
}
