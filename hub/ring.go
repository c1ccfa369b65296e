package hub

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"time"
)

// A ring keeps the newest entries of owners without a client, for clients that come from other hubs. It is one sequence
// of bytes of a fixed size: an entry costs no allocation and no map entry, and the garbage collector has nothing to
// scan. When the ring is full, the oldest entries are dropped.
//
// The entries of an owner are found without reading those of all others: a hash of its name selects a chain, and each
// entry refers to the previous one of its chain. Other owners whose hash selects the same chain are skipped.
//
// A ring is guarded by its owner. The zero value, and newRing(0), keep nothing.
type ring struct {
	segmentSize uint64 // a power of 2
	segments    []ringSegment
	current     *ringSegment // that of head
	chainCount  uint64       // a power of 2
	chains      []uint64     // by hash: position of the newest entry of the chain, plus 1; 0: none. nil before the first append

	// Positions count bytes since the first entry, and never decrease. Entries whose first byte is in [tail, head) are
	// stored.
	tail, head uint64

	lowWater uint64 // all entries with a higher number are stored
	entries  int    // stored
	dropped  bool   // an entry was dropped
	bytes    int64  // of memory in use

	now   func() time.Duration // is called rarely
	grown func()               // is called after bytes has grown

	maxFound int // of a search; at least 2
}

// A ringSegment is the unit in which entries are dropped. Because of it, appending does not read the entries that it
// overwrites.
type ringSegment struct {
	bytes   []byte        // nil: not used so far
	began   time.Duration // when the first entry was written
	newest  uint64        // number of the newest entry that begins in this segment
	entries int           // that begin in this segment
}

const (
	ringSegments   = 64 // the minimum number of segments: at most this part of the entries is dropped at a time
	minRingSegment = 128
	maxRingSegment = 4 << 20  // one is allocated and cleared while a message is published
	bytesPerChain  = 4 << 10  // of the ring; the chains should fit into the cache of a core
	maxRing        = 16 << 30 // the distance between two entries is less than 1<<32 times ringAlign

	// The head of an entry: its number (8 bytes), the distance to the previous entry of its chain in units of ringAlign
	// (4; 0: none), the length of the payload (4), that of the owner's name and the gap (3 and 1), that of the topic and
	// whether the owner is a group (3 and 1). It lies in one segment; name, topic and payload follow and may lie in several.
	ringHead  = 24
	ringAlign = 8
	// maxRingName is the maximum length of a name and of a topic.
	maxRingName = 1<<24 - 1
)

// newRing returns a ring that uses at most limit bytes, or nothing if that is too few for any entry. It allocates them
// when they are needed.
func newRing(limit int64, now func() time.Duration, grown func()) ring {
	if limit < 2*minRingSegment {
		return ring{}
	}
	space := uint64(min(limit, maxRing))
	chains := uint64(1) << bits.Len64(space/bytesPerChain)
	space -= 8 * chains
	size := uint64(1) << (bits.Len64(min(max(space/ringSegments, minRingSegment), maxRingSegment)) - 1)
	if space/size < 2 {
		return ring{}
	}
	return ring{
		segmentSize: size, segments: make([]ringSegment, space/size), chainCount: chains, now: now, grown: grown, maxFound: maxFound,
	}
}

// append stores a message to a recipient. Its number must be higher than all before; hash is that of the name.
func (r *ring) append(hash uint64, to Recipient, e *Entry) {
	name := to.Name
	size := uint64(ringHead+len(name)+len(e.Topic)+len(e.Payload)+ringAlign-1) &^ (ringAlign - 1)
	if r.segments == nil || size > r.segmentSize*uint64(len(r.segments)-1) || len(name) > maxRingName || len(e.Topic) > maxRingName {
		r.clear(e.ID.Ms)
		return
	}
	if r.chains == nil {
		r.chains = make([]uint64, r.chainCount)
		r.bytes += int64(8 * r.chainCount)
	}
	offset := r.offset(r.head)
	if offset+ringHead > r.segmentSize { // the head does not fit into the rest of the segment
		r.head += r.segmentSize - offset
		offset = 0
	}
	if offset == 0 {
		r.enter()
	}
	chain := &r.chains[hash&uint64(len(r.chains)-1)]
	var back uint64
	if *chain > r.tail { // otherwise the entry was dropped
		back = (r.head + 1 - *chain) / ringAlign
	}
	*chain = r.head + 1
	s := r.current
	b := s.bytes[offset : offset+ringHead : offset+ringHead]
	binary.LittleEndian.PutUint64(b, e.ID.Ms)
	binary.LittleEndian.PutUint32(b[8:], uint32(back))
	binary.LittleEndian.PutUint32(b[12:], uint32(len(e.Payload)))
	binary.LittleEndian.PutUint32(b[16:], uint32(len(name))<<8|uint32(e.Gap))
	binary.LittleEndian.PutUint32(b[20:], uint32(len(e.Topic))<<8|kindOf(to))
	s.newest = e.ID.Ms
	s.entries++
	r.entries++
	if offset+size <= r.segmentSize { // the common case
		b := s.bytes[offset+ringHead : offset+size]
		n := copy(b, name)
		n += copy(b[n:], e.Topic)
		copy(b[n:], e.Payload)
		r.head += size
		return
	}
	end := r.head + size // in the segment of the last byte: the padding does not reach into another one
	r.head += ringHead
	r.write(name)
	r.write(e.Topic)
	r.write(e.Payload)
	r.head = end
}

