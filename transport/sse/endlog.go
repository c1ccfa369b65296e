package sse

import (
	"context"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"usercast/hub"
)

// An endLogger logs the end of each stream in one line: at debug level if the browser
// closed it or it was a long poll that was over, otherwise at info. A client that reconnects without pause could reason
// thousands of lines per second: past maxEndLines per minute, the ends of a user's streams
// for one reason are logged at debug level and, each minute, summarized at info. It is safe
// for concurrent use.
type endLogger struct {
	log *slog.Logger

	// Guarded by mu.
	mu     sync.Mutex
	counts map[endKey]int // ends in this minute
	full   bool           // all users in counts have had too many, and there is no room for others
	timer  *time.Timer    // calls summarize; nil: counts is empty
}

// An endKey is what ends are counted by. The user is clipped.
type endKey struct {
	user   string
	reason hub.Reason
}

const (
	endPeriod = time.Minute

	// More than the streams that a user may have open by default: they may all end at once.
	maxEndLines = 60

	// maxEndKeys bounds what is counted, to about 200 KiB. A client that reconnects without
	// pause passes maxEndLines before streams of so many other users have ended.
	maxEndKeys = 1024
)

func (l *endLogger) ended(s *stream) {
	user, reason := clip(s.client.User()), s.client.Reason()
	level := slog.LevelInfo
	if tooMany := l.count(endKey{user, reason}); tooMany || reason == hub.ReasonClosed || reason == hub.ReasonPoll {
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, "stream ended",
		slog.String("user", user),
		slog.String("reason", reason.String()),
		slog.Duration("age", time.Since(s.client.Since()).Round(time.Millisecond)),
		slog.String("remote", s.remote))
}

// count counts one end and reports whether there were too many.
func (l *endLogger) count(k endKey) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil {
		l.counts = make(map[endKey]int)
		l.timer = time.AfterFunc(endPeriod, l.summarize)
	}
	if _, known := l.counts[k]; !known {
		k.user = strings.Clone(k.user) // what it was clipped from is long
		if !l.makeRoom() {
			k.user = "" // an id that no user has: the rest of them
		}
	}
	l.counts[k]++
	return l.counts[k] > maxEndLines
}

// makeRoom forgets the users who have not had too many ends, if necessary, and reports
// whether there is room for one more. l.mu is held.
func (l *endLogger) makeRoom() bool {
	if len(l.counts) >= maxEndKeys && !l.full {
		maps.DeleteFunc(l.counts, func(_ endKey, n int) bool { return n <= maxEndLines })
		l.full = len(l.counts) >= maxEndKeys
	}
	return !l.full
}

// summarize ends a minute.
func (l *endLogger) summarize() {
	for k, n := range l.reset() {
		if n > maxEndLines {
			l.log.Info("stream ends summarized",
				slog.String("user", k.user), slog.String("reason", k.reason.String()), slog.Int("streams", n), slog.Duration("period", endPeriod))
		}
	}
}

func (l *endLogger) reset() (counts map[endKey]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
	counts, l.counts, l.full, l.timer = l.counts, nil, false, nil
	return counts
}

// clip keeps a user id of a stranger's making from filling the log.
func clip(id string) string {
	const most = 100
	if len(id) > most {
		return id[:most] + "…"
	}
	return id
}
