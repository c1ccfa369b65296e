package revocation

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestSinceReportsLaterRevocationsOnly(t *testing.T) {
	u := New(0)
	u.Add("1")
	then := u.Count()
	if u.Since("1", then) || u.Since("2", then) {
		t.Error("a revocation before Count is reported as later")
	}
	u.Add("1")
	if !u.Since("1", then) || u.Since("1", u.Count()) {
		t.Error("a revocation after Count is not reported, or one before it is")
	}
	others := 0
	for i := range 1000 {
		if u.Since(fmt.Sprint("other-", i), then) {
			others++
		}
	}
	if others > 30 { // one in 256
		t.Errorf("%d of 1000 others share the slot of the user", others)
	}
}

func TestRecentReportsRevocationsWithinTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(time.Minute)
		if u.Recent("1") {
			t.Error("a user without a revocation is recent")
		}
		u.Add("1")
		time.Sleep(time.Minute - 1)
		if !u.Recent("1") {
			t.Error("a revocation less than a minute ago is not recent")
		}
		time.Sleep(time.Nanosecond)
		if u.Recent("1") {
			t.Error("a revocation a minute ago is recent")
		}
		u.Add("1")
		time.Sleep(30 * time.Second)
		u.Add("1")
		time.Sleep(30 * time.Second)
		if !u.Recent("1") {
			t.Error("a repeated revocation half a minute ago is not recent")
		}
	})
}

// Other users must not count as revoked, even after many revocations, because each costs the app an additional
// request.
func TestRecentIsExactAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(time.Minute)
		for i := range 10_000 {
			u.Add(fmt.Sprint("user-", i))
		}
		for i := range 10_000 {
			if !u.Recent(fmt.Sprint("user-", i)) {
				t.Fatalf("user-%d is forgotten", i)
			}
			if u.Recent(fmt.Sprint("other-", i)) {
				t.Fatalf("other-%d is taken for a user with a revocation", i)
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
