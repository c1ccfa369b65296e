package hub

import (
	"fmt"
	"testing"
)

// Ids of any form are spread evenly over the parts. Otherwise copying one large part would lock the hub for long.
func TestTableSpreadsIDsOfAnyForm(t *testing.T) {
	const users = 16_000
	for _, form := range []string{"%d", "user%07d@example.com", "%d-0000-0000", "auth0|%024x"} {
		var users64 table[int]
		for i := range users {
			users64.set(fmt.Sprintf(form, i), i)
		}
		largest := 0
		for _, p := range users64.parts {
			largest = max(largest, len(p.entries))
		}
		if largest > 2*users/len(users64.parts) {
			t.Errorf("ids such as %s: one part holds %d of %d", fmt.Sprintf(form, 7), largest, users)
		}
		for i := range users {
			if key := fmt.Sprintf(form, i); users64.get(key) != i {
				t.Fatalf("%s is %d", key, users64.get(key))
			}
		}
	}
}

// A table releases memory: each part is copied when it has shrunk to a quarter.
func TestTableShrinks(t *testing.T) {
	var users table[int]
	for i := range 64_000 {
		users.set(fmt.Sprint(i), i)
	}
	for i := range 64_000 {
		users.remove(fmt.Sprint(i))
	}
	for i, p := range users.parts {
		if len(p.entries) != 0 || p.most >= minShrink {
			t.Errorf("part %d has %d entries and room for %d", i, len(p.entries), p.most)
		}
	}
}
