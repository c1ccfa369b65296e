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

// An endLogger logs one line when a stream ends: at debug level if the client closed it or if it was a
// long poll that has completed, otherwise at info level. A client that reconnects without a pause could
// cause thousands of lines per second. So after maxEndLines per minute for the same user and reason, further
// lines have debug level, and one line per minute summarizes them at info level. It is safe for concurrent use.
type endLogger struct {
	log *slog.Logger

	// Guarded by mu.
	mu     sync.Mutex
	counts map[endKey]int // ends in the current minute
	full   bool           // counts has reached maxEndKeys, all of them above maxEndLines
	timer  *time.Timer    // calls summarize; nil if counts is empty
}

// An endKey is a user and a reason, for which ends are counted. The user is clipped.
type endKey struct {
	user   string
	reason hub.Reason
}

const (
	endPeriod = time.Minute

	// maxEndLines is more than the default of the stream limit per user: all streams of a user may end at the
	// same time.
	maxEndLines = 60

	// maxEndKeys bounds the memory to about 200 KiB. A client that reconnects without a pause exceeds
	// maxEndLines before the streams of so many other users have ended.
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
		k.user = strings.Clone(k.user) // does not keep the unclipped id in memory
		if !l.makeRoom() {
			k.user = "" // counts all further users together; user ids are not empty
		}
	}
	l.counts[k]++
	return l.counts[k] > maxEndLines
}

// makeRoom removes the keys up to maxEndLines if counts is full, and reports whether there is
// room for one more key. l.mu is held.
func (l *endLogger) makeRoom() bool {
	if len(l.counts) >= maxEndKeys && !l.full {
		maps.DeleteFunc(l.counts, func(_ endKey, n int) bool { return n <= maxEndLines })
		l.full = len(l.counts) >= maxEndKeys
	}
	return !l.full
}

// summarize logs the summaries of a minute and starts the next one.
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

// clip shortens text from outside the hub for the log.
func clip(id string) string {
	const most = 100
	if len(id) > most {
		return id[:most] + "…"
	}
	return id
}
