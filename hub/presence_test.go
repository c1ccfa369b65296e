package hub_test

import (
	"fmt"
	"slices"
	"testing"

	"usercast/hub"
)

// Users returns each user with a client once, whatever the number of its clients, and none who only has a history.
func TestUsersOfAllParts(t *testing.T) {
	t.Parallel()
	h := newPubSub(t, hub.Config{})
	var want []string
	for i := range 300 {
		user := fmt.Sprint("user ", i)
		for range 1 + i%3 {
			register(t, h, hub.Options{User: user, Groups: []string{"team"}})
		}
		if i%10 == 0 {
			h.Publish(hub.User(user), "", "x")
			h.Disconnect(user)
			continue
		}
		want = append(want, user)
	}
	var got []string
	for part := range hub.UserParts {
		got = append(got, h.Users(part)...)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d users, want %d: %q", len(got), len(want), got)
	}
}

func TestArrivalsAreFirstClientsOfUsers(t *testing.T) {
	t.Parallel()
	h := newPubSub(t, hub.Config{})
	register(t, h, hub.Options{User: "before"})
	if users, all := h.Arrivals(); users != nil || all {
		t.Errorf("%q were recorded, although nothing was asked for", users)
	}
	wakes := 0
	h.NotifyArrivals(func() { wakes++ })
	register(t, h, hub.Options{User: "before"}) // another tab
	first := register(t, h, hub.Options{User: "42", Groups: []string{"team"}})
	register(t, h, hub.Options{User: "7", Groups: []string{"team"}})
	register(t, h, hub.Options{User: "7"})
	first.End(hub.ReasonClosed)
	register(t, h, hub.Options{User: "42"}) // a reload
	if users, all := h.Arrivals(); !slices.Equal(users, []string{"42", "7", "42"}) || all {
		t.Errorf("recorded %q, %v", users, all)
	}
	if wakes != 1 {
		t.Errorf("woken %d times for one list", wakes)
	}
	if users, all := h.Arrivals(); len(users) > 0 || all {
		t.Errorf("recorded %q, %v again", users, all)
	}
	register(t, h, hub.Options{User: "8"})
	if wakes != 2 {
		t.Errorf("woken %d times for two lists", wakes)
	}
}

// The list is bounded: a program that does not read it, because Redis is down, then visits all users.
func TestArrivalsAreBounded(t *testing.T) {
	t.Parallel()
	h := newPubSub(t, hub.Config{})
	h.NotifyArrivals(func() {})
	for range hub.MaxArrivals + 1 {
		c, err := h.Register(hub.Options{User: "42", Consumer: new(listener)})
		if err != nil {
			t.Fatal(err)
		}
		c.End(hub.ReasonClosed)
	}
	if users, all := h.Arrivals(); len(users) != hub.MaxArrivals || !all {
		t.Errorf("recorded %d, %v", len(users), all)
	}
	if users, all := h.Arrivals(); len(users) != 0 || all {
		t.Errorf("recorded %d, %v after the list was read", len(users), all)
	}
}
