package redis

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// Why a Query has no answer.
var (
	ErrTrimmed   = errors.New("the entry is older than what the stream still has")
	ErrUnknownID = errors.New("the stream has no such entry")
)

// A Query asks for older entries: those of User and of the broadcast user, after
// After and up to UpTo. With After beyond UpTo it asks only whether After is a
// place of this stream.
type Query struct {
	User        string
	After, UpTo EntryID

	// Answer gets, once, from another goroutine, all such entries up to covered,
	// oldest first. Covered may be before UpTo: ask again for the rest. The error is
	// ErrTrimmed or ErrUnknownID. While Redis is away the answer waits; once Run has
	// ended there is none.
	Answer func(entries []Entry, covered EntryID, err error)
	// Gone reports that nobody waits for the answer any more: there may be none then.
	// Nil: never. It is called from another goroutine and must not block.
	Gone func() bool
}

// Bounds of one pass: what it reads, how many queries it serves, what one answer
// holds, and how many places it asks for at once. The answers of a pass are 64 MiB at most and an
// entry more for each, less what they have in common.
const (
	scanEntries   = 20_000
	scanBytes     = 64 << 20
	scanQueries   = 256
	answerEntries = 1000
	answerBytes   = 256 << 10
	scanPlaces    = 16
)

// Ask puts a query to the log. It returns at once.
func (l *Log) Ask(q Query) {
	l.mu.Lock()
	l.waiting = append(l.waiting, q)
	l.mu.Unlock()
	select {
	case l.asked <- struct{}{}:
	default:
	}
}

// scan answers queries, hundreds in one pass over the stream, one pass at a time:
// browsers that come back by the hundred cost hardly more than one that does.
func (l *Log) scan(ctx context.Context) {
	s := &scanner{Log: l}
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
		case <-l.asked:
		}
		for queries := l.more(nil); len(queries) > 0; queries = l.more(queries) {
			pass := newScanPass(l, queries)
			err := s.run(ctx, pass)
			if ctx.Err() != nil {
				return
			}
			queries = pass.left()
			if err == nil {
				l.report.scanned()
				continue
			}
			s.hangUp()
			l.report.scanFailed(l.fault(err, false))
			if !sleep(ctx, jitter(500*time.Millisecond)) {
				return
			}
		}
		idle.Reset(commandAge)
	}
}

// scanner holds the connection for queries: it is made when one comes, closed when none has
// come for a while, and replaced before a pass when Commands would replace it.
type scanner struct {
	*Log
	conn  *logConn  // nil: none
	epoch uint64    // of the server's connections when conn was made
	made  time.Time // when conn was
}

func (s *scanner) hangUp() {
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
}

// run makes a pass, at the node that has the key by now.
func (s *scanner) run(ctx context.Context, pass *scanPass) (err error) {
	to := target{key: s.cfg.Key}
	if s.epoch != s.cfg.Server.epoch.Load() || time.Since(s.made) >= commandAge {
		s.hangUp()
	}
	for n := 0; ; n++ {
		if s.conn == nil {
			s.epoch, s.made = s.cfg.Server.epoch.Load(), time.Now()
			if s.conn, err = s.dialLog(ctx, to, s.cfg.Server.answerTimeout); err != nil {
				return err
			}
		}
		err = pass.run(s.conn)
		next, ok := s.cfg.Server.redirection(err, s.cfg.Key, s.conn.link.addr)
		if !ok || n == maxRedirections {
			return err
		}
		s.hangUp()
		to = next
	}
}

// more adds what was asked meanwhile to the queries that wait, and drops those that
// nobody waits for.
func (l *Log) more(queries []Query) []Query {
	l.mu.Lock()
	queries = append(queries, l.waiting...)
	l.waiting = nil
	l.mu.Unlock()
	return slices.DeleteFunc(queries, func(q Query) bool { return q.Gone != nil && q.Gone() })
}

// scanPass is one pass over the stream. It begins where the query begins that has
// waited longest, and serves with it those that begin there or behind it: if each
// began at the earliest place, some might never be come to.
type scanPass struct {
	log      *Log
	queries  []*search // all that wait, the longest waiting first
	searches []*search // those of them that it serves
}

func newScanPass(l *Log, queries []Query) *scanPass {
	p := &scanPass{log: l}
	for _, q := range queries {
		s := &search{Query: q}
		p.queries = append(p.queries, s)
		if len(p.searches) < scanQueries && !q.After.before(queries[0].After) {
			p.searches = append(p.searches, s)
		}
	}
	return p
}

// left is what is yet to be answered, the longest waiting first.
func (p *scanPass) left() (queries []Query) {
	for _, s := range p.queries {
		if !s.done {
			queries = append(queries, s.Query)
		}
	}
	return queries
}

