package revoked

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestSince(t *testing.T) {
	u := New(0)
	u.Add("1")
	then := u.Count()
	if u.Since("1", then) || u.Since("2", then) {
		t.Error("what was revoked before is not since")
	}
	u.Add("1")
	if !u.Since("1", then) || u.Since("1", u.Count()) {
		t.Error("what is revoked is so since then, and not since now")
	}
	others := 0
	for i := range 1000 {
		if u.Since(fmt.Sprint("other-", i), then) {
			others++
		}
	}
	if others > 30 { // one in 256
		t.Errorf("%d of 1000 others are taken for the one", others)
	}
}

func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(time.Minute)
		if u.Within("1") {
			t.Error("nothing was revoked")
		}
		u.Add("1")
		time.Sleep(time.Minute - 1)
		if !u.Within("1") {
			t.Error("it was revoked less than a minute ago")
		}
		time.Sleep(time.Nanosecond)
		if u.Within("1") {
			t.Error("it was revoked a minute ago")
		}
		u.Add("1")
		time.Sleep(30 * time.Second)
		u.Add("1")
		time.Sleep(30 * time.Second)
		if !u.Within("1") {
			t.Error("it was revoked again half a minute ago")
		}
	})
}

// Others must not be taken for users of whom something was revoked, however many those are: each costs the
// app one more request.
func TestWithinIsExactAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(time.Minute)
		for i := range 10_000 {
			u.Add(fmt.Sprint("user-", i))
		}
		for i := range 10_000 {
			if !u.Within(fmt.Sprint("user-", i)) {
				t.Fatalf("user-%d is forgotten", i)
			}
			if u.Within(fmt.Sprint("other-", i)) {
				t.Fatalf("other-%d is taken for another user", i)
			}
		}
		for i := range 2 * maxRecent {
			u.Add(fmt.Sprint("many-", i))
		}
		if len(u.last) > maxRecent || len(u.recent) > maxRecent {
			t.Errorf("%d users and %d revocations are remembered", len(u.last), len(u.recent))
		}
		time.Sleep(time.Minute)
		u.Add("1")
		if len(u.last) != 1 || len(u.recent) != 1 {
			t.Errorf("after the window %d users and %d revocations are remembered, want 1", len(u.last), len(u.recent))
		}
	})
}
