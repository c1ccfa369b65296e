package hub

import (
	"iter"
	"slices"
	"time"
	"weak"
)

// A history keeps the newest entries of the sequence for clients that reconnect. There are
// two: userHistory for a PubSub, window for a StreamFeed. All methods are called with
// Hub.mu held.
type history interface {
	// begin sets up the replay of a client that resumes from an id, "" for a new stream, and returns the
	// opening id of its stream. If the client has not missed anything, it does not get a replay.
	begin(c *Client, resume string) (opening ID)
	// ready reports whether the history has the next entries of a replay. If not, ready has changed the
	// state of the replay.
	ready(r *replay) bool
	// between returns the next entries of a replay that is ready, in order: those for its user, its groups and all users,
	// later than the cursor and up to upTo.
	between(r *replay) (entries iter.Seq[*entryNode], upTo ID)

	// owner returns a new owner if entries of an unknown recipient are kept, otherwise nil.
	owner(to Recipient) *owner
	// add stores an entry of one owner, before it is routed: routing can end the last client of o, and then an
	// owner without entries is removed. An Entry is passed by value, because a pointer would escape. If the
	// history isTimed, the caller has called Entry.time.
	add(o *owner, e Entry)
	isTimed() bool
	// addForAll stores an entry for all users. With allTopics, topic filters do not apply.
	addForAll(e Entry, allTopics bool)
	// joined is called after the first client of o has registered, left after its last one has ended.
	joined(o *owner, isNew bool)
	left(o *owner)
	// hold keeps the later entries of a user as if its last client had just ended. It returns the ok of Hub.Position.
	hold(user Recipient) (ok bool)

	size() (entries int, bytes int64)
	// reach returns how far back a replay reaches at present: see Stats.
	reach() (here, elsewhere time.Duration)
	close()
}

// past is the part of a history that belongs to one owner.
type past struct {
	entries deque[*entryNode]

	// Only userHistory. All entries of the owner that are later than both since and lowWater are stored here.
	since    uint64    // number of messages when the first client came; what was before is in the ring
	lowWater ID        // of the newest entry that was dropped
	retained *retained // nil: the owner has a client
}

// An entryNode is an entry of a history.
type entryNode struct {
	id             ID
	topic, payload string
	gap            Gap
	allTopics      bool
	owner          *owner // nil: only the id matters, or it is a copy of an entry of the ring
	// The frames of a replay, plain and named, while they are in use: thousands of clients that reconnect
	// together share them.
	frames *[2]weak.Pointer[Frame] // nil: not encoded so far

	// Only userHistory.
	since        time.Duration // since userHistory.born
	older, newer *entryNode
}

// entryOverhead is the approximate memory of an entry without its strings, in bytes.
const entryOverhead = 160

func (n *entryNode) bytes() int64 {
	bytes := entryOverhead + len(n.topic) + len(n.payload)
	if n.owner != nil {
		bytes += len(n.owner.name)
	}
	return int64(bytes)
}

// frame returns a frame of n that is still in use, or nil.
func (n *entryNode) frame(variant int) *Frame {
	if n.frames == nil {
		return nil
	}
	return n.frames[variant].Value()
}

func (n *entryNode) share(variant int, f *Frame) {
	if n.frames == nil {
		n.frames = new([2]weak.Pointer[Frame])
	}
	n.frames[variant] = weak.Make(f)
}

// entries is the common part of both histories.
type entries struct {
	limit      int64 // of bytes
	bytes      int64
	count      int
	broadcasts owner // owns the entries for all users
}

func (s *entries) size() (entries int, bytes int64) { return s.count, s.bytes }

// push adds an entry. owner is nil if only the id matters.
func (s *entries) push(owner *owner, e Entry, allTopics bool) *entryNode {
	n := &entryNode{id: e.ID, topic: e.Topic, payload: e.Payload, gap: e.Gap, allTopics: allTopics, owner: owner}
	if owner != nil {
		owner.past.entries.pushBack(n)
	}
	s.count++
	s.bytes += n.bytes()
	return n
}

// pop removes the oldest entry of its owner.
func (s *entries) pop(n *entryNode) {
	if n.owner != nil {
		n.owner.past.entries.popFront()
	}
	s.count--
	s.bytes -= n.bytes()
}

// ownerOverhead is the approximate memory of an owner without entries and name, in bytes: owner, retained and the
// table entry.
const ownerOverhead = 256

// charge adds an owner to the bytes of the history, which include owners without a client.
func (s *entries) charge(o *owner) { s.bytes += int64(ownerOverhead + len(o.name)) }

func (s *entries) discharge(o *owner) { s.bytes -= int64(ownerOverhead + len(o.name)) }

// between iterates over the entries of the user and groups of c, and of all users, that are later than after and up to
// upTo, in order.
func (s *entries) between(c *Client, after, upTo ID) iter.Seq[*entryNode] {
	return func(yield func(*entryNode) bool) {
		lists := make([][]*entryNode, 1, 8) // on the stack, unless many of the client's groups have entries
		lists[0] = entriesAfter(s.broadcasts.past.entries.all(), after)
		for i, o := 0, c.user; o != nil; i, o = i+1, c.group(i) {
			if list := entriesAfter(o.past.entries.all(), after); len(list) > 0 {
				lists = append(lists, list)
			}
		}
		for {
			var next *[]*entryNode
			for i := range lists {
				if list := &lists[i]; len(*list) > 0 && (next == nil || (*list)[0].id.before((*next)[0].id)) {
					next = list
				}
			}
			if next == nil || upTo.before((*next)[0].id) {
				return
			}
			n := (*next)[0]
			if *next = (*next)[1:]; !yield(n) {
				return
			}
		}
	}
}

// entriesAfter returns the part of a list after an id.
func entriesAfter(list []*entryNode, id ID) []*entryNode {
	i, found := search(list, id)
	if found {
		i++
	}
	return list[i:]
}

func search(list []*entryNode, id ID) (i int, found bool) {
	return slices.BinarySearchFunc(list, id, func(n *entryNode, id ID) int { return n.id.Compare(id) })
}
