package revoked

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestSince(t *testing.T) {
	u := New()
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
		u := New()
		if u.Within("1", time.Hour) {
			t.Error("nothing was revoked")
		}
		u.Add("1")
		time.Sleep(time.Minute - 1)
		if !u.Within("1", time.Minute) {
			t.Error("it was revoked less than a minute ago")
		}
		time.Sleep(time.Nanosecond)
		if u.Within("1", time.Minute) {
			t.Error("it was revoked a minute ago")
		}
		u.Add("1")
		if !u.Within("1", time.Second) {
			t.Error("it was revoked again")
		}
	})
}
