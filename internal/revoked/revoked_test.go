package revoked

import (
	"fmt"
	"testing"
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