func (r *ring) offset(position uint64) uint64 { return position & (r.segmentSize - 1) }

// segment returns the segment of a position.
func (r *ring) segment(position uint64) *ringSegment {
	return &r.segments[position/r.segmentSize%uint64(len(r.segments))]
}

// enter begins the segment at head, and drops the entries that it had.
func (r *ring) enter() {
	s := r.segment(r.head)
	r.current = s
	if s.bytes == nil {
		s.bytes = make([]byte, r.segmentSize)
		r.bytes += int64(r.segmentSize)
		r.grown()
	} else {
		r.tail = max(r.tail, r.head-r.segmentSize*uint64(len(r.segments)-1))
		r.drop(s)
	}
	s.began = r.now()
}

func (r *ring) drop(s *ringSegment) {
	r.lowWater = max(r.lowWater, s.newest)
	r.dropped = r.dropped || s.entries > 0
	r.entries -= s.entries
	s.entries = 0
}

// clear drops all entries up to a number, which was not stored.
func (r *ring) clear(number uint64) {
	for i := range r.segments {
		r.entries -= r.segments[i].entries
		r.segments[i].entries = 0
	}
	r.tail, r.lowWater, r.dropped = r.head, number, true
	if r.segments != nil { // for reach: the rest of this segment begins now
		r.segment(r.head).began = r.now()
	}
}

// write copies a part of an entry. It does not enter a segment before it has something to write there.
func (r *ring) write(text string) {
	for len(text) > 0 {
		if r.offset(r.head) == 0 {
			r.enter()
		}
		n := copy(r.current.bytes[r.offset(r.head):], text)
		r.head += uint64(n)
		text = text[n:]
	}
}

// reach returns since when all entries are stored, as now reported it. all is true if none was dropped.
func (r *ring) reach() (since time.Duration, all bool) {
	if !r.dropped {
		return 0, true
	}
	if r.tail == r.head || r.segments == nil {
		return 1<<63 - 1, false // nothing is stored
	}
	return r.segment(r.tail).began, false
}

// A ringSearch finds the entries of several owners, newest first. It looks at a limited number of entries per step, so that
// long chains do not hold the lock for long.
//
// What it finds is complete as long as lowWater of the ring is not higher than after. If there are more entries than
// ring.maxFound, the search finds the oldest ones, and reduces upTo.
type ringSearch struct {
	after, upTo uint64      // it finds entries with numbers in (after, upTo]
	owners      []ringOwner // that are not searched completely: a heap, whose first one has the newest entry to look at
	found       []uint64    // positions, newest first
}

// A ringOwner is an owner in a search.
type ringOwner struct {
	Recipient
	upTo uint64 // number up to which its entries are searched
	next uint64 // position of the next entry of its chain to look at, plus 1; 0: none
}

// maxFound bounds the memory of a search, whatever the number of owners: 256 KiB.
const maxFound = 32 << 10

// owner returns an owner for a search of its entries up to a number; hash is that of its name.
func (r *ring) owner(hash uint64, of Recipient, upTo uint64) ringOwner {
	o := ringOwner{Recipient: of, upTo: upTo}
	if r.chains != nil {
		o.next = r.chains[hash&uint64(len(r.chains)-1)]
	}
	return o
}

// search begins a search of entries later than a number. It has not looked at any entry.
func (r *ring) search(after uint64, owners []ringOwner) *ringSearch {
	owners = slices.DeleteFunc(owners, func(o ringOwner) bool { return o.next == 0 })
	slices.SortFunc(owners, func(a, b ringOwner) int { return cmp.Compare(b.next, a.next) })
	return &ringSearch{after: after, upTo: math.MaxUint64, owners: owners}
}

