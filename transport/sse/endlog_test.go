package sse

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"usercast/hub"
)

// A client that can choose its user id must not be able to fill the hub's memory or its log.
func TestEndLoggerIsBounded(t *testing.T) {
	l := endLogger{log: slog.New(slog.DiscardHandler)}
	defer l.reset()
	lines := 0
	end := func(user string) {
		if !l.count(endKey{clip(user), hub.ReasonSlow}) {
			lines++
		}
		if n := len(l.counts); n > maxEndKeys+1 {
			t.Fatalf("%d users are counted", n)
		}
	}
	const users = 3 * maxEndKeys
	user := make([]string, users)
	for i := range user {
		user[i] = fmt.Sprint(i, strings.Repeat("u", 200))
		end(user[i])
	}
	if lines != users {
		t.Errorf("%d of %d users with one end each have a line", lines, users)
	}
	lines = 0
	for i := range users {
		for range 2 * maxEndLines {
			end(user[i])
		}
	}
	if most := (maxEndKeys + 1) * maxEndLines; lines > most {
		t.Errorf("%d lines, want at most %d", lines, most)
	}
	if n := l.counts[endKey{"", hub.ReasonSlow}]; n != (users-maxEndKeys)*2*maxEndLines {
		t.Errorf("%d ends of other users are counted together", n)
	}
}

func BenchmarkEndLogger(b *testing.B) {
	l := endLogger{log: slog.New(slog.DiscardHandler)}
	defer l.reset()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.count(endKey{"42", hub.ReasonClosed})
	}
}