// search is a query during a pass.
type search struct {
	Query
	found []Entry
	bytes int
	done  bool
}

// run answers what it can. The rest stays open after an error, or when what was read
// ends in a hole.
func (p *scanPass) run(c *logConn) error {
	info, err := c.state()
	if err != nil {
		return err
	}
	verdicts, err := p.verdicts(c, info)
	if err != nil {
		return err
	}
	for _, s := range p.searches {
		switch err := verdicts[s.After]; {
		case err != nil:
			s.fail(err)
		case !s.After.before(s.UpTo):
			s.answer(s.After)
		}
	}
	p.searches = slices.DeleteFunc(p.searches, func(s *search) bool { return s.done })
	if len(p.searches) == 0 {
		return nil
	}
	return p.read(c, info)
}

// verdicts says of each query's beginning whether it is a place of this stream: an
// entry, the place just before one (gaps are there), the newest id ever given, or
// the beginning of a stream that has lost nothing.
func (p *scanPass) verdicts(c *logConn, info logInfo) (map[EntryID]error, error) {
	verdicts := make(map[EntryID]error)
	for _, s := range p.searches {
		verdicts[s.After] = nil
	}
	for ids := range slices.Chunk(slices.Collect(maps.Keys(verdicts)), scanPlaces) {
		found, err := c.places(ids)
		if err != nil {
			return nil, err
		}
		for i, id := range ids {
			verdicts[id] = info.verdict(id, found[i].ID)
		}
	}
	return verdicts, nil
}

// verdict is that on a place, of which behind is the entry there or the next one; 0-0
// if there is none.
func (i logInfo) verdict(id, behind EntryID) error {
	switch {
	case behind != (EntryID{}) && (behind == id || behind.Before() == id),
		id == i.last, id == EntryID{} && i.counts && i.added == i.length:
		return nil
	case id.before(i.first):
		return ErrTrimmed
	}
	return ErrUnknownID
}

// read goes through the stream from where the first search begins, as long as
// nothing is removed from under it. What it leaves undone is to be judged again: the
// place where it begins may be gone.
func (p *scanPass) read(c *logConn, info logInfo) error {
	searches := p.searches
	slices.SortFunc(searches, func(a, b *search) int { return a.After.Compare(b.After) })
	byUser := make(map[string][]*search)
	end := searches[0].UpTo
	for _, s := range searches {
		byUser[s.User] = append(byUser[s.User], s)
		if end.before(s.UpTo) {
			end = s.UpTo
		}
	}
	at := searches[0].After
	scanned, weight := 0, int64(0)
	for first := true; ; first = false {
		page, err := c.read(at.String(), end.String(), false, pageBytes, keepAll)
		if err != nil {
			return err
		}
		entries := page.entries
		// Each page begins with the last entry of the one before it: had it been trimmed
		// meanwhile, so might have been others, behind it, that nobody has read.
		if !first {
			if len(entries) == 0 || entries[0].ID != at {
				return nil
			}
			entries = entries[1:]
		} else if !info.joins(at, entries) {
			return nil
		}
		for _, e := range entries {
			at = e.ID
			if e.User == p.log.cfg.BroadcastUser && e.User != "" {
				offer(searches, e)
			} else if e.User != "" {
				offer(byUser[e.User], e)
			}
		}
		scanned += page.count
		weight += page.bytes
		full, last := scanned >= scanEntries || weight >= scanBytes, !page.more
		left := 0
		for _, s := range searches {
			switch {
			case s.done:
			case last || !at.before(s.UpTo):
				s.answer(s.UpTo)
			case full && s.After.before(at):
				s.answer(at)
			case !full:
				left++ // else it begins behind what this pass has read
			}
		}
		if left == 0 {
			return nil
		}
	}
}

// joins reports whether nothing is missing between a place and the entries that were
// read from there on, as far as the verdict on the place is older than they.
func (i logInfo) joins(at EntryID, entries []Entry) bool {
	if len(entries) == 0 {
		return at == i.last || i.length == 0
	}
	first := entries[0].ID
	return first == at || first.Before() == at || at == (EntryID{}) && i.length > 0 && first == i.first
}

// offer gives an entry to the searches that want it.
func offer(searches []*search, e Entry) {
	for _, s := range searches {
		if s.done || !s.After.before(e.ID) || s.UpTo.before(e.ID) {
			continue
		}
		s.found = append(s.found, e)
		if s.bytes += len(e.Payload); len(s.found) >= answerEntries || s.bytes >= answerBytes {
			s.answer(e.ID)
		}
	}
}

func (s *search) answer(covered EntryID) {
	s.done = true
	s.Answer(s.found, covered, nil)
	s.found = nil
}

func (s *search) fail(err error) {
	s.done = true
	s.Answer(nil, EntryID{}, err)
}
