package redis

import (
	"maps"
	"slices"

	"usercast/hub"
)

// A scanPass is one pass over the stream. It begins where the query that has waited longest begins,
// and also serves queries that begin there or later. If each pass began at the earliest place of
// all queries, some might never be reached.
type scanPass struct {
	feed     *StreamFeed
	queries  []*search // all pending queries, longest waiting first
	searches []*search // the queries that this pass serves
}

func newScanPass(f *StreamFeed, queries []query) *scanPass {
	p := &scanPass{feed: f}
	for _, q := range queries {
		s := &search{query: q}
		p.queries = append(p.queries, s)
		if len(p.searches) < scanQueries && q.after.Compare(queries[0].after) >= 0 {
			p.searches = append(p.searches, s)
		}
	}
	return p
}

// unanswered returns the queries that have not been answered, longest waiting first.
func (p *scanPass) unanswered() (queries []query) {
	for _, s := range p.queries {
		if !s.done {
			queries = append(queries, s.query)
		}
	}
	return queries
}

// search is a query during a pass.
type search struct {
	query
	found []hub.Entry
	bytes int
	done  bool
}

// run answers as many queries as it can. The others remain unanswered after an error, or if entries
// were trimmed during the pass.
func (p *scanPass) run(c *streamConn) error {
	info, err := c.state()
	if err != nil {
		return err
	}
	verdicts, err := p.verdicts(c, info)
	if err != nil {
		return err
	}
	for _, s := range p.searches {
		switch gap := verdicts[s.after]; {
		case gap != 0:
			s.fail(gap)
		case s.after.Compare(s.upTo) >= 0:
			s.finish(s.after)
		}
	}
	p.searches = slices.DeleteFunc(p.searches, func(s *search) bool { return s.done })
	if len(p.searches) == 0 {
		return nil
	}
	return p.read(c, info)
}

// verdicts checks for each query whether it begins at a valid position of this stream. Valid are:
// an entry; the position just before an entry, where gaps are; the newest id ever assigned; the
// beginning of a stream from which nothing was removed.
func (p *scanPass) verdicts(c *streamConn, info streamInfo) (map[hub.ID]hub.Gap, error) {
	verdicts := make(map[hub.ID]hub.Gap)
	for _, s := range p.searches {
		verdicts[s.after] = 0
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

// verdict returns the gap of a query that begins at id, or 0. next is the id of the entry there or of
// the next one, or 0-0 if the stream has neither.
func (i streamInfo) verdict(id, next hub.ID) hub.Gap {
	switch {
	case next != (hub.ID{}) && (next == id || next.Previous() == id),
		id == i.last, id == hub.ID{} && i.counts && i.added == i.length:
		return 0
	case id.Compare(i.first) < 0:
		return hub.GapHistoryExpired
	}
	return hub.GapUnknownID
}

// read reads the stream from where the first search begins, until entries between two pages turn out
// to be trimmed. Unfinished searches must be checked again, because their beginning may be
// trimmed.
func (p *scanPass) read(c *streamConn, info streamInfo) error {
	searches := p.searches
	slices.SortFunc(searches, func(a, b *search) int { return a.after.Compare(b.after) })
	byRecipient := make(map[hub.Recipient][]*search)
	end := searches[0].upTo
	for _, s := range searches {
		for _, to := range s.to {
			byRecipient[to] = append(byRecipient[to], s)
		}
		if end.Compare(s.upTo) < 0 {
			end = s.upTo
		}
	}
	broadcast := hub.User(p.feed.cfg.Hub.BroadcastUser())
	at := searches[0].after
	scanned, weight := 0, int64(0)
	for first := true; ; first = false {
		page, err := c.read(at.String(), end.String(), false, pageBytes, keepAll)
		if err != nil {
			return err
		}
		entries := page.entries
		// Each page begins with the last entry of the previous one. If that entry is missing, it
		// was trimmed meanwhile, and so may be later entries that were not read.
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
			switch e.to {
			case hub.Recipient{}:
			case broadcast:
				offer(searches, e)
			default:
				offer(byRecipient[e.to], e)
			}
		}
		scanned += page.count
		weight += page.bytes
		full, last := scanned >= scanEntries || weight >= scanBytes, !page.more
		left := 0
		for _, s := range searches {
			switch {
			case s.done:
			case last || at.Compare(s.upTo) >= 0:
				s.finish(s.upTo)
			case full && s.after.Compare(at) < 0:
				s.finish(at)
			case !full:
				left++ // otherwise it begins after what this pass has read
			}
		}
		if left == 0 {
			return nil
		}
	}
}

// joins reports whether nothing is missing between a position and the entries that were read from
// there. The position was checked before they were read, so entries may have been trimmed since.
func (i streamInfo) joins(at hub.ID, entries []entry) bool {
	if len(entries) == 0 {
		return at == i.last || i.length == 0
	}
	first := entries[0].ID
	return first == at || first.Previous() == at || at == (hub.ID{}) && i.length > 0 && first == i.first
}

// offer adds an entry to the searches whose range includes it.
func offer(searches []*search, e entry) {
	for _, s := range searches {
		if s.done || s.after.Compare(e.ID) >= 0 || s.upTo.Compare(e.ID) < 0 {
			continue
		}
		s.found = append(s.found, e.Entry)
		if s.bytes += len(e.Payload); len(s.found) >= answerEntries || s.bytes >= answerBytes {
			s.finish(e.ID)
		}
	}
}

func (s *search) finish(covered hub.ID) {
	s.done = true
	s.answer(s.found, covered, 0)
	s.found = nil
}

func (s *search) fail(gap hub.Gap) {
	s.done = true
	s.answer(nil, hub.ID{}, gap)
}
