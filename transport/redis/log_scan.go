package redis

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	goredis "github.com/redis/go-redis/v9"
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
}

// Bounds of one scan: what it reads, and what one answer holds.
const (
	scanEntries   = 20_000
	answerEntries = 1000
	answerBytes   = 1 << 20
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

// scan answers queries, all that wait in one pass over the stream, one pass at a
// time: browsers that come back by the thousand cost no more than one that does.
func (l *Log) scan(ctx context.Context) {
	commands := NewCommands(l.cfg.Server)
	defer commands.Close()
	commands.wrap = func(conn net.Conn) net.Conn {
		return &patientConn{Conn: conn, ctx: ctx, patience: l.cfg.Server.answerTimeout}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.asked:
		}
		l.mu.Lock()
		queries := l.waiting
		l.waiting = nil
		l.mu.Unlock()
		for len(queries) > 0 {
			pass := scanPass{log: l, open: queries}
			err := commands.do(ctx, l.cfg.Key, func(c *goredis.Client) error { return pass.run(ctx, c) })
			if ctx.Err() != nil {
				return
			}
			if queries = pass.open; err != nil && !sleep(ctx, jitter(500*time.Millisecond)) {
				return
			}
		}
	}
}

// scanPass is one pass over the stream.
type scanPass struct {
	log  *Log
	open []Query // yet to be answered
}

// search is a query during a pass.
type search struct {
	Query
	found []Entry
	bytes int
	done  bool
}

// run answers what it can; after an error the rest stays open.
func (p *scanPass) run(ctx context.Context, c *goredis.Client) error {
	info, err := newLogInfo(c.XInfoStream(ctx, p.log.cfg.Key).Result())
	if err != nil {
		return err
	}
	verdicts, err := p.verdicts(ctx, c, info)
	if err != nil {
		return err
	}
	var searches []*search
	for _, q := range p.open {
		switch err := verdicts[q.After]; {
		case err != nil:
			q.Answer(nil, EntryID{}, err)
		case !q.After.before(q.UpTo):
			q.Answer(nil, q.After, nil)
		default:
			searches = append(searches, &search{Query: q})
		}
	}
	p.open = nil
	err = p.read(ctx, c, info, searches)
	for _, s := range searches {
		if !s.done { // only after an error, or when what was read ends in a hole
			p.open = append(p.open, s.Query)
		}
	}
	return err
}

// verdicts says of each query's beginning whether it is a place of this stream: an
// entry, the place just before one (gaps are there), the newest id ever given, or
// the beginning of a stream that has lost nothing.
func (p *scanPass) verdicts(ctx context.Context, c *goredis.Client, info logInfo) (map[EntryID]error, error) {
	next := make(map[EntryID]*goredis.XMessageSliceCmd)
	for _, q := range p.open {
		next[q.After] = nil
	}
	_, err := c.Pipelined(ctx, func(pipe goredis.Pipeliner) error {
		for id := range next {
			next[id] = pipe.XRangeN(ctx, p.log.cfg.Key, id.String(), "+", 1) // it, or the one behind it
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	verdicts := make(map[EntryID]error, len(next))
	for id, cmd := range next {
		verdicts[id] = ErrUnknownID
		if len(cmd.Val()) > 0 {
			behind, err := parseEntryID(cmd.Val()[0].ID)
			if err != nil {
				return nil, err
			}
			if behind == id || behind.Before() == id {
				verdicts[id] = nil
				continue
			}
		}
		switch {
		case id == info.last, id == EntryID{} && info.counts && info.added == info.length:
			verdicts[id] = nil
		case id.before(info.first):
			verdicts[id] = ErrTrimmed
		}
	}
	return verdicts, nil
}

// read goes through the stream from where the first search begins, as long as
// nothing is removed from under it. What it leaves undone is to be judged again: the
// place where it begins may be gone.
func (p *scanPass) read(ctx context.Context, c *goredis.Client, info logInfo, searches []*search) error {
	if len(searches) == 0 {
		return nil
	}
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
	for scanned, first := 0, true; ; first = false {
		page, err := c.XRangeN(ctx, p.log.cfg.Key, at.String(), end.String(), readCount).Result()
		if err != nil {
			return err
		}
		entries, err := p.log.readAll(page)
		if err != nil {
			return err
		}
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
		scanned += len(page)
		last := len(page) < readCount
		left := 0
		for _, s := range searches {
			switch {
			case s.done:
			case last || !at.before(s.UpTo):
				s.answer(s.UpTo)
			case scanned >= scanEntries && s.After.before(at):
				s.answer(at)
			case scanned >= scanEntries:
				p.log.Ask(s.Query) // begins behind what this pass has read
				s.done = true
			default:
				left++
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
}
