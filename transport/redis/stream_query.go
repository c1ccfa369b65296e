package redis

import (
	"context"
	"slices"
	"sync"
	"time"

	"usercast/hub"
	"usercast/transport/redis/internal/pause"
	"usercast/transport/redis/internal/topology"
)

// A query requests older entries: see hub.Query.
type query struct {
	to          []hub.Recipient // a user and its groups
	after, upTo hub.ID
	answer      func(entries []hub.Entry, covered hub.ID, gap hub.Gap)
	gone        func() bool
}

// queries are queued for the next pass.
type queries struct {
	added chan struct{} // one slot, filled when list is not empty

	// Guarded by mu.
	mu   sync.Mutex
	list []query
}

// Query requests entries from Redis that the hub does not have, and returns immediately. While
// Redis is unavailable, the query waits; after Run has ended, it is never answered. Safe for
// concurrent use.
func (f *StreamFeed) Query(q *hub.Query) {
	to := []hub.Recipient{hub.User(q.User)}
	for _, group := range q.Groups {
		to = append(to, hub.Group(group))
	}
	f.add(query{to, q.After, q.UpTo, q.Answer, q.Gone})
}

func (f *StreamFeed) add(q query) {
	f.queries.mu.Lock()
	f.queries.list = append(f.queries.list, q)
	f.queries.mu.Unlock()
	select {
	case f.queries.added <- struct{}{}:
	default:
	}
}

// take adds the queued queries to a list, and removes those whose answer is no longer needed.
func (qs *queries) take(list []query) []query {
	qs.mu.Lock()
	list = append(list, qs.list...)
	qs.list = nil
	qs.mu.Unlock()
	return slices.DeleteFunc(list, func(q query) bool { return q.gone() })
}

// Bounds of one pass: what it reads, how many queries it serves, what one answer contains, and how
// many places it requests at once. The answers of a pass take at most 64 MiB and one more entry
// each; entries that they share count once.
const (
	scanEntries   = 20_000
	scanBytes     = 64 << 20
	scanQueries   = 256
	answerEntries = 1000
	answerBytes   = 256 << 10
	scanPlaces    = 16
)

// answerQueries answers queries, up to hundreds in one pass over the stream, one pass at a time.
// Hundreds of browsers that reconnect together cost hardly more than one.
func (f *StreamFeed) answerQueries(ctx context.Context) {
	s := &scanner{StreamFeed: f}
	defer s.hangUp()
	idle := time.NewTimer(commandAge)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-idle.C:
			s.hangUp()
			continue
		case <-f.queries.added:
		}
		for list := f.queries.take(nil); len(list) > 0; list = f.queries.take(list) {
			pass := newScanPass(f, list)
			err := s.run(ctx, pass)
			if ctx.Err() != nil {
				return
			}
			list = pass.unanswered()
			if err == nil {
				f.report.scanned()
				continue
			}
			s.hangUp()
			f.report.scanFailed(f.fault(err, false))
			if !pause.Sleep(ctx, pause.Jitter(500*time.Millisecond)) {
				return
			}
		}
		idle.Reset(commandAge)
	}
}

// A scanner owns the connection for queries. It is made for a query, and closed when it has been idle
// for commandAge. Before a pass, it is replaced under the same conditions as a connection of Commands.
type scanner struct {
	*StreamFeed
	conn  *streamConn // nil: none
	epoch uint64      // of the server's connections when conn was made
	made  time.Time   // when conn was
}

func (s *scanner) hangUp() {
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
}

// run makes a pass on the node that currently has the key.
func (s *scanner) run(ctx context.Context, pass *scanPass) (err error) {
	to := topology.Target{Key: s.cfg.Key}
	if s.epoch != s.server.Epoch() || time.Since(s.made) >= commandAge {
		s.hangUp()
	}
	for n := 0; ; n++ {
		if s.conn == nil {
			s.epoch, s.made = s.server.Epoch(), time.Now()
			if s.conn, err = s.dial(ctx, to, s.server.AnswerTimeout()); err != nil {
				return err
			}
		}
		err = pass.run(s.conn)
		next, ok := s.server.Redirection(err, s.cfg.Key, s.conn.link.Addr)
		if !ok || n == maxRedirections {
			return err
		}
		s.hangUp()
		to = next
	}
}
