package redis

import "usercast/transport/redis/internal/resp"

// A page is the entries of one reply.
type page struct {
	entries []entry // those that were kept, in the order of the reply
	count   int     // entries in the reply
	bytes   int64   // their size
	more    bool    // the stream may have more entries than those that were kept
}

// most returns how many entries to request if the caller can use budget bytes.
func (c *streamConn) most(budget int64) int {
	if c.weight == 0 {
		return c.count
	}
	return int(min(max(budget/c.weight, 1), int64(c.count)))
}

// page reads the entries of a reply to a request for up to most of them. 0 means a request for one
// certain entry, whose size says nothing about that of others.
func (c *streamConn) page(h resp.Head, most int, what keeping) (p page, err error) {
	if h.Kind != '*' || h.N < 0 || h.N > max(int64(most), 1) {
		return p, c.r.Bad("not a list of entries")
	}
	kept := int64(0)
	for range h.N {
		there, err := c.expectEntry()
		if err == nil && !there {
			err = c.r.Bad("nil instead of an entry")
		}
		if err != nil {
			return p, err
		}
		keep := what
		if p.more {
			keep = keepNothing
		}
		e, weight, err := c.entry(keep)
		if err != nil {
			return p, err
		}
		p.count++
		p.bytes += weight
		if p.more {
			continue
		}
		if kept += e.size(); kept > pageBytes && len(p.entries) > 1 {
			p.more = true // this entry and those after it are requested again
			continue
		}
		p.entries = append(p.entries, e)
	}
	if most > 0 && p.count > 0 {
		c.weight = max(p.bytes/int64(p.count), 1)
		c.count = int(min(max(pageBytes/c.weight, 1), int64(c.count)*maxGrowth, readCount))
	}
	p.more = p.more || p.count == most
	return p, nil
}

// expectEntry reads the head of an entry. there is false if the reply is nil.
func (c *streamConn) expectEntry() (there bool, err error) {
	h, err := c.r.Head()
	switch {
	case err != nil:
		return false, err
	case h.N == -1 && (h.Kind == '$' || h.Kind == '*'):
		return false, nil
	case h.Kind != '*' || h.N != 2:
		return false, c.r.Bad("not an id and fields")
	}
	return true, nil
}

// entry reads an id and fields: ch and data of a message, or ctl of a control command. Other fields
// belong to the app. A value over its limit is not kept.
func (c *streamConn) entry(what keeping) (e entry, weight int64, err error) {
	if e.ID, err = c.id(); err != nil {
		return e, 0, err
	}
	n, err := c.r.Expect('*')
	if err == nil && (n < 0 || n%2 != 0) {
		err = c.r.Bad("not a list of names and values")
	}
	if err != nil {
		return e, 0, err
	}
	var set fields
	for range n / 2 {
		c.hash.Reset()
		n, err := c.r.Expect('$')
		if err != nil {
			return e, 0, err
		}
		weight += n
		name, err := c.r.Bulk(n, maxFieldName, &c.hash)
		if err != nil {
			return e, 0, err
		}
		_ = c.hash.WriteByte(0)
		if n, err = c.r.Expect('$'); err != nil {
			return e, 0, err
		}
		weight += n
		value, err := c.r.Bulk(n, c.feed.keepBytes(name, what), &c.hash)
		if err != nil {
			return e, 0, err
		}
		e.fingerprint += c.hash.Sum64()
		set.set(name, value, n)
	}
	weight += entryOverhead
	c.feed.fill(&e, &set)
	return e, weight, nil
}

// entryOverhead is the approximate size of an entry in a reply without its fields.
const entryOverhead = 40