// step looks at up to n entries, and reports whether the search is complete.
func (r *ring) step(s *ringSearch, n int) bool {
	for ; len(s.owners) > 0 && n > 0; n-- {
		o := &s.owners[0]
		position := o.next - 1
		if position < r.tail { // dropped, and so are all others
			s.owners = nil
			break
		}
		head := r.headAt(position)
		number := binary.LittleEndian.Uint64(head)
		if number <= s.after {
			s.owners = nil
			break
		}
		if number <= min(o.upTo, s.upTo) && r.isOf(position, head, o.Recipient) {
			if len(s.found) == r.maxFound {
				s.found = append(s.found[:0], s.found[r.maxFound/2:]...)
				s.upTo = binary.LittleEndian.Uint64(r.headAt(s.found[0]))
			}
			s.found = append(s.found, position)
		}
		s.advance(uint64(binary.LittleEndian.Uint32(head[8:])) * ringAlign)
	}
	return len(s.owners) == 0
}

// advance moves the first owner back in its chain by a distance, 0 for the end of the chain, and restores the heap.
func (s *ringSearch) advance(back uint64) {
	owners := s.owners
	owners[0].next -= back
	if back == 0 {
		last := len(owners) - 1
		owners[0] = owners[last]
		owners = owners[:last]
		s.owners = owners
	}
	for i := 0; ; {
		newest := 2*i + 1
		if newest >= len(owners) {
			return
		}
		if other := newest + 1; other < len(owners) && owners[other].next > owners[newest].next {
			newest = other
		}
		if owners[i].next >= owners[newest].next {
			return
		}
		owners[i], owners[newest] = owners[newest], owners[i]
		i = newest
	}
}

// peek returns the number of the oldest entry that a complete search has found. It forgets entries up to the number
// after, and those that were dropped since they were found.
func (r *ring) peek(s *ringSearch, after uint64) (number uint64, ok bool) {
	for last := len(s.found) - 1; last >= 0; last-- {
		if position := s.found[last]; position >= r.tail {
			if number = binary.LittleEndian.Uint64(r.headAt(position)); number > after {
				return number, true
			}
		}
		s.found = s.found[:last]
	}
	return 0, false
}

// take removes and returns the entry of a successful peek. Its ID has only the number.
func (r *ring) take(s *ringSearch) Entry {
	last := len(s.found) - 1
	position := s.found[last]
	s.found = s.found[:last]
	return r.read(position)
}

func (r *ring) headAt(position uint64) []byte {
	offset := r.offset(position)
	return r.segment(position).bytes[offset : offset+ringHead]
}

// kindOf returns the last byte of the head of an entry.
func kindOf(to Recipient) uint32 {
	if to.Group {
		return 1
	}
	return 0
}

// isOf reports whether the entry at a position belongs to an owner.
func (r *ring) isOf(position uint64, head []byte, to Recipient) bool {
	name := to.Name
	if int(binary.LittleEndian.Uint32(head[16:])>>8) != len(name) || uint32(head[20]) != kindOf(to) {
		return false
	}
	offset := r.offset(position) + ringHead
	if rest := r.segment(position).bytes[offset:]; len(name) <= len(rest) {
		return string(rest[:len(name)]) == name
	}
	return string(r.copyOf(position+ringHead, len(name))) == name
}

// read copies the entry at a position.
func (r *ring) read(position uint64) (e Entry) {
	head := r.headAt(position)
	e.ID.Ms = binary.LittleEndian.Uint64(head)
	payload := int(binary.LittleEndian.Uint32(head[12:]))
	name := int(binary.LittleEndian.Uint32(head[16:]) >> 8)
	topic := int(binary.LittleEndian.Uint32(head[20:]) >> 8)
	e.Gap = Gap(head[16])
	text := string(r.copyOf(position+ringHead+uint64(name), topic+payload))
	e.Topic, e.Payload = text[:topic], text[topic:]
	return e
}

// copyOf returns n bytes from a position on.
func (r *ring) copyOf(position uint64, n int) []byte {
	b := make([]byte, 0, n)
	for len(b) < n {
		rest := r.segment(position).bytes[r.offset(position):]
		rest = rest[:min(len(rest), n-len(b))]
		b = append(b, rest...)
		position += uint64(len(rest))
	}
	return b
}
